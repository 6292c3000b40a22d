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
use tokio::sync::oneshot;
use tracing::info;

/// Payloads that may wait at once: an engine may hold up to 1 MiB of each in
/// memory, and each waits only for a locate.
const MAX_STAGED: usize = 256;

struct Waiting {
    staged: Box<dyn Staged>,
    since: Duration,
}

/// The payloads of this run. Cheap to clone.
#[derive(Clone)]
pub struct StagingTable {
    runtime: Runtime,
    waiting: Arc<Mutex<BTreeMap<StagingId, Waiting>>>,
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
        Self { runtime, waiting: Arc::default(), gauge }
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
            waiting.insert(staging, Waiting { staged, since });
            Some(Received { staging, size_bytes, digest })
        })
    }

    /// Reads a payload that waits, to pass it on, and with each piece has it wait
    /// anew; `None` when it is not there. Until this has answered, it cannot be taken
    /// out. Dropping the future leaves it where it is.
    ///
    /// # Errors
    /// As [`Staged::read`]; then it is not there any more.
    pub async fn read(&self, staging: StagingId) -> Result<Option<(u64, ByteStream)>, StoreError> {
        let Some(mut staged) = self.take(staging) else { return Ok(None) };
        let (done, read) = oneshot::channel();
        let table = self.clone();
        self.runtime.spawn("read-staged", async move {
            let size_bytes = staged.size_bytes();
            let bytes = staged.read().await;
            if bytes.is_ok() {
                let since = table.runtime.now();
                table.with(|waiting| waiting.insert(staging, Waiting { staged, since }));
            }
            // Who asked may have gone.
            let _ = done.send(bytes.map(|bytes| (size_bytes, bytes)));
        });
        let (size_bytes, bytes) = read.await.unwrap_or(Err(StoreError::WorkLost))?;
        let table = self.clone();
        let bytes = bytes.inspect(move |_| {
            // It may have been committed by now.
            let _ = table.keep(staging);
        });
        Ok(Some((size_bytes, bytes.boxed())))
    }

    /// Has a payload wait anew; false when it is not there.
    pub fn keep(&self, staging: StagingId) -> bool {
        let now = self.runtime.now();
        self.with(|waiting| {
            let kept = waiting.get_mut(&staging).map(|waiting| waiting.since = now);
            kept.is_some()
        })
    }

    /// Takes a payload out, to commit it or to drop it.
    #[must_use]
    pub fn take(&self, staging: StagingId) -> Option<Box<dyn Staged>> {
        self.with(|waiting| waiting.remove(&staging)).map(|waiting| waiting.staged)
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
