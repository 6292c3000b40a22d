//! What a bus counts.

use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::inbox::Queue;
use crate::{BusError, BusHealth};

/// Counters of one bus. Cheap to clone; clones count together. Every label set
/// is there from the start, at 0.
#[derive(Debug, Clone)]
pub struct BusMetrics {
    connected: IntGauge,
    reconnects: IntCounter,
    publish_failures: IntCounterVec,
    dropped: IntCounterVec,
}

/// Why a message that arrived was not handed on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum DropReason {
    /// The reader is behind.
    Full,
    /// Its body is larger than [`crate::MESSAGE_BYTES`].
    Oversized,
    /// Nobody reads the queue any more.
    Closed,
}

impl DropReason {
    const ALL: [Self; 3] = [Self::Full, Self::Oversized, Self::Closed];

    fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Oversized => "oversized",
            Self::Closed => "closed",
        }
    }
}

const FAILURES: [&str; 4] = ["away", "timeout", "invalid", "broker"];

impl BusMetrics {
    pub(crate) fn new() -> Self {
        let metrics = Self {
            connected: IntGauge::new(
                "holdfast_broker_connected",
                "1 while messages come back from the broker in time",
            )
            .expect("the name is a valid one"),
            reconnects: IntCounter::new(
                "holdfast_broker_reconnects_total",
                "Sessions with the broker after the first one",
            )
            .expect("the name is a valid one"),
            publish_failures: counters(
                "holdfast_broker_publish_failures_total",
                "Messages that were not sent",
                &["reason"],
            ),
            dropped: counters(
                "holdfast_bus_messages_dropped_total",
                "Messages that arrived and were not handed on",
                &["queue", "reason"],
            ),
        };
        metrics.start_at_zero();
        metrics
    }

    fn start_at_zero(&self) {
        for reason in FAILURES {
            self.publish_failures.with_label_values(&[reason]);
        }
        for queue in Queue::ALL {
            for reason in DropReason::ALL {
                self.dropped.with_label_values(&[queue.label(), reason.label()]);
            }
        }
    }

    /// Adds every counter to `registry`.
    ///
    /// # Errors
    /// When one of that name is there: a registry takes the counters of one bus.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        let collectors: [Box<dyn Collector>; 4] = [
            Box::new(self.connected.clone()),
            Box::new(self.reconnects.clone()),
            Box::new(self.publish_failures.clone()),
            Box::new(self.dropped.clone()),
        ];
        collectors.into_iter().try_for_each(|collector| registry.register(collector))
    }

    /// Messages that arrived and were dropped, for whatever reason, in any
    /// queue.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        let sets =
            Queue::ALL.iter().flat_map(|queue| DropReason::ALL.map(|reason| (queue, reason)));
        sets.map(|(queue, reason)| {
            self.dropped.with_label_values(&[queue.label(), reason.label()]).get()
        })
        .sum()
    }

    /// Sessions with the broker after the first one.
    #[must_use]
    pub fn reconnects_total(&self) -> u64 {
        self.reconnects.get()
    }

    pub(crate) fn dropped(&self, queue: Queue, reason: DropReason) {
        self.dropped.with_label_values(&[queue.label(), reason.label()]).inc();
    }

    pub(crate) fn health(&self, health: BusHealth) {
        self.connected.set(i64::from(health.is_connected()));
    }

    pub(crate) fn session(&self, session: u64) {
        if session > 1 {
            self.reconnects.inc();
        }
    }

    pub(crate) fn publish_failed(&self, error: &BusError) {
        let reason = match error {
            BusError::Away => "away",
            BusError::Timeout { .. } => "timeout",
            BusError::Invalid { .. } => "invalid",
            BusError::Broker { .. } => "broker",
        };
        self.publish_failures.with_label_values(&[reason]).inc();
    }
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("name and labels are valid ones")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Topic;

    #[test]
    fn every_label_set_is_there_from_the_start() {
        let registry = Registry::new();
        let metrics = BusMetrics::new();
        metrics.register(&registry).expect("an empty registry");
        let sets: usize = registry.gather().iter().map(|family| family.get_metric().len()).sum();
        assert_eq!(sets, 1 + 1 + 4 + 12);
        assert!(metrics.register(&registry).is_err());
    }

    #[test]
    fn what_happens_is_counted() {
        let metrics = BusMetrics::new();
        metrics.session(1);
        metrics.session(2);
        metrics.dropped(Queue::Topic(Topic::Locate), DropReason::Full);
        metrics.dropped(Queue::Replies, DropReason::Oversized);
        metrics.publish_failed(&BusError::Away);
        metrics.health(BusHealth::Connected { session: 2 });
        assert_eq!((metrics.reconnects_total(), metrics.dropped_total()), (1, 2));
        assert_eq!(metrics.publish_failures.with_label_values(&["away"]).get(), 1);
        assert_eq!(metrics.connected.get(), 1);
    }
}
