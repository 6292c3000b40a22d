//! The index in fjall, a log-structured merge tree with a journal.
//!
//! fjall does its own input and output, on its own threads and outside the
//! seam: a simulated disk or clock does not reach it. That is bearable because
//! the index is a cache of the log; tests that cut power use
//! [`super::MemoryIndexEngine`].
//!
//! Memory is bounded whatever the number of objects: the cache of blocks, a few
//! memtables, the top level of each block index and a few open files.
//! Opening reads the journals, which are bounded, and the end of each table.

mod build;
mod check;
mod failure;
mod journal;
mod release;
mod room;
mod run;
mod seen;
mod tables;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::Duration;

use ::fjall::config::{PartitioningPolicy, PinningPolicy};
use ::fjall::{
    AbstractTree, Database, Guard, Iter, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch,
    PersistMode, Readable,
};
use holdfast_core::name::{Bucket, Key, ObjectName};
use holdfast_runtime::Runtime;

use self::build::Builder;
use self::check::Found;
use self::failure::{damaged, guarded, io_error};
use super::entry::{self, BatchStamp};
use super::{
    Brief, Checkpoint, Entry, FileId, FileState, Index, IndexBatch, IndexBuilder, IndexEngine,
    IndexError, SegmentUsage,
};

const KEYSPACE: &str = "index";

/// Blocks of tables that are kept in memory, of data, filters and block indexes.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// When a memtable is written out. Larger ones write less often the same bytes.
/// It takes half as much again for its nodes.
const MEMTABLE_BYTES: u64 = 16 * 1024 * 1024;

/// The least that fjall takes. A journal is sealed at 64 MB and removed when the
/// memtables that it covers are written out, so there are about two of them.
const JOURNALS_BYTES: u64 = 64 * 1024 * 1024;

/// Files of tables that are kept open.
const OPEN_FILES: usize = 64;

/// With two, one of them spins as long as the other one compacts.
const WORKERS: usize = 1;

/// How many sealed memtables `apply` lets pile up while the worker is busy. With
/// the one that a commit may seal this is below four, where fjall waits, and does
/// so for ever if the worker is gone.
const MAX_SEALED_MEMTABLES: usize = 2;

/// How many runs `apply` lets pile up; fjall waits at 30, in the same way.
const MAX_NEW_RUNS: usize = 20;

/// How long `apply` waits before it looks again.
const WAIT_PAUSE: Duration = Duration::from_millis(2);

/// Opens indexes in fjall.
#[derive(Debug, Clone)]
pub struct FjallIndexEngine {
    runtime: Runtime,
    memtable_bytes: u64,
}

impl FjallIndexEngine {
    /// An engine that looks at files and removes them through `runtime`.
    #[must_use]
    pub fn new(runtime: Runtime) -> Self {
        Self { runtime, memtable_bytes: MEMTABLE_BYTES }
    }

    /// The same with memtables of this size, in indexes that it makes: small
    /// ones give tests many tables.
    #[must_use]
    pub fn with_memtable_bytes(self, memtable_bytes: u64) -> Self {
        Self { memtable_bytes: memtable_bytes.max(1), ..self }
    }

    fn database(&self, directory: &Path) -> Result<(Database, Keyspace), ::fjall::Error> {
        let database = Database::builder(directory)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNALS_BYTES)
            .max_cached_files(Some(OPEN_FILES))
            .worker_threads(WORKERS)
            .open()?;
        let keyspace = database.keyspace(KEYSPACE, || {
            // Of a block index only the top level stays in memory.
            KeyspaceCreateOptions::default()
                .max_memtable_size(self.memtable_bytes)
                .index_block_partitioning_policy(PartitioningPolicy::all(true))
                .filter_block_partitioning_policy(PartitioningPolicy::all(true))
                .index_block_pinning_policy(PinningPolicy::all(false))
                .filter_block_pinning_policy(PinningPolicy::all(false))
        })?;
        Ok((database, keyspace))
    }

    fn open_index(&self, directory: &Path) -> Result<FjallIndex, IndexError> {
        let files = self.runtime.files();
        files.create_directories(directory).map_err(|error| io_error(&error))?;
        release::wait(&*files, directory)?;
        let found = check::check(&*files, directory)?;
        let (database, keyspace) = guarded(|| self.database(directory))?;
        let index = FjallIndex {
            handles: Some(Handles { keyspace, database }),
            runtime: self.runtime.clone(),
            directory: directory.to_owned(),
            memtable_bytes: self.memtable_bytes,
            visiting: RwLock::default(),
            last_batch: Mutex::new(0),
        };
        index.check_newest(&found)?;
        // fjall leaves the name of its keyspace to the journal of the file
        // system: without one, a power cut takes it, and with it all that was
        // persisted. Each time, as who made it may have been killed right after.
        let keyspaces = directory.join(check::KEYSPACES);
        files.sync_directory(&keyspaces).map_err(|error| io_error(&error))?;
        Ok(index)
    }
}

