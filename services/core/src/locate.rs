//! What the answers of the members prove.
//!
//! A [`Round`] asks every member of the roster about a set of names. It is over
//! as soon as no answer that is still out could change the outcome, which is
//! often before all have answered or any deadline has passed.

mod round;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use round::Round;

use crate::membership::View;
use crate::node::{Address, NodeId};
use crate::object::{Kind, Stat};
use crate::stamp::Stamp;
use crate::version::Version;

/// One copy of an object that a locate found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Who holds it.
    pub node: NodeId,
    /// Where that member is reached.
    pub address: Address,
    /// Which version it holds, tombstones too.
    pub stat: Stat,
}

/// What is known of one name once its round is over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Located {
    /// Every copy, newest version first.
    pub replicas: Vec<Replica>,
    /// Members that might hold something newer and did not say.
    pub unheard: Vec<NodeId>,
    /// Members that answered about this name.
    pub answered: Vec<NodeId>,
    /// Whether so few are unheard that no acknowledged write can be hidden.
    pub complete: bool,
    /// How many members have the newest version and can read it, of those that
    /// neither drain nor have retired.
    pub copies: usize,
    /// How many of these copies count: all, or those of voters.
    pub lasting: usize,
    /// Whether the newest version is certain to be found again: as many such
    /// members have it as reads count on, or will count on once the number of
    /// copies has been raised. What is not must be written to W members before
    /// anybody is told of it.
    pub settled: bool,
    /// Whether whoever was promised something above the newest version has seen
    /// that version, or something newer: it is on so many members, draining ones
    /// and those that cannot read it included, that a complete answer to a
    /// promise shows one of them. What is settled is, unless W of reads is about
    /// to rise. What is not may have been left out by a conditional write that is
    /// above it, and must not be settled below that.
    pub is_accepted: bool,
    /// The highest version that any of those that answered may have promised for
    /// this name and does not have.
    pub promised: Option<Version>,
    /// Median of the wall clocks of those that answered, Unix milliseconds.
    pub clock_millis: Option<u64>,
    /// The highest floor that a member told: new versions lie above it.
    pub floor: Option<Version>,
    /// When each of those that answered did: to be given back with whatever is
    /// done because of this answer.
    pub stamps: BTreeMap<NodeId, Stamp>,
    /// On how many members a version is settled; on 1, whatever is found is.
    pub settling: usize,
    /// When members answered before this locate. A stamp that is older than need
    /// be is refused a little earlier, that is all.
    pub earlier: Arc<BTreeMap<NodeId, Stamp>>,
    /// What the roster says that reads count on.
    pub quorum: ReadQuorum,
    /// The voters of this name, best first, while copies count only on them.
    pub voters: Option<Vec<NodeId>>,
}

/// What a locate proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// This is the newest content among those that answered.
    Found(&'a Replica),
    /// There is none, for certain.
    Absent,
    /// There may be one; these members did not say.
    Incomplete(&'a [NodeId]),
}

impl Located {
    /// The newest version found, tombstones too: what a write must exceed.
    #[must_use]
    pub fn newest(&self) -> Option<&Replica> {
        self.replicas.first()
    }

    /// The members that have the newest version.
    pub fn newest_holders(&self) -> impl Iterator<Item = &Replica> {
        let newest = self.newest().map(|replica| replica.stat.version);
        self.replicas.iter().filter(move |replica| Some(replica.stat.version) == newest)
    }

    /// Whether somebody shows something above `ballot`, the version that was to be
    /// promised. Then nothing is known of what lies below it, also when enough
    /// members promised: one that did not may show it, and what is written under
    /// the ballot would never be seen.
    #[must_use]
    pub fn shows_above(&self, ballot: Version) -> bool {
        self.newest().is_some_and(|newest| newest.stat.version > ballot)
    }

    /// Whether the newest version may be told: it is settled, or there is but one
    /// copy of anything.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.settled || self.settling <= 1
    }

    /// Whether somebody who was promised something above the newest version may not
    /// have seen it. Then it must be settled above that, under a promise. Also a
    /// member that joined since, and knows nothing of it, must not take it.
    #[must_use]
    pub fn may_be_missed(&self) -> bool {
        let newest = self.newest().map(|newest| newest.stat.version);
        !self.is_accepted && newest.is_some_and(|newest| self.promised > Some(newest))
    }

    /// When this member answered, if it did.
    #[must_use]
    pub fn stamp(&self, node: NodeId) -> Option<Stamp> {
        self.stamps.get(&node).copied()
    }

    /// When this member answered, or the last time before that.
    #[must_use]
    pub fn stamp_or_earlier(&self, node: NodeId) -> Option<Stamp> {
        self.stamp(node).or_else(|| self.earlier.get(&node).copied())
    }

    /// What this proves. A member that did not say may hold something newer, so
    /// with more than one copy nothing is proven by an incomplete answer. With
    /// one copy there is nobody else to ask: what is found is served.
    #[must_use]
    pub fn verdict(&self) -> Verdict<'_> {
        match self.newest() {
            Some(replica)
                if replica.stat.kind == Kind::Object
                    && (self.complete || self.quorum.is_single_copy()) =>
            {
                Verdict::Found(replica)
            }
            Some(_) | None if self.complete => Verdict::Absent,
            Some(_) | None => Verdict::Incomplete(&self.unheard),
        }
    }
}

/// How many members may be unheard before a locate is incomplete: fewer than
/// every acknowledged write reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadQuorum {
    /// Members that each acknowledged write reached.
    pub write_quorum: usize,
    /// See [`Policy::serves_single_copies`](crate::policy::Policy::serves_single_copies).
    pub is_single_copy: bool,
}

impl ReadQuorum {
    /// One copy of each object: every member must be heard.
    pub const SINGLE_COPY: Self = Self { write_quorum: 1, is_single_copy: true };

    /// What reads count on under this view's policy.
    #[must_use]
    pub fn of(view: &View) -> Self {
        let policy = &view.policy;
        let is_single_copy = policy.serves_single_copies();
        Self { write_quorum: policy.read_quorum(), is_single_copy }
    }

    /// Whether one member less than all may hide an acknowledged write, and what is
    /// found is served nonetheless.
    #[must_use]
    pub fn is_single_copy(self) -> bool {
        self.is_single_copy
    }

    fn allows(self, unheard: usize) -> bool {
        unheard < self.write_quorum
    }
}

impl Default for ReadQuorum {
    fn default() -> Self {
        Self::SINGLE_COPY
    }
}

#[cfg(test)]
#[path = "locate_tests.rs"]
mod tests;
