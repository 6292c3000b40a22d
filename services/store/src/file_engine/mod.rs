//! The file engine: one file for each name, described by itself.
//!
//! No service uses it: data servers keep their objects in [`crate::log_engine`].
//! It stays as the reference that the conformance suite and the benchmarks
//! compare the log engine with.
//!
//! | module | does |
//! |---|---|
//! | `volume` | which directories the volume has |
//! | `scan` | rebuilds the catalogue when the volume is opened |
//! | `catalog` | what is here, in memory |
//! | `staging`, `commit` | the way in |
//! | `reader` | the way out |
//!
//! The bytes of an object file are in `payload_file`, which the engines share, and
//! so are `disk` and `volume`.
//!
//! PUT: `FileStore::stage` → `FileStaging::write` → `FileStore::commit` →
//! `commit::commit` → `Shared::publish`. GET: `FileStore::read` →
//! `reader::read` → `PayloadReader::stream` → `ObjectFile::chunk`.

mod catalog;
mod commit;
mod name_hash;
mod quarantine;
mod reader;
mod scan;
mod staging;
mod volume;

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use async_trait::async_trait;
use holdfast_core::name::ObjectName;
use holdfast_core::object::Stat;
use holdfast_core::version::Version;
use holdfast_runtime::{Runtime, VolumeLock};

use self::catalog::{Catalog, Target};
use self::commit::NameLocks;
use self::staging::{Content, FileStaged, FileStaging, Room, StagedFile};
use crate::decide::{object, tombstone};
use crate::disk::Disk;
use crate::metrics::{Operation, StoreMetrics};
use crate::volume::prepare;
use crate::{
    Held, ListPage, ListRequest, Payload, PutOutcome, Staged, Staging, Stamp, Store, StoreError,
    Usage, WalkPage,
};

/// Room that payloads leave free unless told otherwise: enough for some ten
/// thousand tombstones and what the data server writes beside the volume.
const DEFAULT_RESERVE_BYTES: u64 = 64 * 1024 * 1024;

/// What can be set of a [`FileStore`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStoreOptions {
    /// Free bytes that payloads do not use, so that deletes work on a disk that
    /// is full. 64 MiB unless set.
    pub reserve_bytes: u64,
}

impl Default for FileStoreOptions {
    fn default() -> Self {
        Self { reserve_bytes: DEFAULT_RESERVE_BYTES }
    }
}

/// A volume with one file for each name.
///
/// Simple and durable: a write is a file that is synced, renamed into place and
/// its directory synced. Each file describes itself, so the volume needs
/// nothing else to be read. The names and versions are held in memory while it
/// is open, about 300 bytes for each name. Clones use the same volume; it is
/// unlocked when the last of them and all that was staged on it are dropped.
#[derive(Clone)]
pub struct FileStore {
    shared: Arc<Shared>,
}

struct Shared {
    disk: Arc<Disk>,
    catalog: Catalog,
    locks: NameLocks,
    /// Random for each open, so that names in the staging area never repeat.
    opened: u64,
    staged_count: AtomicU64,
    _lock: Box<dyn VolumeLock>,
}

