//! The smaller set that answers for each name.
//!
//! W members that any lookup must meet can be any members, as long as lookups
//! hear all but fewer than W. Then W silent members stop every name. An
//! [`Electorate`] narrows this down: while there is one, writes count only on
//! the *voters* of a name, the first 2W − 1 members by placement among those
//! that it lists, and W of them answer for it.
//!
//! It is part of the roster and changes under the policy's epoch, one phase at a
//! time; the next one begins when the one before it counts:
//!
//! | phase | writes count on | lookups are complete when |
//! |---|---|---|
//! | none | any W members | fewer than W members are unheard |
//! | [`Phase::Rising`] | W voters | the same |
//! | [`Phase::Settling`] | W voters | the same |
//! | [`Phase::Reading`] | W voters | the same, or fewer than W voters are unheard |
//! | [`Phase::Falling`] | W voters | as without one |
//!
//! Rising lasts until nobody lets go of a copy any more without regard to voters;
//! from settling to reading takes a full pass of every member that found W voters
//! with each name. Falling lasts until nobody can act on a lookup of W voters any
//! more, nor rely on their promises.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fields::Fields;
use crate::membership::{Hearing, Member, View};
use crate::name::ObjectName;
use crate::node::NodeId;
use crate::placement::{Candidate, choose_owners, rank};
use crate::policy::{Policy, Wanted};
use crate::replica::LIFETIME_WINDOWS;
use crate::roster::MemberState;

/// How far an electorate has come. Ordered: later phases win a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Writes count on voters, and copies are not taken from them.
    Rising,
    /// What is older is looked up, name by name, and brought to its voters.
    Settling,
    /// W voters answer for a name.
    Reading,
    /// Lookups ask all again; writes still count on voters, for those who have
    /// not heard of it.
    Falling,
}

impl Phase {
    /// Every phase, for metrics that show each of them.
    pub const ALL: [Self; 4] = [Self::Rising, Self::Settling, Self::Reading, Self::Falling];

    /// The word for it in metrics and lists.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rising => "rising",
            Self::Settling => "settling",
            Self::Reading => "reading",
            Self::Falling => "falling",
        }
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Electorate {
    /// How far it has come.
    pub phase: Phase,
    /// Voters of each name: 2W − 1.
    pub voters: u32,
    /// Those among whom they are chosen, ordered by id, with what places names on
    /// them: their entries change when they start with another disk.
    pub members: Vec<Candidate>,
}

/// Voters of each name for this policy.
fn voters_for(policy: &Policy) -> usize {
    2 * policy.write_quorum() - 1
}

impl Electorate {
    /// Whether this member may be a voter of some name.
    #[must_use]
    pub fn has(&self, id: NodeId) -> bool {
        self.members.iter().any(|voter| voter.id == id)
    }

    /// The voters of `name`, best first.
    #[must_use]
    pub fn voters(&self, name: &ObjectName) -> Vec<NodeId> {
        choose_owners(name, &self.members, usize::try_from(self.voters).unwrap_or(usize::MAX))
    }

    /// Whether this member has moved to another zone since, or has another disk, so
    /// that names should be placed anew. A little more or less room is none.
    fn misplaces(&self, member: &Member) -> bool {
        let voter = self.members.iter().find(|voter| voter.id == member.id);
        voter.is_some_and(|voter| {
            let (least, most) = (voter.weight.min(member.weight), voter.weight.max(member.weight));
            voter.zone != member.zone || most - least > most / 4
        })
    }

    /// The same one, in another phase.
    #[must_use]
    pub fn in_phase(&self, phase: Phase) -> Self {
        Self { phase, ..self.clone() }
    }

    /// Sixty-four bits that differ when two electorates differ.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut fields = Fields::default();
        fields.add(self.phase.as_str().as_bytes());
        fields.add(&self.voters.to_le_bytes());
        for Candidate { id, weight, zone } in &self.members {
            fields.add(&id.bits().to_le_bytes());
            fields.add(&weight.to_le_bytes());
            fields.add(zone.as_deref().unwrap_or("").as_bytes());
        }
        fields.digest()
    }
}

/// Those who should hold `name`, of `candidates`, best first: its voters, then
/// the others that may vote, then newcomers. So as many copies as can be count.
#[must_use]
pub fn order(
    name: &ObjectName,
    candidates: &[Candidate],
    electorate: Option<&Electorate>,
) -> Vec<NodeId> {
    let mut order = rank(name, candidates);
    if let Some(electorate) = electorate {
        let voters = electorate.voters(name);
        let place = |node: &NodeId| match voters.iter().position(|voter| voter == node) {
            Some(place) => place,
            None => voters.len() + usize::from(!electorate.has(*node)),
        };
        // Stable: within one place the order of placement stays.
        order.sort_by_key(place);
    }
    order
}

