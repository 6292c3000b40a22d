//! The disk by file number: what both the file system of the runtime and the
//! one that is mounted are made of.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::content::{CHUNK, Content};
use super::cut::{Choice, surviving};
use super::faults::{Call, Faults, Options};
use super::image::{Body, Entry, Image, Ino, Node, ROOT};
use super::journal::{Operation, Replay, Sync};

/// After how many operations the state is kept, so that a cut replays fewer.
const CHECKPOINT_EVERY: usize = 32;

/// A disk. Every change passes [`Core::record`].
#[derive(Debug)]
pub struct Core {
    pub options: Options,
    pub faults: Faults,
    live: Image,
    now: Replay,
    operations: Vec<Operation>,
    operation_count: usize,
    checkpoints: Vec<Replay>,
    next_ino: Ino,
    open_counts: BTreeMap<Ino, usize>,
    locked: BTreeSet<Ino>,
    marks: Vec<(usize, usize)>,
}

impl Core {
    pub fn new(image: Image, options: Options) -> Self {
        let now = Replay::new(image.clone(), options.names);
        Self {
            options,
            faults: Faults::default(),
            next_ino: image.highest() + 1,
            live: image,
            checkpoints: vec![now.clone()],
            now,
            operations: Vec::new(),
            operation_count: 0,
            open_counts: BTreeMap::new(),
            locked: BTreeSet::new(),
            marks: Vec::new(),
        }
    }

    pub fn operation_count(&self) -> usize {
        self.operation_count
    }

    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    pub fn live(&self) -> &Image {
        &self.live
    }

    pub fn mark(&mut self, label: usize) {
        self.marks.push((self.operation_count, label));
    }

    pub fn marks_before(&self, at: usize) -> Vec<usize> {
        let before = self.marks.iter().filter(|(operation, _)| *operation <= at);
        before.map(|(_, label)| *label).collect()
    }

    /// What is durable and what is not after `at` operations.
    pub fn replay(&self, at: usize) -> Replay {
        assert!(at <= self.operation_count, "there is no operation {at} yet");
        if at == self.operation_count {
            return self.now.clone();
        }
        assert!(self.options.keeps_history, "this disk is cut as it is now or not at all");
        let first = at / CHECKPOINT_EVERY * CHECKPOINT_EVERY;
        let mut replay = self.checkpoints[at / CHECKPOINT_EVERY].clone();
        self.operations[first..at].iter().for_each(|operation| replay.apply(operation));
        replay
    }

    pub fn cut(&self, at: usize, choice: Choice) -> Self {
        Self::new(surviving(self.replay(at), choice), self.options.clone())
    }

    /// The disk when the process ended after `at` operations and the machine did
    /// not: all of it can be read, and what was not synced still is not.
    pub fn killed(&self, at: usize) -> Self {
        let replay = self.replay(at);
        let live = surviving(replay.clone(), Choice::Everything);
        Self {
            next_ino: self.next_ino,
            checkpoints: vec![replay.clone()],
            now: replay,
            ..Self::new(live, self.options.clone())
        }
    }

    /// What there is survives from now on, as if it had always been so.
    pub fn make_all_durable(&mut self) {
        self.now = Replay::new(self.live.clone(), self.options.names);
        self.checkpoints = vec![self.now.clone()];
        self.operations.clear();
        self.operation_count = 0;
        self.marks.clear();
    }

    pub fn record(&mut self, operation: Operation) {
        operation.apply(&mut self.live);
        self.now.apply(&operation);
        self.operation_count += 1;
        if self.options.keeps_history {
            self.operations.push(operation);
            if self.operation_count.is_multiple_of(CHECKPOINT_EVERY) {
                self.checkpoints.push(self.now.clone());
            }
        }
    }

    pub fn used_bytes(&self) -> u64 {
        self.live.allocated_bytes()
    }

