//! What the writer, the readers and compaction of one volume share.

use std::path::PathBuf;
use std::sync::{Condvar, Mutex, PoisonError, RwLock};

use std::sync::Arc;

use holdfast_core::name::ObjectName;
use holdfast_core::version::Version;
use holdfast_runtime::VolumeLock;
use tokio::sync::Notify;

use super::backlog::Unindexed;
use super::doubt::Doubt;
use super::entry_cache::{EntryCache, Looked};
use super::index::{Counts, Entry, Index, IndexBatch, IndexError, Unopened};
use super::large::LargeFiles;
use super::ledger::Ledger;
use super::options::LogStoreOptions;
use super::queue::{Job, Queue};
use super::recovery::{INDEX_DIRECTORY, index_engine};
use super::segments::Segments;
use crate::StoreError;
use crate::disk::Disk;
use crate::metrics::LogState;

/// File that tells the next start to rebuild the index.
pub(super) const REBUILD_MARKER: &str = "index-rebuild";

/// Entries that were looked up lately: some ten thousand of common size.
const RECENT_BYTES: u64 = 8 * 1024 * 1024;

/// Tells the next start, durably, to build the index anew. Blocks.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::Poisoned`].
pub(super) fn mark_for_rebuild(disk: &Disk) -> Result<(), StoreError> {
    let marker = disk.path(REBUILD_MARKER);
    if !disk.list(disk.root())?.contains(&marker) {
        disk.create(&marker)?;
    }
    disk.sync_directory(disk.root())
}

/// One open volume.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disk: Arc<Disk>,
    pub(super) options: LogStoreOptions,
    pub(super) queue: Queue,
    pub(super) segments: Segments,
    pub(super) large: Arc<LargeFiles>,
    pub(super) doubt: Doubt,
    /// Gone once the volume is closed. Held for reading while it is used, so
    /// that it is closed when nobody does.
    index: RwLock<Option<Box<dyn Index>>>,
    pub(super) recent: EntryCache,
    pub(super) unindexed: Unindexed,
    lock: Mutex<Option<Box<dyn VolumeLock>>>,
    books: Mutex<Books>,
    closed: (Mutex<bool>, Condvar),
    /// Garbage holds writes back: compaction should look.
    pub(super) garbage: Notify,
    /// Held while one thing is compacted: two that take the same segment would
    /// be in each other's way.
    pub(super) compacting: tokio::sync::Mutex<()>,
}

/// What the books said after the last batch.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Books {
    pub(super) counts: Counts,
    /// See [`super::pressure::Pressure`].
    pub(super) pressure: u64,
    pub(super) swept_below: u64,
}

/// What compaction is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Survey {
    /// The segment to take next.
    pub(super) victim: Option<u64>,
    /// How much garbage there is; see [`super::pressure::Pressure`].
    pub(super) pressure: u64,
}