/// The voters of `name` while writes count on them; `None` while they count on
/// any members.
#[must_use]
pub fn voters_of(view: &View, name: &ObjectName) -> Option<Vec<NodeId>> {
    view.electorate.as_ref().map(|electorate| electorate.voters(name))
}

/// How long a rising or falling electorate is kept once that counts. Copies that
/// are being let go of without regard to voters are gone by then, or stay; what W
/// voters promised, or answered to a lookup, is of no effect any more.
#[must_use]
pub fn lasts(window: Duration) -> Duration {
    window * LIFETIME_WINDOWS
}

/// What is to be done next about the electorate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElectorateStep {
    /// Make this the electorate, or none, under the next epoch.
    Take(Option<Electorate>),
    /// Nothing, for now.
    Rest,
}

/// What the next step depends on.
pub struct Situation<'a> {
    /// The members.
    pub view: &'a View,
    /// What all of them ask for, if they agree.
    pub wanted: Option<Wanted>,
    /// Whether every member has made a full pass under this very electorate, with
    /// W voters for each name.
    pub repaired: bool,
    /// Whether the phase has counted for as long as [`lasts`] says.
    pub has_lasted: bool,
    /// Which members must not vote any more.
    pub is_unfit: &'a dyn Fn(NodeId) -> bool,
}

/// The next step.
#[must_use]
pub fn next(situation: &Situation<'_>) -> ElectorateStep {
    let Situation { view, wanted, repaired, has_lasted, .. } = *situation;
    let Some(electorate) = view.electorate.as_deref() else {
        let is_settled = wanted.is_some_and(|wanted| view.policy.is_settled_at(wanted));
        let new = if is_settled { convene(view) } else { None };
        return new.map_or(ElectorateStep::Rest, |new| ElectorateStep::Take(Some(new)));
    };
    let take = |phase| ElectorateStep::Take(Some(electorate.in_phase(phase)));
    match electorate.phase {
        Phase::Falling if has_lasted => ElectorateStep::Take(None),
        Phase::Falling => ElectorateStep::Rest,
        _ if must_fall(situation, electorate) => take(Phase::Falling),
        Phase::Rising if has_lasted => take(Phase::Settling),
        Phase::Settling if repaired => take(Phase::Reading),
        Phase::Rising | Phase::Settling | Phase::Reading => ElectorateStep::Rest,
    }
}

/// An electorate of all members, if that makes sense: several copies, all members
/// active, heard and with room, and more of them than voters of one name.
fn convene(view: &View) -> Option<Electorate> {
    let members: Vec<&Member> = view.roster_members().collect();
    let is_ready = |member: &&Member| {
        member.state == MemberState::Active
            && member.hearing == Hearing::Heard
            // Some more than that it may stay: what is nearly full is soon full.
            && member.free_bytes > member.total_bytes / 50
            && !member.is_full()
    };
    let is_useful = view.policy.write_quorum() > 1
        && view.policy.read_quorum() > 1
        && members.len() > voters_for(&view.policy);
    (is_useful && members.iter().all(is_ready)).then(|| Electorate {
        phase: Phase::Rising,
        voters: u32::try_from(voters_for(&view.policy)).unwrap_or(u32::MAX),
        // Who has no weight votes all the same, or there were too few voters.
        members: members
            .into_iter()
            .map(|member| Candidate { weight: member.weight.max(1), ..member.candidate() })
            .collect(),
    })
}

/// Whether the electorate is not that of this cluster any more. Silence alone
/// changes nothing: it is what voters are for. And while a fall would not count,
/// because too many are silent, names whose voters are heard are better off
/// without.
fn must_fall(situation: &Situation<'_>, electorate: &Electorate) -> bool {
    let Situation { view, wanted, is_unfit, .. } = situation;
    let heard = view.roster_members().filter(|member| member.hearing == Hearing::Heard).count();
    if heard < view.policy.notice_quorum(view.roster_members().count()) {
        return false;
    }
    let active = || view.roster_members().filter(|member| member.state == MemberState::Active);
    let full = view.writable().filter(|one| electorate.has(one.id) && one.is_full()).count();
    // What a lost one had can only be made anew where there is room.
    let is_lost = |member: &&Member| {
        electorate.has(member.id) && member.lost && member.state == MemberState::Draining
    };
    let lost = view.roster_members().filter(is_lost).count();
    let all_heard = heard == view.roster_members().count();
    electorate.members.iter().any(|voter| is_unfit(voter.id))
        || active().any(|member| !electorate.has(member.id))
        || (full > 0 && full + lost >= view.policy.write_quorum())
        || (all_heard && active().any(|member| electorate.misplaces(member)))
        || wanted.is_some_and(|wanted| !view.policy.is_settled_at(wanted))
}

#[cfg(test)]
#[path = "electorate_tests.rs"]
mod tests;
