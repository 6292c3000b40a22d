//! What the log engine counts beside what every engine does.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};

use super::DISK_BUCKETS;

/// Records of a batch: from a lonely write to a full batch.
const RECORD_BUCKETS: [f64; 6] = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0];

/// Bytes of a batch: from a tombstone to a full batch.
const BYTE_BUCKETS: [f64; 5] = [1024.0, 16_384.0, 262_144.0, 2_097_152.0, 8_388_608.0];

/// The metrics of a log. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct LogMetrics {
    commits: Histogram,
    commit_records: Histogram,
    commit_bytes: Histogram,
    queue_depth: IntGauge,
    log_bytes: IntGaugeVec,
    index_bytes: IntGauge,
    index_backlog: IntGauge,
    segments: IntGauge,
    pressure: Gauge,
    compacted_segments: IntCounter,
    moved_bytes: IntCounter,
    freed_bytes: IntCounter,
    doubtful_regions: IntGauge,
    dropped_bytes: IntCounter,
    replayed_bytes: IntCounter,
    rebuilds: IntCounter,
    lookups: IntCounterVec,
    recent_lookups: IntCounter,
    index_lookups: IntCounter,
}

/// The books of a log, as they are shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogState {
    /// Bytes of all records.
    pub(crate) log_bytes: u64,
    /// Bytes of those that are in use.
    pub(crate) used_bytes: u64,
    /// Segments there are.
    pub(crate) segment_count: usize,
    /// Thousandths of full pressure.
    pub(crate) pressure: u64,
}

