//! What waits for the writer thread: clients' writes in one lane, housekeeping
//! in the other, so that a flood of the first never starves the second.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use holdfast_core::name::ObjectName;
use holdfast_core::object::Stat;
use holdfast_core::version::Version;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::index::{FileId, Place};
use super::large::DurableFile;
use super::pressure::DiskRoom;
use super::record::Head;
use super::shared::Survey;
use crate::{PutOutcome, StoreError};

/// Most records of one batch, but for its last job.
pub(super) const MAX_BATCH_RECORDS: usize = 1024;

/// Most bytes of one batch, but for its last job.
pub(super) const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Writes that may wait: four batches.
const MAX_WAITING: usize = 4 * MAX_BATCH_RECORDS;

/// Bytes that may wait, in units of [`PERMIT_BYTES`]: four batches.
const MAX_WAITING_PERMITS: usize = 4 * MAX_BATCH_BYTES / PERMIT_BYTES;

const PERMIT_BYTES: usize = 1024;

/// Rough cost in the log of a record beside its payload.
const RECORD_OVERHEAD_BYTES: usize = 256;

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// The payload of a write.
#[derive(Debug)]
pub(super) enum Body {
    /// A tombstone has none.
    Nothing,
    /// It goes into the log.
    Inline {
        /// All of it.
        bytes: Bytes,
        /// Its CRC32C.
        crc: u32,
    },
    /// It is durable in a file of its own, but for the file's name.
    File(DurableFile),
}

impl Body {
    fn log_bytes(&self) -> usize {
        match self {
            Self::Inline { bytes, .. } => bytes.len(),
            Self::Nothing | Self::File(_) => 0,
        }
    }
}

/// A record on its way to another segment.
#[derive(Debug)]
pub(super) struct Moving {
    pub(super) from: Place,
    pub(super) head: Head,
    pub(super) payload: Bytes,
}

/// What the writer is asked to do.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are of the large one")]
pub(super) enum Job {
    /// Write a version, if it is newer than what is there.
    Put {
        name: ObjectName,
        stat: Stat,
        /// As the record has it.
        metadata: Vec<u8>,
        body: Body,
        answer: Answer<PutOutcome>,
    },
    /// Forget exactly this version.
    Forget { name: ObjectName, version: Version, answer: Answer<bool> },
    /// Write records again, unless they are of no more use.
    Move { records: Vec<Moving>, answer: Answer<()> },
    /// Say in the log that a segment holds nothing that is in use.
    Remove { segment: u64, answer: Answer<()> },
    /// The file of a segment is gone.
    Removed { segment: u64, answer: Answer<()> },
    /// The payload of this version was found damaged.
    Damaged { name: ObjectName, version: Version },
    /// Payload files that nobody pointed to are gone.
    FilesRemoved { files: Vec<FileId>, answer: Answer<()> },
    /// Directories of payload files below this number were swept.
    Swept { below: u64 },
    /// Which segment should be compacted, but for `stuck`? `room` when it is not
    /// the disk that says whether to hurry.
    Survey { stuck: BTreeSet<u64>, room: Option<DiskRoom>, answer: Answer<Survey> },
    /// Compaction met an error and pauses: nobody may wait for it.
    GaveUp,
    /// Say in the log that everything before was synced.
    Seal,
}

impl Job {
    /// Whether it is a client's write and not housekeeping.
    pub(super) fn is_clients(&self) -> bool {
        matches!(self, Self::Put { .. } | Self::Forget { .. })
    }

    /// About how many bytes it adds to the log.
    pub(super) fn log_bytes(&self) -> usize {
        let named = |name: &ObjectName| name.key.as_str().len() + RECORD_OVERHEAD_BYTES;
        match self {
            Self::Put { name, metadata, body, .. } => {
                named(name) + metadata.len() + body.log_bytes()
            }
            Self::Forget { name, .. } => named(name),
            Self::Move { records, .. } => records.iter().map(Moving::log_bytes).sum(),
            Self::Remove { .. } | Self::Seal => RECORD_OVERHEAD_BYTES,
            Self::Removed { .. }
            | Self::Damaged { .. }
            | Self::FilesRemoved { .. }
            | Self::Swept { .. }
            | Self::GaveUp
            | Self::Survey { .. } => 0,
        }
    }

    /// It was not done, and nothing was changed. Whoever stopped waiting is not
    /// missed.
    pub(super) fn fail(self, error: &StoreError) {
        match self {
            Self::Put { answer, .. } => drop(answer.send(Err(error.again()))),
            Self::Forget { answer, .. } => drop(answer.send(Err(error.again()))),
            Self::Survey { answer, .. } => drop(answer.send(Err(error.again()))),
            Self::Move { answer, .. }
            | Self::Remove { answer, .. }
            | Self::Removed { answer, .. }
            | Self::FilesRemoved { answer, .. } => drop(answer.send(Err(error.again()))),
            Self::Damaged { .. } | Self::Swept { .. } | Self::GaveUp | Self::Seal => {}
        }
    }

    fn records(&self) -> usize {
        match self {
            Self::Move { records, .. } => records.len(),
            _ => 1,
        }
    }
}

impl Moving {
    fn log_bytes(&self) -> usize {
        self.head.header.head_bytes() + self.payload.len() + RECORD_OVERHEAD_BYTES
    }
}

/// A client's write may not wait for ever behind garbage, nor go on without
/// limit: how much of it one batch may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowance {
    /// As much as fits.
    Unlimited,
    /// About so many bytes, and none at all when it is 0.
    Bytes(usize),
}

