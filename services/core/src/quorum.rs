//! What the answers to a write prove.
//!
//! A version is acknowledged once W members have it, or something newer,
//! durably. [`Tally`] counts who said what, each member once.

use std::collections::BTreeMap;

use crate::node::NodeId;

/// What a write is for. It decides what counts as an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A client's PUT or DELETE without a condition.
    Write,
    /// A client's PUT or DELETE whose condition was judged on what a promise
    /// holds in place: nothing may have come in between.
    Conditional,
    /// Bringing a version that was found to W members before anybody is told
    /// of it.
    WriteBack,
}

/// What one member made of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reply {
    /// It has it, durably; now or already.
    Stored,
    /// It has something newer.
    Superseded {
        /// Whether it has promised something that is newer than what was
        /// offered: a conditional write may be judging what it found before.
        promised_above: bool,
    },
    /// It certainly took nothing.
    Refused,
    /// It may have taken it.
    Unknown,
}

/// Where a write stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It is durable on W members.
    Acknowledged,
    /// Answers are still to come that may decide it, or others may be asked.
    Open,
}

/// The answers to one version's write.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tally {
    purpose: Purpose,
    replies: BTreeMap<NodeId, Reply>,
    /// Whether any answer left it open that this version was stored: a later
    /// answer of the same member does not take that back.
    may_be_stored: bool,
}

impl Tally {
    /// No answers yet.
    #[must_use]
    pub fn new(purpose: Purpose) -> Self {
        Self { purpose, replies: BTreeMap::new(), may_be_stored: false }
    }

    /// Takes what a member answered. A later answer of the same member replaces
    /// an earlier one only if it says more: what was stored once stays stored.
    pub fn apply(&mut self, node: NodeId, reply: Reply) {
        self.may_be_stored |= matches!(reply, Reply::Stored | Reply::Unknown);
        let known = self.replies.entry(node).or_insert(reply);
        if *known != Reply::Stored && reply != Reply::Refused {
            *known = reply;
        }
    }

    /// Where the write stands. `counts` says which members count: those that
    /// the roster, as it is known after these answers, neither drains nor has
    /// retired.
    #[must_use]
    pub fn progress(&self, write_quorum: usize, counts: impl Fn(NodeId) -> bool) -> Progress {
        let acknowledged = self
            .replies
            .iter()
            .filter(|(node, reply)| counts(**node) && self.acknowledges(**reply))
            .count();
        if acknowledged >= write_quorum.max(1) { Progress::Acknowledged } else { Progress::Open }
    }

    fn acknowledges(&self, reply: Reply) -> bool {
        match (reply, self.purpose) {
            (Reply::Stored, _) => true,
            (Reply::Superseded { promised_above }, Purpose::Write | Purpose::WriteBack) => {
                !promised_above
            }
            _ => false,
        }
    }

    /// Whether it is certain that no member has this version: then the write did
    /// not happen, and may be made again under another one.
    #[must_use]
    pub fn changed_nothing(&self) -> bool {
        !self.may_be_stored
    }

    /// Members that said they have this version.
    pub fn holders(&self) -> impl Iterator<Item = NodeId> {
        self.replies.iter().filter(|(_, reply)| **reply == Reply::Stored).map(|(node, _)| *node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(bits: u128) -> NodeId {
        NodeId::from_bits(bits)
    }

    fn tally(purpose: Purpose, replies: &[(u128, Reply)]) -> Tally {
        let mut tally = Tally::new(purpose);
        replies.iter().for_each(|(node, reply)| tally.apply(id(*node), *reply));
        tally
    }

    const NEWER: Reply = Reply::Superseded { promised_above: false };
    const JUDGED: Reply = Reply::Superseded { promised_above: true };

    #[test]
    fn only_distinct_members_that_count_make_a_quorum() {
        let both = tally(Purpose::Write, &[(1, Reply::Stored), (2, Reply::Stored)]);
        assert_eq!(both.progress(2, |_| true), Progress::Acknowledged);
        assert_eq!(both.progress(2, |node| node != id(2)), Progress::Open);
        let twice = tally(Purpose::Write, &[(1, Reply::Stored), (1, Reply::Stored)]);
        assert_eq!(twice.progress(2, |_| true), Progress::Open);
    }

    #[test]
    fn superseded_acknowledges_what_has_no_condition() {
        for (purpose, reply, expected) in [
            (Purpose::Write, NEWER, Progress::Acknowledged),
            (Purpose::WriteBack, NEWER, Progress::Acknowledged),
            (Purpose::Conditional, NEWER, Progress::Open),
            (Purpose::Write, JUDGED, Progress::Open),
            (Purpose::WriteBack, JUDGED, Progress::Open),
            (Purpose::Write, Reply::Unknown, Progress::Open),
            (Purpose::Write, Reply::Refused, Progress::Open),
        ] {
            let tally = tally(purpose, &[(1, Reply::Stored), (2, reply)]);
            assert_eq!(tally.progress(2, |_| true), expected, "{purpose:?} {reply:?}");
        }
    }

    #[test]
    fn what_may_have_happened_is_not_taken_for_nothing() {
        let refused = [(1, Reply::Refused), (2, NEWER)];
        assert!(tally(Purpose::Write, &refused).changed_nothing());
        for reply in [Reply::Stored, Reply::Unknown] {
            assert!(!tally(Purpose::Write, &[(1, Reply::Refused), (2, reply)]).changed_nothing());
        }
        // A second try that was refused does not undo a first that may have come.
        for later in [Reply::Refused, NEWER] {
            let retried = [(1, Reply::Unknown), (1, later)];
            assert!(!tally(Purpose::Write, &retried).changed_nothing());
        }
    }
}
