//! What membership and locate count.

use holdfast_core::electorate::Phase;
use holdfast_core::locate::{Located, Verdict};
use holdfast_core::membership::{Hearing, View};
use holdfast_core::node::Address;
use holdfast_core::roster::MemberState;
use holdfast_telemetry::metrics::Metrics;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec,
};

use crate::error::ObjectError;

// Each bound is a series of every service, times the values of the labels: they lie
// close together only where something is decided. Around 5 s, the interval by
// default; at 2.5 s, for an alert.
const HEARTBEAT_INTERVAL_BUCKETS: [f64; 8] = [1.0, 2.5, 4.5, 5.5, 7.5, 10.0, 15.0, 30.0];
const HEARTBEAT_DELAY_BUCKETS: [f64; 9] = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
// From 0.25 s to 1 s, where alerts and LOCATE_TIMEOUT by default are.
const LOCATE_BUCKETS: [f64; 10] = [0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5];
const LIST_BUCKETS: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 30.0];
const BATCH_BUCKETS: [f64; 5] = [1.0, 4.0, 16.0, 64.0, 256.0];

/// States that `holdfast_dataservers` shows: those of the roster while the
/// member is heard, and these three.
const SILENT: &str = "silent";
const LOST: &str = "lost";
const GUEST: &str = "guest";

/// Counts of the membership task. Clones share the counts.
#[derive(Clone, Debug)]
pub struct ClusterMetrics {
    pub(crate) heartbeats_received: IntCounterVec,
    pub(crate) heartbeats_dropped: IntCounterVec,
    pub(crate) last_received: GaugeVec,
    pub(crate) clock_skew: GaugeVec,
    pub(crate) heartbeat_interval: Histogram,
    pub(crate) heartbeat_delay: Histogram,
    pub(crate) data_servers: IntGaugeVec,
    pub(crate) roster_known: Gauge,
    pub(crate) policy: IntGaugeVec,
    pub(crate) electorate: IntGaugeVec,
    pub(crate) roster_fetches: IntCounterVec,
    pub(crate) probes: IntCounterVec,
}

/// Counts of the locator. Clones share the counts.
#[derive(Clone, Debug)]
pub struct LocateMetrics {
    pub(crate) duration: HistogramVec,
    pub(crate) batch_names: Histogram,
    pub(crate) requests: IntCounterVec,
    pub(crate) dropped: IntCounterVec,
    pub(crate) waiting: Gauge,
}

/// Counts of what clients ask for beyond what HTTP shows.
#[derive(Clone, Debug)]
pub struct ObjectMetrics {
    pub(crate) reads_continued: IntCounterVec,
    pub(crate) reads_hedged: IntCounter,
    pub(crate) write_backs: IntCounterVec,
    pub(crate) quorum_failures: IntCounterVec,
    pub(crate) stalled: IntCounter,
    pub(crate) uploads_relayed: IntCounter,
    pub(crate) refused: IntCounterVec,
    list_duration: HistogramVec,
    list_entries: IntCounter,
    list_pages: IntCounterVec,
    list_settled: IntCounterVec,
}

/// Every label value shows from the start, as 0.
fn labelled(counters: IntCounterVec, values: &[&str]) -> IntCounterVec {
    for value in values {
        counters.with_label_values(&[value]);
    }
    counters
}

