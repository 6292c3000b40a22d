//! Who is heard, and who is silent.
//!
//! [`Membership`] is a plain state machine: heartbeats, probes and rosters are
//! applied to it with the time at which they came, in any order and any number
//! of times; [`Membership::view`] says what follows. It is the same in an api
//! and in a data server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::electorate::{Electorate, voters_of};
use crate::name::ObjectName;
use crate::node::{Address, Generation, NodeId};
use crate::placement::Candidate;
use crate::policy::{Policy, Wanted};
use crate::roster::{Entry, ForeignCluster, MemberState, Roster, RosterDigest};
use crate::stamp::Stamp;
use crate::version::Version;
use crate::wire::heartbeat::{NodeReport, RepairReport};

/// A moment on this process's own clock, which counts sleep: the time since an
/// arbitrary start.
pub type Moment = Duration;

/// Most guests and newcomers that are remembered: both come from messages that
/// anybody on the broker can send.
pub const MAX_STRANGERS: usize = 1_024;

/// How a member is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hearing {
    /// Heard within the expiry.
    Heard,
    /// Never heard, and known for less than the expiry: it may be well.
    Awaited,
    /// Not heard for longer than the expiry.
    Silent,
    /// It said that it shuts down: no new data for it. It may still answer for a
    /// moment, and is silent once the expiry has passed.
    Leaving,
}

impl Hearing {
    /// Every value, for metrics that show each of them.
    pub const ALL: [Self; 4] = [Self::Heard, Self::Awaited, Self::Silent, Self::Leaving];

    /// The word for it in metrics, lists and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Heard => "heard",
            Self::Awaited => "awaited",
            Self::Silent => "silent",
            Self::Leaving => "leaving",
        }
    }

    /// Whether an answer of this member is worth waiting for.
    #[must_use]
    pub fn may_answer(self) -> bool {
        matches!(self, Self::Heard | Self::Awaited | Self::Leaving)
    }
}

/// One data server as this process sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub id: NodeId,
    /// Where it is reached, as of its newest known run.
    pub address: Address,
    /// The newest known run.
    pub generation: Generation,
    /// Where in its life it is. A data server that is in no roster yet is
    /// joining.
    pub state: MemberState,
    /// Whether the roster has it: only then does it count in a locate.
    pub in_roster: bool,
    /// How it is heard.
    pub hearing: Hearing,
    /// When it was last heard.
    pub last_heard: Option<Moment>,
    /// Since when this process has known of it.
    pub awaited_since: Option<Moment>,
    /// Bytes it can still take, as it last said.
    pub free_bytes: u64,
    /// Size of its disk, as it last said.
    pub total_bytes: u64,
    /// Share of the data it should get.
    pub weight: u32,
    /// Its failure zone.
    pub zone: Option<String>,
    /// Whether it drains because it was not heard for too long.
    pub lost: bool,
    /// How often an operator has taken a change of its state back.
    pub epoch: u32,
    /// Whether it belongs to a cluster, as it last said.
    pub founded: bool,
    /// How many data servers without a cluster it sees, as it last said.
    pub newcomers_seen: u32,
    /// When it last said something, on its own clock.
    pub stamp: Option<Stamp>,
    /// At least what it has told with that: see [`NodeReport::floor`].
    pub floor: Option<Version>,
    /// What its `REPLICAS` and `WRITE_QUORUM` ask for, as it last said.
    pub wanted: Option<Wanted>,
    /// How far its repair is, as it last said.
    pub repair: RepairReport,
}

/// What follows from all that was heard up to one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// Whether a roster is known at all. Without one nothing can be proven.
    pub founded: bool,
    /// Digest of that roster.
    pub digest: RosterDigest,
    /// How many copies there are, as that roster says.
    pub policy: Policy,
    /// Which members answer for a name, as that roster says.
    pub electorate: Option<Arc<Electorate>>,
    /// Every data server that is not retired, ordered by id.
    pub members: Vec<Member>,
    /// Data servers written for the seed that are alive, ordered by address.
    pub guests: Vec<Address>,
    /// Since when more than half of all members have been heard without a break;
    /// `None` while they are not.
    pub majority_since: Option<Moment>,
}