impl Allowance {
    fn limit(self) -> usize {
        match self {
            Self::Unlimited => MAX_BATCH_BYTES,
            Self::Bytes(bytes) => bytes.min(MAX_BATCH_BYTES),
        }
    }
}

/// How much the planned batch has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

impl Left {
    pub(super) fn is_nothing(self) -> bool {
        self.records == 0 || self.bytes == 0
    }
}

/// What the writer does next.
#[derive(Debug)]
pub(super) enum Event {
    /// At least one job.
    Jobs(Vec<Job>),
    /// The disk is done with a batch, or has taken a full one.
    Synced,
    /// The queue is closed and empty.
    Closed,
}

/// The two lanes. Cancel safe: a job that was pushed will be done.
#[derive(Debug)]
pub(super) struct Queue {
    lanes: Mutex<Lanes>,
    ready: Condvar,
    slots: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    max_batch_bytes: usize,
}

#[derive(Debug, Default)]
struct Lanes {
    clients: VecDeque<Waiting>,
    housekeeping: VecDeque<Job>,
    is_closed: bool,
    is_synced: bool,
    /// Whether the writer waits and nobody has woken it. To wake it is a call to
    /// the kernel, whether it waits or not: too much for each write.
    is_waiting: bool,
}

#[derive(Debug)]
struct Waiting {
    job: Job,
    _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Queue {
    pub(super) fn new(max_batch_bytes: usize) -> Self {
        Self {
            lanes: Mutex::default(),
            ready: Condvar::new(),
            slots: Arc::new(Semaphore::new(MAX_WAITING)),
            bytes: Arc::new(Semaphore::new(MAX_WAITING_PERMITS)),
            max_batch_bytes: max_batch_bytes.min(MAX_BATCH_BYTES),
        }
    }

    /// Appends a client's write once there is room for it; the job comes back
    /// when the queue is closed. Cancel safe: dropped while it waits for room,
    /// nothing is appended.
    pub(super) async fn push(&self, job: Job) -> Result<(), Job> {
        let permits = (job.log_bytes() / PERMIT_BYTES).clamp(1, MAX_WAITING_PERMITS);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(permits).await;
        let (Ok(slot), Ok(bytes)) = (slot, bytes) else { return Err(job) };
        let mut lanes = self.lanes();
        if lanes.is_closed {
            return Err(job);
        }
        lanes.clients.push_back(Waiting { job, _permits: (slot, bytes) });
        self.wake(lanes);
        Ok(())
    }

    /// Appends housekeeping, whose callers bound it themselves: `false` when
    /// the queue is closed.
    pub(super) fn push_housekeeping(&self, job: Job) -> bool {
        let mut lanes = self.lanes();
        if lanes.is_closed {
            return false;
        }
        lanes.housekeeping.push_back(job);
        self.wake(lanes);
        true
    }

    /// Nothing more is accepted; what waits will still be done.
    pub(super) fn close(&self) {
        self.lanes().is_closed = true;
        self.slots.close();
        self.bytes.close();
        self.ready.notify_all();
    }

    /// As [`Self::close`], and what waits is dropped unanswered.
    pub(super) fn abandon(&self) {
        self.close();
        let mut lanes = self.lanes();
        lanes.clients.clear();
        lanes.housekeeping.clear();
    }

    /// Client writes that wait.
    pub(super) fn depth(&self) -> usize {
        self.lanes().clients.len()
    }

    /// Most bytes of one batch, but for its last job.
    pub(super) fn max_batch_bytes(&self) -> usize {
        self.max_batch_bytes
    }

    /// The disk is done with a batch, or has taken a full one.
    pub(super) fn wake_writer(&self) {
        let mut lanes = self.lanes();
        lanes.is_synced = true;
        self.wake(lanes);
    }

    /// Wakes the writer, if it waits.
    fn wake(&self, mut lanes: MutexGuard<'_, Lanes>) {
        let is_waiting = std::mem::take(&mut lanes.is_waiting);
        drop(lanes);
        if is_waiting {
            self.ready.notify_one();
        }
    }

    /// Waits for the next thing to do: the disk first, then jobs, as many as go
    /// into what is `left` and one that may not: housekeeping, and as much of the
    /// clients' as `allowance` lets through. Blocks.
    pub(super) fn next(&self, allowance: Allowance, left: Left) -> Event {
        let mut lanes = self.lanes();
        loop {
            if std::mem::take(&mut lanes.is_synced) {
                return Event::Synced;
            }
            // Who closes the volume does not wait for garbage.
            let allowance = if lanes.is_closed { Allowance::Unlimited } else { allowance };
            if !left.is_nothing() {
                let jobs = lanes.take(allowance, left);
                if !jobs.is_empty() {
                    return Event::Jobs(jobs);
                }
                if lanes.is_closed {
                    return Event::Closed;
                }
            }
            lanes.is_waiting = true;
            lanes = self.ready.wait(lanes).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        // Each change is complete before anything can panic.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    fn take(&mut self, allowance: Allowance, room: Left) -> Vec<Job> {
        let mut jobs = Vec::new();
        let (mut records, mut bytes) = (0, 0);
        while records < room.records && bytes < room.bytes {
            let Some(job) = self.housekeeping.pop_front() else { break };
            records += job.records();
            bytes += job.log_bytes();
            jobs.push(job);
        }
        let mut left = allowance.limit();
        while records < room.records && bytes < room.bytes && left > 0 {
            let Some(waiting) = self.clients.pop_front() else { break };
            debug_assert!(waiting.job.is_clients());
            records += 1;
            bytes += waiting.job.log_bytes();
            left = left.saturating_sub(waiting.job.log_bytes());
            jobs.push(waiting.job);
        }
        jobs
    }
}
