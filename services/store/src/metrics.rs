//! What a volume tells Prometheus. Made once for each volume and registered by
//! whoever opens it; no metric carries a key or the name of a node.

mod log;

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

pub(crate) use self::log::{LogMetrics, LogState};

/// From 0.1 ms, a read out of the page cache, to 5 s, a disk in trouble. They are
/// few, for each operation has all of them.
const OPERATION_BUCKETS: [f64; 8] = [0.0001, 0.0005, 0.0025, 0.01, 0.05, 0.25, 1.0, 5.0];

/// What a disk needs, which every write waits for; 0.5 s is where an alert is.
const DISK_BUCKETS: [f64; 10] = [0.0001, 0.0005, 0.001, 0.0025, 0.01, 0.05, 0.2, 0.5, 1.0, 5.0];

/// A method of [`crate::Store`] whose duration is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Commit of a payload, from the last byte until it is durable.
    Put,
    /// A tombstone, until it is durable.
    Delete,
    /// One call, however many names it asks for.
    Stat,
    /// Until the first bytes are verified.
    Read,
    /// One page.
    List,
}

impl Operation {
    const ALL: [Self; 5] = [Self::Put, Self::Delete, Self::Stat, Self::Read, Self::List];

    fn label(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Stat => "stat",
            Self::Read => "read",
            Self::List => "list",
        }
    }
}

/// What became of damage that was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Corruption {
    /// A read refused to give the bytes.
    Refused,
    /// A file was found at open whose trailer cannot be read.
    Unreadable,
    /// A damaged copy was written anew.
    Replaced,
}

impl Corruption {
    const ALL: [Self; 3] = [Self::Refused, Self::Unreadable, Self::Replaced];

    fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
            Self::Replaced => "replaced",
        }
    }
}

/// The metrics of one volume. Clones count together.
#[derive(Debug, Clone)]
pub struct StoreMetrics {
    operations: HistogramVec,
    syncs: Histogram,
    corruptions: IntCounterVec,
    read_bytes: IntCounter,
    written_bytes: IntCounter,
    poisoned: IntGauge,
    log: LogMetrics,
}

impl StoreMetrics {
    /// Metrics that stand at 0, each label included.
    ///
    /// # Panics
    /// Never: the names and labels are constants, which a test checks.
    #[must_use]
    pub fn new() -> Self {
        let valid = "constant names and labels are valid";
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            HistogramOpts::new(name, help).buckets(buckets.to_vec())
        };
        let operations = histogram(
            "holdfast_storage_operation_duration_seconds",
            "How long operations on the volume take; a read until its first bytes are verified.",
            &OPERATION_BUCKETS,
        );
        let syncs = histogram(
            "holdfast_storage_sync_duration_seconds",
            "How long the disk takes to make a file or a directory durable.",
            &DISK_BUCKETS,
        );
        let corruptions = Opts::new(
            "holdfast_corruptions_total",
            "Damage met on the volume: refused to a reader, unreadable at open, replaced by a write.",
        );
        let metrics = Self {
            operations: HistogramVec::new(operations, &["operation"]).expect(valid),
            syncs: Histogram::with_opts(syncs).expect(valid),
            corruptions: IntCounterVec::new(corruptions, &["result"]).expect(valid),
            read_bytes: IntCounter::new(
                "holdfast_storage_read_bytes_total",
                "Payload bytes read and verified.",
            )
            .expect(valid),
            written_bytes: IntCounter::new(
                "holdfast_storage_written_bytes_total",
                "Bytes written to files, trailers included.",
            )
            .expect(valid),
            poisoned: IntGauge::new(
                "holdfast_storage_poisoned",
                "1 when the volume takes no more writes: a sync failed, or its index is damaged.",
            )
            .expect(valid),
            log: LogMetrics::new(),
        };
        metrics.begin_at_zero();
        metrics
    }

    fn begin_at_zero(&self) {
        for operation in Operation::ALL {
            self.operations.with_label_values(&[operation.label()]);
        }
        for corruption in Corruption::ALL {
            self.corruptions.with_label_values(&[corruption.label()]);
        }
    }

    /// Makes the metrics visible in `registry`.
    ///
    /// # Errors
    /// When one of the names is registered there already, as by another volume.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let shared: [Box<dyn Collector>; 6] = [
            Box::new(self.operations.clone()),
            Box::new(self.syncs.clone()),
            Box::new(self.corruptions.clone()),
            Box::new(self.read_bytes.clone()),
            Box::new(self.written_bytes.clone()),
            Box::new(self.poisoned.clone()),
        ];
        let mut all = shared.into_iter().chain(self.log.collectors());
        all.try_for_each(|collector| registry.register(collector))
    }

    /// What only a log has.
    pub(crate) fn log(&self) -> &LogMetrics {
        &self.log
    }

    pub(crate) fn on_operation(&self, operation: Operation, took: Duration) {
        self.operations.with_label_values(&[operation.label()]).observe(took.as_secs_f64());
    }

    pub(crate) fn on_sync(&self, took: Duration) {
        self.syncs.observe(took.as_secs_f64());
    }

    pub(crate) fn on_corruption(&self, corruption: Corruption) {
        self.corruptions.with_label_values(&[corruption.label()]).inc();
    }

    /// Records whose payload the start found damaged.
    pub(crate) fn on_unreadable(&self, count: u64) {
        self.corruptions.with_label_values(&[Corruption::Unreadable.label()]).inc_by(count);
    }

    pub(crate) fn on_read(&self, bytes: usize) {
        self.read_bytes.inc_by(bytes as u64);
    }

    pub(crate) fn on_written(&self, bytes: usize) {
        self.written_bytes.inc_by(bytes as u64);
    }

    pub(crate) fn on_poisoned(&self) {
        self.poisoned.set(1);
    }
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_is_there_from_the_start() {
        let registry = Registry::new();
        let metrics = StoreMetrics::new();
        metrics.register(&registry).expect("the registry is empty");
        assert!(metrics.register(&registry).is_err());
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .expect("the names are valid");
        for operation in Operation::ALL {
            let series = format!("duration_seconds_count{{operation=\"{}\"}} 0", operation.label());
            assert!(text.contains(&series), "{series} in {text}");
        }
        for corruption in Corruption::ALL {
            let series = format!("corruptions_total{{result=\"{}\"}} 0", corruption.label());
            assert!(text.contains(&series), "{series} in {text}");
        }
    }
}