impl View {
    /// The member with this id.
    #[must_use]
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// Those that count in a locate: the roster's.
    pub fn roster_members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.in_roster)
    }

    /// Those that new data may go to: active in the roster, and heard.
    pub fn writable(&self) -> impl Iterator<Item = &Member> {
        self.roster_members().filter(|member| {
            member.state == MemberState::Active && member.hearing == Hearing::Heard
        })
    }

    /// Data servers without a cluster that are heard, `own` excluded.
    pub fn newcomers(&self, own: NodeId) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| {
            !member.in_roster
                && !member.founded
                && member.hearing == Hearing::Heard
                && member.id != own
        })
    }

    /// The members that new data may go to and that have room for
    /// `size_bytes`, as placement wants them.
    #[must_use]
    pub fn candidates(&self, size_bytes: u64) -> Vec<Candidate> {
        self.writable()
            .filter(|member| member.free_bytes >= size_bytes)
            .map(Member::candidate)
            .collect()
    }

    /// Whether what this member has accepted counts towards a write quorum: it
    /// is in the roster, and neither drains nor has retired.
    #[must_use]
    pub fn counts(&self, id: NodeId) -> bool {
        self.member(id).is_some_and(Member::counts)
    }

    /// The same where only these voters count, if there are any.
    #[must_use]
    pub fn counts_among(&self, voters: Option<&[NodeId]>, id: NodeId) -> bool {
        voters.is_none_or(|voters| voters.contains(&id)) && self.counts(id)
    }

    /// Those whose copies of `name` count: [`Self::counts`], and voters of that
    /// name while there is an electorate.
    pub fn counting(&self, name: &ObjectName) -> impl Fn(NodeId) -> bool + use<'_> {
        let voters = voters_of(self, name);
        move |id| self.counts_among(voters.as_deref(), id)
    }
}

impl Member {
    /// This member as placement sees it.
    #[must_use]
    pub fn candidate(&self) -> Candidate {
        Candidate { id: self.id, weight: self.weight, zone: self.zone.clone() }
    }

    /// See [`View::counts`].
    #[must_use]
    pub fn counts(&self) -> bool {
        self.in_roster && matches!(self.state, MemberState::Joining | MemberState::Active)
    }

    /// Whether it has too little room to be relied on: no more than a hundredth of
    /// its disk, as it last said.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.free_bytes <= self.total_bytes / 100
    }
}

/// What applying a message brought about; logged and counted by the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A data server was heard that was not heard before.
    Appeared(NodeId),
    /// A member was not heard for the expiry.
    FellSilent(NodeId),
    /// A member said that it shuts down.
    Left(NodeId),
    /// A member came back in a new run.
    Restarted(NodeId),
    /// A guest was heard that was not heard before.
    GuestAppeared(Address),
    /// A guest was not heard for the expiry.
    GuestExpired(Address),
    /// The roster is not what it was.
    RosterChanged(RosterDigest),
}

/// What became of a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It was taken.
    Taken {
        /// What it brought about.
        changes: Vec<Change>,
        /// The sender has another roster, which should be fetched.
        fetch_roster: bool,
        /// Time since the heartbeat of this run before it.
        interval: Option<Duration>,
    },
    /// It is of an earlier run, or from after a goodbye, and was dropped.
    Stale,
    /// It is from a retired member, or one too many, and was dropped.
    Refused,
}

#[derive(Debug, Clone)]
struct Run {
    report: NodeReport,
    last_heard: Moment,
}

/// Everything this process has heard about data servers. Owned by one task.
#[derive(Debug)]
pub struct Membership {
    expiry: Duration,
    roster: Roster,
    runs: BTreeMap<NodeId, Run>,
    awaited_since: BTreeMap<NodeId, Moment>,
    guests: BTreeMap<Address, Moment>,
    /// Those last reported as silent, so that each silence is reported once.
    silent: BTreeSet<NodeId>,
    majority_since: Option<Moment>,
}

impl Membership {
    /// Starts from a roster that was persisted, or from an empty one.
    #[must_use]
    pub fn new(expiry: Duration, roster: Roster, now: Moment) -> Self {
        let mut membership = Self {
            expiry,
            roster,
            runs: BTreeMap::new(),
            awaited_since: BTreeMap::new(),
            guests: BTreeMap::new(),
            silent: BTreeSet::new(),
            majority_since: None,
        };
        membership.await_members(now);
        membership
    }

