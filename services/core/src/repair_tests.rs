use super::*;
use crate::locate::Replica;
use crate::membership::Member;
use crate::name::Key;
use crate::node::Generation;
use crate::object::{Digest, Kind, Metadata};
use crate::stamp::Stamp;
use crate::test_support::member;
use proptest::prelude::*;

const POLICY: Policy = Policy { epoch: 0, replicas: 3, write_quorum: 2, read_quorum: 2 };

fn id(bits: u128) -> NodeId {
    NodeId::from_bits(bits)
}

fn stat(clock: u64) -> Stat {
    Stat {
        version: Version::from_parts(clock, 1),
        kind: Kind::Object,
        size_bytes: 1,
        digest: Digest(clock),
        metadata: Metadata::default(),
    }
}

/// Members 1 to 5 answered; these of them hold these versions.
fn located(held: &[(u128, u64)]) -> Located {
    let replica = |(node, clock): &(u128, u64)| Replica {
        node: id(*node),
        address: format!("ds-{node}:80").parse().expect("an address"),
        stat: stat(*clock),
    };
    let mut replicas: Vec<Replica> = held.iter().map(replica).collect();
    replicas.sort_by(|a, b| b.stat.version.cmp(&a.stat.version).then(a.node.cmp(&b.node)));
    let newest = replicas.first().map(|replica| replica.stat.version);
    let lasting = replicas.iter().filter(|replica| Some(replica.stat.version) == newest).count();
    Located {
        replicas,
        answered: (1..=5).map(id).collect(),
        complete: true,
        lasting,
        settled: lasting >= 2,
        stamps: (1..=5)
            .map(|node| (id(node), Stamp { generation: Generation(1), mono_millis: 1 }))
            .collect(),
        ..Located::default()
    }
}

fn planned(own: u128, held: &[(u128, u64)], homes: &[u128]) -> Plan {
    let homes: Vec<NodeId> = homes.iter().copied().map(id).collect();
    plan(id(own), &located(held), &homes, &POLICY)
}

#[test]
fn the_first_home_that_has_it_sees_to_the_others() {
    let held = [(1, 7), (2, 7)];
    let copy = Plan::Copy { stat: stat(7), from: vec![id(1), id(2)], to: vec![id(3)] };
    assert_eq!(planned(1, &held, &[1, 2, 3]), copy);
    assert_eq!(planned(2, &held, &[1, 2, 3]), Plan::Rest);
    let copy = Plan::Copy { stat: stat(7), from: vec![id(2), id(1)], to: vec![id(3)] };
    assert_eq!(planned(2, &held, &[3, 2, 1]), copy);
}

#[test]
fn who_has_it_and_should_not_hands_over_when_no_home_has_it() {
    let held = [(4, 7), (5, 7)];
    let copy =
        Plan::Copy { stat: stat(7), from: vec![id(4), id(5)], to: vec![id(1), id(2), id(3)] };
    assert_eq!(planned(4, &held, &[1, 2, 3]), copy);
    assert_eq!(planned(5, &held, &[1, 2, 3]), Plan::Rest);
}

#[test]
fn a_copy_too_many_goes_when_every_home_has_one() {
    let held = [(1, 7), (2, 7), (3, 7), (4, 7)];
    let rely_on = vec![id(1), id(2), id(3)];
    let version = Version::from_parts(7, 1);
    assert_eq!(planned(4, &held, &[1, 2, 3]), Plan::LetGo { version, rely_on });
    assert_eq!(planned(3, &held, &[1, 2, 3]), Plan::Rest);
    assert_eq!(planned(4, &held, &[1, 2]), Plan::Rest, "fewer homes than copies");
}

#[test]
fn an_older_copy_goes_only_when_the_newer_is_certain_to_be_found() {
    let version = Version::from_parts(6, 1);
    assert_eq!(planned(4, &[(1, 7), (2, 7), (4, 6)], &[1, 2, 3]), Plan::Forget { version });
    assert_eq!(planned(4, &[(1, 7), (4, 6)], &[1, 2, 3]), Plan::Rest);
    assert_eq!(planned(3, &[(1, 7), (2, 7), (3, 6)], &[1, 2, 3]), Plan::Rest, "a home");
}