impl IndexEngine for FjallIndexEngine {
    fn open(&self, directory: &Path) -> Result<Box<dyn Index>, IndexError> {
        Ok(Box::new(self.open_index(directory)?))
    }

    fn build(&self, directory: &Path) -> Result<Box<dyn IndexBuilder>, IndexError> {
        let index = self.open_index(directory)?;
        Ok(Box::new(Builder::new(self.runtime.clone(), index)))
    }

    fn try_room(&self, directory: &Path) -> Result<(), IndexError> {
        room::try_out(&self.runtime, directory, self.memtable_bytes)
    }

    fn remove(&self, directory: &Path) -> Result<(), IndexError> {
        let files = self.runtime.files();
        files.remove_directory_all(directory).map_err(|error| io_error(&error))?;
        match directory.parent() {
            Some(parent) => files.sync_directory(parent).map_err(|error| io_error(&error)),
            None => Ok(()),
        }
    }
}

/// An open index.
///
/// A point read gives what is newest, and may see one entry of a batch a moment
/// before the others; a scan sees whole batches. After [`IndexError::NoSpace`]
/// or a failure of the worker all further writes are [`IndexError::Failed`],
/// until the index is opened again; what was applied stays readable.
struct FjallIndex {
    /// Always there, but while it is dropped.
    handles: Option<Handles>,
    runtime: Runtime,
    directory: PathBuf,
    memtable_bytes: u64,
    /// Held for reading by who visits, and so needs the tables as they were.
    visiting: RwLock<()>,
    /// Number of the newest batch. Locked while a batch is applied, so that
    /// numbers and batches have one order.
    last_batch: Mutex<u64>,
}

/// The keyspace is dropped first: the database waits for the workers.
struct Handles {
    keyspace: Keyspace,
    database: Database,
}

impl fmt::Debug for FjallIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FjallIndex").field("last_batch", &self.last_batch).finish_non_exhaustive()
    }
}

impl Drop for FjallIndex {
    fn drop(&mut self) {
        let handles = self.handles.take();
        // fjall panics here if one of its locks was poisoned by a panic before,
        // which was reported already.
        let _ = guarded(|| {
            drop(handles);
            Ok(())
        });
        // Who comes next may be another process, which sees nothing of ours.
        if let Err(error) = release::wait(&*self.runtime.files(), &self.directory) {
            tracing::warn!(%error, "the index was closed, and its journal may not be");
        }
    }
}

/// Takes a key and its value, and says whether to go on.
type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, IndexError> + 'a;

impl FjallIndex {
    fn handles(&self) -> &Handles {
        self.handles.as_ref().expect("they are taken in drop alone")
    }

    fn value(&self, key: &[u8]) -> Result<Option<::fjall::UserValue>, IndexError> {
        guarded(|| self.handles().keyspace.get(key))
    }

    fn newest(&self) -> Result<Option<(BatchStamp, Checkpoint)>, IndexError> {
        let value = self.value(entry::CHECKPOINT_KEY)?;
        value.map(|value| entry::decode_checkpoint(&value)).transpose()
    }

    /// What is in the journals must be what is newest: otherwise tables are
    /// newer than a journal that was cut, or fjall dropped what was there.
    fn check_newest(&self, found: &Found) -> Result<(), IndexError> {
        let newest = self.newest()?;
        if let Some((_, checkpoint)) = &newest {
            checkpoint.check_version()?;
        }
        let number = newest.map(|(stamp, _)| stamp.number);
        if let Found::Index { newest_in_journal: Some(expected) } = found
            && number != Some(*expected)
        {
            return Err(damaged(format!("batch {expected} is in a journal, {number:?} in it")));
        }
        *self.lock()? = number.unwrap_or(0);
        Ok(())
    }

