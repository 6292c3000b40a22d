//! Clock, randomness and tasks of the operating system.

#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "this is the seam itself")]

use std::io;
use std::time::{Duration, SystemTime};

use crate::{BoxFuture, Clock, Entropy, Spawner, Task};

/// An arbitrary `Instant`, for libraries that count in them: only differences
/// to it mean anything, and those must come from [`crate::Runtime::now`].
#[must_use]
pub fn instant_origin() -> std::time::Instant {
    std::time::Instant::now()
}

#[derive(Debug)]
pub(crate) struct RealClock;

impl Clock for RealClock {
    /// CLOCK_BOOTTIME: unlike CLOCK_MONOTONIC it counts a suspended machine, so
    /// a sleeper does not take old news for fresh.
    fn now(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    fn unix_millis(&self) -> u64 {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since_1970.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

#[derive(Debug)]
pub(crate) struct RealEntropy;

impl Entropy for RealEntropy {
    fn random_u64(&self) -> u64 {
        getrandom::u64().expect("Linux always has getrandom(2)")
    }
}

#[derive(Debug)]
pub(crate) struct TokioSpawner;

impl Spawner for TokioSpawner {
    fn spawn(&self, _name: &'static str, future: BoxFuture<'static, ()>) -> Task {
        let (done, finished) = tokio::sync::watch::channel(false);
        let handle = tokio::spawn(async move {
            // Told by dropping too, when the task is aborted or panics.
            let done = done;
            future.await;
            let _ = done.send(true);
        });
        Task::new(move || handle.abort(), finished)
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) {
        tokio::task::spawn_blocking(work);
    }

    fn thread(&self, name: &'static str, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        let tokio = tokio::runtime::Handle::try_current().ok();
        let work = move || {
            // So that what the work drops can be tidied up by tasks.
            let _entered = tokio.as_ref().map(tokio::runtime::Handle::enter);
            work();
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(work).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Runtime, WorkLost};

    #[tokio::test]
    async fn a_timeout_ends_a_wait_and_leaves_a_result_alone() {
        let runtime = Runtime::real();
        let limit = Duration::from_millis(1);
        assert!(runtime.timeout(limit, std::future::pending::<()>()).await.is_err());
        assert_eq!(runtime.timeout(limit, std::future::ready(5)).await, Ok(5));
        assert!(runtime.now() > Duration::ZERO);
    }

    #[tokio::test]
    async fn the_end_of_a_task_is_seen_whichever_way_it_ends() {
        let runtime = Runtime::real();
        let mut ends = runtime.spawn("ends", async {});
        ends.finished().await;
        let mut aborted = runtime.spawn("aborted", std::future::pending());
        aborted.abort();
        aborted.finished().await;
    }

    #[tokio::test]
    async fn blocking_work_returns_its_value_or_is_reported_lost() {
        let runtime = Runtime::real();
        assert_eq!(runtime.blocking(|| 7).await, Ok(7));
        let lost = runtime.blocking(|| assert!(std::hint::black_box(false), "on purpose")).await;
        assert_eq!(lost, Err(WorkLost));
    }
}