impl FileStore {
    /// Opens the volume in `root`, or makes one there if it is empty or not
    /// there. Removes what was staged and never committed, and reads the
    /// trailer of every object.
    ///
    /// A file whose trailer is damaged does not keep the volume from opening:
    /// its name answers with [`StoreError::Corrupt`] and never as absent.
    ///
    /// Not cancel safe: the volume may stay locked until the work that was
    /// begun has ended.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Format`] when the directory holds
    /// something else or the volume of another engine or release,
    /// [`StoreError::Poisoned`] when a first sync fails, [`StoreError::Io`].
    pub async fn open(
        runtime: Runtime,
        root: PathBuf,
        options: FileStoreOptions,
    ) -> Result<Self, StoreError> {
        let opened = runtime.random_u64();
        let disk = Arc::new(Disk::new(runtime, root, options.reserve_bytes));
        let prepared = disk.run(|disk| {
            let lock = prepare(disk, &volume::spec())?;
            disk.space()?;
            Ok(lock)
        });
        let lock = prepared.await?;
        let catalog = Catalog::new(disk.metrics().clone());
        scan::scan(&disk, &catalog).await?;
        let shared = Shared {
            disk,
            catalog,
            locks: NameLocks::new(),
            opened,
            staged_count: AtomicU64::new(0),
            _lock: lock,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What this volume tells Prometheus, for registering.
    #[must_use]
    pub fn metrics(&self) -> &StoreMetrics {
        self.shared.disk.metrics()
    }

    /// Puts the file of an unreadable name aside, into `quarantine/`, so that
    /// the name can be written again. Afterwards the name is absent here: for
    /// those who know from other replicas what its newest version is.
    ///
    /// Answers whether there was such a file. A name whose version is known is
    /// left alone: writing that version again replaces a damaged copy.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`], [`StoreError::Io`].
    pub async fn quarantine(&self, name: &ObjectName) -> Result<bool, StoreError> {
        quarantine::quarantine(&self.shared, Target::new(name.clone())).await
    }

    fn now(&self) -> Duration {
        self.shared.disk.runtime().now()
    }

    fn measured(&self, operation: Operation, started: Duration) {
        self.metrics().on_operation(operation, self.now().saturating_sub(started));
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").field("root", &self.shared.disk.root()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for FileStore {
    async fn stage(&self, size_bytes: Option<u64>) -> Result<Box<dyn Staging>, StoreError> {
        let disk = &self.shared.disk;
        disk.writable()?;
        let size_bytes = size_bytes.unwrap_or(0);
        if !disk.had_room(size_bytes) {
            disk.run(move |disk| disk.check_room(size_bytes)).await?;
        }
        Ok(Box::new(FileStaging::new(&self.shared)))
    }

    async fn commit(
        &self,
        name: ObjectName,
        stamp: Stamp,
        staged: Box<dyn Staged>,
    ) -> Result<PutOutcome, StoreError> {
        let foreign = || StoreError::foreign_staged(self.shared.disk.root().to_owned());
        let stat = object(stamp, staged.size_bytes(), staged.digest());
        let staged = staged.into_any().downcast::<FileStaged>().map_err(|_| foreign())?;
        let FileStaged { shared, rest, content } = *staged;
        if !Arc::ptr_eq(&shared, &self.shared) {
            return Err(foreign());
        }
        let started = self.now();
        let outcome = commit::commit(&shared, Target::new(name), stat, content, rest).await;
        self.measured(Operation::Put, started);
        outcome
    }

    async fn delete(&self, name: ObjectName, stamp: Stamp) -> Result<PutOutcome, StoreError> {
        let started = self.now();
        let content = Content::new(StagedFile::new(&self.shared, Room::All));
        let (target, stat) = (Target::new(name), tombstone(stamp));
        let outcome = commit::commit(&self.shared, target, stat, content, [].as_slice().into());
        let outcome = outcome.await;
        self.measured(Operation::Delete, started);
        outcome
    }

    async fn forget(&self, name: &ObjectName, version: Version) -> Result<bool, StoreError> {
        commit::forget(&self.shared, Target::new(name.clone()), version).await
    }

    async fn stat(&self, names: &[ObjectName]) -> Vec<Result<Option<Stat>, StoreError>> {
        let started = self.now();
        let answers = self.shared.catalog.lookup_all(names);
        self.measured(Operation::Stat, started);
        answers
    }

    async fn inspect(&self, names: &[ObjectName]) -> Vec<Result<Option<Held>, StoreError>> {
        names.iter().map(|name| self.shared.catalog.inspect(name)).collect()
    }

    async fn read(
        &self,
        name: &ObjectName,
        version: Option<Version>,
        range: Option<Range<u64>>,
    ) -> Result<Payload, StoreError> {
        let started = self.now();
        let payload = reader::read(&self.shared, name, version, range).await;
        self.measured(Operation::Read, started);
        payload
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, StoreError> {
        let started = self.now();
        let page = self.shared.catalog.page(request);
        self.measured(Operation::List, started);
        Ok(page)
    }

    async fn walk(&self, after: Option<&ObjectName>, limit: usize) -> Result<WalkPage, StoreError> {
        Ok(self.shared.catalog.walk(after, limit))
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let space = self.shared.disk.run(|disk| disk.space()).await?;
        let counts = self.shared.catalog.counts();
        Ok(Usage {
            space,
            object_count: counts.object_count,
            tombstone_count: counts.tombstone_count,
            live_bytes: counts.live_bytes,
        })
    }

    fn poisoned(&self) -> Option<String> {
        self.shared.disk.poisoned().map(str::to_owned)
    }
}
