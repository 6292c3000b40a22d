//! The log engine: an append-only log that is the truth, an ordered index that
//! is a cache of it, and files of their own for large payloads.
//!
//! ```text
//! <root>/
//!   log/          segments of records; see `record` and `segment` for the bytes
//!   large/        payloads over the inline limit; see `large`
//!   index/        the ordered index, which can be built again from the log
//! ```
//!
//! | module | does |
//! |---|---|
//! | `record`, `segment`, `scan` | the bytes of the log, and reading them past damage |
//! | `segments` | which segments there are |
//! | `index` | name to entry, in order |
//! | `entry_cache` | entries that were looked up lately, so that most lookups need no other thread |
//! | `backlog` | what the index could not take while the disk is full |
//! | `ledger` | what the entries add up to, and which bytes of a segment are in use |
//! | `queue`, `batch`, `writer`, `handover`, `sync` | the way in: group commit by one thread that decides and one that waits for the disk |
//! | `staging`, `large` | payloads on their way in, and those in files of their own |
//! | `read` | the way out |
//! | `replay`, `recovery`, `doubt` | opening a volume, and what cannot be known of it |
//! | `pressure`, `compaction` | giving room back |
//! | `fsck`, `stats`, `rebuild` | what operators do with a volume that is stopped |
//!
//! PUT: `LogStore::stage` → `LogStaging::write` → `LogStore::commit` →
//! `Queue::push` → `Writer::add` → `Batch::put` → `Writer::offer` →
//! `Syncer::write` → `Writer::conclude` → answer.
//! GET: `LogStore::read` → `read::read` → `Shared::lookup` →
//! `Shared::read_inline` or `large::open`.

mod backlog;
mod batch;
mod compaction;
mod doubt;
mod entry_cache;
#[cfg(test)]
#[allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    reason = "it is the disk, and other tests use the rest of it"
)]
#[path = "../../tests/common/faulty.rs"]
mod faulty;
mod fsck;
#[cfg(test)]
mod fuzz_tests;
mod handover;
pub mod index;
mod large;
mod ledger;
mod list;
mod options;
mod pressure;
mod queue;
mod read;
mod rebuild;
mod record;
#[cfg(test)]
mod record_tests;
mod recovery;
mod replay;
mod scan;
mod segment;
mod segments;
mod shared;
mod staging;
mod stats;
mod sync;
mod volume;
mod walk;
mod writer;

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use crc_fast::crc32_iscsi;
use holdfast_core::name::ObjectName;
use holdfast_core::object::Stat;
use holdfast_core::version::Version;
use holdfast_runtime::{Runtime, Task};
use tokio::sync::oneshot;

use self::compaction::Compaction;
pub use self::fsck::{Acceptance, Event, Finding, FindingKind, FsckReport, FsckRequest, fsck};
use self::handover::Handover;
use self::index::Entry;
use self::large::LargeFiles;
use self::ledger::Ledger;
pub use self::options::{LogStoreOptions, MAX_INLINE_LIMIT_BYTES};
use self::queue::{Body, Job};
pub use self::rebuild::rebuild_index;
use self::record::encode_metadata;
pub use self::recovery::OpenReport;
use self::recovery::recover;
pub use self::replay::{Progress, TornTail};
use self::segments::Segments;
use self::shared::{Parts, Shared};
use self::staging::{LogStaged, LogStaging, StagedPayload};
pub use self::stats::{Stats, stats};
use self::sync::Syncer;
use self::writer::{Way, Writer};
use crate::decide::{object, settled, tombstone};
use crate::disk::Disk;
use crate::metrics::{Operation, StoreMetrics};
use crate::{
    Held, ListPage, ListRequest, Payload, PutOutcome, Staged, Staging, Stamp, Store, StoreError,
    Usage, WalkPage,
};

/// A volume whose writes go through a log.
///
/// Many writers share one sync, so a write costs little more than its bytes.
/// Names are held on disk: memory does not grow with their number. Clones use
/// the same volume. It is closed in order by [`Store::close`], or when the last
/// clone is dropped, which blocks until the log is sealed.
#[derive(Clone)]
pub struct LogStore {
    open: Arc<Open>,
}

/// Ends the volume's thread and task when the last handle is dropped.
struct Open {
    shared: Arc<Shared>,
    report: OpenReport,
    compaction: Task,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.compaction.abort();
        self.shared.close();
    }
}

