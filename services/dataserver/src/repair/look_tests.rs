//! What is decided about one name.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::locate::Replica;
use holdfast_core::name::Key;
use holdfast_core::node::Generation;
use holdfast_core::object::{Digest, Metadata};
use holdfast_core::policy::Policy;
use holdfast_core::stamp::Stamp;

use super::*;

fn id(bits: u128) -> NodeId {
    NodeId::from_bits(bits)
}

fn subject(is_damaged: bool) -> Subject {
    Subject { name: ObjectName::seed(Key::new("k").expect("short")), is_damaged }
}

fn located(copies: &[(u128, u64)]) -> Located {
    let replica = |(node, clock): &(u128, u64)| Replica {
        node: id(*node),
        address: "h:1".parse().expect("an address"),
        stat: Stat {
            version: Version::from_parts(*clock, 1),
            kind: Kind::Object,
            size_bytes: 1,
            digest: Digest(0),
            metadata: Metadata::default(),
        },
    };
    let newest = copies.iter().map(|(_, clock)| *clock).max();
    let mut replicas: Vec<_> = copies.iter().map(replica).collect();
    replicas.sort_by_key(|replica| std::cmp::Reverse(replica.stat.version));
    let stamp = Stamp { generation: Generation(1), mono_millis: 1 };
    let lasting = copies.iter().filter(|(_, clock)| Some(*clock) == newest).count();
    Located {
        replicas,
        complete: true,
        copies: lasting,
        lasting,
        settled: true,
        answered: (1..=4).map(id).collect(),
        stamps: (1..=4).map(|node| (id(node), stamp)).collect::<BTreeMap<_, _>>(),
        ..Located::default()
    }
}

fn shape(replicas: u32) -> Shape {
    Shape {
        candidates: Vec::new(),
        policy: Policy::settled(1, replicas),
        electorate: None,
        draining: BTreeMap::new(),
    }
}

fn step(own: u128, damaged: bool, copies: &[(u128, u64)]) -> Step {
    choose(id(own), &subject(damaged), &located(copies), &[id(1), id(2)], &shape(2), true)
}

#[test]
fn a_damaged_copy_is_taken_anew_before_it_is_passed_on() {
    let Step::Copy { from, to, .. } = step(1, true, &[(1, 5), (2, 5), (3, 5)]) else {
        panic!("it can be mended");
    };
    assert_eq!((from, to), (vec![id(2), id(3)], vec![id(1)]));
    let Step::Copy { from, to, .. } = step(1, true, &[(1, 5), (3, 5)]) else {
        panic!("it can be mended");
    };
    assert_eq!((from, to), (vec![id(3)], vec![id(1)]), "before the other home gets it");
    assert_eq!(step(1, true, &[(1, 5)]), Step::Rest, "nobody has a good one");
}

#[test]
fn a_damaged_copy_that_may_go_is_not_mended() {
    let version = Version::from_parts(5, 1);
    let rely_on = vec![id(1), id(2)];
    assert_eq!(step(3, true, &[(1, 5), (2, 5), (3, 5)]), Step::LetGo { version, rely_on });
    let old = Version::from_parts(4, 1);
    assert_eq!(step(3, true, &[(1, 5), (2, 5), (3, 4)]), Step::Forget(old));
}

#[test]
fn a_damaged_copy_is_no_copy() {
    let count = |damaged, copies: &[(u128, u64)]| {
        count(
            id(1),
            &subject(damaged),
            &located(copies),
            &[id(1), id(2)],
            &shape(2),
            &BTreeSet::new(),
        )
    };
    let whole = count(false, &[(1, 5), (2, 5)]);
    assert_eq!(
        (whole.least_copies, whole.unfinished, whole.redundancy.under_replicated),
        (2, 0, 0)
    );
    assert_eq!(whole.redundancy.by_copies, [0, 0, 1, 0]);
    let damaged = count(true, &[(1, 5), (2, 5)]);
    assert_eq!(
        (damaged.least_copies, damaged.unfinished, damaged.redundancy.under_replicated),
        (1, 1, 1)
    );
    assert_eq!(damaged.redundancy.by_copies, [0, 1, 0, 0]);
}

#[test]
fn copies_are_told_whether_they_vote_or_not_and_passes_are_of_voters() {
    let count = |damaged, own| {
        let voting = Located {
            voters: Some(vec![id(2), id(3), id(4)]),
            lasting: 2,
            ..located(&[(1, 5), (2, 5), (3, 5)])
        };
        let homes = [id(own), id(2), id(3)];
        count(id(own), &subject(damaged), &voting, &homes, &shape(3), &BTreeSet::new())
    };
    let whole = count(false, 1);
    assert_eq!((whole.redundancy.by_copies, whole.least_copies), ([0, 0, 0, 1], 2));
    assert_eq!(count(true, 1).least_copies, 2, "a damaged copy that did not count");
    assert_eq!(count(true, 2).least_copies, 1);
}

#[test]
fn each_object_is_counted_by_one_member() {
    let counted_by = |copies: &[(u128, u64)]| -> Vec<u128> {
        let counts = |own: &u128| {
            let found = count(
                id(*own),
                &subject(false),
                &located(copies),
                &[id(1), id(2)],
                &shape(2),
                &BTreeSet::new(),
            );
            found.redundancy.by_copies.iter().sum::<u64>() > 0
        };
        (1..=4).filter(counts).collect()
    };
    assert_eq!(counted_by(&[(1, 5), (2, 5), (3, 5)]), [1]);
    assert_eq!(counted_by(&[(2, 5), (1, 4)]), [2]);
    assert_eq!(counted_by(&[(4, 5), (3, 5)]), [3]);
    assert!(counted_by(&[]).is_empty());
}

#[test]
fn a_home_that_is_away_leaves_nothing_to_do() {
    let count = |away: &[u128]| {
        let away = away.iter().map(|bits| id(*bits)).collect();
        let alone = located(&[(1, 5)]);
        count(id(1), &subject(false), &alone, &[id(1), id(2)], &shape(2), &away).unfinished
    };
    assert_eq!(count(&[]), 1);
    assert_eq!(count(&[3]), 1);
    assert_eq!(count(&[2]), 0);
}
