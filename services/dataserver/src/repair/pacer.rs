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

/// Large copies under way at once, beside the others, while clients are quiet;
/// while they are not, one. They have turns of their own, or they would hold all
/// of them for hours.
pub const MOST_LARGE: u32 = 2;

/// What a large copy takes from the account at once: what others wait for it. At
/// the least rate that can be set, a second.
const SLICE_BYTES: u64 = 1 << 20;

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
    large: Arc<Semaphore>,
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
        let large = Arc::new(Semaphore::new(MOST_LARGE as usize));
        let paid = Arc::new(Mutex::new(runtime.now()));
        Self { runtime, rate_bytes: rate_bytes.max(1), activity, copies, large, paid }
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

    /// Waits until a large copy may begin. It is paid for when it has been made,
    /// by [`Self::pay_in_slices`], while this is held. Cancel safe.
    pub async fn large_turn(&self) -> Option<SemaphorePermit<'_>> {
        let share = if self.activity.is_busy() { MOST_LARGE } else { 1 };
        // It is never closed.
        self.large.acquire_many(share).await.ok()
    }

    /// A large copy is under way until what this gives is dropped.
    #[must_use]
    pub fn on_large_copy(&self) -> UnderWay {
        self.activity.on_copy()
    }

    /// Pays for what a large copy has moved, a little at a time, so that others
    /// get their share of the rate meanwhile. Cancel safe.
    pub async fn pay_in_slices(&self, size_bytes: u64) {
        let mut left = size_bytes;
        while left > 0 {
            let slice = left.min(SLICE_BYTES);
            left -= slice;
            let pause = self.pay(slice, self.runtime.now());
            self.runtime.sleep(pause + self.time_for(slice)).await;
        }
    }

    fn time_for(&self, size_bytes: u64) -> Duration {
        Duration::from_secs_f64(size_bytes as f64 / self.rate_bytes as f64)
    }

    /// Takes the bytes from the account; gives how long to wait for them. What
    /// is not used is lost, so that quiet hours are not followed by a burst.
    fn pay(&self, size_bytes: u64, now: Moment) -> Duration {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let start = (*paid).max(now);
        *paid = start + self.time_for(size_bytes);
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
    async fn a_large_copy_leaves_turns_and_a_share_of_the_rate_to_others() {
        let pacer = Pacer::new(Runtime::real(), 64 * SLICE_BYTES, Activity::new());
        let began = pacer.runtime.now();
        let _one = pacer.large_turn().await;
        let _two = pacer.large_turn().await;
        let third = pacer.runtime.timeout(Duration::from_millis(20), pacer.large_turn()).await;
        assert!(third.is_err(), "two at once are enough");
        // A second's worth of the account, and another copy after a tenth of it.
        let large = pacer.pay_in_slices(64 * SLICE_BYTES);
        let small = async {
            pacer.runtime.sleep(Duration::from_millis(100)).await;
            drop(pacer.turn(1).await);
            pacer.runtime.now() - began
        };
        let ((), waited) = tokio::join!(large, small);
        let took = pacer.runtime.now() - began;
        assert!(took >= Duration::from_secs(1), "it was paid for in {took:?}");
        assert!(waited * 2 < took, "the other one waited for {waited:?} of {took:?}");
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
