use super::*;
use crate::test_support::{id, member};
use holdfast_core::electorate::{Electorate, Phase};
use holdfast_core::locate::Replica;
use holdfast_core::membership::{Hearing, Member};
use holdfast_core::name::Key;
use holdfast_core::node::{Generation, NodeId};
use holdfast_core::object::{Digest, Kind, Metadata, Stat};
use holdfast_core::placement::Candidate;
use holdfast_core::policy::Policy;
use holdfast_core::stamp::Stamp;
use holdfast_core::version::Version;

fn view(members: Vec<Member>) -> View {
    View { founded: true, members, ..View::default() }
}

fn name() -> ObjectName {
    ObjectName::seed(Key::new("k").expect("short"))
}

fn answered(nodes: &[u128]) -> Located {
    let stamp = Stamp { generation: Generation(1), mono_millis: 1 };
    Located { stamps: nodes.iter().map(|node| (id(*node), stamp)).collect(), ..Located::default() }
}

fn held_by(bits: u128) -> Located {
    let stat = Stat {
        version: Version::from_parts(1, 1),
        kind: Kind::Object,
        size_bytes: 1,
        digest: Digest(0),
        metadata: Metadata::default(),
    };
    let address = format!("ds-{bits}:80").parse().expect("an address");
    Located { replicas: vec![Replica { node: id(bits), address, stat }], ..answered(&[1, 2, 3]) }
}

fn chosen(view: &View, located: &Located, size: u64) -> Vec<NodeId> {
    match choose_targets(view, located, &name(), size) {
        Ok(Targets::Members(members)) => members.into_iter().map(|to| to.member.id).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn the_only_copy_is_overwritten_where_it_is_while_its_holder_is_heard() {
    use Hearing::{Heard, Silent};
    let all = view((1..4).map(|bits| member(bits, Heard, 50)).collect());
    for holder in [1, 2, 3] {
        let order = chosen(&all, &held_by(holder), 10);
        assert_eq!((order.first(), order.len()), (Some(&id(holder)), 3));
    }
    let dark = view(vec![member(1, Silent, 50), member(2, Heard, 50)]);
    assert_eq!(chosen(&dark, &held_by(1), 10), [id(2)]);
}

#[test]
fn with_copies_placement_alone_says_where_they_go() {
    let mut all = view((1..4).map(|bits| member(bits, Hearing::Heard, 50)).collect());
    all.policy = Policy::settled(0, 3);
    let orders: Vec<_> = [1, 2, 3].map(|holder| chosen(&all, &held_by(holder), 10)).into();
    assert!(orders.iter().all(|order| order.len() == 3 && *order == orders[0]), "{orders:?}");
}

#[test]
fn who_has_never_answered_gets_nothing() {
    let both = view(vec![member(1, Hearing::Heard, 50), member(2, Hearing::Heard, 50)]);
    assert_eq!(chosen(&both, &answered(&[2]), 10), [id(2)]);
}

#[test]
fn full_none_and_guests_are_told_apart() {
    let full = view(vec![member(1, Hearing::Heard, 5)]);
    let refused = choose_targets(&full, &held_by(1), &name(), 10);
    assert!(matches!(refused, Err(ObjectError::NoSpace)));
    let none = view(vec![]);
    let refused = choose_targets(&none, &held_by(1), &name(), 10);
    assert!(matches!(refused, Err(ObjectError::NoDataServers)));
    let guests = View { guests: vec!["seed:80".parse().expect("an address")], ..none };
    let target = choose_targets(&guests, &held_by(1), &name(), 10);
    assert!(matches!(target, Ok(Targets::Guests)));
}

/// What becomes of a write to these members.
fn refused(view: &View, located: &Located, to: &[u128]) -> Option<ObjectError> {
    let recipients: Vec<Recipient> = to
        .iter()
        .filter_map(|bits| {
            let (member, stamp) = (view.member(id(*bits))?.clone(), located.stamp(id(*bits))?);
            Some(Recipient { member, stamp })
        })
        .collect();
    check_enough(view, located, &name(), &recipients, 10).err()
}

#[test]
fn fewer_than_a_quorum_get_nothing() {
    let mut view = view((1..4).map(|bits| member(bits, Hearing::Heard, 50)).collect());
    view.policy = Policy::settled(0, 3);
    let all = answered(&[1, 2, 3]);
    assert!(refused(&view, &all, &[1, 2]).is_none());
    let few = refused(&view, &all, &[1]);
    assert!(matches!(few, Some(ObjectError::NoQuorum { .. })), "{few:?}");
    view.members[0].free_bytes = 5;
    view.members[1].free_bytes = 5;
    assert!(matches!(refused(&view, &all, &[1]), Some(ObjectError::NoSpace)));
    view.members[2].hearing = Hearing::Silent;
    view.members[1].hearing = Hearing::Silent;
    assert!(matches!(refused(&view, &all, &[1]), Some(ObjectError::NoQuorum { .. })));
}

#[test]
fn while_there_are_voters_they_come_first_and_only_they_count() {
    let mut view = view((1..8).map(|bits| member(bits, Hearing::Heard, 50)).collect());
    view.policy = Policy::settled(0, 3);
    let members = (1..=6).map(|bits| Candidate { id: id(bits), weight: 1, zone: None }).collect();
    let electorate = Electorate { phase: Phase::Rising, voters: 3, members };
    let voters = electorate.voters(&name());
    view.electorate = Some(electorate.into());
    let all = answered(&[1, 2, 3, 4, 5, 6, 7]);
    let order = chosen(&view, &all, 10);
    assert_eq!(order[..3], voters);
    assert_eq!(order[6], id(7), "who came later");
    let bits = |nodes: &[NodeId]| nodes.iter().map(|node| node.bits()).collect::<Vec<u128>>();
    assert!(refused(&view, &all, &bits(&order[1..3])).is_none());
    let others = refused(&view, &all, &bits(&order[2..]));
    assert!(matches!(others, Some(ObjectError::NoQuorum { .. })), "{others:?}");
    for member in view.members.iter_mut().filter(|member| voters[1..].contains(&member.id)) {
        member.free_bytes = 5;
    }
    let full = refused(&view, &all, &bits(&order[3..]));
    assert!(matches!(full, Some(ObjectError::NoSpace)), "{full:?}");
}
