//! What a data server counts beyond what membership, HTTP and the store count.

use std::sync::Arc;
use std::time::Duration;

use holdfast_runtime::{Runtime, Task};
use holdfast_store::Store;
use holdfast_telemetry::metrics::Metrics;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use tracing::warn;

/// Counts of a data server. Clones share the counts.
#[derive(Clone, Debug)]
pub struct DataServerMetrics {
    pub(crate) heartbeats_sent: IntCounter,
    pub(crate) heartbeat_failures: IntCounter,
    pub(crate) locates_answered: IntCounterVec,
    pub(crate) locates_dropped: IntCounterVec,
    pub(crate) locates_late: IntCounter,
    pub(crate) staged: IntGauge,
    pub(crate) stale_stamps: IntCounter,
    pub(crate) promise_refusals: IntCounter,
    pub(crate) copies_received: IntCounterVec,
    pub(crate) copies_received_bytes: IntCounter,
    promises: IntGauge,
    pins: IntGauge,
    storage_bytes: IntGaugeVec,
    objects: IntGaugeVec,
}

/// Every label value shows from the start, as 0.
fn labelled<const N: usize>(counters: IntCounterVec, values: [&str; N]) -> IntCounterVec {
    for value in values {
        counters.with_label_values(&[value]);
    }
    counters
}

impl DataServerMetrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        Ok(Self {
            heartbeats_sent: metrics
                .counter("holdfast_heartbeats_sent_total", "Heartbeats that were sent.")?,
            heartbeat_failures: metrics.counter(
                "holdfast_heartbeats_send_failures_total",
                "Heartbeats that the broker did not take.",
            )?,
            locates_answered: labelled(
                metrics.counters(
                    "holdfast_locates_answered_total",
                    "Locate requests that were answered, by kind.",
                    &["kind"],
                )?,
                ["batch", "single", "http"],
            ),
            locates_dropped: labelled(
                metrics.counters(
                    "holdfast_locates_dropped_total",
                    "Locate requests that were not taken, by reason.",
                    &["reason"],
                )?,
                ["body", "protocol", "size"],
            ),
            locates_late: metrics.counter(
                "holdfast_locates_late_total",
                "Locate requests that came too late to be answered, or without a stamp of this run.",
            )?,
            staged: metrics.int_gauge(
                "holdfast_staged_payloads",
                "Payloads that were received and wait for their commit.",
            )?,
            stale_stamps: metrics.counter(
                "holdfast_stale_stamps_total",
                "Writes and copies that built on an answer of another run, or on one that was too old.",
            )?,
            promise_refusals: metrics.counter(
                "holdfast_promise_refusals_total",
                "Writes and copies that were older than what was promised.",
            )?,
            copies_received: labelled(
                metrics.counters(
                    "holdfast_copies_received_total",
                    "Copies that this data server was asked to take from others, by result.",
                    &["result"],
                )?,
                ["stored", "already-stored", "superseded", "refused", "no-source", "failed"],
            ),
            copies_received_bytes: metrics.counter(
                "holdfast_copies_received_bytes_total",
                "Payload bytes of copies that were received from other data servers.",
            )?,
            promises: metrics.int_gauge(
                "holdfast_promises",
                "Names for which nothing older than a promised version is taken.",
            )?,
            pins: metrics.int_gauge(
                "holdfast_pins",
                "Copies that are kept because another data server lets go of its own.",
            )?,
            storage_bytes: metrics.int_gauges(
                "holdfast_storage_bytes",
                "Bytes of the volume's disk, by state: total, free, and live in newest versions.",
                &["state"],
            )?,
            objects: metrics.int_gauges(
                "holdfast_storage_objects",
                "Newest versions in the volume, by kind.",
                &["kind"],
            )?,
        })
    }

    pub(crate) fn set_promises(&self, count: usize) {
        self.promises.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn set_pins(&self, count: usize) {
        self.pins.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Keeps the gauges of the volume up to date until the task is aborted.
    #[must_use]
    pub fn watch_volume(
        &self,
        runtime: &Runtime,
        store: Arc<dyn Store>,
        interval: Duration,
    ) -> Task {
        let (metrics, inner) = (self.clone(), runtime.clone());
        runtime.spawn("volume-gauges", async move {
            loop {
                metrics.set_usage(store.as_ref()).await;
                inner.sleep(interval).await;
            }
        })
    }

    async fn set_usage(&self, store: &dyn Store) {
        let usage = match store.usage().await {
            Ok(usage) => usage,
            Err(error) => {
                warn!(%error, "the volume does not say how full it is");
                return;
            }
        };
        let set = |gauge: &IntGaugeVec, label: &str, value: u64| {
            gauge.with_label_values(&[label]).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.storage_bytes, "total", usage.space.total_bytes);
        set(&self.storage_bytes, "free", usage.space.free_bytes);
        set(&self.storage_bytes, "live", usage.live_bytes);
        set(&self.objects, "object", usage.object_count);
        set(&self.objects, "tombstone", usage.tombstone_count);
    }
}
