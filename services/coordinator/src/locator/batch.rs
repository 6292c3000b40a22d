//! One batch of names that is out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_core::locate::Round;
use holdfast_core::membership::View;
use holdfast_core::node::NodeId;
use holdfast_core::roster::RosterDigest;
use holdfast_core::stamp::Stamp;
use holdfast_core::version::Version;
use holdfast_core::wire::PROTOCOL_VERSION;
use holdfast_core::wire::locate::{BatchAnswer, BatchRequest};
use holdfast_telemetry::trace;
use tracing::Span;

use super::Lookup;
use crate::metrics::LocateMetrics;

/// Which question of a batch is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// The one that everybody gets, over either way.
    First,
    /// The one with the stamp that a member gave when it found the first too late.
    Again,
}

/// A batch, its lookups and what has been answered.
pub(super) struct Batch {
    request: BatchRequest,
    pub(super) sent: Duration,
    lookups: Vec<Lookup>,
    /// Of those who do not answer this batch, too: they may be written to with a
    /// stamp of before.
    floor: Option<Version>,
    round: Round,
    /// Members whose roster, of the digest that they answered with, is being
    /// fetched: nothing is concluded meanwhile.
    including: BTreeMap<NodeId, RosterDigest>,
    /// Whether everybody is waited for.
    from_all: bool,
    /// Members that were asked over HTTP.
    asked_http: BTreeSet<NodeId>,
    /// Members that were asked once more because they found the question late.
    asked_again: BTreeSet<NodeId>,
    span: Span,
}

impl Batch {
    /// `stamps` says when each member answered last, and `floor` is the highest of
    /// those that they told then.
    pub(super) fn new(
        id: u64,
        lookups: Vec<Lookup>,
        stamps: BTreeMap<NodeId, Stamp>,
        floor: Option<Version>,
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
            floor,
            including: BTreeMap::new(),
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
    ///
    /// One that counts for nothing is not held back: a second one must neither
    /// stand for the roster of the first nor take it along when it fails.
    pub(super) fn apply_answer(&mut self, answer: &BatchAnswer, included: bool) -> bool {
        let is_held_back = self.round.apply_answer(answer) && !included;
        if is_held_back {
            self.including.insert(answer.node, answer.roster_digest);
        }
        is_held_back
    }

    /// The roster of `node` with this digest is included now, or it could not be:
    /// then what it answered proves nothing.
    pub(super) fn apply_included(&mut self, node: NodeId, digest: RosterDigest, included: bool) {
        if self.including.get(&node) != Some(&digest) {
            return;
        }
        self.including.remove(&node);
        if !included {
            self.round.revoke(node);
        }
    }

    /// A question has failed. It says nothing of who was asked once more since.
    pub(super) fn apply_failure(&mut self, node: NodeId, asked: Asked) {
        if asked == Asked::Again || !self.asked_again.contains(&node) {
            self.round.apply_failure(node);
        }
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
        for node in std::mem::take(&mut self.including).into_keys() {
            self.round.revoke(node);
        }
        let outcomes = self.round.outcomes();
        let earlier = Arc::new(self.request.stamps);
        self.span.in_scope(|| tracing::trace!("locate batch is over"));
        for (lookup, mut located) in self.lookups.into_iter().zip(outcomes) {
            located.earlier = Arc::clone(&earlier);
            located.floor = located.floor.max(self.floor);
            metrics.on_outcome(&located, now.saturating_sub(lookup.started).as_secs_f64());
            // Whoever asked may have gone.
            let _ = lookup.reply.send(located);
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_core::locate::Located;
    use holdfast_core::membership::Hearing;
    use holdfast_core::name::{Key, ObjectName};
    use holdfast_core::node::Generation;
    use holdfast_telemetry::metrics::Metrics;
    use tokio::sync::oneshot;

    use super::*;
    use crate::test_support::{id, member};

    const WINDOW: Duration = Duration::from_secs(30);
    const SENT: Duration = Duration::from_secs(100);

    const FLOOR: Version = Version::from_parts(7, 7);

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

    fn view() -> View {
        let members = [1, 2].map(|bits| member(bits, Hearing::Heard, 1)).into();
        View { founded: true, digest: RosterDigest(1), members, ..View::default() }
    }

    fn batch() -> (Batch, oneshot::Receiver<Located>) {
        let (reply, located) = oneshot::channel();
        let name = ObjectName::seed(Key::new("k").expect("short"));
        let lookup =
            Lookup { name, ballot: None, from_all: false, trace: None, started: SENT, reply };
        (Batch::new(1, vec![lookup], BTreeMap::new(), Some(FLOOR), &view(), SENT), located)
    }

    fn of_roster(bits: u128, digest: u64) -> BatchAnswer {
        BatchAnswer { roster_digest: RosterDigest(digest), ..answer(bits) }
    }

    #[test]
    fn the_roster_of_a_second_answer_does_not_stand_for_that_of_the_first() {
        let (mut batch, _located) = batch();
        assert!(!batch.apply_answer(&answer(1), true));
        assert!(batch.apply_answer(&of_roster(2, 7), false), "held back");
        assert!(!batch.apply_answer(&of_roster(2, 6), false), "it came over the other way");
        batch.apply_included(id(2), RosterDigest(6), true);
        assert!(!batch.is_decided(), "what it answered first may name another member");
        batch.apply_included(id(2), RosterDigest(7), true);
        assert!(batch.is_decided());
    }

    #[test]
    fn a_roster_that_cannot_be_fetched_takes_only_its_own_answer_along() {
        let (mut batch, mut located) = batch();
        for bits in [1, 2] {
            assert!(!batch.apply_answer(&answer(bits), true));
        }
        for answered in [of_roster(2, 6), of_roster(9, 6)] {
            assert!(!batch.apply_answer(&answered, false), "a second one, and a stranger's");
            batch.apply_included(answered.node, RosterDigest(6), false);
        }
        assert!(batch.is_decided());
        let metrics = LocateMetrics::new(&Metrics::new("test").expect("a registry"));
        batch.finish(&metrics.expect("registered"), WINDOW, SENT);
        let located = located.try_recv().expect("it is answered");
        assert_eq!((located.complete, located.floor), (true, Some(FLOOR)), "as told before");
    }

    #[test]
    fn a_question_that_fails_says_nothing_of_who_was_asked_once_more() {
        let (mut batch, _located) = batch();
        assert!(!batch.apply_answer(&answer(1), true));
        let stamp = Stamp { generation: Generation(1), mono_millis: 1 };
        assert!(batch.ask_again(id(9), stamp).is_none(), "a stranger");
        assert!(batch.ask_again(id(2), stamp).is_some());
        assert!(batch.ask_again(id(2), stamp).is_none(), "once is enough");
        batch.apply_failure(id(2), Asked::First);
        assert!(!batch.is_decided(), "its answer is still to come");
        batch.apply_failure(id(2), Asked::Again);
        assert!(batch.is_decided());
    }

    /// Whether "nobody has it" is proven to a process that was stopped for so long
    /// between the question and its conclusion, by all of its members' answers.
    fn is_absence_proven(stopped: Duration) -> bool {
        let (mut batch, mut located) = batch();
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