    pub fn free_bytes(&self) -> u64 {
        self.options.capacity_bytes.saturating_sub(self.used_bytes())
    }

    pub fn node(&self, ino: Ino) -> Result<&Node, Errno> {
        self.live.node(ino).ok_or(Errno::NOENT)
    }

    pub fn content(&self, ino: Ino) -> Result<&Content, Errno> {
        match &self.node(ino)?.body {
            Body::File(content) => Ok(content),
            Body::Directory(_) => Err(Errno::ISDIR),
        }
    }

    pub fn directory(&self, ino: Ino) -> Result<&BTreeMap<Arc<OsStr>, Ino>, Errno> {
        match &self.node(ino)?.body {
            Body::Directory(entries) => Ok(entries),
            Body::File(_) => Err(Errno::NOTDIR),
        }
    }

    pub fn lookup(&self, at: &Entry) -> Result<Ino, Errno> {
        self.directory(at.directory)?.get(&at.name).copied().ok_or(Errno::NOENT)
    }

    pub fn create(&mut self, at: Entry) -> Result<Ino, Errno> {
        let ino = self.unused(&at)?;
        self.record(Operation::Create { at, ino });
        Ok(ino)
    }

    pub fn make_directory(&mut self, at: Entry) -> Result<Ino, Errno> {
        let ino = self.unused(&at)?;
        self.record(Operation::MakeDirectory { at, ino });
        Ok(ino)
    }

    pub fn read(&mut self, ino: Ino, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        self.check(Call::Read, ino)?;
        Ok(self.content(ino)?.read(offset, buffer))
    }

