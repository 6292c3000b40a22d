//! Who may drain, who is lost, and when the number of copies may change.

use super::*;
use crate::node::Generation;
use crate::wire::heartbeat::{Pass, RepairReport};

const DELAY: Duration = Duration::from_secs(600);
const NOW: Moment = Duration::from_secs(10_000);

fn id(bits: u128) -> NodeId {
    NodeId::from_bits(bits)
}

fn entry(bits: u128, state: MemberState) -> Entry {
    Entry {
        id: id(bits),
        epoch: 0,
        state,
        lost: false,
        generation: Generation(1),
        address: format!("h:{bits}").parse().expect("an address"),
        weight: 1,
        zone: None,
    }
}

fn roster(replicas: u32, states: &[(u128, MemberState)]) -> Roster {
    let policy = Policy::settled(3, replicas);
    let mut roster = Roster::of_policy(id(99), policy, None);
    for (bits, state) in states {
        roster.apply_entry(&entry(*bits, *state));
    }
    roster
}

fn member(bits: u128, state: MemberState, hearing: Hearing) -> Member {
    let last_heard = Some(if hearing == Hearing::Silent { NOW - DELAY } else { NOW });
    let wanted = Some(Wanted::copies(2));
    Member { last_heard, wanted, ..crate::test_support::member(bits, state, hearing) }
}

fn view(replicas: u32, members: Vec<Member>) -> View {
    let policy = Policy::settled(3, replicas);
    let heard = members.iter().filter(|member| member.hearing == Hearing::Heard).count();
    let majority_since = (heard * 2 > members.len()).then_some(Duration::ZERO);
    View { founded: true, policy, members, majority_since, ..View::default() }
}

fn passed(member: Member, without: &[u128], least_copies: u32) -> Member {
    let epochs = vec![0; without.len()];
    let without = without.iter().map(|bits| id(*bits)).collect();
    let pass = Pass { policy_epoch: 3, electorate: 0, without, epochs, least_copies };
    Member { repair: RepairReport { passed: Some(pass), ..RepairReport::default() }, ..member }
}

/// The same when all members see what this one sees.
fn agreed(mut view: View) -> View {
    let missed = missed_members(&view, DELAY, NOW);
    view.members.iter_mut().for_each(|member| member.repair.missed = missed.clone());
    view
}

use Hearing::{Heard, Silent};
use MemberState::{Active, Draining, Joining, Retired};

#[test]
fn a_drain_leaves_enough_members_and_can_be_taken_back() {
    let three = roster(2, &[(1, Active), (2, Active), (3, Active), (4, Joining)]);
    let heard = view(2, (1..=4).map(|bits| member(bits, Active, Heard)).collect());
    let drain = |roster: &Roster, id| drain(roster, &heard, id);
    let drained = drain(&three, id(1)).expect("two remain");
    assert_eq!((drained.state, drained.epoch), (Draining, 0));
    assert_eq!(drain(&three, id(4)), Err(Refused::WrongState { state: Joining }));
    assert_eq!(drain(&three, id(9)), Err(Refused::Unknown));
    let mut two = three.clone();
    two.apply_entry(&drained);
    assert_eq!(drain(&two, id(1)), Ok(drained), "again, for those that have not heard");
    assert_eq!(drain(&two, id(2)), Err(Refused::TooFew { remaining: 1, replicas: 2 }));
    let back = cancel_drain(&two, id(1)).expect("it drains");
    assert_eq!((back.state, back.epoch), (Active, 1));
    two.apply_entry(&back);
    assert_eq!(two.get(id(1)).map(|entry| entry.state), Some(Active));
    two.apply_entry(&Entry { lost: true, ..entry(2, Draining) });
    assert_eq!(cancel_drain(&two, id(2)), Err(Refused::Lost));
}

#[test]
fn a_drain_does_not_count_on_a_silent_member() {
    let three = roster(2, &[(1, Active), (2, Active), (3, Active)]);
    let seen = |third| {
        view(2, vec![member(1, Active, Heard), member(2, Active, Heard), member(3, Active, third)])
    };
    let refused = Err(Refused::TooFew { remaining: 1, replicas: 2 });
    assert_eq!(drain(&three, &seen(Silent), id(1)), refused);
    assert!(drain(&three, &seen(Silent), id(3)).is_ok(), "the silent one itself");
    assert!(drain(&three, &seen(Heard), id(1)).is_ok());
}