#[test]
fn nothing_is_decided_on_an_incomplete_answer() {
    for held in [&[(1, 7), (2, 7), (3, 7), (4, 7)][..], &[(1, 7)], &[(1, 8), (4, 7)]] {
        let incomplete = Located { complete: false, ..located(held) };
        for own in 1..=5 {
            assert_eq!(plan(id(own), &incomplete, &[id(1), id(2), id(3)], &POLICY), Plan::Wait);
        }
    }
}

#[test]
fn a_copy_that_cannot_be_read_is_mended_by_who_has_a_good_one() {
    let homes = [id(1), id(2), id(3)];
    let mut damaged = located(&[(1, 7), (2, 7), (3, 7), (4, 7)]);
    damaged.answered.retain(|node| *node != id(1));
    damaged.unheard.push(id(1));
    assert_eq!(plan(id(1), &damaged, &homes, &POLICY), Plan::Rest);
    let from = vec![id(2), id(3), id(4)];
    let copy = Plan::Copy { stat: stat(7), from, to: vec![id(1)] };
    assert_eq!(plan(id(2), &damaged, &homes, &POLICY), copy);
    assert_eq!(plan(id(4), &damaged, &homes, &POLICY), Plan::Rest, "it is still needed");
}

#[test]
fn a_tombstone_is_collected_when_nobody_has_anything_else() {
    let homes = [id(1), id(2), id(3)];
    let deleted = |held: &[(u128, u64)]| {
        let mut located = located(held);
        located.replicas.iter_mut().for_each(|replica| replica.stat.kind = Kind::Tombstone);
        located
    };
    let everywhere = deleted(&[(1, 7), (2, 7), (3, 7), (4, 7)]);
    let version = Version::from_parts(7, 1);
    assert_eq!(plan(id(1), &everywhere, &homes, &POLICY), Plan::Collect { version });
    assert_eq!(plan(id(2), &everywhere, &homes, &POLICY), Plan::Rest, "one sees to it");
    let silent = Located { unheard: vec![id(5)], ..everywhere.clone() };
    assert_eq!(plan(id(1), &silent, &homes, &POLICY), Plan::Rest);
    let mut older = everywhere.clone();
    older.replicas[3].stat = stat(6);
    assert_eq!(plan(id(1), &older, &homes, &POLICY), Plan::Rest);
    let missing = deleted(&[(1, 7), (2, 7)]);
    assert!(matches!(plan(id(1), &missing, &homes, &POLICY), Plan::Copy { .. }));
}

proptest! {
    /// Whatever is held where: nothing goes that is not held where it belongs,
    /// and no two members hand the same version over.
    #[test]
    fn copies_go_only_when_others_have_them(
        held in prop::collection::btree_map(1u128..6, 1u64..4, 0..6),
        homes in prop::collection::btree_set(1u128..6, 0..4),
        settles in 1usize..4,
    ) {
        let held: Vec<(u128, u64)> = held.into_iter().collect();
        let homes: Vec<NodeId> = homes.into_iter().map(id).collect();
        let mut located = located(&held);
        located.settled = located.lasting >= settles;
        let newest: Vec<NodeId> = located.newest_holders().map(|replica| replica.node).collect();
        let mut in_charge = 0;
        for own in 1..=5 {
            let holds = held.iter().any(|(node, _)| *node == own);
            match plan(id(own), &located, &homes, &POLICY) {
                Plan::Copy { stat, from, to } => {
                    in_charge += 1;
                    prop_assert_eq!(from.first(), Some(&id(own)));
                    prop_assert_eq!(&from.iter().copied().collect::<std::collections::BTreeSet<_>>(), &newest.iter().copied().collect());
                    prop_assert!(to.iter().all(|home| homes.contains(home) && !newest.contains(home)));
                    prop_assert_eq!(Some(stat.version), located.newest().map(|replica| replica.stat.version));
                }
                Plan::LetGo { rely_on, .. } => {
                    prop_assert!(newest.contains(&id(own)) && !rely_on.contains(&id(own)));
                    prop_assert!(rely_on.len() >= POLICY.replicas());
                    prop_assert!(rely_on.iter().all(|home| newest.contains(home)));
                }
                Plan::Forget { version } => {
                    prop_assert!(holds && located.settled && !newest.contains(&id(own)));
                    prop_assert!(held.contains(&(own, version.clock())));
                }
                Plan::Rest | Plan::Wait | Plan::Collect { .. } => {}
            }
        }
        prop_assert!(in_charge <= 1);
    }
}

