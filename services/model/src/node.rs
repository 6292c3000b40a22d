//! A member: what it holds, and what it does with what it is asked.
//!
//! Each step is atomic, as it is in the services under the lock of the name.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::membership::Moment;
use holdfast_core::name::{Key, ObjectName};
use holdfast_core::node::{Generation, NodeId};
use holdfast_core::object::{Digest, Kind, Metadata, Stat};
use holdfast_core::quorum::Reply;
use holdfast_core::replica::{Offer, Offered, Pins, Promises, compare_offer};
use holdfast_core::roster::MemberState;
use holdfast_core::stamp::Stamp;
use holdfast_core::version::Version;

use crate::book::{Book, Place};
use crate::mutation::Mutation;
use crate::setup::Setup;

/// One version with its content; `None` is a tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Held {
    /// Which version.
    pub version: Version,
    /// The version under which it was written, if it was settled under another.
    pub written_as: Option<Version>,
    /// What it says.
    pub content: Option<u8>,
}

impl Held {
    /// What a client writes.
    #[must_use]
    pub fn new(version: Version, content: Option<u8>) -> Self {
        Self { version, written_as: None, content }
    }

    /// The same as core knows it.
    #[must_use]
    pub fn stat(self) -> Stat {
        Stat {
            version: self.version,
            kind: if self.content.is_some() { Kind::Object } else { Kind::Tombstone },
            size_bytes: u64::from(self.content.is_some()),
            digest: Digest(u64::from(self.content.unwrap_or(0))),
            metadata: Metadata { written_as: self.written_as, ..Metadata::default() },
        }
    }

    /// What this stat says.
    #[must_use]
    pub fn of(stat: &Stat) -> Self {
        let content = u8::try_from(stat.digest.0).expect("made by `stat`");
        let content = (stat.kind == Kind::Object).then_some(content);
        Self { version: stat.version, written_as: stat.metadata.written_as, content }
    }
}

/// What one answer to a locate says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Answer {
    /// The run that answered, and when it looked.
    pub stamp: Stamp,
    /// What it holds.
    pub held: Option<Held>,
    /// Whether it holds something that it cannot read.
    pub unknown: bool,
    /// The highest version that it took or promised.
    pub floor: Option<Version>,
    /// Whether it gave the promise that was asked for.
    pub promised: bool,
    /// The highest version that it may have promised, whatever came of it.
    pub may_have_promised: Option<Version>,
}

/// A version on its way to a member.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Packet {
    /// To whom.
    pub to: Place,
    /// What the receiver last said to the sender.
    pub stamp: Stamp,
    /// What it should take.
    pub held: Held,
    /// Whether it was found, and not made, by the sender.
    pub write_back: bool,
    /// Whether enough were seen to have it already.
    pub settled: bool,
    /// The client that sent it, or none: then a member did.
    pub from: Option<usize>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    /// Which run this is.
    pub generation: Generation,
    /// What it holds, durably.
    pub held: Option<Held>,
    /// Whether it cannot read that.
    pub damaged: bool,
    /// The highest version that it took or promised, durably.
    pub floor: Option<Version>,
    /// The highest version that it promised, durably.
    pub promised: Option<Version>,
    /// What it promised in this run.
    pub promises: Promises,
    /// Who relies on its copy, and whether it lets go of it.
    pub pins: Pins,
    /// The roster that it persisted.
    pub book: Arc<Book>,
    /// Members that said they know of its join.
    pub told: BTreeSet<NodeId>,
    /// Since when it has taken nothing because it drains.
    pub refusing_since: Option<Moment>,
    /// Whether its last full repair pass suffices for what is going on.
    pub passed: bool,
    /// The tombstone that it forgot together with the others. Only those who
    /// watch know of it.
    pub collected: Option<Version>,
}

/// The only key of the models.
#[must_use]
pub fn key() -> ObjectName {
    ObjectName::seed(Key::new("k").expect("short"))
}

/// The moment of this tick. Members have been running for long when a model
/// begins.
#[must_use]
pub fn moment(tick: u64) -> Moment {
    LONG + ticks(tick)
}

/// So many ticks.
#[must_use]
pub fn ticks(count: u64) -> Duration {
    Duration::from_secs(count)
}

const LONG: Duration = Duration::from_secs(1_000);

impl Node {
    /// A member in its first run, which began long ago.
    #[must_use]
    pub fn new(setup: &Setup, held: Option<Held>, book: Arc<Book>) -> Self {
        Self {
            generation: Generation(0),
            held,
            damaged: false,
            floor: held.map(|held| held.version),
            promised: None,
            promises: Promises::new(setup.promise_window(), None),
            pins: Pins::new(setup.window(), Moment::ZERO),
            book,
            told: BTreeSet::new(),
            refusing_since: None,
            passed: false,
            collected: None,
        }
    }

    /// What it gives everybody who asks it anything, at `now`.
    #[must_use]
    pub fn stamp(&self, now: Moment) -> Stamp {
        Stamp::at(self.generation, now)
    }

    /// It restarts: what was in memory is gone.
    pub fn restart(&mut self, setup: &Setup, now: Moment) {
        self.generation.0 += 1;
        self.pins = Pins::new(setup.window(), now);
        if setup.mutation == Some(Mutation::LetGoWhenYoung) {
            self.pins = Pins::new(setup.window(), Moment::ZERO);
        }
        if setup.mutation == Some(Mutation::DropFloor) {
            self.floor = self.held.map(|held| held.version);
            self.promised = None;
        }
        self.promises = Promises::new(setup.promise_window(), self.promised);
        self.told.clear();
        self.passed = false;
        if self.refusing_since.is_some() {
            self.refusing_since = Some(now);
        }
    }

