//! What repair and scrub count.

use std::time::Duration;

use holdfast_telemetry::metrics::Metrics;
use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::lap::{COPIES, Redundancy};

/// What repair does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Has another member, or itself, take a copy.
    Copy,
    /// Forgets a version that a newer one has replaced elsewhere.
    Forget,
    /// Drops a copy that belongs elsewhere.
    Drop,
    /// Has all members forget a tombstone.
    Collect,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Copy, Self::Forget, Self::Drop, Self::Collect];

    fn label(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Forget => "forget",
            Self::Drop => "drop",
            Self::Collect => "collect",
        }
    }
}

/// From a second to a day.
const LAP_SECONDS: [f64; 8] = [1.0, 10.0, 60.0, 600.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0];

/// Counts of repair and scrub. Clones share the counts.
#[derive(Clone, Debug)]
pub struct RepairMetrics {
    objects_by_copies: IntGaugeVec,
    under_replicated: IntGauge,
    backlog: IntGauge,
    works: IntCounterVec,
    pub(super) bytes: IntCounter,
    pub(crate) hints_dropped: IntCounter,
    lap_seconds: Histogram,
    last_lap: Gauge,
    pub(crate) scrubbed_objects: IntCounterVec,
    pub(crate) scrubbed_bytes: IntCounter,
    pub(crate) last_scrub: Gauge,
    pub(crate) scrub_interval: Gauge,
}

impl RepairMetrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let made = Self {
            objects_by_copies: metrics.int_gauges(
                "holdfast_objects_by_copies",
                "Objects that this data server sees to, by their copies in the last pass; unknown while the pass under way has not looked at them since something happened that may have cost them copies.",
                &["copies"],
            )?,
            under_replicated: metrics.int_gauge(
                "holdfast_under_replicated_objects",
                "Objects and tombstones that this data server sees to and that had too few copies in the last pass.",
            )?,
            backlog: metrics.int_gauge(
                "holdfast_repair_backlog",
                "Names that the repair pass under way has not looked at yet.",
            )?,
            works: metrics.counters(
                "holdfast_repairs_total",
                "What repair did, by kind and result.",
                &["kind", "result"],
            )?,
            bytes: metrics.counter(
                "holdfast_repair_bytes_total",
                "Payload bytes that were copied because this data server asked for it.",
            )?,
            hints_dropped: metrics.counter(
                "holdfast_repair_hints_dropped_total",
                "Names that were to be looked at soon and for which there was no room.",
            )?,
            lap_seconds: metrics.histogram(
                "holdfast_repair_pass_duration_seconds",
                "How long full repair passes took.",
                &LAP_SECONDS,
            )?,
            last_lap: metrics.gauge(
                "holdfast_repair_last_pass_timestamp_seconds",
                "When the last full repair pass ended, 0 before the first.",
            )?,
            scrubbed_objects: metrics.counters(
                "holdfast_scrub_objects_total",
                "Objects that the scrub has read, by result.",
                &["result"],
            )?,
            scrubbed_bytes: metrics.counter(
                "holdfast_scrub_bytes_total",
                "Payload bytes that the scrub has read.",
            )?,
            last_scrub: metrics.gauge(
                "holdfast_scrub_last_timestamp_seconds",
                "When the last full scrub ended, 0 before the first.",
            )?,
            scrub_interval: metrics.gauge(
                "holdfast_scrub_interval_seconds",
                "How long reading everything once may take, 0 for never.",
            )?,
        };
        made.set_redundancy(&Redundancy::default());
        for (kind, result) in Kind::ALL.iter().flat_map(|kind| [(kind, "ok"), (kind, "failed")]) {
            made.works.with_label_values(&[kind.label(), result]);
        }
        for result in ["ok", "damaged", "failed"] {
            made.scrubbed_objects.with_label_values(&[result]);
        }
        Ok(made)
    }

    pub(super) fn on_work(&self, kind: Kind, is_ok: bool) {
        let result = if is_ok { "ok" } else { "failed" };
        self.works.with_label_values(&[kind.label(), result]).inc();
    }

    pub(super) fn set_backlog(&self, backlog: u64) {
        self.backlog.set(i64::try_from(backlog).unwrap_or(i64::MAX));
    }

    pub(super) fn set_redundancy(&self, told: &Redundancy) {
        let set =
            |gauge: &IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        for (copies, count) in COPIES.iter().zip(told.by_copies) {
            set(&self.objects_by_copies.with_label_values(&[*copies]), count);
        }
        set(&self.objects_by_copies.with_label_values(&["unknown"]), told.unknown);
        set(&self.under_replicated, told.under_replicated);
    }

    pub(super) fn on_lap(&self, took: Duration, unix_seconds: f64) {
        self.lap_seconds.observe(took.as_secs_f64());
        self.last_lap.set(unix_seconds);
    }
}
