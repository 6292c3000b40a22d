use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::locate::{Located, Round, Verdict};
use crate::name::Key;
use crate::node::Generation;
use crate::object::{Digest, Kind, Metadata, Stat};
use crate::roster::RosterDigest;
use crate::test_support::{id, member};
use crate::version::Version;
use crate::wire::PROTOCOL_VERSION;
use crate::wire::locate::BatchAnswer;

const POLICY: Policy = Policy { epoch: 4, replicas: 3, write_quorum: 2, read_quorum: 2 };

fn name(place: u64) -> ObjectName {
    ObjectName::seed(Key::new(place.to_string()).expect("short"))
}

fn active(bits: u128) -> Member {
    let active = member(bits, MemberState::Active, Hearing::Heard);
    Member { free_bytes: 900, total_bytes: 1_000, weight: 10, ..active }
}

/// Ten active members, and this electorate of them.
fn ten(phase: Option<Phase>) -> View {
    let members: Vec<Member> = (1..=10).map(active).collect();
    let view = View { founded: true, policy: POLICY, members, ..View::default() };
    let electorate = convene(&view).expect("ten are enough");
    View { electorate: phase.map(|phase| Arc::new(electorate.in_phase(phase))), ..view }
}

fn stat(clock: u64) -> Stat {
    Stat {
        version: Version::from_parts(clock, 0),
        kind: Kind::Object,
        size_bytes: 0,
        digest: Digest(0),
        metadata: Metadata::default(),
    }
}

fn answer(node: NodeId, holds: bool) -> BatchAnswer {
    BatchAnswer {
        protocol: PROTOCOL_VERSION,
        id: 1,
        node,
        generation: Generation(1),
        address: "ds:80".parse().expect("an address"),
        roster_digest: RosterDigest(1),
        mono_millis: 0,
        unix_millis: 7,
        found: if holds { vec![(0, stat(3))] } else { Vec::new() },
        unknown: Vec::new(),
        floor: None,
        promised: Vec::new(),
        may_have_promised: Vec::new(),
        promised_before: None,
        late: false,
    }
}

/// Those of the name that is asked for.
fn voters() -> Vec<NodeId> {
    let all = ten(Some(Phase::Reading)).electorate;
    all.map_or(Vec::new(), |all| all.voters(&name(1)))
}

/// What a round of `view` finds of one name when `heard` answer, of whom
/// `holders` have it.
fn found(view: &View, heard: &[NodeId], holders: &[NodeId]) -> Located {
    let mut round = Round::new(vec![name(1)], BTreeSet::new(), view);
    for node in heard {
        assert!(round.apply_answer(&answer(*node, holders.contains(node))));
    }
    round.outcome(0)
}

#[test]
fn w_voters_answer_for_a_name_only_while_reading() {
    for phase in [None, Some(Phase::Rising), Some(Phase::Settling), Some(Phase::Falling)] {
        let view = ten(phase);
        let voters = voters();
        assert!(!found(&view, &voters, &voters).complete, "{phase:?}");
    }
    let view = ten(Some(Phase::Reading));
    let voters = voters();
    assert_eq!(voters.len(), 3);
    assert!(found(&view, &voters[1..], &[]).complete);
    assert_eq!(found(&view, &voters[1..], &[]).verdict(), Verdict::Absent);
    assert!(!found(&view, &voters[..1], &[]).complete);
    let others: Vec<NodeId> = (1..=10).map(id).filter(|node| !voters.contains(node)).collect();
    assert!(!found(&view, &others, &[]).complete, "seven, none of whom votes");
    let mut nine = others;
    nine.extend(&voters[..2]);
    assert!(found(&view, &nine, &[]).complete, "all but one suffice as ever");
}

#[test]
fn a_round_is_over_when_voters_suffice_for_each_of_its_names() {
    let view = ten(Some(Phase::Reading));
    let names: Vec<ObjectName> = (0..4).map(name).collect();
    let mut round = Round::new(names.clone(), BTreeSet::new(), &view);
    let all = view.electorate.clone().expect("reading");
    let mut heard = Vec::new();
    for node in (1..=10).map(id) {
        let suffice =
            |name| all.voters(name).iter().filter(|voter| heard.contains(*voter)).count() >= 2;
        let is_enough = heard.len() >= 9 || names.iter().all(suffice);
        assert_eq!(round.is_decided(), is_enough, "{heard:?}");
        if is_enough {
            break;
        }
        round.apply_answer(&answer(node, false));
        heard.push(node);
    }
    assert!(heard.len() < 9, "others are still out");
    assert!(round.outcomes().iter().all(|located| located.complete));
}