#[test]
fn only_a_silent_member_is_given_up_and_only_with_proof_or_consent() {
    let mut known = roster(2, &[(1, Active), (2, Active), (3, Draining)]);
    let drains = known.clone();
    known.apply_entry(&Entry { lost: true, ..entry(3, Draining) });
    let mut lost = Member { lost: true, ..member(3, Draining, Silent) };
    let others = |without: &[u128], least| {
        [1, 2].map(|bits| passed(member(bits, Active, Heard), without, least)).to_vec()
    };
    let with = |lost: &Member, others: Vec<Member>| view(2, [others, vec![lost.clone()]].concat());
    let proven = with(&lost, others(&[3], 2));
    let retired = retire(&known, &proven, id(3), false).expect("others have everything");
    assert_eq!((retired.entry.state, retired.entry.lost, retired.is_loss), (Retired, true, false));
    // A copy that was let go of when it began to drain was counted on meanwhile.
    assert_eq!(retire(&drains, &proven, id(3), false), Err(Refused::Unproven));
    assert_eq!(retirable_members(&proven), [id(3)]);
    for unproven in [with(&lost, others(&[], 2)), with(&lost, others(&[3], 1))] {
        assert_eq!(retire(&known, &unproven, id(3), false), Err(Refused::Unproven));
        let retired = retire(&known, &unproven, id(3), true);
        assert_eq!(retired.map(|retired| retired.is_loss), Ok(true));
        assert!(retirable_members(&unproven).is_empty());
    }
    lost.hearing = Heard;
    let back = with(&lost, others(&[3], 2));
    assert_eq!(retire(&known, &back, id(3), true), Err(Refused::Heard));
    assert!(retirable_members(&back).is_empty());
}

/// Of an object with two copies one may be on another member that falls silent.
#[test]
fn after_a_loss_nobody_else_is_given_up_before_all_is_repaired() {
    let settled = Policy { epoch: 3, ..Policy::settled(3, 2) };
    let lowered = settled.after_loss().expect("reads counted on two");
    let lost = Member { lost: true, ..member(3, Draining, Silent) };
    let others = [1, 2].map(|bits| Member {
        repair: RepairReport {
            passed: Some(Pass {
                policy_epoch: 4,
                without: vec![id(3)],
                epochs: vec![0],
                least_copies: 2,
                ..Pass::default()
            }),
            ..RepairReport::default()
        },
        ..member(bits, Active, Heard)
    });
    let mut view =
        agreed(View { policy: lowered, ..view(2, [others.to_vec(), vec![lost]].concat()) });
    assert_eq!(retirable_members(&view), []);
    view.members.iter_mut().for_each(|member| member.repair.missed = [id(3)].into());
    assert!(lost_members(&view, Duration::ZERO, Duration::from_secs(99)).is_empty());
    // The other two are all there are: both have seen to everything since.
    view.members.retain(|member| member.id != id(3));
    assert_eq!(next_policy(&view, true), Some((Policy { epoch: 5, ..settled }, None)));
    view.members.iter_mut().for_each(|member| {
        member.repair.passed.iter_mut().for_each(|pass| pass.policy_epoch = 3);
    });
    assert_eq!(next_policy(&view, true), None, "a look from before the loss");
}

#[test]
fn a_drain_because_of_silence_is_not_undone_by_one_that_was_taken_back() {
    let mut told = roster(2, &[(1, Active), (2, Active), (3, Draining)]);
    let drains = told.get(id(3)).expect("a member").clone();
    let back = cancel_drain(&told, id(3)).expect("it drains");
    told.apply_entry(&given_up(&drains));
    told.apply_entry(&back);
    let now = told.get(id(3)).expect("a member");
    assert_eq!((now.state, now.lost, now.epoch), (Draining, true, 1));
    // What others looked at before says nothing of it.
    let pass = Pass { without: vec![id(3)], epochs: vec![drains.epoch], ..Pass::default() };
    assert!(!pass.is_without(id(3), now.epoch));
}

