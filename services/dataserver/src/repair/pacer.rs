//! How much repair does at once, and how fast.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_core::membership::Moment;
use holdfast_runtime::Runtime;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Copies under way at once while clients are quiet.
const MOST_COPIES: u32 = 8;

/// What a copy takes of [`MOST_COPIES`] while they are not: one is always under
/// way, whatever clients do.
const BUSY_SHARE: u32 = MOST_COPIES / 2;

/// How busy others keep this data server. Clones share the count.
#[derive(Debug, Clone, Default)]
pub struct Activity {
    requests: Arc<AtomicUsize>,
    /// Copies that repair has others make: most are read from here.
    copies: Arc<AtomicUsize>,
}

/// Something that is under way until this is dropped.
#[derive(Debug)]
pub struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Activity {
    /// Nothing is under way.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A request for bytes of objects begins.
    #[must_use]
    pub fn on_request(&self) -> UnderWay {
        UnderWay::new(&self.requests)
    }

    fn on_copy(&self) -> UnderWay {
        UnderWay::new(&self.copies)
    }

    /// Whether there are requests beside those that repair itself brings about.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > self.copies.load(Ordering::Relaxed)
    }
}

/// Lets copies begin. Clones share what is left.
#[derive(Debug, Clone)]
pub struct Pacer {
    runtime: Runtime,
    rate_bytes: u64,
    activity: Activity,
    copies: Arc<Semaphore>,
    /// When what was let through so far is paid for.
    paid: Arc<Mutex<Moment>>,
}

/// A copy that may be made while this is held.
#[derive(Debug)]
pub struct Turn<'a> {
    _permit: Option<SemaphorePermit<'a>>,
    _under_way: UnderWay,
}

impl Pacer {
    /// Lets `rate_bytes` through in a second.
    #[must_use]
    pub fn new(runtime: Runtime, rate_bytes: u64, activity: Activity) -> Self {
        let copies = Arc::new(Semaphore::new(MOST_COPIES as usize));
        let paid = Arc::new(Mutex::new(runtime.now()));
        Self { runtime, rate_bytes: rate_bytes.max(1), activity, copies, paid }
    }

    /// Waits until a copy of this size may begin. Cancel safe.
    pub async fn turn(&self, size_bytes: u64) -> Turn<'_> {
        let share = if self.activity.is_busy() { BUSY_SHARE } else { 1 };
        // It is never closed.
        let permit = self.copies.acquire_many(share).await.ok();
        let pause = self.pay(size_bytes, self.runtime.now());
        if !pause.is_zero() {
            self.runtime.sleep(pause).await;
        }
        Turn { _permit: permit, _under_way: self.activity.on_copy() }
    }

    /// Takes the bytes from the account; gives how long to wait for them. What
    /// is not used is lost, so that quiet hours are not followed by a burst.
    fn pay(&self, size_bytes: u64, now: Moment) -> Duration {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let start = (*paid).max(now);
        *paid = start + Duration::from_secs_f64(size_bytes as f64 / self.rate_bytes as f64);
        start.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_copy_is_paid_for_by_those_behind_it() {
        let pacer = Pacer::new(Runtime::real(), 1_000, Activity::new());
        let now = pacer.runtime.now() + Duration::from_secs(1);
        assert_eq!(pacer.pay(500, now), Duration::ZERO);
        assert_eq!(pacer.pay(2_000, now), Duration::from_millis(500));
        assert_eq!(pacer.pay(1, now), Duration::from_millis(2_500));
        let later = now + Duration::from_secs(60);
        assert_eq!(pacer.pay(1_000, later), Duration::ZERO);
        assert_eq!(pacer.pay(1, later), Duration::from_secs(1));
    }

    #[tokio::test]
    async fn clients_take_precedence_and_do_not_stop_repair() {
        let activity = Activity::new();
        let pacer = Pacer::new(Runtime::real(), u64::MAX, activity.clone());
        let own = pacer.turn(1).await;
        let _read_for_it = activity.on_request();
        assert!(!activity.is_busy());
        drop(own);
        let _clients = [activity.on_request(), activity.on_request(), activity.on_request()];
        let one = pacer.turn(1).await;
        let _two = pacer.turn(1).await;
        let third = pacer.runtime.timeout(Duration::from_millis(20), pacer.turn(1)).await;
        assert!(third.is_err(), "two at once are enough");
        drop(one);
        pacer.turn(1).await;
    }
}
