//! What a member does about the copies that it has.
//!
//! Each member walks its own index and looks every name up like a reader. What
//! it finds says what there is to do: [`plan`]. Where copies belong is decided
//! from the roster, from who was not heard for longer than the repair delay, and
//! from who has no room: so members mostly come to the same answer, and nothing
//! depends on that.

use crate::electorate::{Electorate, order};
use crate::locate::Located;
use crate::membership::{Hearing, Moment, View};
use crate::name::ObjectName;
use crate::node::NodeId;
use crate::object::{Kind, Stat};
use crate::placement::Candidate;
use crate::policy::Policy;
use crate::roster::MemberState;
use crate::version::Version;

/// What a member does about one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing: all is well, or another member sees to it.
    Rest,
    /// Nothing can be decided before more members are heard.
    Wait,
    /// Have these members take the newest version.
    Copy {
        /// That version.
        stat: Stat,
        /// Who has it, this member first.
        from: Vec<NodeId>,
        /// Who should.
        to: Vec<NodeId>,
    },
    /// Forget the own version: a newer one is where it is certain to be found.
    Forget {
        /// The own version.
        version: Version,
    },
    /// Let go of the own copy, once all of these have pinned theirs.
    LetGo {
        /// The own version.
        version: Version,
        /// The members that should have it, and do.
        rely_on: Vec<NodeId>,
    },
    /// Nobody has anything but this tombstone: once it is old enough, all may
    /// forget it together.
    Collect {
        /// The tombstone's version.
        version: Version,
    },
}

/// The members that may hold copies for good, as placement wants them: active
/// in the roster, and heard within `repair_delay`.
#[must_use]
pub fn home_candidates(view: &View, repair_delay: Moment, now: Moment) -> Vec<Candidate> {
    view.roster_members()
        .filter(|member| member.state == MemberState::Active)
        .filter(|member| {
            member.hearing != Hearing::Silent
                || member
                    .last_heard
                    .or(member.awaited_since)
                    .is_some_and(|last| now.saturating_sub(last) < repair_delay)
        })
        .map(super::membership::Member::candidate)
        .collect()
}

/// The members that should hold `name`, best first. Those that `lacks_room` says of
/// come last: others take their place, if there are any, so that one full disk
/// leaves no name short of copies, and lets others drain.
#[must_use]
pub fn homes(
    name: &ObjectName,
    candidates: &[Candidate],
    policy: &Policy,
    electorate: Option<&Electorate>,
    lacks_room: impl Fn(NodeId) -> bool,
) -> Vec<NodeId> {
    // Each by itself, as writes order those that have room: zones keep their turns.
    let (short, roomy): (Vec<Candidate>, Vec<Candidate>) =
        candidates.iter().cloned().partition(|candidate| lacks_room(candidate.id));
    let mut homes = order(name, &roomy, electorate);
    homes.extend(order(name, &short, electorate));
    homes.truncate(policy.replicas());
    homes
}

/// Whether `node` says that it has no good copy of the newest version of a name, and
/// last said that it has no room for one. A copy that it has stays where it is, and
/// who does not answer may have one. Tombstones take next to no room, and what they
/// are about should go.
#[must_use]
pub fn lacks_room(view: &View, located: &Located, node: NodeId) -> bool {
    let Some(newest) = located.newest().filter(|newest| newest.stat.kind == Kind::Object) else {
        return false;
    };
    let is_short = view.member(node).is_some_and(|member| {
        // Who is silent may have room by now.
        member.hearing == Hearing::Heard
            && (member.is_full() || member.free_bytes < newest.stat.size_bytes)
    });
    let has_said = located.answered.contains(&node)
        || located.replicas.iter().any(|replica| replica.node == node);
    is_short && has_said && !good_holders(located).contains(&node)
}

/// Which holder of the newest version sees to its copies: the first of those
/// that should hold it, or any. Preferably one that can read its copy.
#[must_use]
pub fn in_charge(located: &Located, homes: &[NodeId]) -> Option<NodeId> {
    let good = good_holders(located);
    let any = || located.newest_holders().map(|replica| replica.node).min();
    let home = homes.iter().copied().find(|home| good.contains(home));
    home.or_else(|| good.iter().copied().min()).or_else(any)
}

