//! Changes of a member's state, and of the number of copies, after it has
//! joined: what operators ask for, and what follows from silence.
//!
//! All of it is decided from a view and a roster; the caller has the change
//! persisted by enough members.

use std::time::Duration;

use thiserror::Error;

use crate::electorate::{self, Electorate, ElectorateStep};
use crate::membership::{Hearing, Member, Moment, View};
use crate::node::NodeId;
use crate::policy::{Policy, PolicyStep, Wanted};
use crate::repair::{is_dispensable, may_retire};
use crate::roster::{Entry, MemberState, Roster};
use crate::wire::heartbeat::Pass;

/// Why a member's state is not changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// There is no such member.
    #[error("no data server of this cluster has this id")]
    Unknown,
    /// It is in a state in which this makes no sense.
    #[error("the data server is {}", state.as_str())]
    WrongState {
        /// That state.
        state: MemberState,
    },
    /// It drains because it was silent for too long: others have begun to do
    /// without it.
    #[error("the data server was given up for lost, which cannot be taken back")]
    Lost,
    /// Too few would remain to hold as many copies as there should be.
    #[error(
        "{remaining} active data server(s) that are heard would remain for {replicas} copies; add one, or lower \
         REPLICAS first"
    )]
    TooFew {
        /// Active members that are heard, without this one.
        remaining: usize,
        /// Copies that there should be.
        replicas: usize,
    },
    /// So many of those that vote for a name would drain that it could not be
    /// written.
    #[error(
        "{draining} data servers that vote would be draining at once, and names that all of them vote \
         for bear less than {write_quorum}; nothing was changed. The electorate falls because of the \
         first: ask again in a few minutes"
    )]
    Votes {
        /// Members that vote and would not be active.
        draining: usize,
        /// W of writes.
        write_quorum: usize,
    },
    /// It is heard: it can hand over what it has.
    #[error("the data server is heard: drain it, and it retires by itself once it is empty")]
    Heard,
    /// It may be the only one that has some object.
    #[error(
        "it is not proven that others have everything that the data server had; wait until repair \
         has seen to it, or accept the loss with data_loss=accept"
    )]
    Unproven,
}

/// The entry with which this member drains. Only members that are heard count
/// among those that remain: with fewer than R of those, a silent one is not given
/// up and a newcomer's join may never count, so that the cluster stays as it is.
///
/// # Errors
/// [`Refused`].
pub fn drain(roster: &Roster, view: &View, id: NodeId) -> Result<Entry, Refused> {
    let entry = roster.get(id).ok_or(Refused::Unknown)?;
    match entry.state {
        MemberState::Draining => Ok(entry.clone()),
        MemberState::Active => {
            check_drains(roster, view, id)?;
            Ok(Entry { state: MemberState::Draining, ..entry.clone() })
        }
        state => Err(Refused::WrongState { state }),
    }
}

/// Whether enough members remain while this one drains, and those that do already.
///
/// # Errors
/// [`Refused::TooFew`], [`Refused::Votes`].
pub fn check_drains(roster: &Roster, view: &View, id: NodeId) -> Result<(), Refused> {
    let is_heard =
        |other: NodeId| view.member(other).is_some_and(|member| member.hearing == Hearing::Heard);
    let remaining = roster
        .members()
        .filter(|other| other.id != id && other.state == MemberState::Active)
        .filter(|other| is_heard(other.id))
        .count();
    let replicas = roster.policy.replicas();
    if remaining < replicas {
        return Err(Refused::TooFew { remaining, replicas });
    }
    check_voters(roster, id)
}

/// What drains counts no more; a name needs W voters that do until the electorate
/// has fallen.
fn check_voters(roster: &Roster, id: NodeId) -> Result<(), Refused> {
    let Some(electorate) = roster.electorate.as_ref().filter(|all| all.has(id)) else {
        return Ok(());
    };
    let is_active =
        |id: NodeId| roster.get(id).is_some_and(|entry| entry.state == MemberState::Active);
    let others =
        electorate.members.iter().filter(|voter| voter.id != id && !is_active(voter.id)).count();
    let (draining, write_quorum) = (others + 1, roster.policy.write_quorum());
    if draining < write_quorum { Ok(()) } else { Err(Refused::Votes { draining, write_quorum }) }
}