    fn lock(&self) -> Result<MutexGuard<'_, u64>, IndexError> {
        let poisoned = |_| IndexError::Failed { reason: "a batch panicked before".into() };
        self.last_batch.lock().map_err(poisoned)
    }

    /// Waits while the worker is behind, but not if it is gone, and seals a full
    /// memtable. fjall leaves that to the worker too, and while it is busy, or
    /// after a start with long journals, the memtable would have no limit.
    fn make_room(&self) -> Result<(), IndexError> {
        while guarded(|| Ok(self.is_worker_behind()))? {
            self.takes_batches()?;
            // The worker of fjall lives in real time, so this does too.
            std::thread::park_timeout(WAIT_PAUSE);
        }
        if self.is_memtable_full() {
            guarded(|| self.handles().keyspace.rotate_memtable())?;
        }
        Ok(())
    }

    fn is_worker_behind(&self) -> bool {
        let tree = &self.handles().keyspace.tree;
        let sealed = tree.sealed_memtable_count() + usize::from(self.is_memtable_full());
        sealed > MAX_SEALED_MEMTABLES || tree.l0_run_count() >= MAX_NEW_RUNS
    }

    fn is_memtable_full(&self) -> bool {
        self.handles().keyspace.tree.active_memtable().size() >= self.memtable_bytes
    }

    /// Visits what begins with a prefix, as of now, from one of these keys on and
    /// until told to stop. fjall is given no upper bound: it would look for the
    /// place of it in each block on the way.
    fn visit(
        &self,
        prefix: &[u8],
        from: Bound<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), IndexError> {
        let Handles { keyspace, database } = self.handles();
        let _visiting = self.visiting.read().unwrap_or_else(PoisonError::into_inner);
        let range = (from, Bound::Unbounded);
        let mut range: Iter =
            guarded(|| Ok(database.snapshot().range::<&[u8], _>(keyspace, range)))?;
        while let Some((key, value)) = guarded(|| range.next().map(Guard::into_inner).transpose())?
        {
            if !key.starts_with(prefix) || visit(&key, &value)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Visits the entries from a name on.
    fn visit_entries(
        &self,
        from: Bound<&ObjectName>,
        visit: &mut Visit<'_>,
    ) -> Result<(), IndexError> {
        let from = from.map(entry::entry_key);
        let from = match &from {
            Bound::Included(key) => Bound::Included(key.as_slice()),
            Bound::Excluded(key) => Bound::Excluded(key.as_slice()),
            Bound::Unbounded => Bound::Included(entry::ENTRY_PREFIX),
        };
        self.visit(entry::ENTRY_PREFIX, from, visit)
    }

    fn visit_prefix(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), IndexError> {
        self.visit(prefix, Bound::Included(prefix), visit)
    }

    fn has_mark(&self, key: &[u8]) -> Result<bool, IndexError> {
        let Some(value) = self.value(key)? else { return Ok(false) };
        entry::check_mark(key, &value).map(|()| true)
    }
}

impl Index for FjallIndex {
    fn get(&self, name: &ObjectName) -> Result<Option<Entry>, IndexError> {
        let key = entry::entry_key(name);
        let value = self.value(&key)?;
        value.map(|value| entry::decode_entry(&key, &value)).transpose()
    }

    fn scan(
        &self,
        from: Bound<&ObjectName>,
        visit: &mut dyn FnMut(ObjectName, Entry) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        self.visit_entries(from, &mut |key, value| {
            let (bucket, name) = entry::decode_entry_key(key)?;
            let malformed = |_| IndexError::not_a_name();
            let bucket = Bucket::new(bucket).map_err(malformed)?;
            let name = ObjectName::new(bucket, Key::new(name).map_err(malformed)?);
            Ok(visit(name, entry::decode_entry(key, value)?))
        })
    }

    fn list(
        &self,
        from: Bound<&ObjectName>,
        visit: &mut dyn FnMut(&str, &str, Brief<'_>) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        self.visit_entries(from, &mut |key, value| {
            let (bucket, name) = entry::decode_entry_key(key)?;
            Ok(visit(bucket, name, entry::decode_brief(key, value)?))
        })
    }

    fn file(&self, file: FileId) -> Result<Option<FileState>, IndexError> {
        if self.has_mark(&entry::live_key(file))? {
            return Ok(Some(FileState::Live));
        }
        Ok(self.has_mark(&entry::doomed_key(file))?.then_some(FileState::Doomed))
    }

    fn doomed_files(&self, limit: usize) -> Result<Vec<FileId>, IndexError> {
        let mut files = Vec::new();
        self.visit_prefix(entry::DOOMED_PREFIX, &mut |key, value| {
            if files.len() >= limit {
                return Ok(ControlFlow::Break(()));
            }
            entry::check_mark(key, value)?;
            files.push(entry::decode_doomed_key(key)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(files)
    }

    fn checkpoint(&self) -> Result<Option<Checkpoint>, IndexError> {
        Ok(self.newest()?.map(|(_, checkpoint)| checkpoint))
    }

    fn segments(&self) -> Result<BTreeMap<u64, SegmentUsage>, IndexError> {
        let mut segments = BTreeMap::new();
        self.visit_prefix(entry::SEGMENT_PREFIX, &mut |key, value| {
            let usage = entry::decode_segment(key, value)?;
            segments.insert(entry::decode_segment_key(key)?, usage);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(segments)
    }

    fn apply(&self, batch: &IndexBatch) -> Result<(), IndexError> {
        let mut last_batch = self.lock()?;
        self.make_room()?;
        let Handles { keyspace, database } = self.handles();
        let stamp = BatchStamp { number: *last_batch + 1, least_seqno: database.seqno() };
        let mut changes = Changes { keyspace, batch: database.batch() };
        changes.add(batch, stamp)?;
        // The batch hands its bytes to the operating system (`PersistMode::Buffer`)
        // before it returns, so that they outlive the process.
        guarded(|| changes.batch.commit())?;
        *last_batch = stamp.number;
        Ok(())
    }

    fn takes_batches(&self) -> Result<(), IndexError> {
        // Refused when the worker failed or panicked; writes nothing new.
        guarded(|| self.handles().database.persist(PersistMode::Buffer))
    }

    /// fjall keeps tables that were merged into others until it writes the next
    /// one: as long as nothing is written, that is for ever.
    fn tidy(&self) -> Result<(), IndexError> {
        let _nobody = match self.visiting.try_write() {
            Ok(nobody) => nobody,
            Err(TryLockError::Poisoned(nobody)) => nobody.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        let keyspace = &self.handles().keyspace;
        // A point read takes the newest; nobody has a snapshot of any other.
        guarded(|| {
            let mut versions = keyspace.tree.get_version_history_lock();
            Ok(versions.maintenance(keyspace.path(), u64::MAX)?)
        })
    }

    fn persist(&self) -> Result<(), IndexError> {
        guarded(|| self.handles().database.persist(PersistMode::SyncAll))
    }

    fn disk_bytes(&self) -> u64 {
        guarded(|| self.handles().database.disk_space()).unwrap_or(0)
    }
}

/// A batch of fjall in the making.
struct Changes<'a> {
    keyspace: &'a Keyspace,
    batch: OwnedWriteBatch,
}

impl Changes<'_> {
    fn add(&mut self, batch: &IndexBatch, stamp: BatchStamp) -> Result<(), IndexError> {
        encode_names(batch, |key, value| {
            self.set(key, value);
            Ok(())
        })?;
        for (segment, usage) in &batch.segments {
            let key = entry::segment_key(*segment);
            let value =
                usage.as_ref().map(|usage| entry::encode_segment(&key, usage)).transpose()?;
            self.set(&key, value);
        }
        let checkpoint = entry::encode_checkpoint(stamp, &batch.checkpoint)?;
        self.set(entry::CHECKPOINT_KEY, Some(checkpoint));
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: Option<Vec<u8>>) {
        match value {
            Some(value) => self.batch.insert(self.keyspace, key, value),
            None => self.batch.remove(self.keyspace, key),
        }
    }
}

/// Keys and values of what a batch says of names and payload files; `None` for
/// what is gone.
fn encode_names(
    batch: &IndexBatch,
    mut set: impl FnMut(&[u8], Option<Vec<u8>>) -> Result<(), IndexError>,
) -> Result<(), IndexError> {
    for (name, entry) in &batch.entries {
        let key = entry::entry_key(name);
        let value = entry.as_ref().map(|entry| entry::encode_entry(&key, entry)).transpose()?;
        set(&key, value)?;
    }
    for (file, state) in &batch.files {
        let marks = [
            (entry::live_key(*file), FileState::Live),
            (entry::doomed_key(*file), FileState::Doomed),
        ];
        for (key, marked) in marks {
            set(&key, (*state == Some(marked)).then(|| entry::encode_mark(&key)))?;
        }
    }
    Ok(())
}