#[test]
fn two_drains_at_once_do_not_both_stand() {
    let three = roster(2, &[(1, Draining), (2, Draining), (3, Active), (4, Active)]);
    let all = view(2, [1, 2, 3, 4].map(|bits| member(bits, Active, Heard)).to_vec());
    assert_eq!(check_drains(&three, &all, id(1)), Ok(()));
    let two = roster(2, &[(1, Draining), (2, Draining), (3, Active)]);
    let refused = Err(Refused::TooFew { remaining: 1, replicas: 2 });
    assert_eq!(check_drains(&two, &all, id(1)), refused);
}

#[test]
fn who_is_silent_for_long_is_lost_if_the_others_suffice() {
    let lost = |replicas, hearings: &[Hearing]| {
        let members = (1..).zip(hearings).map(|(bits, hearing)| member(bits, Active, *hearing));
        lost_members(&agreed(view(replicas, members.collect())), DELAY, NOW)
    };
    assert_eq!(lost(2, &[Heard, Heard, Silent]), [id(3)]);
    assert!(lost(3, &[Heard, Heard, Silent]).is_empty(), "its copies could not be made anew");
    assert!(lost(2, &[Heard, Silent, Silent]).is_empty());
    assert!(lost(1, &[Heard, Heard, Silent]).is_empty(), "it may have the only copy");
    let halves = [Heard, Heard, Silent, Silent];
    assert!(lost(2, &halves).is_empty(), "the other half may say the same of this one");
    assert_eq!(lost(2, &[Heard, Heard, Heard, Silent, Silent]), [id(4), id(5)]);
    let recent = Member { last_heard: Some(NOW), ..member(3, Active, Silent) };
    let members = vec![member(1, Active, Heard), member(2, Active, Heard), recent];
    assert!(lost_members(&agreed(view(2, members)), DELAY, NOW).is_empty());
}

#[test]
fn who_is_heard_by_anybody_is_not_lost() {
    // 1 and 2 do not hear each other, 3 hears both.
    let members = |states: [Hearing; 3]| {
        (1..).zip(states).map(|(bits, hearing)| member(bits, Active, hearing)).collect::<Vec<_>>()
    };
    let missing = |mut members: Vec<Member>, by: usize, whom: u128| {
        members[by].repair.missed = vec![id(whom)];
        members
    };
    let seen_by_1 = missing(members([Heard, Silent, Heard]), 0, 2);
    assert_eq!(missed_members(&view(2, seen_by_1.clone()), DELAY, NOW), [id(2)]);
    assert!(lost_members(&view(2, seen_by_1.clone()), DELAY, NOW).is_empty());
    let agreed = missing(seen_by_1, 2, 2);
    let mut agreed = view(2, agreed);
    assert_eq!(lost_members(&agreed, DELAY, NOW), [id(2)]);
    // The network is just back, or not yet.
    agreed.majority_since = Some(NOW - DELAY / 2);
    assert!(lost_members(&agreed, DELAY, NOW).is_empty());
    agreed.majority_since = None;
    assert!(missed_members(&agreed, DELAY, NOW).is_empty());
}

#[test]
fn who_was_started_again_does_not_object_to_what_it_never_heard() {
    let never = Member { last_heard: None, awaited_since: Some(NOW), ..member(3, Active, Silent) };
    let members = vec![member(1, Active, Heard), member(2, Active, Heard), never];
    let view = agreed(view(2, members));
    assert_eq!(missed_members(&view, DELAY, NOW), [id(3)]);
    assert!(lost_members(&view, DELAY, NOW).is_empty(), "nor does it give it up by itself");
}

#[test]
fn the_number_of_copies_changes_when_all_ask_for_it_and_are_enough() {
    let asking = |asked: &[Option<Wanted>]| {
        let members = (1..)
            .zip(asked)
            .map(|(bits, wanted)| Member { wanted: *wanted, ..member(bits, Active, Heard) });
        wanted(&view(1, members.collect()))
    };
    let [two, three] = [2, 3].map(|replicas| Some(Wanted::copies(replicas)));
    assert_eq!(asking(&[two, two]), two);
    assert_eq!(asking(&[two, three]), None);
    assert_eq!(asking(&[two, None]), None);
    assert_eq!(asking(&[three, three]), None, "two cannot hold three copies");
    let all = Wanted::heard(3, 3);
    assert_eq!(asking(&[all; 3]), all);
    assert_eq!(asking(&[all, all, three]), None, "an earlier release knows nothing of it");
    assert_eq!(asking(&[]), None);
}

