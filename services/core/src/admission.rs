//! When a new member may take data.
//!
//! A data server counts in every locate before it takes its first byte.
//! Otherwise one api would write to a member that another has never heard of,
//! and that other would answer 404.
//!
//! A join counts once enough members of the roster have persisted it that no
//! complete locate can miss all of them. A complete locate leaves fewer than W
//! members unheard (W is the write quorum), so W members that know of the join
//! suffice; each answer carries a roster digest, and a digest that differs is
//! resolved before anything is concluded. Members that are heard are all waited
//! for as well, so that the news is everywhere it can be; only silent ones, and
//! those that say that their disks take nothing, are left to learn it later. To
//! wait for a full disk would keep out the data server that is to bring room.

use std::collections::BTreeSet;

use crate::membership::{Hearing, View};
use crate::node::NodeId;
use crate::roster::MemberState;

/// What a data server that takes no data yet should do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make a new cluster, with itself as the only member.
    Found,
    /// Enter itself into the roster as joining.
    Enter,
    /// Have these members persist the roster that names it.
    Tell(Vec<NodeId>),
    /// Become active: the join counts.
    Activate,
    /// Nothing now; something must be heard first.
    Wait(Waiting),
    /// Nothing any more: it is active, draining or retired.
    Done,
}

/// What a newcomer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// To have listened long enough to know that there is no cluster.
    WarmUp,
    /// For `INITIAL_MEMBERS` newcomers that see each other.
    InitialMembers,
    /// For the newcomer with the lowest id to found the cluster.
    Founder,
    /// For the roster of a cluster that it heard of.
    Roster,
    /// For a write quorum of members to be heard.
    Quorum,
}

/// What a newcomer knows when it decides.
#[derive(Debug)]
pub struct Situation<'a> {
    /// Itself.
    pub own: NodeId,
    /// What it sees of the others.
    pub view: &'a View,
    /// Its own state in the roster, if it is there.
    pub own_state: Option<MemberState>,
    /// Newcomers it hears, itself excluded, and how many each of them sees.
    pub newcomers: &'a [(NodeId, u32)],
    /// Whether anybody who is heard belongs to a cluster.
    pub founded_elsewhere: bool,
    /// Whether it has listened for the warm-up with somebody to listen to.
    pub warmed_up: bool,
    /// `INITIAL_MEMBERS`.
    pub initial_members: usize,
    /// Write quorum of the cluster.
    pub write_quorum: usize,
    /// Members that have said they persisted its entry in this run.
    pub told: &'a BTreeSet<NodeId>,
    /// Members that have said last that they cannot persist it.
    pub unable: &'a BTreeSet<NodeId>,
}

/// The next step of a newcomer.
#[must_use]
pub fn choose_step(situation: &Situation<'_>) -> Step {
    match situation.own_state {
        Some(MemberState::Active | MemberState::Draining | MemberState::Retired) => Step::Done,
        Some(MemberState::Joining) => choose_join_step(situation),
        None if situation.view.founded => Step::Enter,
        None if situation.founded_elsewhere => Step::Wait(Waiting::Roster),
        None => choose_founding_step(situation),
    }
}

fn choose_join_step(situation: &Situation<'_>) -> Step {
    let others = || situation.view.roster_members().filter(|m| m.id != situation.own);
    let (unable, untold): (Vec<NodeId>, Vec<NodeId>) = others()
        .filter(|member| member.hearing.may_answer() && !situation.told.contains(&member.id))
        .map(|member| member.id)
        .partition(|id| situation.unable.contains(id));
    if !untold.is_empty() {
        return Step::Tell(untold);
    }
    // Only members that may hold data can hide some: those that are joining
    // themselves have none. While there are fewer of them than W, nothing can
    // have been acknowledged yet, and all of them must know.
    let may_hold = || others().filter(|member| member.state != MemberState::Joining);
    let informed = may_hold().filter(|member| situation.told.contains(&member.id)).count();
    // All have retired: what they had is given up, and nobody can say that the join
    // counts. It is as at a founding, and others that join must have been heard.
    let is_deserted = may_hold().next().is_none();
    if is_deserted && unable.is_empty() {
        let knowing = others().filter(|member| situation.told.contains(&member.id)).count();
        if knowing + 1 < situation.initial_members {
            return Step::Wait(Waiting::InitialMembers);
        }
        if !situation.warmed_up {
            return Step::Wait(Waiting::WarmUp);
        }
    }
    let needed = situation.write_quorum.min(may_hold().count()).max(1);
    match informed >= needed || (is_deserted && unable.is_empty()) {
        true => Step::Activate,
        false if unable.is_empty() => Step::Wait(Waiting::Quorum),
        // They may have got room by now.
        false => Step::Tell(unable),
    }
}