/// The entry with which this member no longer drains.
///
/// # Errors
/// [`Refused`].
pub fn cancel_drain(roster: &Roster, id: NodeId) -> Result<Entry, Refused> {
    let entry = roster.get(id).ok_or(Refused::Unknown)?;
    match entry.state {
        MemberState::Draining if entry.lost => Err(Refused::Lost),
        MemberState::Draining => {
            let epoch = entry.epoch.saturating_add(1);
            Ok(Entry { state: MemberState::Active, epoch, ..entry.clone() })
        }
        // It was cancelled before, and perhaps not everybody has heard.
        MemberState::Active => Ok(entry.clone()),
        state => Err(Refused::WrongState { state }),
    }
}

/// How a member is given up for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retirement {
    /// The entry of it.
    pub entry: Entry,
    /// Whether others may lack what it had. Then an acknowledged version may be on
    /// one member less than reads count on, and the policy must say so:
    /// [`Policy::after_loss`].
    pub is_loss: bool,
}

/// How a member that is not heard is given up for ever.
///
/// # Errors
/// [`Refused`].
pub fn retire(
    roster: &Roster,
    view: &View,
    id: NodeId,
    accept_loss: bool,
) -> Result<Retirement, Refused> {
    let entry = roster.get(id).ok_or(Refused::Unknown)?;
    if entry.state == MemberState::Retired {
        return Ok(Retirement { entry: entry.clone(), is_loss: false });
    }
    let is_silent = view.member(id).is_none_or(|member| member.hearing == Hearing::Silent);
    if !is_silent {
        return Err(Refused::Heard);
    }
    // One that just drains may have been counted on by a copy that is gone since.
    let is_loss = !(entry.lost && is_proven(view, id));
    if !accept_loss && is_loss {
        return Err(Refused::Unproven);
    }
    Ok(Retirement { entry: retired(entry), is_loss })
}

/// The entry of a member that was given up.
#[must_use]
pub fn retired(entry: &Entry) -> Entry {
    Entry { state: MemberState::Retired, lost: true, ..entry.clone() }
}

/// The entry of a member that was silent for too long: it drains, and that cannot be
/// taken back. Under an epoch of its own: what others have looked at for a drain of
/// before was looked at while it was there, and may have counted on it.
#[must_use]
pub fn given_up(entry: &Entry) -> Entry {
    let epoch = entry.epoch.saturating_add(1);
    Entry { state: MemberState::Draining, lost: true, epoch, ..entry.clone() }
}

/// Whether everything that was acknowledged is found without `lost`.
#[must_use]
pub fn is_proven(view: &View, lost: NodeId) -> bool {
    may_retire(view, lost, passes_without(view, lost))
}

fn passes_without(view: &View, lost: NodeId) -> impl Fn(NodeId) -> bool {
    move |id| view.member(id).is_some_and(|member| has_passed_without(member, lost, view))
}

/// Whether this member must not vote any more. A lost one that is silent still
/// may, until everything is found without it: as long as it does, the silence of
/// one more member stops only the names that both vote for.
fn is_unfit(view: &View, id: NodeId) -> bool {
    let Some(member) = view.member(id).filter(|member| member.in_roster) else { return true };
    let is_missed = member.lost
        && member.state == MemberState::Draining
        // A steward that has just started has not found out yet.
        && matches!(member.hearing, Hearing::Silent | Hearing::Awaited)
        && !is_dispensable(view, id, passes_without(view, id));
    member.state != MemberState::Active && !is_missed
}

/// Whether a member has looked at everything that it holds since it knows that
/// `lost` drains, and has found enough other copies of it.
fn has_passed_without(member: &Member, lost: NodeId, view: &View) -> bool {
    // What it said last is of a run that may have ended, unless it is heard.
    member.hearing == Hearing::Heard
        && member.repair.passed.as_ref().is_some_and(|pass| {
            view.member(lost).is_some_and(|lost| pass.is_without(lost.id, lost.epoch))
                && is_present(pass, view)
                && pass.least_copies >= view.policy.read_quorum
        })
}

/// Who does by itself what anybody could do: the active member with the lowest
/// id that is heard, of those that have room to persist what they do, if there are
/// any. Two that differ about it do no harm, since rosters merge.
#[must_use]
pub fn steward(view: &View) -> Option<NodeId> {
    view.writable().min_by_key(|member| (member.is_full(), member.id)).map(|member| member.id)
}