impl LogStore {
    /// Opens the volume in `root`, or makes one there if it is empty or not
    /// there. Reads the part of the log that the index lags behind, and all of
    /// it when there is no index that goes with it.
    ///
    /// Damage does not keep the volume from opening: what it touches answers
    /// with an error, and never as absent; see [`Self::report`].
    ///
    /// Not cancel safe: the volume may stay locked until the work that was
    /// begun has ended.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Format`] when the directory holds
    /// something else or the volume of another engine or release,
    /// [`StoreError::Index`] when no index can be made, [`StoreError::Poisoned`]
    /// when a first sync fails, [`StoreError::Io`].
    pub async fn open(
        runtime: Runtime,
        root: PathBuf,
        options: LogStoreOptions,
    ) -> Result<Self, StoreError> {
        Self::open_with_progress(runtime, root, options, |_| {}).await
    }

    /// As [`Self::open`], and tells how far reading the log has come.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with_progress(
        runtime: Runtime,
        root: PathBuf,
        options: LogStoreOptions,
        mut progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let disk = Arc::new(Disk::new(runtime.clone(), root, options.reserve_bytes));
        let prepared = disk.run(move |disk| prepare(disk, options, &mut progress));
        let (shared, ledger, next_segment, report) = prepared.await?;
        start_threads(&runtime, &shared, ledger, next_segment)?;
        let compaction = Compaction::new(Arc::clone(&shared));
        let compaction = runtime.spawn("compaction", compaction.run());
        Ok(Self { open: Arc::new(Open { shared, report, compaction }) })
    }

    /// What was found when the volume was opened.
    #[must_use]
    pub fn report(&self) -> &OpenReport {
        &self.open.report
    }

    /// What this volume tells Prometheus, for registering.
    #[must_use]
    pub fn metrics(&self) -> &StoreMetrics {
        self.shared().disk.metrics()
    }

    /// Gives back all room that can be given back, without regard to rates:
    /// what runs in the background otherwise. For maintenance and tests.
    ///
    /// # Errors
    /// As the disk gives them.
    pub async fn compact(&self) -> Result<(), StoreError> {
        let mut compaction = Compaction::thorough(Arc::clone(self.shared()));
        while compaction.step().await? {}
        Ok(())
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.open.shared
    }

    fn now(&self) -> Duration {
        self.shared().disk.runtime().now()
    }

    fn measured(&self, operation: Operation, started: Duration) {
        self.metrics().on_operation(operation, self.now().saturating_sub(started));
    }

    /// Hands a job to the writer and waits for its answer.
    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job,
    ) -> Result<T, StoreError> {
        self.shared().disk.writable()?;
        let (answer, answered) = oneshot::channel();
        if self.shared().queue.push(job(answer)).await.is_err() {
            return Err(StoreError::WorkLost);
        }
        answered.await.unwrap_or(Err(StoreError::WorkLost))
    }

    async fn write(
        &self,
        name: ObjectName,
        stat: Stat,
        body: Body,
    ) -> Result<PutOutcome, StoreError> {
        let metadata = encode_metadata(&stat.metadata).map_err(|_| StoreError::MetadataTooLong)?;
        if metadata.len() > record::MAX_METADATA_BYTES {
            return Err(StoreError::MetadataTooLong);
        }
        self.ask(|answer| Job::Put { name, stat, metadata, body, answer }).await
    }

    async fn commit_payload(
        &self,
        name: ObjectName,
        stat: Stat,
        payload: StagedPayload,
    ) -> Result<PutOutcome, StoreError> {
        let body = match payload {
            StagedPayload::Inline { bytes, .. } => {
                let crc = crc32_iscsi(&bytes);
                Body::Inline { bytes, crc }
            }
            StagedPayload::Large(large) => {
                // The writer decides; this saves the sync of what is old.
                if let Some(outcome) = self.settled(name.clone(), stat.clone()).await? {
                    return Ok(outcome);
                }
                Body::File(large.complete(name.clone(), stat.clone()).await?)
            }
        };
        self.write(name, stat, body).await
    }

    /// Answers at once what was looked up lately: the way to a thread that may
    /// block takes longer than most lookups.
    async fn entries_of(&self, names: &[ObjectName]) -> Vec<EntryAnswer> {
        let recent: Vec<_> = names.iter().map(|name| self.shared().lookup_recent(name)).collect();
        let unknown: Vec<_> =
            names.iter().zip(&recent).filter(|(_, recent)| recent.is_none()).collect();
        if unknown.is_empty() {
            return recent.into_iter().flatten().collect();
        }
        let unknown: Vec<_> = unknown.into_iter().map(|(name, _)| name.clone()).collect();
        let shared = Arc::clone(self.shared());
        let looked_up = self
            .shared()
            .disk
            .run(move |_| Ok(unknown.iter().map(|name| shared.lookup(name)).collect::<Vec<_>>()));
        let (mut looked_up, lost) = match looked_up.await {
            Ok(answers) => (answers.into_iter(), StoreError::WorkLost),
            Err(error) => (Vec::new().into_iter(), error),
        };
        let mut next = || looked_up.next().unwrap_or_else(|| Err(lost.again()));
        recent.into_iter().map(|recent| recent.unwrap_or_else(&mut next)).collect()
    }

    async fn settled(
        &self,
        name: ObjectName,
        stat: Stat,
    ) -> Result<Option<PutOutcome>, StoreError> {
        let shared = Arc::clone(self.shared());
        self.shared()
            .disk
            .run(move |_| {
                let entry = shared.lookup(&name)?.filter(|entry| !entry.is_unreadable());
                settled(&name, entry.as_ref().map(|entry| &entry.stat), &stat)
            })
            .await
    }
}