fn choose_founding_step(situation: &Situation<'_>) -> Step {
    let seen = situation.newcomers.len() + 1;
    let wanted = situation.initial_members.max(1);
    if seen < wanted {
        return Step::Wait(Waiting::InitialMembers);
    }
    // With a number given, seeing that many is proof enough; without one, only
    // time tells that nobody else is there.
    if wanted == 1 && !situation.warmed_up {
        return Step::Wait(Waiting::WarmUp);
    }
    if situation.newcomers.iter().any(|(id, _)| *id < situation.own) {
        return Step::Wait(Waiting::Founder);
    }
    let they_see_each_other = situation
        .newcomers
        .iter()
        .filter(|(_, sees)| usize::try_from(*sees).is_ok_and(|sees| sees >= wanted))
        .count();
    if wanted > 1 && they_see_each_other + 1 < wanted {
        return Step::Wait(Waiting::InitialMembers);
    }
    Step::Found
}

/// Whether a view holds a member that may be asked for the roster.
#[must_use]
pub fn hears_anybody(view: &View) -> bool {
    view.members.iter().any(|member| member.hearing == Hearing::Heard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{id, member};

    fn view(members: &[(u128, MemberState, Hearing)]) -> View {
        View {
            founded: !members.is_empty(),
            members: members
                .iter()
                .map(|(bits, state, hearing)| member(*bits, *state, *hearing))
                .collect(),
            ..View::default()
        }
    }

    fn situation<'a>(
        view: &'a View,
        newcomers: &'a [(NodeId, u32)],
        told: &'a BTreeSet<NodeId>,
    ) -> Situation<'a> {
        Situation {
            own: id(5),
            view,
            own_state: view.member(id(5)).map(|member| member.state),
            newcomers,
            founded_elsewhere: false,
            warmed_up: true,
            initial_members: 1,
            write_quorum: 1,
            told,
            unable: &NONE,
        }
    }

    static NONE: BTreeSet<NodeId> = BTreeSet::new();

    #[test]
    fn the_lowest_newcomer_founds_and_the_others_wait_for_it() {
        let (empty, told) = (view(&[]), BTreeSet::new());
        assert_eq!(choose_step(&situation(&empty, &[], &told)), Step::Found);
        assert_eq!(choose_step(&situation(&empty, &[(id(6), 2)], &told)), Step::Found);
        let lower = [(id(4), 2)];
        assert_eq!(choose_step(&situation(&empty, &lower, &told)), Step::Wait(Waiting::Founder));
    }

    #[test]
    fn nobody_founds_alone_before_it_has_listened() {
        let (empty, told) = (view(&[]), BTreeSet::new());
        let early = Situation { warmed_up: false, ..situation(&empty, &[], &told) };
        assert_eq!(choose_step(&early), Step::Wait(Waiting::WarmUp));
    }

    #[test]
    fn two_halves_do_not_both_found() {
        let (empty, told) = (view(&[]), BTreeSet::new());
        let (empty, told) = (&empty, &told);
        fn three<'a>(
            empty: &'a View,
            newcomers: &'a [(NodeId, u32)],
            told: &'a BTreeSet<NodeId>,
        ) -> Situation<'a> {
            Situation { initial_members: 3, ..situation(empty, newcomers, told) }
        }
        let too_few = [(id(6), 3)];
        assert_eq!(choose_step(&three(empty, &too_few, told)), Step::Wait(Waiting::InitialMembers));
        // All three are seen from here, but they do not see each other yet.
        let one_sided = [(id(6), 2), (id(7), 3)];
        assert_eq!(
            choose_step(&three(empty, &one_sided, told)),
            Step::Wait(Waiting::InitialMembers)
        );
        let mutual = [(id(6), 3), (id(7), 3)];
        assert_eq!(choose_step(&three(empty, &mutual, told)), Step::Found);
    }

    #[test]
    fn a_cluster_that_is_heard_of_is_joined_never_refounded() {
        let (empty, told) = (view(&[]), BTreeSet::new());
        let heard = Situation { founded_elsewhere: true, ..situation(&empty, &[], &told) };
        assert_eq!(choose_step(&heard), Step::Wait(Waiting::Roster));
        let known = view(&[(1, MemberState::Active, Hearing::Heard)]);
        assert_eq!(choose_step(&situation(&known, &[], &told)), Step::Enter);
    }

    #[test]
    fn a_join_counts_once_everyone_heard_and_a_write_quorum_know_of_it() {
        let joined = view(&[
            (1, MemberState::Active, Hearing::Heard),
            (2, MemberState::Active, Hearing::Silent),
            (3, MemberState::Joining, Hearing::Heard),
            (5, MemberState::Joining, Hearing::Heard),
        ]);
        let mut told = BTreeSet::new();
        assert_eq!(choose_step(&situation(&joined, &[], &told)), Step::Tell(vec![id(1), id(3)]));
        told.insert(id(3));
        assert_eq!(choose_step(&situation(&joined, &[], &told)), Step::Tell(vec![id(1)]));
        told.insert(id(1));
        assert_eq!(choose_step(&situation(&joined, &[], &told)), Step::Activate);
        let two = Situation { write_quorum: 2, ..situation(&joined, &[], &told) };
        assert_eq!(choose_step(&two), Step::Wait(Waiting::Quorum));
    }

    #[test]
    fn where_all_have_retired_a_join_counts_as_a_founding_does() {
        use Hearing::Heard;
        use MemberState::Joining;
        // Who has retired is in no view.
        let deserted = view(&[(3, Joining, Heard), (5, Joining, Heard)]);
        let (mut told, unable) = (BTreeSet::new(), BTreeSet::from([id(3)]));
        let step = |told: &BTreeSet<NodeId>| choose_step(&situation(&deserted, &[], told));
        assert_eq!(step(&told), Step::Tell(vec![id(3)]));
        told.insert(id(3));
        assert_eq!(step(&told), Step::Activate);
        let early = Situation { warmed_up: false, ..situation(&deserted, &[], &told) };
        assert_eq!(choose_step(&early), Step::Wait(Waiting::WarmUp));
        // Those that have retired since they were told do not count.
        let told = BTreeSet::from([id(3), id(8), id(9)]);
        let half = Situation { initial_members: 3, ..situation(&deserted, &[], &told) };
        assert_eq!(choose_step(&half), Step::Wait(Waiting::InitialMembers));
        let none = BTreeSet::new();
        let full = Situation { unable: &unable, ..situation(&deserted, &[], &none) };
        assert_eq!(choose_step(&full), Step::Tell(vec![id(3)]), "it may not hear of this one");
    }

    #[test]
    fn a_member_whose_disk_takes_nothing_keeps_nobody_out() {
        let joined = view(&[
            (1, MemberState::Active, Hearing::Heard),
            (2, MemberState::Active, Hearing::Heard),
            (5, MemberState::Joining, Hearing::Heard),
        ]);
        let (mut told, unable) = (BTreeSet::new(), BTreeSet::from([id(2)]));
        let step = |told: &BTreeSet<NodeId>, write_quorum| {
            let situation = situation(&joined, &[], told);
            choose_step(&Situation { unable: &unable, write_quorum, ..situation })
        };
        assert_eq!(step(&told, 1), Step::Tell(vec![id(1)]));
        told.insert(id(1));
        assert_eq!(step(&told, 1), Step::Activate);
        // Here it is needed, so it is asked again.
        assert_eq!(step(&told, 2), Step::Tell(vec![id(2)]));
        told.insert(id(2));
        assert_eq!(step(&told, 2), Step::Activate);
    }

    #[test]
    fn with_every_holder_silent_a_join_waits() {
        let dark = view(&[
            (1, MemberState::Active, Hearing::Silent),
            (5, MemberState::Joining, Hearing::Heard),
        ]);
        let told = BTreeSet::new();
        assert_eq!(choose_step(&situation(&dark, &[], &told)), Step::Wait(Waiting::Quorum));
    }

    #[test]
    fn a_member_of_a_cluster_has_nothing_to_do() {
        let told = BTreeSet::new();
        for state in [MemberState::Active, MemberState::Draining, MemberState::Retired] {
            let joined = view(&[(5, state, Hearing::Heard)]);
            assert_eq!(choose_step(&situation(&joined, &[], &told)), Step::Done);
        }
    }
}
