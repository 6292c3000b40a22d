//! Payloads that were received and wait for their name and version.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use holdfast_coordinator::settings::STAGING_PATIENCE;
use holdfast_core::wire::transfer::{Received, StagingId};
use holdfast_runtime::{Runtime, Task};
use holdfast_store::{ByteStream, Staged, StoreError};
use prometheus::IntGauge;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, oneshot};
use tracing::info;

use crate::error::InternalError;

/// Payloads that may wait at once: an engine may hold up to 1 MiB of each in
/// memory. Each waits for a locate, or until others have it, too.
const MAX_STAGED: usize = 256;

/// How many may be read at once, with up to 2 MiB of each in memory.
const MAX_READ: usize = 16;

/// Empty once the payload was taken out. Locked while it gets ready to be read.
type Slot = Arc<AsyncMutex<Option<Box<dyn Staged>>>>;

struct Waiting {
    slot: Slot,
    since: Duration,
}

/// The payloads of this run. Cheap to clone.
#[derive(Clone)]
pub struct StagingTable {
    runtime: Runtime,
    waiting: Arc<Mutex<BTreeMap<StagingId, Waiting>>>,
    reads: Arc<Semaphore>,
    gauge: IntGauge,
}

impl std::fmt::Debug for StagingTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StagingTable").finish_non_exhaustive()
    }
}

impl StagingTable {
    /// An empty table that shows its size in `gauge`.
    #[must_use]
    pub fn new(runtime: Runtime, gauge: IntGauge) -> Self {
        let reads = Arc::new(Semaphore::new(MAX_READ));
        Self { runtime, waiting: Arc::default(), reads, gauge }
    }

    /// Whether one more could be kept, before all of it was received.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.with(|waiting| waiting.len() < MAX_STAGED)
    }

    /// Keeps a payload; `None` when too many wait.
    #[must_use]
    pub fn insert(&self, staged: Box<dyn Staged>) -> Option<Received> {
        let staging = StagingId(self.runtime.random_u64());
        let (size_bytes, digest) = (staged.size_bytes(), staged.digest());
        let since = self.runtime.now();
        self.with(|waiting| {
            if waiting.len() >= MAX_STAGED {
                return None;
            }
            let slot = Arc::new(AsyncMutex::new(Some(staged)));
            waiting.insert(staging, Waiting { slot, since });
            Some(Received { staging, size_bytes, digest })
        })
    }

    /// Reads a payload that waits, to pass it on, and with each piece has it wait
    /// anew. Who takes it out meanwhile waits until this has answered. Dropping the
    /// future leaves it where it is.
    ///
    /// # Errors
    /// [`InternalError::Busy`], [`InternalError::NoStaging`], and as
    /// [`Staged::read`]; then it is not there any more.
    pub async fn read(&self, staging: StagingId) -> Result<(u64, ByteStream), InternalError> {
        let permit = Arc::clone(&self.reads).try_acquire_owned();
        let permit = permit.map_err(|_| InternalError::Busy)?;
        let now = self.runtime.now();
        let slot = self.with(|waiting| {
            let waiting = waiting.get_mut(&staging)?;
            waiting.since = now;
            Some(Arc::clone(&waiting.slot))
        });
        let slot = slot.ok_or(InternalError::NoStaging)?;
        let (done, read) = oneshot::channel();
        let table = self.clone();
        // A read that is begun must end.
        self.runtime.spawn("read-staged", async move {
            let bytes = match slot.lock().await.as_mut() {
                Some(staged) => staged.read().await.map(|bytes| Some((staged.size_bytes(), bytes))),
                None => Ok(None),
            };
            if bytes.is_err() {
                table.discard(staging);
            }
            // Who asked may have gone.
            let _ = done.send(bytes);
        });
        let read = read.await.unwrap_or(Err(StoreError::WorkLost))?;
        let (size_bytes, bytes) = read.ok_or(InternalError::NoStaging)?;
        let table = self.clone();
        let bytes = bytes.inspect(move |_| {
            let _reading = &permit;
            // It may have been committed by now.
            let _ = table.keep(staging);
        });
        Ok((size_bytes, bytes.boxed()))
    }

    /// Has a payload wait anew; false when it is not there.
    pub fn keep(&self, staging: StagingId) -> bool {
        let now = self.runtime.now();
        self.with(|waiting| {
            let kept = waiting.get_mut(&staging).map(|waiting| waiting.since = now);
            kept.is_some()
        })
    }

    /// Takes a payload out, to commit it. Dropping the future drops it.
    #[must_use]
    pub async fn take(&self, staging: StagingId) -> Option<Box<dyn Staged>> {
        let slot = self.with(|waiting| waiting.remove(&staging))?.slot;
        slot.lock().await.take()
    }

    /// Drops a payload, if it is there.
    pub fn discard(&self, staging: StagingId) {
        drop(self.with(|waiting| waiting.remove(&staging)));
    }

    /// Drops what nobody came for, until the task is aborted.
    #[must_use]
    pub fn start_sweeper(&self) -> Task {
        let (table, runtime) = (self.clone(), self.runtime.clone());
        self.runtime.spawn("staging-sweeper", async move {
            loop {
                runtime.sleep(STAGING_PATIENCE / 6).await;
                table.sweep(runtime.now());
            }
        })
    }

    fn sweep(&self, now: Duration) {
        let expired: Vec<Waiting> = self.with(|waiting| {
            let old = |waiting: &Waiting| now.saturating_sub(waiting.since) > STAGING_PATIENCE;
            let ids: Vec<StagingId> =
                waiting.iter().filter(|(_, kept)| old(kept)).map(|(id, _)| *id).collect();
            ids.iter().filter_map(|id| waiting.remove(id)).collect()
        });
        if !expired.is_empty() {
            info!(count = expired.len(), "dropped staged payloads that nobody committed");
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<StagingId, Waiting>) -> T) -> T {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut waiting);
        self.gauge.set(i64::try_from(waiting.len()).unwrap_or(i64::MAX));
        result
    }
}