type EntryAnswer = Result<Option<Entry>, StoreError>;

/// Everything that blocks before the volume is open.
fn prepare(
    disk: &Arc<Disk>,
    options: LogStoreOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Arc<Shared>, Ledger, u64, OpenReport), StoreError> {
    let lock = crate::volume::prepare(disk, &volume::spec())?;
    disk.space()?;
    let recovered = recover(disk, &options, progress)?;
    let recovery::Recovered { index, ledger, segments, next_segment, doubt, report } = recovered;
    let metrics = disk.metrics().log();
    let dropped_bytes = report.torn.map_or(0, |torn| torn.bytes);
    metrics.on_open(report.replayed_bytes, dropped_bytes, report.rebuilt_because.is_some());
    metrics.set_doubtful_regions(doubt.regions().len());
    disk.metrics().on_unreadable(report.damaged_count);
    let used = LargeFiles::new(Arc::clone(disk), 0).list_directories()?;
    let first_directory = used.last().map_or(0, |last| last.saturating_add(1));
    // One that was swept may be gone after a power cut, if who made it was
    // killed before its sync: under its number nothing is looked for again.
    let first_directory = first_directory.max(ledger.checkpoint.swept_below);
    let large = Arc::new(LargeFiles::new(Arc::clone(disk), first_directory));
    let segments = Segments::new(Arc::clone(disk), segments);
    let parts = Parts { disk: Arc::clone(disk), options, segments, large, doubt, index, lock };
    let shared = Arc::new(Shared::new(parts));
    Ok((shared, ledger, next_segment, report))
}

/// Starts the thread that decides what is written, and the one that waits for
/// the disk.
fn start_threads(
    runtime: &Runtime,
    shared: &Arc<Shared>,
    ledger: Ledger,
    next_segment: u64,
) -> Result<(), StoreError> {
    let path = shared.root();
    let failed = |source| StoreError::Io { action: "start a thread for", path, source };
    let handover = Arc::new(Handover::default());
    let (written, done) = mpsc::channel();
    let syncer = Syncer::new(Arc::clone(shared), Arc::clone(&handover));
    let writer = Writer::new(Arc::clone(shared), ledger, next_segment, Way::new(handover, done));
    let started = runtime
        .thread("holdfast-sync", move || syncer.run(written))
        .and_then(|()| runtime.thread("holdfast-log", move || writer.run()));
    started.map_err(failed)
}