    /// Time has passed: what has ended is forgotten.
    pub fn expire(&mut self, now: Moment) {
        self.promises.expire(now);
        self.pins.expire(now);
    }

    /// Whether a question comes in time that says this of the member's last
    /// answer; else it is answered "too late", which proves nothing.
    #[must_use]
    pub fn is_in_time(&self, setup: &Setup, stamp: Option<Stamp>, now: Moment) -> bool {
        let good = |stamp: Stamp| stamp.check(self.generation, now, setup.window()).is_ok();
        stamp.is_some_and(good) || setup.mutation == Some(Mutation::AnswerOldQuestion)
    }

    /// It is asked for a promise.
    pub fn promise(&mut self, setup: &Setup, ballot: Version, now: Moment) -> bool {
        self.raise_floor(ballot);
        self.promised = self.promised.max(Some(ballot));
        let held = self.held.map(|held| held.version);
        setup.mutation == Some(Mutation::NoPromise)
            || self.promises.promise(&key(), ballot, held, now).is_ok()
    }

    /// What it says when it is asked what it holds.
    #[must_use]
    pub fn answer(&self, setup: &Setup, promised: bool, now: Moment) -> Answer {
        let hidden = self.damaged && setup.mutation == Some(Mutation::UnreadableIsAbsent);
        Answer {
            stamp: self.stamp(now),
            held: self.held.filter(|_| !self.damaged),
            unknown: self.damaged && !hidden,
            floor: self.floor,
            promised,
            may_have_promised: if setup.mutation == Some(Mutation::ForgetPromised) {
                None
            } else {
                self.promises.may_have_promised(&key()).max(self.promises.by_earlier_runs())
            },
        }
    }

    fn raise_floor(&mut self, version: Version) {
        self.floor = self.floor.max(Some(version));
    }

    /// It is asked to forget this tombstone together with the others, later.
    pub fn agree_to_collect(&mut self, setup: &Setup, version: Version, now: Moment) -> bool {
        let nothing_else = self
            .held
            .is_none_or(|held| held.version == version && held.content.is_none() && !self.damaged);
        if !nothing_else && setup.mutation != Some(Mutation::AgreeToAnything) {
            return false;
        }
        if setup.mutation != Some(Mutation::CollectWithoutFloor) {
            self.raise_floor(version);
        }
        if setup.mutation == Some(Mutation::CollectWithoutBar) {
            return true;
        }
        self.promises.bar(&key(), version, now).is_ok()
    }

    /// Whether it still takes nothing below this version.
    #[must_use]
    pub fn is_barred(&self, version: Version, now: Moment) -> bool {
        self.promises.bars(&key(), version, now)
    }

    /// It forgets exactly this version.
    pub fn collect(&mut self, version: Version) {
        if self.held.is_some_and(|held| held.version == version) {
            self.held = None;
            self.collected = Some(version);
        }
    }

    /// Whether it holds this version or a newer one, or forgot such a tombstone
    /// as it should.
    #[must_use]
    pub fn keeps(&self, version: Version) -> bool {
        self.held.map(|held| held.version).max(self.collected) >= Some(version)
    }

    /// Whether it takes data, as far as it knows.
    #[must_use]
    pub fn takes_data(&self, own: Place) -> bool {
        self.book.state(own) == Some(MemberState::Active)
    }

    /// It is offered a version.
    pub fn take(&mut self, setup: &Setup, own: Place, packet: &Packet, now: Moment) -> Reply {
        let bad_stamp = packet.stamp.check(self.generation, now, setup.window()).is_err();
        if bad_stamp && setup.mutation != Some(Mutation::AcceptOldStamp) {
            return Reply::Refused;
        }
        // The fault needs writes that were let in before, and land only now.
        if !self.takes_data(own) && !setup.retires_at_once() {
            return Reply::Refused;
        }
        let version = packet.held.version;
        // The fault needs a member that compares before it looks at its promises.
        if setup.mutation == Some(Mutation::CountSuperseded)
            && self.held.is_some_and(|held| held.version > version)
        {
            return self.put_if_newer(packet, now);
        }
        let unguarded = packet.write_back
            && (setup.mutation == Some(Mutation::WriteBackIgnoresPromises)
                || (packet.settled && setup.mutation == Some(Mutation::SettleBelowBallot)));
        // Of an old stamp the bar of what earlier runs promised would keep most out.
        let is_barred = !bad_stamp && setup.mutation != Some(Mutation::WriteBelowEarlierRuns);
        let offered = match (packet.write_back, packet.settled) {
            (false, _) if is_barred => Offered::Written,
            (true, false) if setup.mutation != Some(Mutation::ForgetPromised) => Offered::Found,
            _ => Offered::Settled,
        };
        if !unguarded && self.promises.check(&key(), version, offered, now).is_err() {
            return Reply::Refused;
        }
        self.put_if_newer(packet, now)
    }

    fn put_if_newer(&mut self, packet: &Packet, now: Moment) -> Reply {
        let version = packet.held.version;
        let held = self.held.map(Held::stat);
        match compare_offer(held.as_ref(), &packet.held.stat()) {
            Offer::Newer => {
                self.held = Some(packet.held);
                self.promises.came(&key(), version);
                self.damaged = false;
                self.raise_floor(version);
                Reply::Stored
            }
            // A good copy mends one that cannot be read.
            Offer::Same => {
                self.damaged = false;
                Reply::Stored
            }
            Offer::Older => {
                Reply::Superseded { promised_above: self.promises.is_above(&key(), version, now) }
            }
            Offer::Conflict => Reply::Refused,
        }
    }
}
