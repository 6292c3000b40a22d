//! One batch of names that is out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_core::locate::Round;
use holdfast_core::membership::View;
use holdfast_core::node::NodeId;
use holdfast_core::stamp::Stamp;
use holdfast_core::wire::PROTOCOL_VERSION;
use holdfast_core::wire::locate::{BatchAnswer, BatchRequest};
use holdfast_telemetry::trace;
use tracing::Span;

use super::Lookup;
use crate::metrics::LocateMetrics;

/// A batch, its lookups and what has been answered.
pub(super) struct Batch {
    request: BatchRequest,
    pub(super) sent: Duration,
    lookups: Vec<Lookup>,
    round: Round,
    /// Members whose roster is being fetched: nothing is concluded meanwhile.
    including: BTreeSet<NodeId>,
    /// Whether everybody is waited for.
    from_all: bool,
    /// Members that were asked over HTTP.
    asked_http: BTreeSet<NodeId>,
    /// Members that were asked once more because they found the question late.
    asked_again: BTreeSet<NodeId>,
    span: Span,
}

impl Batch {
    /// `stamps` says when each member answered last.
    pub(super) fn new(
        id: u64,
        lookups: Vec<Lookup>,
        stamps: BTreeMap<NodeId, Stamp>,
        view: &View,
        now: Duration,
    ) -> Self {
        let span = tracing::info_span!("locate_batch", names = lookups.len());
        let names: Vec<_> = lookups.iter().map(|lookup| lookup.name.clone()).collect();
        let mut request = BatchRequest {
            protocol: PROTOCOL_VERSION,
            id,
            names: names.clone(),
            trace: span.in_scope(trace::current_traceparent),
            traces: BTreeMap::new(),
            stamps,
            promises: (0u32..)
                .zip(&lookups)
                .filter_map(|(index, lookup)| Some((index, lookup.ballot?)))
                .collect(),
        };
        for (index, lookup) in (0u32..).zip(&lookups) {
            if let Some(trace) = &lookup.trace {
                trace::add_link(&span, trace);
                request.traces.insert(index, trace.clone());
            }
        }
        Self {
            sent: now,
            from_all: lookups.iter().any(|lookup| lookup.from_all),
            round: Round::new(names, request.promises.keys().copied().collect(), view),
            request,
            lookups,
            including: BTreeSet::new(),
            asked_http: BTreeSet::new(),
            asked_again: BTreeSet::new(),
            span,
        }
    }

    /// The question as it goes to everybody.
    pub(super) fn encode(&self) -> Bytes {
        Bytes::from(self.request.encode())
    }

    /// The question to a member that found it late, with the stamp that it has
    /// just given.
    ///
    /// `None` to one that was asked again before: it may find both the question
    /// over the bus and the one over HTTP late, and the answer to the third is
    /// still to come. And to one that is not known yet, whose answer would be
    /// ignored: it is asked when it is met.
    pub(super) fn ask_again(&mut self, node: NodeId, stamp: Stamp) -> Option<Bytes> {
        if !self.round.asks(node) || !self.asked_again.insert(node) {
            return None;
        }
        self.asked_http.insert(node);
        let stamps = BTreeMap::from([(node, stamp)]);
        Some(Bytes::from(BatchRequest { stamps, ..self.request.clone() }.encode()))
    }

    /// Takes an answer, or holds it back until the roster that its sender knows
    /// is included here; returns true in that case.
    pub(super) fn apply_answer(&mut self, answer: &BatchAnswer, included: bool) -> bool {
        if !included {
            self.including.insert(answer.node);
        }
        self.round.apply_answer(answer);
        !included
    }

    /// The roster of `node` is included now, or it could not be: then what it
    /// answered proves nothing.
    pub(super) fn apply_included(&mut self, node: NodeId, included: bool) {
        if self.including.remove(&node) && !included {
            self.round.revoke(node);
        }
    }

    pub(super) fn apply_failure(&mut self, node: NodeId) {
        self.round.apply_failure(node);
    }

    /// Who shuts down has answered by now, or is gone.
    pub(super) fn give_up_leaving(&mut self, view: &View) {
        self.round.give_up_leaving(view);
    }