impl LogMetrics {
    pub(super) fn new() -> Self {
        let valid = "constant names and labels are valid";
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            Histogram::with_opts(options).expect(valid)
        };
        let counter = |name: &str, help: &str| IntCounter::new(name, help).expect(valid);
        let gauge = |name: &str, help: &str| IntGauge::new(name, help).expect(valid);
        let log_bytes =
            Opts::new("holdfast_storage_log_bytes", "Bytes of records: in use, and garbage.");
        let lookups = Opts::new(
            "holdfast_storage_lookups_total",
            "Names that were looked up: among those looked up lately, or in the index.",
        );
        let lookups = IntCounterVec::new(lookups, &["source"]).expect(valid);
        let metrics = Self {
            commits: histogram(
                "holdfast_storage_commit_duration_seconds",
                "How long a batch of writes takes from being taken by the disk's thread until it is durable and in the index.",
                &DISK_BUCKETS,
            ),
            commit_records: histogram(
                "holdfast_storage_commit_records",
                "Records that share one sync.",
                &RECORD_BUCKETS,
            ),
            commit_bytes: histogram(
                "holdfast_storage_commit_bytes",
                "Bytes that share one sync.",
                &BYTE_BUCKETS,
            ),
            queue_depth: gauge(
                "holdfast_storage_queue_depth",
                "Writes that wait for the next batch.",
            ),
            log_bytes: IntGaugeVec::new(log_bytes, &["state"]).expect(valid),
            index_bytes: gauge("holdfast_storage_index_bytes", "Bytes of the index on disk."),
            index_backlog: gauge(
                "holdfast_storage_index_backlog_batches",
                "Batches of writes that are durable in the log and that the index cannot take, because the disk is full: writes are refused until it can.",
            ),
            segments: gauge("holdfast_storage_segments", "Segments of the log."),
            pressure: Gauge::new(
                "holdfast_storage_compaction_pressure_ratio",
                "How much garbage holds writes back: 0 not at all, 1 until compaction has caught up.",
            )
            .expect(valid),
            compacted_segments: counter(
                "holdfast_storage_compacted_segments_total",
                "Segments that compaction removed.",
            ),
            moved_bytes: counter(
                "holdfast_storage_compaction_moved_bytes_total",
                "Bytes of records in use that compaction wrote again.",
            ),
            freed_bytes: counter(
                "holdfast_storage_compaction_freed_bytes_total",
                "Bytes of segments that compaction removed.",
            ),
            doubtful_regions: gauge(
                "holdfast_storage_doubtful_regions",
                "Parts of the log that cannot be read and whose names are unknown: lookups answer unknown until fsck has settled them.",
            ),
            dropped_bytes: counter(
                "holdfast_storage_dropped_bytes_total",
                "Bytes at the end of the log that an interrupted write had left and a start dropped.",
            ),
            replayed_bytes: counter(
                "holdfast_storage_replayed_bytes_total",
                "Bytes of the log that were read when the volume was opened.",
            ),
            rebuilds: counter(
                "holdfast_storage_index_rebuilds_total",
                "How often the index was built anew from the log.",
            ),
            recent_lookups: lookups.with_label_values(&["recent"]),
            index_lookups: lookups.with_label_values(&["index"]),
            lookups,
        };
        for state in ["used", "garbage"] {
            metrics.log_bytes.with_label_values(&[state]);
        }
        metrics
    }

    pub(super) fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.commits.clone()),
            Box::new(self.commit_records.clone()),
            Box::new(self.commit_bytes.clone()),
            Box::new(self.queue_depth.clone()),
            Box::new(self.log_bytes.clone()),
            Box::new(self.index_bytes.clone()),
            Box::new(self.index_backlog.clone()),
            Box::new(self.segments.clone()),
            Box::new(self.pressure.clone()),
            Box::new(self.compacted_segments.clone()),
            Box::new(self.moved_bytes.clone()),
            Box::new(self.freed_bytes.clone()),
            Box::new(self.doubtful_regions.clone()),
            Box::new(self.dropped_bytes.clone()),
            Box::new(self.replayed_bytes.clone()),
            Box::new(self.rebuilds.clone()),
            Box::new(self.lookups.clone()),
        ]
    }

    /// A batch was planned, and made durable or refused.
    pub(crate) fn on_commit(&self, took: Duration) {
        self.commits.observe(took.as_secs_f64());
    }

    /// A batch was written.
    #[expect(clippy::cast_precision_loss, reason = "sizes of a batch are far below 2^52")]
    pub(crate) fn on_batch(&self, records: usize, bytes: usize) {
        self.commit_records.observe(records as f64);
        self.commit_bytes.observe(bytes as f64);
    }

    pub(crate) fn set_queue_depth(&self, depth: usize) {
        self.queue_depth.set(clamped(depth as u64));
    }

    /// The books after a batch.
    #[expect(clippy::cast_precision_loss, reason = "thousandths up to one thousand")]
    pub(crate) fn set_state(&self, state: LogState) {
        let LogState { log_bytes, used_bytes, segment_count, pressure } = state;
        let garbage = log_bytes.saturating_sub(used_bytes);
        self.log_bytes.with_label_values(&["used"]).set(clamped(used_bytes));
        self.log_bytes.with_label_values(&["garbage"]).set(clamped(garbage));
        self.segments.set(clamped(segment_count as u64));
        self.pressure.set(pressure as f64 / 1000.0);
    }

    pub(crate) fn set_index_bytes(&self, bytes: u64) {
        self.index_bytes.set(clamped(bytes));
    }

    pub(crate) fn set_index_backlog(&self, batches: usize) {
        self.index_backlog.set(clamped(batches as u64));
    }

    pub(crate) fn on_moved(&self, bytes: u64) {
        self.moved_bytes.inc_by(bytes);
    }

    /// A segment is gone.
    pub(crate) fn on_compacted(&self, bytes: u64) {
        self.compacted_segments.inc();
        self.freed_bytes.inc_by(bytes);
    }

    /// The volume was opened.
    pub(crate) fn on_open(&self, replayed_bytes: u64, dropped_bytes: u64, is_rebuilt: bool) {
        self.replayed_bytes.inc_by(replayed_bytes);
        self.dropped_bytes.inc_by(dropped_bytes);
        self.rebuilds.inc_by(is_rebuilt.into());
    }

    /// A name was looked up; `is_recent` if the index was not asked.
    pub(crate) fn on_lookup(&self, is_recent: bool) {
        if is_recent { self.recent_lookups.inc() } else { self.index_lookups.inc() }
    }

    pub(crate) fn set_doubtful_regions(&self, count: usize) {
        self.doubtful_regions.set(clamped(count as u64));
    }
}

fn clamped(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