impl fmt::Debug for LogStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStore").field("root", &self.shared().disk.root()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for LogStore {
    async fn stage(&self, size_bytes: Option<u64>) -> Result<Box<dyn Staging>, StoreError> {
        let disk = &self.shared().disk;
        disk.writable()?;
        let size_bytes = size_bytes.unwrap_or(0);
        if !disk.had_room(size_bytes) {
            disk.run(move |disk| disk.check_room(size_bytes)).await?;
        }
        Ok(Box::new(LogStaging::new(self.shared())))
    }

    async fn commit(
        &self,
        name: ObjectName,
        stamp: Stamp,
        staged: Box<dyn Staged>,
    ) -> Result<PutOutcome, StoreError> {
        let foreign = || StoreError::foreign_staged(self.shared().root());
        let stat = object(stamp, staged.size_bytes(), staged.digest());
        let staged = staged.into_any().downcast::<LogStaged>().map_err(|_| foreign())?;
        let LogStaged { shared, payload } = *staged;
        if !Arc::ptr_eq(&shared, self.shared()) {
            return Err(foreign());
        }
        let started = self.now();
        let outcome = self.commit_payload(name, stat, payload).await;
        self.measured(Operation::Put, started);
        outcome
    }

    async fn put(
        &self,
        name: ObjectName,
        stamp: Stamp,
        payload: Bytes,
    ) -> Result<PutOutcome, StoreError> {
        let limit = u64::from(self.shared().options.inline_limit_bytes);
        if payload.len() as u64 > limit {
            let mut staging = self.stage(Some(payload.len() as u64)).await?;
            staging.write(payload).await?;
            let staged = staging.finish().await?;
            return self.commit(name, stamp, staged).await;
        }
        let started = self.now();
        let size_bytes = payload.len() as u64;
        let payload = StagedPayload::inline(payload);
        let digest = match &payload {
            StagedPayload::Inline { digest, .. } => *digest,
            StagedPayload::Large(large) => large.digest(),
        };
        let outcome = self.commit_payload(name, object(stamp, size_bytes, digest), payload).await;
        self.measured(Operation::Put, started);
        outcome
    }

    async fn delete(&self, name: ObjectName, stamp: Stamp) -> Result<PutOutcome, StoreError> {
        let started = self.now();
        let outcome = self.write(name, tombstone(stamp), Body::Nothing).await;
        self.measured(Operation::Delete, started);
        outcome
    }

    async fn forget(&self, name: &ObjectName, version: Version) -> Result<bool, StoreError> {
        let name = name.clone();
        self.ask(|answer| Job::Forget { name, version, answer }).await
    }

    async fn stat(&self, names: &[ObjectName]) -> Vec<Result<Option<Stat>, StoreError>> {
        let started = self.now();
        let entries = self.entries_of(names).await.into_iter();
        let answers = entries.map(|entry| Ok(entry?.map(|entry| entry.stat))).collect();
        self.measured(Operation::Stat, started);
        answers
    }

    async fn inspect(&self, names: &[ObjectName]) -> Vec<Result<Option<Held>, StoreError>> {
        let held = |entry: Entry| Held { is_damaged: entry.is_unreadable(), stat: entry.stat };
        let entries = self.entries_of(names).await.into_iter();
        entries.map(|entry| Ok(entry?.map(held))).collect()
    }

    async fn read(
        &self,
        name: &ObjectName,
        version: Option<Version>,
        range: Option<Range<u64>>,
    ) -> Result<Payload, StoreError> {
        let started = self.now();
        let payload = read::read(self.shared(), name, version, range).await;
        self.measured(Operation::Read, started);
        payload
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, StoreError> {
        let started = self.now();
        let (shared, request) = (Arc::clone(self.shared()), request.clone());
        let page = self.shared().disk.run(move |_| list::page(&shared, &request)).await;
        self.measured(Operation::List, started);
        page
    }

    async fn walk(&self, after: Option<&ObjectName>, limit: usize) -> Result<WalkPage, StoreError> {
        let (shared, after) = (Arc::clone(self.shared()), after.cloned());
        self.shared().disk.run(move |_| walk::page(&shared, after.as_ref(), limit)).await
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let space = self.shared().disk.run(|disk| disk.space()).await?;
        let counts = self.shared().books().counts;
        Ok(Usage {
            space,
            object_count: counts.object_count,
            tombstone_count: counts.tombstone_count,
            live_bytes: counts.live_bytes,
        })
    }

    fn poisoned(&self) -> Option<String> {
        self.shared().disk.poisoned().map(str::to_owned)
    }

    async fn close(&self) {
        self.open.compaction.abort();
        let shared = Arc::clone(self.shared());
        let closed = self.shared().disk.run(move |_| {
            shared.close();
            Ok(())
        });
        drop(closed.await);
    }
}