#[test]
fn reads_count_on_more_copies_when_every_member_has_seen_to_them() {
    let policy = Policy { epoch: 3, replicas: 3, write_quorum: 2, read_quorum: 1 };
    let seen = |second: Member| {
        let first = passed(member(1, Active, Heard), &[], u32::MAX);
        is_repaired(&View { policy, ..view(3, vec![first, second]) })
    };
    assert!(seen(passed(member(2, Active, Heard), &[], 2)));
    assert!(!seen(passed(member(2, Active, Heard), &[], 1)));
    assert!(!seen(member(2, Active, Heard)));
    assert!(!seen(passed(member(2, Active, Silent), &[], 2)), "it may have forgotten");
    assert!(!seen(member(2, Draining, Heard)), "who drains holds something too");
}

#[test]
fn the_steward_is_the_first_active_member_that_is_heard() {
    let members = vec![
        member(1, Active, Silent),
        member(2, Draining, Heard),
        member(3, Active, Heard),
        member(4, Active, Heard),
    ];
    assert_eq!(steward(&view(2, members)), Some(id(3)));
    assert_eq!(steward(&View::default()), None);
}

/// It could persist nothing of what it would bring about.
#[test]
fn a_full_member_is_not_the_steward_while_another_one_has_room() {
    let with =
        |bits, free_bytes| Member { total_bytes: 1_000, free_bytes, ..member(bits, Active, Heard) };
    let members = |first, second| view(2, vec![with(1, first), with(2, second)]);
    assert_eq!(steward(&members(500, 500)), Some(id(1)));
    assert_eq!(steward(&members(0, 500)), Some(id(2)));
    assert_eq!(steward(&members(0, 0)), Some(id(1)));
}

/// Five members with three copies, who ask for `copies`, and their electorate.
fn elected(phase: Option<electorate::Phase>, copies: u32) -> View {
    let wanted = Some(Wanted::copies(copies));
    let one =
        |bits| Member { wanted, free_bytes: 9, total_bytes: 10, ..member(bits, Active, Heard) };
    let view = view(3, (1..=5).map(one).collect());
    let Some((_, Some(rising))) = next_policy(&elected_by(&view), true) else {
        panic!("five are enough");
    };
    View { electorate: phase.map(|phase| rising.in_phase(phase).into()), ..view }
}

/// The same members, asking for what there is.
fn elected_by(view: &View) -> View {
    let mut view = view.clone();
    view.members.iter_mut().for_each(|member| member.wanted = Some(Wanted::copies(3)));
    view
}

#[test]
fn copies_change_only_while_nobody_votes() {
    use electorate::Phase::{Falling, Reading, Rising, Settling};
    let phase = |next: Option<(Policy, Option<Electorate>)>| {
        next.map(|(policy, electorate)| (policy, electorate.map(|electorate| electorate.phase)))
    };
    let same = Policy { epoch: 4, ..Policy::settled(3, 3) };
    for (from, to) in [(Rising, Falling), (Settling, Falling), (Reading, Falling)] {
        let next = phase(next_policy(&elected(Some(from), 5), true));
        assert_eq!(next, Some((same, Some(to))));
    }
    assert_eq!(next_policy(&elected(Some(Falling), 5), false), None, "it lasts");
    assert_eq!(phase(next_policy(&elected(Some(Falling), 5), true)), Some((same, None)));
    let (policy, none) = next_policy(&elected(None, 5), true).expect("the first step");
    assert_eq!((policy.replicas, policy.write_quorum, policy.read_quorum), (5, 3, 2));
    assert_eq!((policy.epoch, none), (4, None));
    assert_eq!(next_policy(&elected(Some(Reading), 3), true), None, "all is well");
}

