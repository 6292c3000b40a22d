//! Writers that store objects one after another, and how long it took them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_store::{PutOutcome, Store};

use crate::common::names::Objects;
use crate::table::Sample;

/// Where objects are written to.
pub(crate) trait Target: Send + Sync + 'static {
    /// Returns once the object is durable.
    fn put(&self, number: u64, payload: Bytes) -> impl Future<Output = ()> + Send;
}

/// An engine.
pub(crate) struct StoreTarget {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) objects: Objects,
}

impl Target for StoreTarget {
    async fn put(&self, number: u64, payload: Bytes) {
        let (name, stamp) = (self.objects.name(number), self.objects.stamp(number));
        let outcome = self.store.put(name, stamp, payload).await.expect("the disk works");
        assert_eq!(outcome, PutOutcome::Stored, "the name is new");
    }
}

/// How much is written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Extent {
    /// As much as goes into this time.
    Window(Duration),
    /// All numbers below this.
    Until(u64),
}

/// The objects of one target, in the order of their numbers.
pub(crate) struct Load<T> {
    pub(crate) target: T,
    objects: Objects,
    next: AtomicU64,
}

impl<T: Target> Load<T> {
    pub(crate) fn new(target: T, objects: Objects) -> Arc<Self> {
        Arc::new(Self { target, objects, next: AtomicU64::new(0) })
    }

    /// Lets `writers` tasks write, each one object at a time; gives objects a
    /// second and the median latency.
    pub(crate) async fn run(
        self: &Arc<Self>,
        writers: usize,
        size_bytes: usize,
        extent: Extent,
    ) -> Sample {
        let began = Instant::now();
        let writers: Vec<_> = (0..writers)
            .map(|_| tokio::spawn(Arc::clone(self).write(size_bytes, extent, began)))
            .collect();
        let mut times = Vec::new();
        for writer in writers {
            times.extend(writer.await.expect("a writer panicked"));
        }
        let rate = times.len() as f64 / began.elapsed().as_secs_f64();
        Sample { value: rate, p50: Some(median(times)) }
    }

    async fn write(self: Arc<Self>, size_bytes: usize, extent: Extent, began: Instant) -> Vec<f64> {
        let mut times = Vec::new();
        while !matches!(extent, Extent::Window(window) if began.elapsed() >= window) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if matches!(extent, Extent::Until(count) if number >= count) {
                break;
            }
            let payload = self.objects.payload(number, size_bytes);
            let asked = Instant::now();
            self.target.put(number, payload).await;
            times.push(asked.elapsed().as_secs_f64());
        }
        times
    }
}

/// The median; the upper one of two. 0 of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    let middle = values.len() / 2;
    if values.is_empty() {
        return 0.0;
    }
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}