impl ClusterMetrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let heartbeats_received = labelled(
            metrics.counters(
                "holdfast_heartbeats_received_total",
                "Heartbeats and answers to probes that were taken, by data server.",
                &["dataserver"],
            )?,
            &[],
        );
        let last_received = metrics.gauges(
            "holdfast_heartbeat_last_received_timestamp_seconds",
            "When a data server was last heard, as Unix time.",
            &["dataserver"],
        )?;
        let clock_skew = metrics.gauges(
            "holdfast_clock_skew_seconds",
            "How far the wall clock of a data server was ahead of this process's when its last \
             heartbeat came; what the message took on its way makes it less.",
            &["dataserver"],
        )?;
        let data_servers = metrics.int_gauges(
            "holdfast_dataservers",
            "Data servers known, by state.",
            &["state"],
        )?;
        let made = Self {
            heartbeats_received,
            last_received,
            clock_skew,
            data_servers,
            heartbeats_dropped: labelled(
                metrics.counters(
                    "holdfast_heartbeats_dropped_total",
                    "Heartbeats that were not taken, by reason.",
                    &["reason"],
                )?,
                &["body", "header", "protocol", "stale", "refused"],
            ),
            heartbeat_interval: metrics.histogram(
                "holdfast_heartbeat_interval_seconds",
                "Time between two heartbeats of one data server.",
                &HEARTBEAT_INTERVAL_BUCKETS,
            )?,
            heartbeat_delay: metrics.histogram(
                "holdfast_heartbeat_delay_seconds",
                "Time from sending to receiving a heartbeat, by the two wall clocks.",
                &HEARTBEAT_DELAY_BUCKETS,
            )?,
            roster_known: metrics.gauge(
                "holdfast_roster_known",
                "1 once a roster is known: without one no absence can be proven.",
            )?,
            policy: metrics.int_gauges(
                "holdfast_policy",
                "How many copies of each object there are, and how many answer for it.",
                &["number"],
            )?,
            electorate: metrics.int_gauges(
                "holdfast_electorate",
                "1 for the phase of the electorate: while it is \"reading\", W of 2W - 1 members answer \
                 for a name, else all but W - 1 of all.",
                &["phase"],
            )?,
            roster_fetches: labelled(
                metrics.counters(
                    "holdfast_roster_fetches_total",
                    "Rosters fetched from data servers, by result.",
                    &["result"],
                )?,
                &["ok", "error"],
            ),
            probes: labelled(
                metrics.counters(
                    "holdfast_probes_total",
                    "Members asked over HTTP because no heartbeat came, by result.",
                    &["result"],
                )?,
                &["ok", "error"],
            ),
        };
        made.on_view(&View::default());
        Ok(made)
    }

    pub(crate) fn on_heartbeat(&self, address: &Address, unix_millis: u64) {
        let labels = &[address.as_str()];
        self.heartbeats_received.with_label_values(labels).inc();
        self.last_received.with_label_values(labels).set(unix_millis as f64 / 1_000.0);
    }

    pub(crate) fn forget(&self, address: &Address) {
        // An address that was never heard has no series.
        let _ = self.heartbeats_received.remove_label_values(&[address.as_str()]);
        let _ = self.last_received.remove_label_values(&[address.as_str()]);
        let _ = self.clock_skew.remove_label_values(&[address.as_str()]);
    }

    pub(crate) fn on_view(&self, view: &View) {
        let heard = |hearing| matches!(hearing, Hearing::Heard | Hearing::Awaited);
        let count = |state: &str, count: usize| {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.data_servers.with_label_values(&[state]).set(count);
        };
        for state in MemberState::ALL {
            let members = view.members.iter();
            let of_state = members.filter(|m| m.state == state && heard(m.hearing)).count();
            if state != MemberState::Retired {
                count(state.as_str(), of_state);
            }
        }
        let unheard = || view.roster_members().filter(|m| !heard(m.hearing));
        count(SILENT, unheard().filter(|m| !m.lost).count());
        count(LOST, unheard().filter(|m| m.lost).count());
        count(GUEST, view.guests.len());
        self.roster_known.set(if view.founded { 1.0 } else { 0.0 });
        let policy = view.policy;
        for (number, value) in [
            ("replicas", policy.replicas),
            ("write_quorum", policy.write_quorum),
            ("read_quorum", policy.read_quorum),
        ] {
            self.policy.with_label_values(&[number]).set(value.into());
        }
        let phase = view.electorate.as_ref().map(|electorate| electorate.phase);
        for (word, is_now) in std::iter::once(("none", phase.is_none()))
            .chain(Phase::ALL.map(|one| (one.as_str(), phase == Some(one))))
        {
            self.electorate.with_label_values(&[word]).set(is_now.into());
        }
    }
}

