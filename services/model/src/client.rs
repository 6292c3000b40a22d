//! What the coordinator of one client does: locate, then write or answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_core::locate::{Located, Round};
use holdfast_core::membership::View;
use holdfast_core::node::Generation;
use holdfast_core::quorum::{Purpose, Reply, Tally};
use holdfast_core::stamp::Stamp;
use holdfast_core::version::Version;
use holdfast_core::wire::PROTOCOL_VERSION;
use holdfast_core::wire::locate::BatchAnswer;

use crate::book::{Book, Place, address, id};
use crate::node::{Answer, Held, key};

/// Somebody who asks, and what came of it so far.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Client {
    /// Operations that it has begun.
    pub begun: usize,
    /// What it is doing.
    pub phase: Phase,
    /// Whether it has made its write again already.
    pub retried: bool,
    /// The version of its conditional write that somebody may have taken: it
    /// finds out what became of it.
    pub open: Option<Version>,
    /// The last version that it made.
    pub last: Option<Version>,
    /// The roster as it has heard of it.
    pub book: Arc<Book>,
}

/// What a client is doing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Nothing.
    Idle,
    /// It asks who has what.
    Locating(Locating),
    /// It has a version stored.
    Writing(Writing),
}

/// A round of questions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Locating {
    /// The roster as it was when this round began.
    pub began: Arc<Book>,
    /// What each member last said before this round began.
    pub stamps: BTreeMap<Place, Stamp>,
    /// The answers.
    pub answers: BTreeMap<Place, Answer>,
    /// The promise that is asked for.
    pub ballot: Option<Version>,
}

/// A version on its way to the members.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Writing {
    /// The version.
    pub held: Held,
    /// What for.
    pub purpose: Purpose,
    /// What each member said, in the order in which it came: the same twice is
    /// kept once.
    pub replies: BTreeMap<Place, Vec<Reply>>,
    /// To whom it was sent.
    pub sent: BTreeSet<Place>,
    /// When it is what was found, settled under a promise: what each member last
    /// said. What follows is sent with that, too.
    pub promised: Option<BTreeMap<Place, Stamp>>,
}

impl Client {
    /// Whether a reply about this version means anything to it.
    #[must_use]
    pub fn waits_for(&self, held: Held) -> bool {
        matches!(&self.phase, Phase::Writing(writing) if writing.held == held)
    }
}

impl Writing {
    /// Takes a reply.
    pub fn apply(&mut self, from: Place, reply: Reply) {
        let replies = self.replies.entry(from).or_default();
        if replies.last() != Some(&reply) {
            replies.push(reply);
        }
    }

    /// What the replies prove is core's to say.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::new(self.purpose);
        for (from, replies) in &self.replies {
            replies.iter().for_each(|reply| tally.apply(id(*from), *reply));
        }
        tally
    }
}

impl Locating {
    /// What the answers prove to somebody who began with the first view and has
    /// the second one now, judged by core's own round, where the members have
    /// these wall clocks.
    #[must_use]
    pub fn located(&self, began: &View, view: &View, clocks: &[u64]) -> Located {
        let promises: BTreeSet<u32> = self.ballot.iter().map(|_| 0).collect();
        let mut round = Round::new(vec![key()], promises, began);
        if began != view {
            round.apply_view(view);
        }
        for (place, answer) in &self.answers {
            let clock = clocks.get(*place).copied().unwrap_or(0);
            round.apply_answer(&batch_answer(*place, answer, view.digest, clock));
        }
        round.outcome(0)
    }
}

fn batch_answer(
    place: Place,
    answer: &Answer,
    roster_digest: holdfast_core::roster::RosterDigest,
    unix_millis: u64,
) -> BatchAnswer {
    // Runs are known by their stamps; the rosters of the models do not tell
    // them apart, as if nobody had heard a heartbeat since the restart.
    let Stamp { generation: Generation(generation), mono_millis } = answer.stamp;
    BatchAnswer {
        protocol: PROTOCOL_VERSION,
        id: 0,
        node: id(place),
        generation: Generation(generation),
        address: address(place),
        roster_digest,
        mono_millis,
        unix_millis,
        found: answer.held.iter().map(|held| (0, held.stat())).collect(),
        unknown: if answer.unknown { vec![0] } else { Vec::new() },
        floor: answer.floor,
        promised: if answer.promised { vec![0] } else { Vec::new() },
        may_have_promised: answer.may_have_promised.iter().map(|promised| (0, *promised)).collect(),
        promised_before: None,
        late: false,
    }
}
