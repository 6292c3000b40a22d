//! Changes of the roster that count once enough members have persisted them.

use std::time::Duration;

use futures_util::future::join_all;
use holdfast_core::node::NodeId;
use holdfast_core::policy::Policy;
use holdfast_core::roster::{Entry, MemberState, Roster};
use holdfast_core::wire::transfer::MergedRoster;
use tracing::{debug, warn};

use super::{Cluster, MergeError, Snapshot};
use crate::data_servers::DataServers;

/// How far a change has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Members that have persisted it.
    pub persisted: usize,
    /// How many it takes until no writer and no reader can miss it.
    pub needed: usize,
}

impl Told {
    /// Whether the change counts.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.persisted >= self.needed
    }
}

/// Brings changes to the members. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Changer {
    /// What is known of the members.
    pub cluster: Cluster,
    /// The way to them.
    pub data_servers: DataServers,
    /// The data server's own id; `None` in an api, which persists nothing.
    pub own: Option<NodeId>,
    /// How long one member may take.
    pub limit: Duration,
}

impl Changer {
    /// Has every member that can be reached merge and persist one entry.
    ///
    /// # Errors
    /// [`MergeError`]; perhaps some have merged it all the same.
    pub async fn tell_entry(&self, entry: Entry) -> Result<Told, MergeError> {
        let cluster = self.cluster.snapshot().roster.cluster.ok_or(MergeError::Unfounded)?;
        self.tell(Roster::of_entry(cluster, entry)).await
    }