/// Members 1 to 5, heard and with room, but for these, which have as many bytes.
fn with_free(free: &[(u128, u64)]) -> View {
    let one = |bits: u128| {
        let listed = free.iter().find(|(node, _)| *node == bits);
        let free_bytes = listed.map_or(900, |(_, bytes)| *bytes);
        let active = member(bits, MemberState::Active, Hearing::Heard);
        Member { free_bytes, total_bytes: 1_000, ..active }
    };
    View { founded: true, members: (1..=5).map(one).collect(), ..View::default() }
}

/// Homes of one name when these members hold these versions.
fn homes_of(view: &View, located: &Located) -> Vec<NodeId> {
    let name = ObjectName::seed(Key::new("a").expect("short"));
    let candidates: Vec<Candidate> = view.members.iter().map(Member::candidate).collect();
    homes(&name, &candidates, &POLICY, None, |node| lacks_room(view, located, node))
}

#[test]
fn a_full_member_is_passed_over_until_it_has_room_and_keeps_what_it_has() {
    let nowhere = located(&[]);
    let order = {
        let view = with_free(&[]);
        let candidates: Vec<Candidate> = view.members.iter().map(Member::candidate).collect();
        order(&ObjectName::seed(Key::new("a").expect("short")), &candidates, None)
    };
    let [first, second, third, fourth, fifth] = order[..] else { panic!("five") };
    let bits = NodeId::bits;
    assert_eq!(homes_of(&with_free(&[]), &nowhere), [first, second, third]);
    let held = |holders: &[NodeId]| {
        located(&holders.iter().map(|node| (bits(*node), 7)).collect::<Vec<_>>())
    };
    let full = with_free(&[(bits(second), 10)]);
    // What it has stays, as long as that can be read.
    assert_eq!(homes_of(&full, &held(&[first, second])), [first, second, third]);
    let mut damaged = held(&[first, second]);
    damaged.answered.retain(|node| *node != second);
    assert_eq!(homes_of(&full, &damaged), [first, third, fourth]);
    assert_eq!(homes_of(&full, &held(&[first, third])), [first, third, fourth]);
    // What is older it forgets, and has room again.
    let mut older = held(&[first, third]);
    older.replicas.push(Replica { node: second, stat: stat(6), ..older.replicas[0].clone() });
    assert_eq!(homes_of(&full, &older), [first, third, fourth]);
    let homes = homes_of(&full, &older);
    let version = Version::from_parts(6, 1);
    assert_eq!(plan(second, &older, &homes, &POLICY), Plan::Forget { version });
    // The others have as many as there should be: who drains is free to go.
    let away = held(&[first, third, fourth, fifth]);
    let homes = homes_of(&full, &away);
    let version = Version::from_parts(7, 1);
    let rely_on = vec![first, third, fourth];
    assert_eq!(plan(fifth, &away, &homes, &POLICY), Plan::LetGo { version, rely_on });
    // Who does not answer may have it.
    let mut unheard = held(&[first, third]);
    unheard.answered.retain(|node| *node != second);
    assert_eq!(homes_of(&full, &unheard), [first, second, third]);
    // Room for small ones is none for a large one.
    let mut large = held(&[first, third]);
    large.replicas.iter_mut().for_each(|replica| replica.stat.size_bytes = 500);
    let small = with_free(&[(bits(second), 499)]);
    assert_eq!(homes_of(&small, &large), [first, third, fourth]);
    assert_eq!(homes_of(&with_free(&[(bits(second), 500)]), &large), [first, second, third]);
}