    /// Writes all of it or fails; a disk that is full takes what fits.
    pub fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.content(ino)?;
        let (written, outcome) = match self.check(Call::Write, ino) {
            Ok(()) => self.fitting(ino, offset, bytes)?,
            Err(errno) => (&bytes[..bytes.len() / 2], Err(errno)),
        };
        if !written.is_empty() {
            self.record(Operation::Write { ino, offset, bytes: written.into() });
        }
        outcome
    }

    pub fn set_len(&mut self, ino: Ino, len: u64) -> Result<(), Errno> {
        self.content(ino)?;
        self.record(Operation::SetLen { ino, len });
        Ok(())
    }

    pub fn rename(&mut self, from: Entry, to: Entry) -> Result<(), Errno> {
        let ino = self.lookup(&from)?;
        let is_directory = self.directory(ino).is_ok();
        let replaced = match self.lookup(&to) {
            Ok(replaced) if replaced == ino => return Ok(()),
            Ok(replaced) => Some(replaced),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno),
        };
        replaced.map_or(Ok(()), |replaced| self.check_removable(replaced, is_directory))?;
        if is_directory && self.path(to.directory).starts_with(self.path(ino)) {
            return Err(Errno::INVAL);
        }
        self.record(Operation::Rename { from, to, ino });
        replaced.into_iter().for_each(|ino| self.release_if_unused(ino));
        Ok(())
    }

    pub fn remove(&mut self, at: Entry, is_directory: bool) -> Result<(), Errno> {
        let ino = self.lookup(&at)?;
        self.check_removable(ino, is_directory)?;
        self.record(Operation::Remove { at, ino });
        self.release_if_unused(ino);
        Ok(())
    }

    pub fn sync_data(&mut self, ino: Ino) -> Result<(), Errno> {
        let lies = self.options.lying_files.as_ref();
        let lies = lies.is_some_and(|files| files.matches(&self.path(ino)));
        let (sync, outcome) = sync_outcome(lies, self.check(Call::SyncData, ino));
        self.record(Operation::SyncData { ino, sync });
        outcome
    }

    pub fn sync_directory(&mut self, ino: Ino) -> Result<(), Errno> {
        self.directory(ino)?;
        let lies = self.options.lying_directories.as_ref();
        let lies = lies.is_some_and(|directories| directories.matches(&self.path(ino)));
        let (sync, outcome) = sync_outcome(lies, self.check(Call::SyncDirectory, ino));
        self.record(Operation::SyncDirectory { ino, sync });
        outcome
    }

    /// A file that is open can be read after its last name is gone.
    pub fn open(&mut self, ino: Ino) {
        *self.open_counts.entry(ino).or_default() += 1;
    }

    pub fn close(&mut self, ino: Ino) {
        let Some(count) = self.open_counts.get_mut(&ino) else { return };
        *count -= 1;
        if *count == 0 {
            self.open_counts.remove(&ino);
            self.release_if_unused(ino);
        }
    }

    /// Whether nobody had the lock.
    pub fn lock(&mut self, ino: Ino) -> bool {
        self.locked.insert(ino)
    }

    pub fn unlock(&mut self, ino: Ino) {
        self.locked.remove(&ino);
    }

    pub fn path(&self, ino: Ino) -> PathBuf {
        self.live.path(ino).unwrap_or_default()
    }

    /// Follows a path from the top.
    pub fn resolve(&self, path: &Path) -> Result<Ino, Errno> {
        let mut ino = ROOT;
        for component in path.components() {
            if let std::path::Component::Normal(name) = component {
                ino = self.lookup(&Entry { directory: ino, name: name.into() })?;
            }
        }
        Ok(ino)
    }

    /// The directory of a path, and the name in it.
    pub fn entry(&self, path: &Path) -> Result<Entry, Errno> {
        let (parent, name) = path.parent().zip(path.file_name()).ok_or(Errno::INVAL)?;
        let directory = self.resolve(parent)?;
        self.directory(directory)?;
        Ok(Entry { directory, name: name.into() })
    }

    fn check(&mut self, call: Call, ino: Ino) -> Result<(), Errno> {
        let path = self.path(ino);
        self.faults.check(call, &path)
    }

    fn unused(&mut self, at: &Entry) -> Result<Ino, Errno> {
        self.vacant(at)?;
        self.next_ino += 1;
        Ok(self.next_ino - 1)
    }

    fn vacant(&self, at: &Entry) -> Result<(), Errno> {
        match self.lookup(at) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// What of a write there is room for.
    fn fitting<'a>(
        &self,
        ino: Ino,
        offset: u64,
        bytes: &'a [u8],
    ) -> Result<(&'a [u8], Result<(), Errno>), Errno> {
        let (content, free) = (self.content(ino)?, self.free_bytes());
        let fits = |length: usize| content.growth_bytes(offset, length as u64) <= free;
        if fits(bytes.len()) {
            return Ok((bytes, Ok(())));
        }
        let mut length = bytes.len();
        while !fits(length) {
            length = length.saturating_sub(CHUNK);
        }
        Ok((&bytes[..length], Err(Errno::NOSPC)))
    }

    fn check_removable(&self, ino: Ino, as_directory: bool) -> Result<(), Errno> {
        match (&self.node(ino)?.body, as_directory) {
            (Body::File(_), false) => Ok(()),
            (Body::File(_), true) => Err(Errno::NOTDIR),
            (Body::Directory(_), false) => Err(Errno::ISDIR),
            (Body::Directory(entries), true) if entries.is_empty() => Ok(()),
            (Body::Directory(_), true) => Err(Errno::NOTEMPTY),
        }
    }

    fn release_if_unused(&mut self, ino: Ino) {
        let is_named = self.live.node(ino).is_some_and(|node| node.name.is_some());
        if !is_named && !self.open_counts.contains_key(&ino) {
            self.live.remove(ino);
        }
    }
}

fn sync_outcome(lies: bool, checked: Result<(), Errno>) -> (Sync, Result<(), Errno>) {
    match checked {
        Err(errno) => (Sync::Failed, Err(errno)),
        Ok(()) if lies => (Sync::Lied, Ok(())),
        Ok(()) => (Sync::Done, Ok(())),
    }
}