    pub(super) fn apply_view(&mut self, view: &View) {
        self.round.apply_view(view);
    }

    /// Members that are still waited for and were not asked over HTTP yet; they
    /// count as asked from now on.
    pub(super) fn take_unasked(&mut self) -> Vec<NodeId> {
        let waiting = self.round.waiting();
        waiting.into_iter().filter(|node| self.asked_http.insert(*node)).collect()
    }

    pub(super) fn is_decided(&self) -> bool {
        let decided = match self.from_all {
            true => self.round.waiting().is_empty(),
            false => self.round.is_decided(),
        };
        self.including.is_empty() && decided
    }

    /// Answers every lookup with what is known now.
    ///
    /// After the window nothing is known: this process was stopped meanwhile,
    /// and what the first members answered may have been handed over to others
    /// before the last were asked.
    pub(super) fn finish(mut self, metrics: &LocateMetrics, window: Duration, now: Duration) {
        if now.saturating_sub(self.sent) >= window {
            self.round.revoke_all();
        }
        // At the deadline: a roster that is still missing may name a member
        // that holds the object.
        for node in std::mem::take(&mut self.including) {
            self.round.revoke(node);
        }
        let outcomes = self.round.outcomes();
        let earlier = Arc::new(self.request.stamps);
        self.span.in_scope(|| tracing::trace!("locate batch is over"));
        for (lookup, mut located) in self.lookups.into_iter().zip(outcomes) {
            located.earlier = Arc::clone(&earlier);
            metrics.on_outcome(&located, now.saturating_sub(lookup.started).as_secs_f64());
            // Whoever asked may have gone.
            let _ = lookup.reply.send(located);
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_core::membership::Hearing;
    use holdfast_core::name::{Key, ObjectName};
    use holdfast_core::node::Generation;
    use holdfast_core::roster::RosterDigest;
    use holdfast_telemetry::metrics::Metrics;
    use tokio::sync::oneshot;

    use super::*;
    use crate::test_support::{id, member};

    const WINDOW: Duration = Duration::from_secs(30);
    const SENT: Duration = Duration::from_secs(100);

    fn answer(bits: u128) -> BatchAnswer {
        BatchAnswer {
            protocol: PROTOCOL_VERSION,
            id: 1,
            node: id(bits),
            generation: Generation(1),
            address: format!("ds-{bits}:80").parse().expect("an address"),
            roster_digest: RosterDigest(1),
            mono_millis: 0,
            unix_millis: 0,
            found: Vec::new(),
            unknown: Vec::new(),
            floor: None,
            promised: Vec::new(),
            may_have_promised: Vec::new(),
            promised_before: None,
            late: false,
        }
    }

    /// Whether "nobody has it" is proven to a process that was stopped for so long
    /// between the question and its conclusion, by all of its members' answers.
    fn is_absence_proven(stopped: Duration) -> bool {
        let members = [1, 2].map(|bits| member(bits, Hearing::Heard, 1)).into();
        let view = View { founded: true, digest: RosterDigest(1), members, ..View::default() };
        let (reply, mut located) = oneshot::channel();
        let name = ObjectName::seed(Key::new("k").expect("short"));
        let lookup =
            Lookup { name, ballot: None, from_all: false, trace: None, started: SENT, reply };
        let mut batch = Batch::new(1, vec![lookup], BTreeMap::new(), &view, SENT);
        for bits in [1, 2] {
            assert!(!batch.apply_answer(&answer(bits), true));
        }
        assert!(batch.is_decided());
        let metrics = LocateMetrics::new(&Metrics::new("test").expect("a registry"));
        batch.finish(&metrics.expect("registered"), WINDOW, SENT + stopped);
        located.try_recv().expect("it is answered").complete
    }

    #[test]
    fn after_a_stop_of_a_window_nothing_is_proven_whoever_answered() {
        assert!(is_absence_proven(Duration::ZERO));
        assert!(is_absence_proven(WINDOW - Duration::from_millis(1)));
        assert!(!is_absence_proven(WINDOW));
        assert!(!is_absence_proven(WINDOW * 100));
    }
}