    /// Has every member that can be reached merge and persist `change`. What
    /// was persisted by any of them spreads further by itself, whether it
    /// counts yet or not.
    ///
    /// # Errors
    /// As [`Self::tell_entry`].
    pub async fn tell(&self, change: Roster) -> Result<Told, MergeError> {
        let before = self.cluster.snapshot();
        let mut changed = before.roster.clone();
        changed.merge(&change)?;
        let needed = needed(&before.roster, &changed, self.own);
        let mut persisted = 0;
        if self.own.is_some() {
            match self.cluster.merge_roster(changed.clone()).await {
                Ok(_) => {}
                // The others' disks may take it.
                Err(error @ MergeError::Persist { .. }) => {
                    warn!(%error, "a change is not persisted here; others are told of it");
                }
                Err(error) => return Err(error),
            }
            let is_told = self.own.is_some_and(|own| is_member(&before, own))
                && has_taken(&self.cluster.snapshot().roster, &change);
            persisted += usize::from(is_told);
        }
        let others = before.view.roster_members().filter(|member| Some(member.id) != self.own);
        let answers = others.map(|member| {
            self.data_servers.merge_roster(&member.address, member.id, &changed, self.limit)
        });
        let mut learned = Vec::new();
        for answer in join_all(answers).await {
            match answer {
                Ok(MergedRoster { roster: theirs, .. }) => {
                    persisted += usize::from(has_taken(&theirs, &change));
                    learned.push(theirs);
                }
                Err(error) => debug!(%error, "a data server was not told of a change"),
            }
        }
        // An api takes over only what some member has persisted.
        for theirs in learned {
            match self.cluster.merge_roster(theirs).await {
                Ok(_) | Err(MergeError::Persist { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Told { persisted, needed })
    }
}

/// How many must have persisted a change. A member that is given up by it is
/// not waited for: with one copy of each object it would be, and for ever.
fn needed(before: &Roster, after: &Roster, own: Option<NodeId>) -> usize {
    let members = before.members().count();
    let able = before
        .members()
        .filter(|member| {
            let state = after.get(member.id).map(|after| after.state);
            state != Some(MemberState::Retired) || Some(member.id) == own
        })
        .count();
    let quorum = |roster: &Roster| roster.policy.notice_quorum(members);
    quorum(before).max(quorum(after)).min(able).max(1)
}

/// Whether what was told is part of this roster now. Another policy of the same
/// epoch may have won, and so may another change of a member, which undid what this
/// one builds on, or gave it up.
fn has_taken(roster: &Roster, change: &Roster) -> bool {
    let terms = |roster: &Roster| (roster.policy, roster.electorate.clone());
    let has_taken = |entry: &Entry| roster.get(entry.id).is_some_and(|it| follows(it, entry));
    (change.policy == Policy::unsaid() || terms(roster) == terms(change))
        && change.entries().all(has_taken)
}

/// Whether what a member is came of `change`, or after it.
fn follows(now: &Entry, change: &Entry) -> bool {
    (now.state, change.state) == (MemberState::Retired, MemberState::Retired)
        || (now.epoch == change.epoch && now.state >= change.state)
}

fn is_member(snapshot: &Snapshot, id: NodeId) -> bool {
    snapshot.roster.members().any(|member| member.id == id)
}

#[cfg(test)]
mod tests {
    use holdfast_core::node::Generation;

    use super::*;

    fn id(bits: u128) -> NodeId {
        NodeId::from_bits(bits)
    }

    fn roster(replicas: u32, states: &[MemberState]) -> Roster {
        let mut roster = Roster::of_policy(id(99), Policy::settled(1, replicas), None);
        for (bits, state) in (1..).zip(states) {
            roster.apply_entry(&Entry {
                id: id(bits),
                epoch: 0,
                state: *state,
                lost: false,
                generation: Generation(1),
                address: "h:1".parse().expect("an address"),
                weight: 1,
                zone: None,
            });
        }
        roster
    }

    #[test]
    fn a_policy_that_lost_against_another_one_was_not_taken() {
        let ours = roster(3, &[MemberState::Active; 3]);
        let other = roster(2, &[MemberState::Active; 3]);
        let change = |roster: &Roster| Roster::of_policy(id(99), roster.policy, None);
        assert!(has_taken(&ours, &change(&ours)));
        assert!(!has_taken(&ours, &change(&other)));
    }

    #[test]
    fn an_entry_that_lost_against_another_change_was_not_taken() {
        use MemberState::{Active, Draining, Joining, Retired};
        let entry = |epoch, state| {
            let active = roster(1, &[Active]).get(id(1)).expect("a member").clone();
            Entry { epoch, state, ..active }
        };
        let is_taken = |now: (u32, MemberState), change: (u32, MemberState)| {
            let mut roster = roster(1, &[]);
            roster.apply_entry(&entry(now.0, now.1));
            has_taken(&roster, &Roster::of_entry(id(99), entry(change.0, change.1)))
        };
        assert!(is_taken((0, Draining), (0, Draining)));
        assert!(is_taken((0, Retired), (0, Draining)), "it has gone on from there");
        assert!(is_taken((0, Active), (0, Joining)));
        assert!(is_taken((0, Retired), (1, Retired)), "that is final");
        assert!(!is_taken((1, Active), (0, Draining)), "that drain was taken back");
        assert!(!is_taken((0, Retired), (1, Active)), "too late to take it back");
        assert!(!has_taken(&roster(1, &[]), &Roster::of_entry(id(99), entry(0, Active))));
    }

    #[test]
    fn a_change_is_noticed_by_all_who_write() {
        use MemberState::{Active, Draining, Retired};
        let three = |replicas| roster(replicas, &[Active; 3]);
        let drained = |replicas| roster(replicas, &[Active, Active, Draining]);
        let retired = |replicas| roster(replicas, &[Active, Active, Retired]);
        assert_eq!(needed(&three(3), &drained(3), None), 2);
        assert_eq!(needed(&three(1), &drained(1), None), 3);
        assert_eq!(needed(&three(1), &retired(1), Some(id(1))), 2, "it is not waited for");
        assert_eq!(needed(&three(1), &retired(1), Some(id(3))), 3, "it retires by itself");
        assert_eq!(needed(&three(2), &retired(2), None), 2);
        assert_eq!(needed(&three(3), &three(1), None), 3, "the more careful of two policies");
    }
}