    /// The roster as it is known.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Takes a heartbeat or the answer to a probe.
    pub fn apply_report(&mut self, report: NodeReport, now: Moment) -> Applied {
        let id = report.node;
        let entry = self.roster.get(id);
        if entry.is_some_and(|entry| entry.state == MemberState::Retired) {
            return Applied::Refused;
        }
        if entry.is_some_and(|entry| entry.generation > report.generation) {
            return Applied::Stale;
        }
        if entry.is_none() && !self.runs.contains_key(&id) && self.newcomer_count() >= MAX_STRANGERS
        {
            return Applied::Refused;
        }
        let mut changes = Vec::new();
        let mut interval = None;
        match self.runs.get(&id) {
            None => changes.push(Change::Appeared(id)),
            Some(run) if run.report.generation > report.generation => return Applied::Stale,
            Some(run) if run.report.generation < report.generation => {
                changes.push(Change::Restarted(id));
            }
            // Messages of one run may overtake each other; a goodbye is final.
            Some(run) if run.report.leaving && !report.leaving => return Applied::Stale,
            Some(run) => {
                interval = Some(now.saturating_sub(run.last_heard));
                if report.leaving && !run.report.leaving {
                    changes.push(Change::Left(id));
                } else if self.silent.contains(&id) {
                    changes.push(Change::Appeared(id));
                }
            }
        }
        let fetch_roster = report.founded && report.roster_digest != self.roster.digest();
        self.silent.remove(&id);
        // Heartbeats and answers to probes come on different ways. The older one
        // proves that it lives, and says nothing of how it is now.
        let report = match self.runs.remove(&id) {
            Some(Run { report: newer, .. })
                if newer.generation == report.generation
                    && newer.address == report.address
                    && newer.mono_millis > report.mono_millis
                    && !report.leaving =>
            {
                newer
            }
            _ => report,
        };
        self.runs.insert(id, Run { report, last_heard: now });
        self.note_majority(now);
        Applied::Taken { changes, fetch_roster, interval }
    }

    /// Takes the heartbeat of a data server written for the seed.
    pub fn apply_guest(&mut self, address: Address, now: Moment) -> Vec<Change> {
        let known = self.guests.contains_key(&address);
        let native = self.runs.values().any(|run| run.report.address == address);
        if native || (!known && self.guests.len() >= MAX_STRANGERS) {
            return Vec::new();
        }
        self.guests.insert(address.clone(), now);
        if known { Vec::new() } else { vec![Change::GuestAppeared(address)] }
    }

    /// Whether this address is known as that of a guest.
    #[must_use]
    pub fn is_guest(&self, address: &Address) -> bool {
        self.guests.contains_key(address)
    }

    /// Merges a roster.
    ///
    /// # Errors
    /// [`ForeignCluster`]; nothing is changed then.
    pub fn apply_roster(
        &mut self,
        roster: &Roster,
        now: Moment,
    ) -> Result<Vec<Change>, ForeignCluster> {
        if !self.roster.merge(roster)? {
            return Ok(Vec::new());
        }
        self.await_members(now);
        Ok(vec![Change::RosterChanged(self.roster.digest())])
    }

    /// Merges one entry, such as a data server's own.
    pub fn apply_entry(&mut self, entry: &Entry, now: Moment) -> Vec<Change> {
        if !self.roster.apply_entry(entry) {
            return Vec::new();
        }
        self.await_members(now);
        vec![Change::RosterChanged(self.roster.digest())]
    }

    fn await_members(&mut self, now: Moment) {
        for entry in self.roster.members() {
            self.awaited_since.entry(entry.id).or_insert(now);
        }
        let roster = &self.roster;
        let retired =
            |id: &NodeId| roster.get(*id).is_some_and(|entry| entry.state == MemberState::Retired);
        self.runs.retain(|id, _| !retired(id));
        self.awaited_since.retain(|id, _| !retired(id));
    }

    /// Lets time pass: reports what fell silent, forgets guests and newcomers
    /// that are not heard any more.
    pub fn apply_time(&mut self, now: Moment) -> Vec<Change> {
        let mut changes = Vec::new();
        let expiry = self.expiry;
        self.guests.retain(|address, last| {
            let alive = now.saturating_sub(*last) <= expiry;
            if !alive {
                changes.push(Change::GuestExpired(address.clone()));
            }
            alive
        });
        let silent: BTreeSet<NodeId> = self
            .known_ids()
            .into_iter()
            .filter(|id| !self.hearing(*id, now).may_answer())
            .collect();
        for id in silent.difference(&self.silent) {
            if self.hearing(*id, now) == Hearing::Silent {
                changes.push(Change::FellSilent(*id));
            }
        }
        let roster = &self.roster;
        self.runs.retain(|id, _| roster.get(*id).is_some() || !silent.contains(id));
        self.silent = silent;
        self.note_majority(now);
        changes
    }