/// What a volume is made of when it is open.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) disk: Arc<Disk>,
    pub(super) options: LogStoreOptions,
    pub(super) segments: Segments,
    pub(super) large: Arc<LargeFiles>,
    pub(super) doubt: Doubt,
    pub(super) index: Box<dyn Index>,
    pub(super) lock: Box<dyn VolumeLock>,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { disk, options, segments, large, doubt, index, lock } = parts;
        // Half a segment, so that no batch is much longer than one.
        let max_batch_bytes = usize::try_from(options.segment_bytes / 2).unwrap_or(usize::MAX);
        let seed = disk.runtime().random_u64();
        Self {
            disk,
            queue: Queue::new(max_batch_bytes),
            options,
            segments,
            large,
            doubt,
            index: RwLock::new(Some(index)),
            recent: EntryCache::new(RECENT_BYTES, seed),
            unindexed: Unindexed::default(),
            lock: Mutex::new(Some(lock)),
            books: Mutex::default(),
            closed: (Mutex::new(false), Condvar::new()),
            garbage: Notify::new(),
            compacting: tokio::sync::Mutex::default(),
        }
    }

    /// Uses the index; `input` comes back when the volume is closed.
    pub(super) fn with_index<I, T>(
        &self,
        input: I,
        work: impl FnOnce(&dyn Index, I) -> T,
    ) -> Result<T, (StoreError, I)> {
        let guard = self.index.read().unwrap_or_else(PoisonError::into_inner);
        match guard.as_deref() {
            Some(index) => Ok(work(index, input)),
            None => Err((StoreError::WorkLost, input)),
        }
    }

    /// Does what must not outlast the volume: another process may have it the
    /// moment it is closed.
    pub(super) fn while_open<T>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.with_index((), |_, ()| work()).map_err(|(error, ())| error)?
    }

    /// The entry of a name. What damage keeps from being certain is an error.
    /// Blocks.
    pub(super) fn lookup(&self, name: &ObjectName) -> Result<Option<Entry>, StoreError> {
        self.unindexed.check(name)?;
        let metrics = self.disk.metrics().log();
        let found = self.with_index((), |index, ()| match self.recent.look(name) {
            Looked::Known(entry) => {
                metrics.on_lookup(true);
                Ok(entry)
            }
            Looked::Unknown(ticket) => {
                metrics.on_lookup(false);
                let entry = index.get(name)?;
                self.recent.keep(name, ticket, entry.as_ref());
                Ok(entry)
            }
        });
        let entry = self.checked(found.map_err(|(error, ())| error)?)?;
        self.certain(name, entry)
    }

    /// As [`Self::lookup`], if it can be told without the disk. Does not block.
    pub(super) fn lookup_recent(
        &self,
        name: &ObjectName,
    ) -> Option<Result<Option<Entry>, StoreError>> {
        // Held, so that the volume is not closed meanwhile.
        let guard = self.index.try_read().ok()?;
        guard.as_ref()?;
        if let Err(error) = self.unindexed.check(name) {
            return Some(Err(error));
        }
        let Looked::Known(entry) = self.recent.look(name) else { return None };
        self.disk.metrics().log().on_lookup(true);
        Some(self.certain(name, entry))
    }

    fn certain(
        &self,
        name: &ObjectName,
        entry: Option<Entry>,
    ) -> Result<Option<Entry>, StoreError> {
        match self.doubt.clouding(entry.as_ref()) {
            None => Ok(entry),
            Some(region) => {
                Err(StoreError::Doubtful { name: name.clone(), segment: region.segment })
            }
        }
    }

    /// Parts of the volume that cannot be told, so that a name may be missing among
    /// all of them.
    pub(super) fn unreadable_count(&self) -> u64 {
        self.doubt.regions().len() as u64 + u64::from(self.unindexed.is_any())
    }

    /// Makes a batch visible to all who look up. Blocks.
    pub(super) fn apply(&self, batch: &IndexBatch) -> Result<(), StoreError> {
        let names = batch.entries.iter().map(|(name, _)| name);
        let _changing = self.recent.change(names);
        let applied = self.with_index((), |index, ()| index.apply(batch));
        applied.map_err(|(error, ())| error)?.map_err(StoreError::from)
    }

    /// Closes the index and opens it again. Whoever looks something up waits
    /// meanwhile, and is told why there is no index when it cannot be opened.
    /// Blocks.
    ///
    /// # Errors
    /// [`StoreError::Index`], [`StoreError::WorkLost`] when the volume is closed.
    pub(super) fn reopen_index(&self) -> Result<(), StoreError> {
        let mut guard = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = guard.as_mut() else { return Err(StoreError::WorkLost) };
        // Closed first: its engine lets nobody else into its directory.
        *index = Box::new(Unopened::new(&IndexError::NoSpace));
        // What was refused may be in it.
        self.recent.forget_all();
        let engine = index_engine(&self.disk, &self.options);
        *index = match engine.open(&self.disk.path(INDEX_DIRECTORY)) {
            Ok(opened) => opened,
            Err(error) => {
                *index = Box::new(Unopened::new(&error));
                return Err(error.into());
            }
        };
        Ok(())
    }

    /// Whether the index takes batches, be it that it never was asked. Blocks.
    ///
    /// # Errors
    /// As [`Index::takes_batches`], [`StoreError::WorkLost`] when the volume is closed.
    pub(super) fn takes_batches(&self) -> Result<(), StoreError> {
        let takes_batches = self.with_index((), |index, ()| index.takes_batches());
        Ok(takes_batches.map_err(|(error, ())| error)??)
    }

    /// Lets the index give back what it needs no more. Blocks.
    pub(super) fn tidy_index(&self) {
        let tidied = self.with_index((), |index, ()| index.tidy());
        if let Ok(Err(error)) = tidied {
            tracing::debug!(%error, "the index gives nothing back");
        }
    }

    /// Whether the disk takes what the engine of the index writes at once. Blocks.
    ///
    /// # Errors
    /// As [`super::index::IndexEngine::try_room`].
    pub(super) fn try_index_room(&self) -> Result<(), IndexError> {
        let engine = index_engine(&self.disk, &self.options);
        engine.try_room(&self.disk.path(INDEX_DIRECTORY))
    }

    /// Takes note of an index that is damaged.
    pub(super) fn checked<T>(&self, result: Result<T, IndexError>) -> Result<T, StoreError> {
        result.map_err(|error| {
            if let IndexError::Damaged { reason } = &error {
                self.on_damaged_index(reason);
            }
            error.into()
        })
    }

    /// The index is a cache: the next start builds it again from the log. This
    /// process gives no more answers that depend on it.
    pub(super) fn on_damaged_index(&self, reason: &str) {
        tracing::error!(%reason, "the index is damaged; the next start rebuilds it from the log");
        let path = self.disk.path(REBUILD_MARKER);
        if let Err(error) = self.disk.create(&path) {
            tracing::warn!(%error, "the next start was not told to rebuild the index");
        }
        let _ = self.disk.poison_with(format!("the index is damaged: {reason}"));
    }

    /// A read met a payload that is not what was written, or that the disk does not
    /// give: either way somebody else's copy must take its place.
    pub(super) fn on_damage(&self, name: &ObjectName, version: Version, error: &StoreError) {
        if error.is_damage() {
            tracing::error!(%error, key = %name, %version, "a read met damage");
            self.disk.metrics().on_corruption(crate::metrics::Corruption::Refused);
            self.queue.push_housekeeping(Job::Damaged { name: name.clone(), version });
        }
    }

    pub(super) fn publish(&self, ledger: &Ledger, pressure: u64) {
        let (log_bytes, used_bytes) = ledger.log_bytes();
        let books = Books {
            counts: ledger.checkpoint.counts,
            pressure,
            swept_below: ledger.checkpoint.swept_below,
        };
        *self.books.lock().unwrap_or_else(PoisonError::into_inner) = books;
        self.disk.metrics().log().set_state(LogState {
            log_bytes,
            used_bytes,
            segment_count: ledger.segments().len(),
            pressure,
        });
    }

    pub(super) fn books(&self) -> Books {
        *self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the index and gives the volume free. The writer does this last.
    pub(super) fn release(&self) {
        drop(self.index.write().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
        let (closed, told) = &self.closed;
        *closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        told.notify_all();
    }

    /// Ends the writer once it has done what waits, and waits for that. Blocks
    /// for a batch and a few syncs.
    pub(super) fn close(&self) {
        self.queue.close();
        let (closed, told) = &self.closed;
        let mut is_closed = closed.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_closed {
            is_closed = told.wait(is_closed).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Where a segment lies, or would.
    pub(super) fn segment_path(&self, number: u64) -> PathBuf {
        let known = self.segments.get(number).map(|id| self.segments.path(id));
        known.unwrap_or_else(|| self.disk.path(format!("log/{number:016x}-*.seg")))
    }

    pub(super) fn root(&self) -> PathBuf {
        self.disk.root().to_owned()
    }
}