#[test]
fn a_round_that_sees_the_electorate_change_asks_all() {
    for later in [None, Some(Phase::Falling), Some(Phase::Settling)] {
        let (before, after) = (ten(Some(Phase::Reading)), ten(later));
        let mut round = Round::new(vec![name(1)], BTreeSet::new(), &before);
        round.apply_view(&after);
        for node in voters() {
            round.apply_answer(&answer(node, false));
        }
        assert!(!round.is_decided() && !round.outcome(0).complete, "{later:?}");
        round.apply_view(&before);
        assert!(!round.outcome(0).complete, "and does so to its end");
    }
    // One that began before the voters were ready does not rely on them either.
    let mut round = Round::new(vec![name(1)], BTreeSet::new(), &ten(Some(Phase::Settling)));
    round.apply_view(&ten(Some(Phase::Reading)));
    for node in voters() {
        round.apply_answer(&answer(node, false));
    }
    assert!(!round.outcome(0).complete);
}

#[test]
fn only_copies_of_voters_count_while_there_is_an_electorate() {
    let everybody: Vec<NodeId> = (1..=10).map(id).collect();
    let voters = voters();
    let others: Vec<NodeId> =
        everybody.iter().copied().filter(|node| !voters.contains(node)).take(3).collect();
    assert!(found(&ten(None), &everybody, &others).settled);
    for phase in Phase::ALL {
        let view = ten(Some(phase));
        let mut holders = others.clone();
        let located = found(&view, &everybody, &holders);
        assert_eq!((located.settled, located.copies, located.lasting), (false, 3, 0));
        holders.push(voters[2]);
        assert!(!found(&view, &everybody, &holders).settled);
        holders.push(voters[0]);
        let located = found(&view, &everybody, &holders);
        assert_eq!((located.settled, located.copies, located.lasting), (true, 5, 2));
        let (written, one) = (name(1), voters[0]);
        let counts = view.counting(&written);
        assert!(counts(one) && !counts(others[0]), "{phase:?}");
    }
}

/// A voter that was given up by force is not in the roster any more, and is not
/// heard.
#[test]
fn a_voter_that_is_gone_has_not_answered() {
    let mut view = ten(Some(Phase::Reading));
    let voters = voters();
    view.members.retain(|member| member.id != voters[0]);
    assert!(!found(&view, &voters[2..], &[]).complete, "one of three");
    assert!(found(&view, &voters[1..], &[]).complete);
    view.members.retain(|member| member.id != voters[1]);
    let all = view.members.iter().map(|member| member.id);
    let others: Vec<NodeId> = all.filter(|node| !voters.contains(node)).collect();
    assert!(!found(&view, &others[1..], &[]).complete, "none of three");
}

fn step(view: &View, repaired: bool, has_lasted: bool) -> ElectorateStep {
    // Of a lost one others do not have everything yet.
    let is_unfit = |id| {
        view.member(id).is_none_or(|member| member.state != MemberState::Active && !member.lost)
    };
    let wanted = Some(Wanted::copies(3));
    next(&Situation { view, wanted, repaired, has_lasted, is_unfit: &is_unfit })
}

fn phase_of(step: ElectorateStep) -> Option<Option<Phase>> {
    match step {
        ElectorateStep::Rest => None,
        ElectorateStep::Take(electorate) => Some(electorate.map(|electorate| electorate.phase)),
    }
}

#[test]
fn an_electorate_comes_and_goes_one_phase_at_a_time() {
    use Phase::{Falling, Reading, Rising, Settling};
    for (phase, repaired, has_lasted, expected) in [
        (None, true, true, Some(Some(Rising))),
        (Some(Rising), true, false, None),
        (Some(Rising), false, true, Some(Some(Settling))),
        (Some(Settling), false, true, None),
        (Some(Settling), true, false, Some(Some(Reading))),
        (Some(Reading), true, true, None),
        (Some(Falling), true, false, None),
        (Some(Falling), false, true, Some(None)),
    ] {
        let step = phase_of(step(&ten(phase), repaired, has_lasted));
        assert_eq!(step, expected, "{phase:?} {repaired} {has_lasted}");
    }
}

