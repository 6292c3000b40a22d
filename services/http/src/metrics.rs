//! The numbers of one HTTP server.

use std::time::Duration;

use holdfast_telemetry::metrics::Metrics;
use http::{Method, StatusCode};
use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge};

/// Upper bounds in seconds: from a read out of memory to an upload of minutes. They
/// are few, for each method of each route has all of them.
const DURATION_BUCKETS: &[f64] = &[0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];

/// Statuses that tell operators that something is wrong.
const FAILURES: [StatusCode; 2] =
    [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::SERVICE_UNAVAILABLE];

/// The metrics of one server, cheap to clone.
///
/// The labels are bounded: `method` is one of the known ones or `other`,
/// `route` is a template out of the service's own list, `code` is a status.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    requests: IntCounterVec,
    durations: HistogramVec,
    untimed: &'static [&'static str],
    request_bytes: IntCounter,
    response_bytes: IntCounter,
    pub(crate) in_flight: IntGauge,
    pub(crate) cut: IntCounter,
    pub(crate) panics: IntCounter,
}

/// What is known of a request when it has ended.
pub(crate) struct Ended {
    pub(crate) method: &'static str,
    pub(crate) route: &'static str,
    pub(crate) status: StatusCode,
    pub(crate) duration: Duration,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
}

impl HttpMetrics {
    /// Registers the metrics: once per process. The durations of `untimed` routes are
    /// not kept, for they would say nothing to anybody; everything else of them is.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(
        metrics: &Metrics,
        untimed: &'static [&'static str],
    ) -> Result<Self, prometheus::Error> {
        Ok(Self {
            untimed,
            requests: metrics.counters(
                "holdfast_http_requests_total",
                "Requests that ended. The code 499 is a client that left before the answer.",
                &["method", "route", "code"],
            )?,
            durations: metrics.histograms(
                "holdfast_http_request_duration_seconds",
                "Time from the head of a request to the end of the response body.",
                DURATION_BUCKETS,
                &["method", "route"],
            )?,
            request_bytes: metrics.counter(
                "holdfast_http_request_body_bytes_total",
                "Bytes of request bodies that were read.",
            )?,
            response_bytes: metrics.counter(
                "holdfast_http_response_body_bytes_total",
                "Bytes of response bodies that were handed to connections.",
            )?,
            in_flight: metrics.int_gauge(
                "holdfast_http_requests_in_flight",
                "Requests whose response has not ended.",
            )?,
            cut: metrics.counter(
                "holdfast_http_responses_cut_total",
                "Responses that broke off in the middle of the body.",
            )?,
            panics: metrics.counter(
                "holdfast_http_panics_total",
                "Requests that met a fault in the program and were answered with 500.",
            )?,
        })
    }

    /// Shows the failures of these requests, each a method and a route, from the
    /// start as 0: else the first one would be a new series, and no rate has it.
    pub fn begin_failures_at_zero(&self, requests: &[(Method, &'static str)]) {
        for (method, route) in requests {
            // Only what writes can find no room.
            let writes = matches!(*method, Method::PUT | Method::DELETE);
            let full = writes.then_some(StatusCode::INSUFFICIENT_STORAGE);
            for code in FAILURES.into_iter().chain(full) {
                let labels = [method_label(method), *route, code.as_str()];
                self.requests.with_label_values(&labels);
            }
        }
    }

    pub(crate) fn on_end(&self, ended: &Ended) {
        if !self.untimed.contains(&ended.route) {
            let labels = [ended.method, ended.route];
            self.durations.with_label_values(&labels).observe(ended.duration.as_secs_f64());
        }
        let labels = [ended.method, ended.route, ended.status.as_str()];
        self.requests.with_label_values(&labels).inc();
        self.request_bytes.inc_by(ended.request_bytes);
        self.response_bytes.inc_by(ended.response_bytes);
    }
}

/// The method as a label: clients may invent methods, but not series.
pub(crate) fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