#[test]
fn a_pass_under_another_electorate_is_none() {
    let mut view = elected(Some(electorate::Phase::Settling), 3);
    let digest = view.electorate.as_deref().map_or(0, Electorate::digest);
    let pass =
        |electorate| Pass { policy_epoch: 3, electorate, least_copies: 2, ..Pass::default() };
    let say = |view: &mut View, electorate| {
        for member in &mut view.members {
            member.repair.passed = Some(pass(electorate));
        }
    };
    say(&mut view, 0);
    assert_eq!(next_policy(&view, true), None);
    say(&mut view, digest);
    let next = next_policy(&view, true).and_then(|(_, electorate)| electorate);
    assert_eq!(next.map(|electorate| electorate.phase), Some(electorate::Phase::Reading));
    if let Some(member) = view.members.last_mut() {
        member.repair.passed = None;
    }
    assert_eq!(next_policy(&view, true), None, "one has made none");
}

#[test]
fn a_pass_for_a_drain_that_was_taken_back_proves_nothing_of_a_later_one() {
    let lost = Member { lost: true, epoch: 1, ..member(3, Draining, Silent) };
    let mut view = view(2, vec![member(1, Active, Heard), member(2, Active, Heard), lost]);
    let say = |view: &mut View, epochs: Vec<u32>| {
        let pass = Pass { policy_epoch: 3, without: vec![id(3)], epochs, ..Pass::default() };
        for member in &mut view.members {
            member.repair.passed = Some(Pass { least_copies: 2, ..pass.clone() });
        }
    };
    // It was active in between, and writes counted what it has.
    say(&mut view, vec![0]);
    assert_eq!(retirable_members(&view), []);
    assert_eq!(retire(&roster(2, &[(3, Draining)]), &view, id(3), false), Err(Refused::Unproven));
    say(&mut view, Vec::new());
    assert_eq!(retirable_members(&view), [], "it does not say of which drain");
    say(&mut view, vec![1]);
    assert_eq!(retirable_members(&view), [id(3)]);
}

#[test]
fn a_lost_member_votes_until_nothing_depends_on_it() {
    let mut view = elected(Some(electorate::Phase::Reading), 3);
    let digest = view.electorate.as_deref().map_or(0, Electorate::digest);
    let lost = id(5);
    if let Some(member) = view.members.last_mut() {
        (member.state, member.lost, member.hearing) = (Draining, true, Silent);
    }
    assert_eq!(next_policy(&view, true), None, "others do not have all that it had");
    for member in view.members.iter_mut().filter(|member| member.id != lost) {
        let (without, epochs) = (vec![lost], vec![0]);
        let pass = Pass { policy_epoch: 3, electorate: digest, without, epochs, least_copies: 2 };
        member.repair.passed = Some(pass);
    }
    assert!(retirable_members(&view).is_empty(), "it still votes");
    let next = next_policy(&view, true).and_then(|(_, electorate)| electorate);
    assert_eq!(next.map(|electorate| electorate.phase), Some(electorate::Phase::Falling));
    let mut started = elected(Some(electorate::Phase::Reading), 3);
    if let Some(member) = started.members.last_mut() {
        (member.state, member.lost, member.hearing) = (Draining, true, Hearing::Awaited);
    }
    assert_eq!(next_policy(&started, true), None, "nor for a steward that has just started");
    // Once it has fallen, it goes.
    view.electorate = None;
    for member in &mut view.members {
        member.repair.passed.iter_mut().for_each(|pass| pass.electorate = 0);
    }
    assert_eq!(retirable_members(&view), [lost]);
    // One that drains and is heard hands over while nobody votes.
    let mut view = elected(Some(electorate::Phase::Reading), 3);
    if let Some(member) = view.members.last_mut() {
        member.state = Draining;
    }
    let next = next_policy(&view, true).and_then(|(_, electorate)| electorate);
    assert_eq!(next.map(|electorate| electorate.phase), Some(electorate::Phase::Falling));
}

#[test]
fn members_that_vote_drain_one_at_a_time() {
    let view = elected(Some(electorate::Phase::Reading), 3);
    let mut all = roster(3, &[(1, Active), (2, Active), (3, Active), (4, Active), (5, Active)]);
    all.electorate = view.electorate.as_deref().cloned();
    let first = drain(&all, &view, id(1)).expect("the others suffice");
    all.apply_entry(&first);
    assert_eq!(drain(&all, &view, id(2)), Err(Refused::Votes { draining: 2, write_quorum: 2 }));
    assert_eq!(drain(&all, &view, id(1)).map(|entry| entry.state), Ok(Draining), "again");
    all.electorate = None;
    assert!(drain(&all, &view, id(2)).is_ok(), "once it has fallen");
}