#[test]
fn it_falls_when_the_members_are_not_those_any_more() {
    type Change = fn(&mut View);
    let cases: [(&str, bool, Change); 12] = [
        ("nothing", false, |_| ()),
        ("one is silent", false, |view| view.members[3].hearing = Hearing::Silent),
        ("one drains", true, |view| view.members[3].state = MemberState::Draining),
        ("a newcomer joins", false, |view| {
            let newcomer = Member { state: MemberState::Joining, ..active(11) };
            view.members.push(newcomer);
        }),
        ("a newcomer is active", true, |view| view.members.push(active(11))),
        ("one is full", false, |view| view.members[3].free_bytes = 0),
        ("two are nearly full", true, |view| {
            view.members[3].free_bytes = 10;
            view.members[4].free_bytes = 0;
        }),
        ("one is lost", false, |view| {
            view.members[4].state = MemberState::Draining;
            (view.members[4].lost, view.members[4].hearing) = (true, Hearing::Silent);
        }),
        ("one is full and one is lost", true, |view| {
            view.members[3].free_bytes = 0;
            view.members[4].state = MemberState::Draining;
            (view.members[4].lost, view.members[4].hearing) = (true, Hearing::Silent);
        }),
        ("one is in another zone", true, |view| view.members[3].zone = Some("z".to_owned())),
        ("one has another disk", true, |view| view.members[3].weight = 20),
        ("one has a little more room", false, |view| view.members[3].weight = 11),
    ];
    for phase in [Phase::Rising, Phase::Settling, Phase::Reading] {
        for (what, falls, change) in cases {
            let mut view = ten(Some(phase));
            change(&mut view);
            let fallen = phase_of(step(&view, false, false)) == Some(Some(Phase::Falling));
            assert_eq!(fallen, falls, "{what} while {}", phase.as_str());
            // A fall of which too few would hear takes voters away for nothing.
            view.members[0].hearing = Hearing::Silent;
            view.members[1].hearing = Hearing::Silent;
            assert_eq!(step(&view, false, false), ElectorateStep::Rest, "{what}");
        }
    }
    let mut view = ten(Some(Phase::Reading));
    view.policy.replicas = 4;
    assert_eq!(phase_of(step(&view, true, true)), Some(Some(Phase::Falling)), "another R");
}

#[test]
fn no_electorate_of_members_that_are_not_ready_or_too_few() {
    type Change = fn(&mut View);
    let cases: [(&str, Change); 5] = [
        ("silent", |view| view.members[3].hearing = Hearing::Silent),
        ("joining", |view| view.members[3].state = MemberState::Joining),
        ("draining", |view| view.members[3].state = MemberState::Draining),
        ("full", |view| view.members[3].free_bytes = 0),
        ("as many as voters", |view| view.members.truncate(3)),
    ];
    for (what, change) in cases {
        let mut view = ten(None);
        change(&mut view);
        assert_eq!(step(&view, true, true), ElectorateStep::Rest, "{what}");
    }
    let mut view = ten(None);
    view.members.truncate(4);
    assert_eq!(phase_of(step(&view, true, true)), Some(Some(Phase::Rising)));
    view.policy = Policy::settled(4, 1);
    assert_eq!(step(&view, true, true), ElectorateStep::Rest, "one copy has no others");
}

proptest! {
    #[test]
    fn voters_come_first_and_do_not_depend_on_who_is_there(
        place: u64,
        away in prop::collection::btree_set(1u128..=12, 0..9),
    ) {
        let view = ten(Some(Phase::Reading));
        let all = view.electorate.clone().expect("reading");
        let voters = all.voters(&name(place));
        let candidates: Vec<Candidate> =
            (1..=12).filter(|bits| !away.contains(bits)).map(|bits| active(bits).candidate()).collect();
        let order = order(&name(place), &candidates, Some(&all));
        let present: Vec<NodeId> =
            voters.into_iter().filter(|voter| candidates.iter().any(|one| one.id == *voter)).collect();
        prop_assert_eq!(&order[..present.len()], present.as_slice());
        prop_assert_eq!(order.len(), candidates.len());
        let newcomers = order.iter().skip_while(|node| all.has(**node));
        prop_assert!(newcomers.clone().all(|node| !all.has(*node)), "newcomers come last");
    }
}