    fn note_majority(&mut self, now: Moment) {
        let is_heard = |entry: &&Entry| self.hearing(entry.id, now) == Hearing::Heard;
        let heard = self.roster.members().filter(is_heard).count();
        let is_majority = heard * 2 > self.roster.members().count();
        self.majority_since = is_majority.then(|| self.majority_since.unwrap_or(now));
    }

    /// Members of the roster that were not heard for `patience`, with the
    /// address to probe them at.
    #[must_use]
    pub fn overdue(&self, patience: Duration, now: Moment) -> Vec<(NodeId, Address)> {
        self.roster
            .members()
            .filter(|entry| {
                self.runs
                    .get(&entry.id)
                    .is_none_or(|run| now.saturating_sub(run.last_heard) >= patience)
            })
            .map(|entry| (entry.id, self.address(entry)))
            .collect()
    }

    /// What follows from all this at `now`.
    #[must_use]
    pub fn view(&self, now: Moment) -> View {
        View {
            founded: self.roster.is_founded(),
            digest: self.roster.digest(),
            policy: self.roster.policy,
            electorate: self.roster.electorate.clone().map(Arc::new),
            members: self.known_ids().into_iter().filter_map(|id| self.member(id, now)).collect(),
            guests: self.guests.keys().cloned().collect(),
            majority_since: self.majority_since,
        }
    }

    fn known_ids(&self) -> BTreeSet<NodeId> {
        self.roster.members().map(|entry| entry.id).chain(self.runs.keys().copied()).collect()
    }

    fn newcomer_count(&self) -> usize {
        self.runs.keys().filter(|id| self.roster.get(**id).is_none()).count()
    }

    fn address(&self, entry: &Entry) -> Address {
        match self.runs.get(&entry.id) {
            Some(run) if run.report.generation >= entry.generation => run.report.address.clone(),
            _ => entry.address.clone(),
        }
    }

    fn hearing(&self, id: NodeId, now: Moment) -> Hearing {
        let within = |since: Moment| now.saturating_sub(since) <= self.expiry;
        match self.runs.get(&id) {
            Some(run) if !within(run.last_heard) => Hearing::Silent,
            Some(run) if run.report.leaving => Hearing::Leaving,
            Some(_) => Hearing::Heard,
            None if self.awaited_since.get(&id).is_some_and(|since| within(*since)) => {
                Hearing::Awaited
            }
            None => Hearing::Silent,
        }
    }

    fn member(&self, id: NodeId, now: Moment) -> Option<Member> {
        let entry = self.roster.get(id);
        let run = self.runs.get(&id);
        let report = run.map(|run| &run.report);
        Some(Member {
            id,
            address: match entry {
                Some(entry) => self.address(entry),
                None => report?.address.clone(),
            },
            generation: report
                .map(|report| report.generation)
                .max(entry.map(|entry| entry.generation))?,
            state: entry.map_or(MemberState::Joining, |entry| entry.state),
            in_roster: entry.is_some(),
            hearing: self.hearing(id, now),
            last_heard: run.map(|run| run.last_heard),
            awaited_since: self.awaited_since.get(&id).copied(),
            free_bytes: report.map_or(0, |report| report.free_bytes),
            total_bytes: report.map_or(0, |report| report.total_bytes),
            weight: entry.map_or(1, |entry| entry.weight),
            zone: entry.and_then(|entry| entry.zone.clone()),
            lost: entry.is_some_and(|entry| entry.lost),
            epoch: entry.map_or(0, |entry| entry.epoch),
            founded: report.map_or(entry.is_some(), |report| report.founded),
            newcomers_seen: report.map_or(0, |report| report.newcomers_seen),
            stamp: report.map(|report| Stamp {
                generation: report.generation,
                mono_millis: report.mono_millis,
            }),
            floor: report.and_then(|report| report.floor),
            wanted: report.and_then(|report| Wanted::heard(report.replicas, report.write_quorum)),
            repair: report.map(|report| report.repair.clone()).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