#[test]
fn zones_keep_their_turns_when_a_member_is_passed_over() {
    let policy = Policy { replicas: 2, ..POLICY };
    let zone = |bits: u128| Some(if bits <= 2 { "west" } else { "east" }.to_owned());
    let candidate = |bits| Candidate { id: id(bits), weight: 1, zone: zone(bits) };
    let candidates: Vec<Candidate> = (1..=4).map(candidate).collect();
    for place in 0..100 {
        let name = ObjectName::seed(Key::new(place.to_string()).expect("short"));
        let homes = homes(&name, &candidates, &policy, None, |node| node == id(1));
        let west = homes.iter().filter(|home| home.bits() <= 2).count();
        assert_eq!((homes.len(), west), (2, 1), "{homes:?}");
        // As writes choose those that have room.
        let writes = order(&name, &candidates[1..], None);
        assert_eq!(homes, writes[..2]);
    }
}

#[test]
fn nobody_is_passed_over_for_a_tombstone_or_for_silence_or_for_nobody() {
    let everybody = |bytes| (1..=5).map(|node| (node, bytes)).collect::<Vec<_>>();
    let roomy = homes_of(&with_free(&[]), &located(&[]));
    let (first, last) = (roomy[0], roomy[2]);
    let held = located(&[(NodeId::bits(first), 7)]);
    assert_eq!(homes_of(&with_free(&everybody(0)), &held), roomy, "all are as full");
    let full = with_free(&[(NodeId::bits(last), 0)]);
    assert_ne!(homes_of(&full, &held), roomy);
    let mut deleted = held.clone();
    deleted.replicas[0].stat.kind = Kind::Tombstone;
    assert_eq!(homes_of(&full, &deleted), roomy, "a tombstone brings room");
    let mut silent = full;
    for one in silent.members.iter_mut().filter(|one| one.id == last) {
        one.hearing = Hearing::Silent;
    }
    assert_eq!(homes_of(&silent, &held), roomy, "it may have room by now");
}

fn roster_view(states: &[MemberState]) -> View {
    let mut roster = crate::roster::Roster::of_policy(id(99), POLICY, None);
    for (bits, state) in (1..).zip(states) {
        roster.apply_entry(&crate::roster::Entry {
            id: id(bits),
            epoch: 0,
            state: *state,
            lost: *state == MemberState::Draining,
            generation: Generation(1),
            address: format!("ds-{bits}:80").parse().expect("an address"),
            weight: 1,
            zone: None,
        });
    }
    crate::membership::Membership::new(Moment::from_secs(1), roster, Moment::ZERO)
        .view(Moment::ZERO)
}

#[test]
fn a_lost_member_is_retired_when_fewer_than_w_have_not_repaired() {
    use MemberState::{Active, Draining};
    let view = roster_view(&[Draining, Active, Active]);
    let passed = |ids: &'static [u128]| move |node| ids.iter().any(|bits| id(*bits) == node);
    assert!(may_retire(&view, id(1), passed(&[2, 3])));
    assert!(!may_retire(&view, id(1), passed(&[2])), "two lack it, as many as W");
    assert!(!may_retire(&view, id(1), passed(&[1, 2])), "its own pass counts for nothing");
    assert!(!may_retire(&view, id(2), passed(&[1, 3])), "it does not drain");
    // With a second one that drains, its pass is needed as well.
    let two = roster_view(&[Draining, Draining, Active]);
    assert!(!may_retire(&two, id(1), passed(&[3])));
    // Two that are left would be too few for W.
    assert!(!may_retire(&roster_view(&[Draining, Active]), id(1), passed(&[2])));
}
