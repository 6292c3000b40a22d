//! A disk in memory that loses power, for tests.
//!
//! Everyone reads what was written last, as from the page cache. What is on the
//! disk itself is less. After a cut
//! - the data and the length of a file are there as of its last fdatasync, its
//!   name as of the last sync of the directory;
//! - each later write, change of length, create, rename, unlink and mkdir is
//!   there or not for itself, in any combination;
//! - a write is torn at sectors of 512 bytes. The file is as long as what is
//!   left of its writes, or as long as it would have been, and holes are zeros;
//! - a rename, also from one directory to another, happened or did not. The
//!   sync of either directory makes it durable, and with it what it builds on;
//! - a file without a name, or below a directory without one, is gone.
//!
//! With [`Names::Journaled`] names come in order, as on ext4 and XFS.
//!
//! What a failed sync should have written stays in doubt for good: a later one
//! that succeeds does not help.
//!
//! Every step is recorded, and the disk can be cut after each of them.

#![allow(unused_imports, reason = "each test file uses a part of it")]

mod content;
mod core;
mod cut;
mod faults;
mod files;
mod image;
mod journal;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

pub use self::content::CHUNK_BYTES;
pub use self::core::Core;
pub use self::cut::{Choice, SECTOR_BYTES};
pub use self::faults::{Call, Fault, Matching, Options};
pub use self::files::DIRECT_BYTES;
pub use self::image::{Body, Entry, Image, Ino, Node, ROOT};
pub use self::journal::{Names, Operation, Sync};

/// The disk. Clones are the same disk; a cut makes another one.
#[derive(Debug, Clone)]
pub struct PowerDisk(Arc<Mutex<Core>>);

impl PowerDisk {
    /// An empty disk that does as it should.
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    pub fn with(options: Options) -> Self {
        Self::of(Core::new(Image::default(), options))
    }

    fn of(core: Core) -> Self {
        Self(Arc::new(Mutex::new(core)))
    }

    /// The disk by file number. Nothing else on the disk moves meanwhile.
    pub fn core(&self) -> MutexGuard<'_, Core> {
        self.0.lock().expect("nobody panics with the disk in hand")
    }

    /// Makes all that is there now durable and forgets how it came about, as
    /// what was there before a test begins. Operations count from 0 again.
    pub fn settle(&self) {
        self.core().make_all_durable();
    }

    /// How many operations there were. A cut is after one of `0..=count`.
    pub fn operation_count(&self) -> usize {
        self.core().operation_count()
    }

    /// The operations from `start` on, for messages and for tests that count.
    pub fn operations(&self, start: usize) -> Vec<Operation> {
        self.core().operations()[start..].to_vec()
    }

    /// Notes that something has been promised: a cut after this many operations
    /// or more must keep it.
    pub fn mark(&self, label: usize) {
        self.core().mark(label);
    }

    /// The marks that were set when there were no more than `at` operations.
    pub fn marks_before(&self, at: usize) -> Vec<usize> {
        self.core().marks_before(at)
    }

    /// How many changes are not durable after `at` operations: `k` of
    /// [`Choice::AllBut`] is less than that.
    pub fn pending(&self, at: usize) -> usize {
        self.core().replay(at).undecided()
    }

    /// The disk as it is found when the power went after `at` operations.
    /// Nothing is open or locked, and faults and marks are gone.
    pub fn cut(&self, at: usize, choice: Choice) -> Self {
        Self::of(self.core().cut(at, choice))
    }

    /// As [`Self::cut`] after the last operation.
    pub fn cut_now(&self, choice: Choice) -> Self {
        let core = self.core();
        Self::of(core.cut(core.operation_count(), choice))
    }

    /// The disk when only the process ended after `at` operations: everything
    /// can be read, but a later cut can still lose what was not synced.
    pub fn killed(&self, at: usize) -> Self {
        Self::of(self.core().killed(at))
    }

    /// Makes calls fail from now on.
    pub fn fail(&self, fault: Fault) {
        self.core().faults.add(fault);
    }

    /// Takes back all faults that are still to come.
    pub fn heal(&self) {
        self.core().faults.clear();
    }

    /// Changes the size of the disk.
    pub fn set_capacity(&self, bytes: u64) {
        self.core().options.capacity_bytes = bytes;
    }

    /// All of a file; `None` if there is none.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let core = self.core();
        let content = core.content(core.resolve(path).ok()?).ok()?;
        Some(content.to_vec())
    }

    /// Turns one bit of a file, on the disk and in what is read, as decay does.
    ///
    /// # Panics
    /// When there is no such bit.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u32) {
        let mut core = self.core();
        let ino = core.resolve(path).expect("the file is there");
        assert!(offset < core.content(ino).expect("it is a file").len(), "it is that long");
        core.record(Operation::Rot { ino, offset, mask: 1 << bit });
    }

    /// Gives a file other content, durable at once.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn replace(&self, path: &Path, bytes: &[u8]) {
        let mut core = self.core();
        let ino = core.resolve(path).expect("the file is there");
        core.content(ino).expect("it is a file");
        let mut content = content::Content::default();
        content.write(0, bytes);
        core.record(Operation::Replace { ino, content });
    }

    /// Every file, in order of paths.
    pub fn files(&self) -> Vec<PathBuf> {
        let core = self.core();
        let named = core.live().named().into_iter();
        let files = named.filter(|(_, ino)| core.content(*ino).is_ok());
        files.map(|(path, _)| path).collect()
    }
}

impl Default for PowerDisk {
    fn default() -> Self {
        Self::new()
    }
}