/// Members that this one has nothing to say for: it did not hear them for longer
/// than the delay, or never in this run. Whoever restarts often would otherwise
/// keep a lost one from being given up for ever. Nobody, while not more than half
/// of all are heard: who is cut off from nearly everybody cannot tell.
#[must_use]
pub fn missed_members(view: &View, delay: Duration, now: Moment) -> Vec<NodeId> {
    if view.majority_since.is_none() {
        return Vec::new();
    }
    silent_members(view)
        .filter(|member| member.last_heard.is_none_or(|last| now.saturating_sub(last) >= delay))
        .map(|member| member.id)
        .collect()
}

fn silent_members(view: &View) -> impl Iterator<Item = &Member> {
    view.roster_members().filter(|member| member.hearing == Hearing::Silent)
}

/// Members that are to be given up for lost: this one has not heard them for
/// longer than the delay, while more than half of all were heard, all who are heard
/// miss them, the others suffice for the policy, and a reader needs not hear all.
///
/// So of the two sides of a network that is cut in half, at most one gives up the
/// other. Of two members that cannot hear each other, nobody gives up either as long
/// as a third one hears both. And when a network is back, whoever is heard a moment
/// later than the others is not given up for the time when nobody was heard.
#[must_use]
pub fn lost_members(view: &View, delay: Duration, now: Moment) -> Vec<NodeId> {
    let Some(since) = view.majority_since else { return Vec::new() };
    let remaining = view.writable().count();
    if view.policy.read_quorum() <= 1 || remaining < view.policy.replicas() {
        return Vec::new();
    }
    let is_missed = |id: NodeId| {
        let mut heard = view.roster_members().filter(|other| other.hearing == Hearing::Heard);
        heard.all(|other| other.repair.missed.contains(&id))
    };
    silent_members(view)
        .filter(|member| {
            let last = member.last_heard.or(member.awaited_since);
            last.is_some_and(|last| now.saturating_sub(last.max(since)) >= delay)
        })
        .filter(|member| !member.lost && is_missed(member.id))
        .map(|member| member.id)
        .collect()
}

/// Lost members without which everything is found.
#[must_use]
pub fn retirable_members(view: &View) -> Vec<NodeId> {
    view.roster_members()
        .filter(|member| member.lost && member.hearing == Hearing::Silent)
        .map(|member| member.id)
        .filter(|id| is_proven(view, *id))
        .collect()
}

/// The copies, and the write quorum, that all heard active members ask for, if
/// they agree and are enough for it.
#[must_use]
pub fn wanted(view: &View) -> Option<Wanted> {
    let mut asked = view.writable().map(|member| member.wanted);
    let first = asked.next()??;
    let count = u32::try_from(view.writable().count());
    let suffice = count.is_ok_and(|count| count >= first.replicas());
    (suffice && asked.all(|other| other == Some(first))).then_some(first)
}

/// Whether every member has looked at everything that it holds under this very
/// policy, and has found as many copies as a write now makes.
#[must_use]
pub fn is_repaired(view: &View) -> bool {
    view.roster_members().all(|member| {
        member.hearing == Hearing::Heard
            && member.repair.passed.as_ref().is_some_and(|pass| {
                is_present(pass, view) && pass.least_copies >= view.policy.write_quorum
            })
    })
}

/// Whether a pass was made under the policy and the electorate of now.
fn is_present(pass: &Pass, view: &View) -> bool {
    let electorate = view.electorate.as_deref().map_or(0, Electorate::digest);
    (pass.policy_epoch, pass.electorate) == (view.policy.epoch, electorate)
}

/// The next policy and electorate. One step changes one of them, and the next one
/// waits until it counts; the number of copies changes only while there is no
/// electorate. `has_lasted` says that those of now have counted for as long as
/// [`electorate::lasts`] asks for.
#[must_use]
pub fn next_policy(view: &View, has_lasted: bool) -> Option<(Policy, Option<Electorate>)> {
    let (policy, wanted, repaired) = (view.policy, wanted(view), is_repaired(view));
    if view.electorate.is_none()
        && let Some(step) = wanted.and_then(|wanted| policy.next(wanted, repaired))
    {
        return match step {
            PolicyStep::Take(next) => Some((next, None)),
            PolicyStep::Repair => None,
        };
    }
    let situation = electorate::Situation {
        view,
        wanted,
        repaired,
        has_lasted,
        is_unfit: &|id| is_unfit(view, id),
    };
    match electorate::next(&situation) {
        ElectorateStep::Take(next) => {
            Some((Policy { epoch: policy.epoch.saturating_add(1), ..policy }, next))
        }
        ElectorateStep::Rest => None,
    }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
