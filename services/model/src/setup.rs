//! What a model consists of.

use std::time::Duration;

use holdfast_core::electorate::{self, Phase};
use holdfast_core::policy::{Policy, Wanted};
use holdfast_core::version::Version;

use crate::history::Ask;
use crate::mutation::Mutation;
use crate::node::ticks;

/// The version of the tombstones that are there from the start.
pub const OLD_TOMBSTONE: Version = Version::from_parts(5, 0);

/// One small cluster, what happens in it, and how far it is explored.
#[derive(Debug, Clone)]
pub struct Setup {
    /// What it is called.
    pub name: &'static str,
    /// Members that are active from the start.
    pub members: usize,
    /// How many copies there are.
    pub policy: Policy,
    /// What each client asks for, one after the other.
    pub clients: Vec<Vec<Ask>>,
    /// Who holds content 9 from the start; it was acknowledged if anybody does.
    pub initial: Vec<usize>,
    /// Who alone took content 8 of a write that was never answered.
    pub unacknowledged: Option<usize>,
    /// Who has a tombstone of long ago, newer than all that; the delete was
    /// acknowledged if as many have it as writes need.
    pub tombstones: Vec<usize>,
    /// How often the clock ticks.
    pub ticks: u64,
    /// How many ticks the window has.
    pub window: u64,
    /// For how many ticks a promise is kept; core's rule if none is given.
    pub promise_ticks: Option<u64>,
    /// How often a member restarts.
    pub restarts: u8,
    /// Wall clocks of the members, in milliseconds; zero where none is given.
    pub clocks: Vec<u64>,
    /// Whether messages arrive more than once.
    pub duplicates: bool,
    /// The member whose copy cannot be read, from the start.
    pub damaged: Option<usize>,
    /// Sends each write to everybody who answered. Messages may be lost, so
    /// this includes every choice of R of them.
    pub everywhere: bool,
    /// Whether clients find out what became of a conditional write that was not
    /// acknowledged.
    pub finds_out: bool,
    /// Whether a read that could not settle what it found asks for a promise, and
    /// settles it under that.
    pub outbids: bool,
    /// Loses no replies to what arrived: less is explored.
    pub replies_arrive: bool,
    /// Whether a member that looks after its copy hears the others at one
    /// moment.
    pub looks_at_once: bool,
    /// Members that look after their copies.
    pub repairers: Vec<usize>,
    /// Where members think that copies belong, if they do not agree: each has a
    /// list of members. Observers that see different silences do not.
    pub homes: Vec<Vec<usize>>,
    /// Whether a member that is in no roster joins.
    pub joins: bool,
    /// The member that drains, and whether it does because it was lost.
    pub drains: Option<(usize, bool)>,
    /// How many copies there are to be, and how many of them a write makes.
    pub goal: Option<Wanted>,
    /// The phase of the electorate in the beginning, if there is one, and that to
    /// which it goes, or none, if it changes.
    pub electorate: (Option<Phase>, Option<Option<Phase>>),
    /// For how many ticks it rises and falls; core's rule if none is given.
    pub phase_ticks: Option<u64>,
    /// Keeps the names of members in the states although they do not matter, so
    /// that the steps of a counterexample can be followed.
    pub named: bool,
    /// The rule that is broken.
    pub mutation: Option<Mutation>,
}

impl Setup {
    /// A quiet cluster of `members` members with `replicas` copies.
    #[must_use]
    pub fn new(name: &'static str, members: usize, replicas: u32) -> Self {
        Self {
            name,
            members,
            policy: Policy::settled(1, replicas),
            clients: Vec::new(),
            initial: Vec::new(),
            unacknowledged: None,
            tombstones: Vec::new(),
            ticks: 0,
            window: 2,
            promise_ticks: None,
            restarts: 0,
            clocks: Vec::new(),
            duplicates: false,
            damaged: None,
            everywhere: false,
            finds_out: false,
            outbids: false,
            replies_arrive: false,
            looks_at_once: true,
            repairers: Vec::new(),
            homes: Vec::new(),
            joins: false,
            drains: None,
            goal: None,
            electorate: (None, None),
            phase_ticks: None,
            named: false,
            mutation: None,
        }
    }

    /// The same with a rule broken.
    #[must_use]
    pub fn with(self, mutation: Mutation) -> Self {
        Self { mutation: Some(mutation), ..self }
    }

    /// Whether a rule is broken that has a draining member wait before it retires.
    #[must_use]
    pub fn retires_at_once(&self) -> bool {
        matches!(self.mutation, Some(Mutation::RetireAtOnce | Mutation::RetireAtOnceAndCount))
    }

    /// How long a message may be under way.
    #[must_use]
    pub fn window(&self) -> Duration {
        ticks(self.window)
    }

    /// The window from which core makes the lifetime of promises.
    #[must_use]
    pub fn promise_window(&self) -> Duration {
        self.promise_ticks.map_or(self.window(), |count| ticks(count) / 4)
    }

    /// How long an electorate rises and falls.
    #[must_use]
    pub fn phase_lasts(&self) -> Duration {
        self.phase_ticks.map_or_else(|| electorate::lasts(self.window()), ticks)
    }

    /// Places for members.
    #[must_use]
    pub fn places(&self) -> usize {
        self.members + usize::from(self.joins)
    }

    /// Whether anything is ever promised: if not, it means nothing to a member
    /// whether what it is offered may have been missed.
    #[must_use]
    pub fn promises(&self) -> bool {
        let conditional = |ask: &Ask| matches!(ask, Ask::Create(_) | Ask::Replace(..));
        self.outbids || self.clients.iter().flatten().any(conditional)
    }

    /// Whether copies are ever dropped.
    #[must_use]
    pub fn drops(&self) -> bool {
        !self.repairers.is_empty()
    }

    /// Whether members differ in nothing but their names: then states that
    /// differ only in the names are one.
    #[must_use]
    pub fn is_symmetric(&self) -> bool {
        !self.named
            && self.clocks.is_empty()
            && self.damaged.is_none()
            && self.repairers.is_empty()
            && !self.changes_roster()
            && self.electorate.0.is_none()
            && (self.everywhere || self.policy.replicas() == self.members)
    }

    /// Whether rosters change at all.
    #[must_use]
    pub fn changes_roster(&self) -> bool {
        self.joins || self.drains.is_some() || self.goal.is_some() || self.electorate.1.is_some()
    }
}
