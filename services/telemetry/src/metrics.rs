//! The Prometheus registry of one process.

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

pub use prometheus;

/// Content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics of one process, cheap to clone.
///
/// The constructors fail only when a name is invalid or taken, which is a
/// mistake in the code that calls them and shows at the start of the process.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// A registry with the process's own numbers and
    /// `holdfast_build_info{version}`.
    ///
    /// # Errors
    /// Never in practice: the names are fixed and the registry is new.
    pub fn new(version: &str) -> Result<Self, prometheus::Error> {
        let metrics = Self { registry: Registry::new() };
        metrics.registry.register(Box::new(ProcessCollector::for_self()))?;
        let info = metrics.int_gauges(
            "holdfast_build_info",
            "Always 1; the label tells which build this is.",
            &["version"],
        )?;
        info.with_label_values(&[version]).set(1);
        Ok(metrics)
    }

    /// The registry, for collectors of another kind.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    fn register<C: Collector + Clone + 'static>(&self, made: C) -> Result<C, prometheus::Error> {
        self.registry.register(Box::new(made.clone()))?;
        Ok(made)
    }

    /// Registers a counter.
    ///
    /// # Errors
    /// When the name is invalid or taken.
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::new(name, help)?)
    }

    /// Registers counters that differ by labels.
    ///
    /// # Errors
    /// When the name is invalid or taken.
    pub fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    /// Registers a gauge of whole numbers.
    ///
    /// # Errors
    /// When the name is invalid or taken.
    pub fn int_gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::new(name, help)?)
    }

    /// Registers gauges of whole numbers that differ by labels.
    ///
    /// # Errors
    /// When the name is invalid or taken.
    pub fn int_gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    /// Registers a gauge.
    ///
    /// # Errors
    /// When the name is invalid or taken.
    pub fn gauge(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        self.register(Gauge::new(name, help)?)
    }

    /// Registers gauges that differ by labels.
    ///
    /// # Errors
    /// When the name is invalid or taken.
    pub fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GaugeVec, prometheus::Error> {
        self.register(GaugeVec::new(Opts::new(name, help), labels)?)
    }

    /// Registers a histogram with these upper bounds.
    ///
    /// # Errors
    /// When the name is invalid or taken, or the bounds do not ascend.
    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Histogram, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(options)?)
    }

    /// Registers histograms with these upper bounds that differ by labels.
    ///
    /// # Errors
    /// When the name is invalid or taken, or the bounds do not ascend.
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(HistogramVec::new(options, labels)?)
    }

    /// Everything in the text format of Prometheus.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = Vec::new();
        // Writing to memory fails only for a family without metrics, which
        // `gather` leaves out; what was written until then is still true.
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::warn!(%error, "the metrics could not be encoded");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_the_build_the_process_and_what_was_registered() {
        let metrics = Metrics::new("1.2.3").expect("fixed names");
        metrics.counter("holdfast_test_total", "Help.").expect("a new name").inc_by(7);
        metrics
            .histograms("holdfast_test_seconds", "Help.", &[0.1, 1.0], &["route"])
            .expect("a new name")
            .with_label_values(&["/x"])
            .observe(0.5);
        let text = metrics.encode();
        for line in [
            "holdfast_build_info{version=\"1.2.3\"} 1",
            "holdfast_test_total 7",
            "holdfast_test_seconds_bucket{route=\"/x\",le=\"1\"} 1",
            "process_open_fds",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }

    #[test]
    fn a_name_is_taken_once() {
        let metrics = Metrics::new("1").expect("fixed names");
        assert!(metrics.counter("holdfast_build_info", "Help.").is_err());
        assert!(metrics.gauge("not a name", "Help.").is_err());
    }
}
