//! Notices that the other end neither sends nor takes anything.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use holdfast_runtime::Runtime;

use crate::adapter::SyncFuture;

/// Measures how long one wait has lasted.
///
/// Made for hot paths: progress costs nothing, and one timer serves many waits
/// because it is only re-armed when it fires.
pub(crate) struct StallTimer {
    runtime: Runtime,
    limit: Duration,
    since: Option<Duration>,
    sleep: Option<SyncFuture>,
}

impl StallTimer {
    pub(crate) fn new(runtime: &Runtime, limit: Duration) -> Self {
        Self { runtime: runtime.clone(), limit, since: None, sleep: None }
    }

    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Bytes have moved.
    pub(crate) fn progress(&mut self) {
        self.since = None;
    }

    /// Call when nothing moves. Ready once nothing has moved for the limit;
    /// otherwise the task is woken in time to ask again.
    pub(crate) fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = self.runtime.now();
            let waited = now.saturating_sub(*self.since.get_or_insert(now));
            if waited >= self.limit {
                return Poll::Ready(());
            }
            let rest = self.limit.saturating_sub(waited);
            let (sleep, runtime) = (&mut self.sleep, &self.runtime);
            ready!(sleep.get_or_insert_with(|| SyncFuture::new(runtime.sleep(rest))).poll(cx));
            self.sleep = None;
        }
    }
}
