//! Hyper's tasks and timers, by way of the runtime's seam.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use holdfast_runtime::{BoxFuture, Runtime};
use hyper::rt::{Executor, Sleep, Timer};

/// Runs hyper's tasks and timers on a [`Runtime`].
#[derive(Debug, Clone)]
pub(crate) struct HyperRuntime {
    runtime: Runtime,
    /// Hyper counts in `Instant`s, of which only differences matter: this one
    /// stands for the runtime's time `anchored_at`.
    anchor: Instant,
    anchored_at: Duration,
}

impl HyperRuntime {
    pub(crate) fn new(runtime: &Runtime) -> Self {
        let anchor = holdfast_runtime::instant_origin();
        Self { runtime: runtime.clone(), anchor, anchored_at: runtime.now() }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for HyperRuntime {
    fn execute(&self, future: F) {
        self.runtime.spawn("hyper", future);
    }
}

impl Timer for HyperRuntime {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(Sleeping(SyncFuture::new(self.runtime.sleep(duration))))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(deadline.saturating_duration_since(self.now()))
    }

    fn now(&self) -> Instant {
        self.anchor + self.runtime.now().saturating_sub(self.anchored_at)
    }
}

struct Sleeping(SyncFuture);

impl Future for Sleeping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll(cx)
    }
}

impl Sleep for Sleeping {}

/// A future that may be shared, because it is polled through `&mut` alone: the
/// lock is never taken.
pub(crate) struct SyncFuture(Mutex<BoxFuture<'static, ()>>);

impl SyncFuture {
    pub(crate) fn new(future: BoxFuture<'static, ()>) -> Self {
        Self(Mutex::new(future))
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let future = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        future.as_mut().poll(cx)
    }
}