/// The members that have the newest version and can read it.
fn good_holders(located: &Located) -> Vec<NodeId> {
    let holders = located.newest_holders().map(|replica| replica.node);
    holders.filter(|node| located.answered.contains(node)).collect()
}

/// What the member `own` does about a name that it has, when `located` says who
/// else has what, and `homes` says who should.
#[must_use]
pub fn plan(own: NodeId, located: &Located, homes: &[NodeId], policy: &Policy) -> Plan {
    let Some(held) = located.replicas.iter().find(|replica| replica.node == own) else {
        return if located.complete { Plan::Rest } else { Plan::Wait };
    };
    if !located.complete {
        return Plan::Wait;
    }
    let Some(newest) = located.newest() else { return Plan::Rest };
    let is_home = homes.contains(&own);
    if held.stat.version < newest.stat.version {
        // A home is about to get the newer one, which replaces this.
        let superseded = located.settled && !is_home;
        return if superseded { Plan::Forget { version: held.stat.version } } else { Plan::Rest };
    }
    // A copy that cannot be read is mended by whoever has a good one.
    let holders = good_holders(located);
    let missing: Vec<NodeId> = homes
        .iter()
        .copied()
        .filter(|home| !holders.contains(home) && located.stamp(*home).is_some())
        .collect();
    let is_in_charge = in_charge(located, homes) == Some(own);
    if !missing.is_empty() && is_in_charge && holders.contains(&own) {
        let others = holders.iter().copied().filter(|holder| *holder != own);
        let from = std::iter::once(own).chain(others).collect();
        return Plan::Copy { stat: held.stat.clone(), from, to: missing };
    }
    // Those that are relied on must be found by whoever asks voters only: so many
    // lasting copies are at homes.
    let votes = |home: &&NodeId| located.voters.as_ref().is_none_or(|voters| voters.contains(home));
    let lasting = homes.iter().filter(votes).count();
    let all_home = homes.len() >= policy.replicas()
        && homes.iter().all(|home| holders.contains(home))
        && lasting >= policy.write_quorum();
    let only_tombstones = located
        .replicas
        .iter()
        .all(|replica| replica.stat.kind == Kind::Tombstone && holders.contains(&replica.node));
    if only_tombstones && all_home && located.unheard.is_empty() && is_in_charge {
        return Plan::Collect { version: held.stat.version };
    }
    if !is_home && all_home {
        return Plan::LetGo { version: held.stat.version, rely_on: homes.to_vec() };
    }
    Plan::Rest
}

/// Whether `lost`, which drains, may be retired although it does not answer:
/// everything acknowledged is where it will be found without it.
///
/// An acknowledged version is on at least `read_quorum` members. So if fewer
/// than that have not made a full repair pass since the roster says that `lost`
/// drains, one of its holders has, and has seen to it that enough others hold
/// it. `passed` says of a member whether it made such a pass. While there is an
/// electorate that it belongs to, it stays: who asks voters relies on all of them.
#[must_use]
pub fn may_retire(view: &View, lost: NodeId, passed: impl Fn(NodeId) -> bool) -> bool {
    let votes = view.electorate.as_ref().is_some_and(|electorate| electorate.has(lost));
    !votes && is_dispensable(view, lost, passed)
}

/// The same whether or not it votes.
#[must_use]
pub fn is_dispensable(view: &View, lost: NodeId, passed: impl Fn(NodeId) -> bool) -> bool {
    let policy = &view.policy;
    let remaining = view.roster_members().filter(|member| member.id != lost).count();
    let lacking =
        view.roster_members().filter(|member| member.id == lost || !passed(member.id)).count();
    policy.read_quorum() > 1
        && remaining >= policy.read_quorum()
        && lacking < policy.read_quorum()
        && view.member(lost).is_some_and(|member| member.state == MemberState::Draining)
}

#[cfg(test)]
#[path = "repair_tests.rs"]
mod tests;