impl LocateMetrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let duration = metrics.histograms(
            "holdfast_locate_duration_seconds",
            "Time from a lookup to its outcome, by result.",
            &LOCATE_BUCKETS,
            &["result"],
        )?;
        for result in ["found", "absent", "incomplete"] {
            duration.with_label_values(&[result]);
        }
        Ok(Self {
            duration,
            batch_names: metrics.histogram(
                "holdfast_locate_batch_names",
                "Names in one locate message.",
                &BATCH_BUCKETS,
            )?,
            requests: labelled(
                metrics.counters(
                    "holdfast_locate_requests_total",
                    "Locate requests sent, by transport: one to all over the bus, one to each over \
                 HTTP.",
                    &["transport"],
                )?,
                &["bus", "http"],
            ),
            dropped: labelled(
                metrics.counters(
                    "holdfast_locate_messages_dropped_total",
                    "Locate messages that were not taken, by reason.",
                    &["reason"],
                )?,
                &["body", "protocol", "size", "late", "stale"],
            ),
            waiting: metrics
                .gauge("holdfast_locate_waiting", "Lookups that wait for a batch to leave.")?,
        })
    }

    pub(crate) fn on_outcome(&self, located: &Located, seconds: f64) {
        let result = match located.verdict() {
            Verdict::Found(_) => "found",
            Verdict::Absent => "absent",
            Verdict::Incomplete(_) => "incomplete",
        };
        self.duration.with_label_values(&[result]).observe(seconds);
    }
}

impl ObjectMetrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let list_duration = metrics.histograms(
            "holdfast_list_duration_seconds",
            "Time that pages of lists took, by result.",
            &LIST_BUCKETS,
            &["result"],
        )?;
        for result in ["ok", "error"] {
            list_duration.with_label_values(&[result]);
        }
        Ok(Self {
            list_duration,
            list_entries: metrics.counter(
                "holdfast_list_entries_total",
                "Objects and prefixes that lists have shown.",
            )?,
            list_pages: labelled(
                metrics.counters(
                    "holdfast_list_pages_total",
                    "Pages that data servers were asked for on behalf of lists, by result.",
                    &["result"],
                )?,
                &["ok", "late", "error"],
            ),
            list_settled: labelled(
                metrics.counters(
                    "holdfast_list_settled_total",
                    "Names that were not certain in the pages of the members and were located by \
                     themselves, by result.",
                    &["result"],
                )?,
                &["ok", "error"],
            ),
            reads_continued: labelled(
                metrics.counters(
                    "holdfast_reads_continued_total",
                    "Reads whose replica broke in the middle, by whether they could be continued.",
                    &["result"],
                )?,
                &["ok", "error"],
            ),
            reads_hedged: metrics.counter(
                "holdfast_reads_hedged_total",
                "Reads for which a second replica was asked, because the first took its time.",
            )?,
            write_backs: labelled(
                metrics.counters(
                    "holdfast_write_backs_total",
                    "Versions that a reader found on fewer members than reads count on and had \
                     copied first, by result.",
                    &["result"],
                )?,
                &["ok", "error"],
            ),
            quorum_failures: labelled(
                metrics.counters(
                    "holdfast_quorum_failures_total",
                    "Versions, and uploads that lost owners, that did not reach a write quorum, by \
                     operation.",
                    &["operation"],
                )?,
                &["write", "conditional", "write-back", "relay"],
            ),
            stalled: metrics.counter(
                "holdfast_writes_stalled_total",
                "Data servers that were asked as well because others kept a write waiting.",
            )?,
            uploads_relayed: metrics.counter(
                "holdfast_uploads_relayed_total",
                "Data servers that a large upload was passed on to from one that had received it, \
                 in the place of an owner that was lost while the client sent it.",
            )?,
            refused: labelled(
                metrics.counters(
                    "holdfast_refusals_total",
                    "Requests that were refused, by the code in the answer.",
                    &["code"],
                )?,
                &ObjectError::FAILURES,
            ),
        })
    }

    /// A page of a list was shown, with so many entries, or none was.
    pub(crate) fn on_list(&self, entries: Option<usize>, seconds: f64) {
        let result = if entries.is_some() { "ok" } else { "error" };
        self.list_duration.with_label_values(&[result]).observe(seconds);
        self.list_entries.inc_by(entries.unwrap_or(0) as u64);
    }

    pub(crate) fn on_list_page(&self, result: &str) {
        self.list_pages.with_label_values(&[result]).inc();
    }

    pub(crate) fn on_list_settled(&self, is_ok: bool) {
        self.list_settled.with_label_values(&[if is_ok { "ok" } else { "error" }]).inc();
    }
}
