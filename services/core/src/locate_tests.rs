use std::collections::BTreeSet;

use super::*;
use crate::electorate::{Electorate, Phase};
use crate::membership::{Hearing, Member};
use crate::name::Key;
use crate::name::ObjectName;
use crate::node::Generation;
use crate::object::{Digest, Metadata};
use crate::policy::Policy;
use crate::roster::{MemberState, RosterDigest};
use crate::test_support::{id, member};
use crate::version::Version;
use crate::wire::PROTOCOL_VERSION;
use crate::wire::locate::BatchAnswer;

fn address(bits: u128) -> Address {
    format!("ds-{bits}:80").parse().expect("an address")
}

fn view(members: &[(u128, Hearing)]) -> View {
    View {
        founded: true,
        digest: RosterDigest(1),
        policy: Policy::default(),
        members: members
            .iter()
            .map(|(bits, hearing)| member(*bits, MemberState::Active, *hearing))
            .collect(),
        ..View::default()
    }
}

fn stat(clock: u64, kind: Kind) -> Stat {
    Stat {
        version: Version::from_parts(clock, 0),
        kind,
        size_bytes: 0,
        digest: Digest(0),
        metadata: Metadata::default(),
    }
}

fn answer(bits: u128, found: &[(u32, Stat)], unknown: &[u32]) -> BatchAnswer {
    BatchAnswer {
        protocol: PROTOCOL_VERSION,
        id: 1,
        node: id(bits),
        generation: Generation(1),
        address: address(bits),
        roster_digest: RosterDigest(1),
        mono_millis: 0,
        unix_millis: 7,
        found: found.to_vec(),
        unknown: unknown.to_vec(),
        floor: None,
        promised: Vec::new(),
        may_have_promised: Vec::new(),
        promised_before: None,
        late: false,
    }
}

fn three_copies(members: &[(u128, Hearing)]) -> View {
    View { policy: Policy::settled(0, 3), ..view(members) }
}

/// So many different names.
fn names(count: u64) -> Vec<ObjectName> {
    (0..count).map(|place| ObjectName::seed(Key::new(place.to_string()).expect("short"))).collect()
}

use Hearing::{Awaited, Heard, Leaving, Silent};

#[test]
fn absent_needs_every_member_when_there_is_one_copy() {
    let mut round = Round::new(names(1), BTreeSet::new(), &view(&[(1, Heard), (2, Awaited)]));
    round.apply_answer(&answer(1, &[], &[]));
    assert!(!round.is_decided());
    round.apply_answer(&answer(2, &[], &[]));
    assert!(round.is_decided());
    assert_eq!(round.outcome(0).verdict(), Verdict::Absent);
}

#[test]
fn a_silent_member_is_not_waited_for_and_makes_absence_unproven() {
    let mut round = Round::new(names(1), BTreeSet::new(), &view(&[(1, Heard), (2, Silent)]));
    round.apply_answer(&answer(1, &[], &[]));
    assert!(round.is_decided());
    assert_eq!(round.outcome(0).verdict(), Verdict::Incomplete(&[id(2)]));
}

#[test]
fn a_leaving_member_is_waited_for_until_it_is_given_up() {
    let members = view(&[(1, Heard), (2, Leaving)]);
    let mut round = Round::new(names(1), BTreeSet::new(), &members);
    round.apply_answer(&answer(1, &[], &[]));
    assert!(!round.is_decided(), "it may still answer");
    round.give_up_leaving(&members);
    assert!(round.is_decided());
    assert_eq!(round.outcome(0).verdict(), Verdict::Incomplete(&[id(2)]));
}

#[test]
fn a_copy_on_a_heard_member_is_served_while_another_is_silent() {
    let mut round = Round::new(names(1), BTreeSet::new(), &view(&[(1, Heard), (2, Silent)]));
    round.apply_answer(&answer(1, &[(0, stat(5, Kind::Object))], &[]));
    let located = round.outcome(0);
    assert!(matches!(located.verdict(), Verdict::Found(replica) if replica.node == id(1)));
    assert!(!located.complete);
}

#[test]
fn a_silent_member_that_answers_all_the_same_counts() {
    let mut round = Round::new(names(1), BTreeSet::new(), &view(&[(1, Heard), (2, Silent)]));
    round.apply_answer(&answer(2, &[], &[]));
    round.apply_answer(&answer(1, &[], &[]));
    assert_eq!(round.outcome(0).verdict(), Verdict::Absent);
}

#[test]
fn the_newest_version_wins_and_a_tombstone_is_a_version() {
    let mut round = Round::new(names(2), BTreeSet::new(), &view(&[(1, Heard), (2, Heard)]));
    round.apply_answer(&answer(1, &[(0, stat(5, Kind::Object)), (1, stat(5, Kind::Object))], &[]));
    round.apply_answer(&answer(
        2,
        &[(0, stat(6, Kind::Object)), (1, stat(6, Kind::Tombstone))],
        &[],
    ));
    let outcomes = round.outcomes();
    assert!(matches!(outcomes[0].verdict(), Verdict::Found(replica) if replica.node == id(2)));
    assert_eq!(outcomes[1].verdict(), Verdict::Absent);
}

#[test]
fn a_tombstone_does_not_prove_absence_while_a_member_is_unheard() {
    let mut round = Round::new(names(1), BTreeSet::new(), &view(&[(1, Heard), (2, Silent)]));
    round.apply_answer(&answer(1, &[(0, stat(6, Kind::Tombstone))], &[]));
    assert_eq!(round.outcome(0).verdict(), Verdict::Incomplete(&[id(2)]));
}

#[test]
fn an_io_error_is_not_a_no() {
    let mut round = Round::new(names(2), BTreeSet::new(), &view(&[(1, Heard)]));
    round.apply_answer(&answer(1, &[], &[1]));
    assert!(round.is_decided());
    assert_eq!(round.outcome(0).verdict(), Verdict::Absent);
    // The only member is unheard for this name.
    assert_eq!(round.outcome(1).verdict(), Verdict::Incomplete(&[id(1)]));
}

#[test]
fn an_empty_roster_proves_nothing() {
    let round = Round::new(names(1), BTreeSet::new(), &view(&[]));
    assert_eq!(round.outcome(0).verdict(), Verdict::Incomplete(&[]));
}

#[test]
fn a_member_that_joins_meanwhile_is_waited_for() {
    let mut round = Round::new(names(1), BTreeSet::new(), &view(&[(1, Heard)]));
    round.apply_answer(&answer(1, &[], &[]));
    round.apply_view(&view(&[(1, Heard), (2, Heard)]));
    assert_eq!(round.waiting(), [id(2)]);
    assert!(!round.is_decided());
    round.apply_failure(id(2));
    assert!(round.is_decided());
    assert_eq!(round.outcome(0).verdict(), Verdict::Incomplete(&[id(2)]));
}

#[test]
fn with_a_quorum_enough_answers_decide_before_all_are_in() {
    let three = three_copies(&[(1, Heard), (2, Heard), (3, Heard)]);
    let mut round = Round::new(names(1), BTreeSet::new(), &three);
    round.apply_answer(&answer(1, &[], &[]));
    assert!(!round.is_decided());
    round.apply_answer(&answer(2, &[], &[]));
    assert!(round.is_decided());
    assert_eq!(round.outcome(0).verdict(), Verdict::Absent);
}

#[test]
fn an_earlier_run_proves_nothing() {
    let mut members = view(&[(1, Heard)]);
    members.members[0].generation = Generation(2);
    let mut round = Round::new(names(1), BTreeSet::new(), &members);
    round.apply_answer(&answer(1, &[], &[]));
    assert!(!round.is_decided());
    assert_eq!(round.outcome(0).verdict(), Verdict::Incomplete(&[id(1)]));
    round.apply_answer(&BatchAnswer { generation: Generation(2), ..answer(1, &[], &[]) });
    assert_eq!(round.outcome(0).verdict(), Verdict::Absent);
}

#[test]
fn the_median_clock_is_that_of_a_slower_half() {
    let mut round = Round::new(names(1), BTreeSet::new(), &view(&[(1, Heard), (2, Heard)]));
    round.apply_answer(&BatchAnswer { unix_millis: 900, ..answer(1, &[], &[]) });
    round.apply_answer(&BatchAnswer { unix_millis: 5, ..answer(2, &[], &[]) });
    assert_eq!(round.outcome(0).clock_millis, Some(5));
}

#[test]
fn strangers_and_second_answers_change_nothing() {
    let mut round = Round::new(names(1), BTreeSet::new(), &view(&[(1, Heard)]));
    round.apply_answer(&answer(7, &[(0, stat(9, Kind::Object))], &[]));
    assert!(!round.is_decided());
    round.apply_answer(&answer(1, &[], &[]));
    round.apply_answer(&answer(1, &[(0, stat(9, Kind::Object))], &[]));
    assert_eq!(round.outcome(0).verdict(), Verdict::Absent);
}

#[test]
fn with_copies_nothing_is_served_while_too_many_are_unheard() {
    let held = [(0, stat(9, Kind::Object))];
    let dark = three_copies(&[(1, Heard), (2, Silent), (3, Silent)]);
    let mut round = Round::new(names(1), BTreeSet::new(), &dark);
    round.apply_answer(&answer(1, &held, &[]));
    assert_eq!(round.outcome(0).verdict(), Verdict::Incomplete(&[id(2), id(3)]));
    let grey = three_copies(&[(1, Heard), (2, Heard), (3, Silent)]);
    let mut round = Round::new(names(1), BTreeSet::new(), &grey);
    round.apply_answer(&answer(1, &held, &[]));
    assert!(!round.is_decided());
    round.apply_answer(&answer(2, &held, &[]));
    assert!(round.is_decided());
    let located = round.outcome(0);
    assert!(located.settled && located.lasting == 2);
    assert!(matches!(located.verdict(), Verdict::Found(_)));
}

/// Of two copies one may be lost with a member that was given up: silence of any other
/// hides what is left, and what is found may be older than that.
#[test]
fn after_a_loss_nothing_is_proven_before_all_are_heard() {
    use Hearing::{Heard, Silent};
    let mut after = three_copies(&[(1, Heard), (2, Heard), (3, Silent)]);
    let policy = Policy::settled(1, 3);
    after.policy = policy.after_loss().expect("reads count on two");
    for found in [&[][..], &[(0, stat(1, Kind::Object))]] {
        let mut round = Round::new(names(1), BTreeSet::new(), &after);
        round.apply_answer(&answer(1, found, &[]));
        round.apply_answer(&answer(2, found, &[]));
        let located = round.outcome(0);
        assert!(!located.complete);
        assert_eq!(located.verdict(), Verdict::Incomplete(&[id(3)]), "{found:?}");
        round.apply_answer(&answer(3, found, &[]));
        assert!(round.outcome(0).complete);
    }
    // A round that began before the loss proves no more than one that begins now.
    let before = three_copies(&[(1, Heard), (2, Heard), (3, Silent)]);
    let mut round = Round::new(names(1), BTreeSet::new(), &before);
    round.apply_answer(&answer(1, &[], &[]));
    round.apply_answer(&answer(2, &[], &[]));
    assert_eq!(round.outcome(0).verdict(), Verdict::Absent);
    round.apply_view(&after);
    assert_eq!(round.outcome(0).verdict(), Verdict::Incomplete(&[id(3)]));
}

#[test]
fn a_version_that_is_not_settled_waits_for_who_may_settle_it() {
    let all = three_copies(&[(1, Heard), (2, Heard), (3, Heard)]);
    let (newer, older) = ([(0, stat(9, Kind::Object))], [(0, stat(8, Kind::Object))]);
    let mut round = Round::new(names(1), BTreeSet::new(), &all);
    round.apply_answer(&answer(1, &older, &[]));
    round.apply_answer(&answer(2, &newer, &[]));
    assert!(!round.is_decided());
    round.apply_answer(&answer(3, &newer, &[]));
    assert!(round.is_decided() && round.outcome(0).settled);
    let mut round = Round::new(names(1), BTreeSet::new(), &all);
    round.apply_answer(&answer(1, &older, &[]));
    round.apply_answer(&answer(2, &newer, &[]));
    round.apply_failure(id(3));
    assert!(round.is_decided() && !round.outcome(0).settled);
}

#[test]
fn a_copy_on_a_member_that_drains_does_not_last() {
    let mut draining = three_copies(&[(1, Heard), (2, Heard), (3, Heard)]);
    draining.members[0].state = MemberState::Draining;
    let held = [(0, stat(9, Kind::Object))];
    let mut round = Round::new(names(1), BTreeSet::new(), &draining);
    for (node, found) in [(1, &held[..]), (2, &held), (3, &[])] {
        round.apply_answer(&answer(node, found, &[]));
    }
    let located = round.outcome(0);
    assert_eq!((located.lasting, located.settled, located.complete), (1, false, true));
}

#[test]
fn who_does_not_promise_counts_as_unheard_and_still_tells_what_it_has() {
    let all = three_copies(&[(1, Heard), (2, Heard), (3, Heard)]);
    let mut round = Round::new(names(2), BTreeSet::from([0]), &all);
    let promised = |node, found: &[(u32, Stat)], promised: &[u32]| BatchAnswer {
        promised: promised.to_vec(),
        ..answer(node, found, &[])
    };
    round.apply_answer(&promised(1, &[], &[0]));
    round.apply_answer(&promised(2, &[(0, stat(9, Kind::Object))], &[]));
    assert!(!round.is_decided());
    round.apply_answer(&promised(3, &[], &[]));
    let located = round.outcome(0);
    assert_eq!(located.unheard, [id(2), id(3)]);
    assert!(!located.complete && located.newest().is_some());
    assert!(round.outcome(1).complete, "no promise was asked for the other name");
}

#[test]
fn a_late_answer_proves_nothing_and_the_next_one_counts() {
    let mut round = Round::new(names(1), BTreeSet::new(), &view(&[(1, Heard)]));
    round.apply_answer(&BatchAnswer { late: true, ..answer(1, &[], &[]) });
    assert!(!round.is_decided() && !round.outcome(0).complete);
    round.apply_answer(&answer(1, &[], &[]));
    assert!(round.is_decided() && round.outcome(0).complete);
}

#[test]
fn the_highest_floor_and_every_stamp_are_kept() {
    let mut round = Round::new(names(1), BTreeSet::new(), &view(&[(1, Heard), (2, Heard)]));
    let floor = |clock| Some(Version::from_parts(clock, 0));
    round.apply_answer(&BatchAnswer { floor: floor(9), mono_millis: 4, ..answer(1, &[], &[]) });
    round.apply_answer(&BatchAnswer { floor: floor(5), mono_millis: 6, ..answer(2, &[], &[]) });
    let located = round.outcome(0);
    assert_eq!(located.floor, floor(9));
    let millis = |node| located.stamp(id(node)).map(|stamp| stamp.mono_millis);
    assert_eq!((millis(1), millis(2), millis(3)), (Some(4), Some(6), None));
}

#[test]
fn a_copy_that_cannot_be_read_shows_its_version_and_does_not_count() {
    let all = three_copies(&[(1, Heard), (2, Heard), (3, Heard)]);
    let held = [(0, stat(9, Kind::Object))];
    let mut round = Round::new(names(1), BTreeSet::new(), &all);
    round.apply_answer(&answer(1, &held, &[0]));
    round.apply_answer(&answer(2, &held, &[]));
    assert!(!round.is_decided());
    round.apply_answer(&answer(3, &[], &[]));
    let located = round.outcome(0);
    assert_eq!((located.lasting, located.settled, located.complete), (1, false, true));
    assert_eq!(located.newest_holders().count(), 2);
    assert_eq!(located.unheard, [id(1)]);
}

#[test]
fn while_copies_are_added_only_what_has_them_is_settled() {
    let mut raised = three_copies(&[(1, Heard), (2, Heard), (3, Heard)]);
    raised.policy.read_quorum = 1;
    let held = [(0, stat(9, Kind::Object))];
    let mut round = Round::new(names(1), BTreeSet::new(), &raised);
    for (node, found) in [(1, &held[..]), (2, &[]), (3, &[])] {
        round.apply_answer(&answer(node, found, &[]));
    }
    let located = round.outcome(0);
    assert!(located.complete && !located.settled && !located.is_certain());
}

#[test]
fn a_round_proves_no_more_than_the_roster_with_which_it_began() {
    let three = three_copies(&[(1, Heard), (2, Heard), (3, Heard)]);
    // Member 1 retires after the others have repaired what it had. The answer of
    // member 2 may be from before that.
    let mut round = Round::new(names(1), BTreeSet::new(), &three);
    round.apply_answer(&answer(2, &[], &[]));
    round.apply_view(&three_copies(&[(2, Heard), (3, Heard)]));
    assert_eq!(round.waiting(), [id(3)], "who retired is not waited for");
    assert!(!round.outcome(0).complete, "but counts");
    round.apply_answer(&answer(1, &[], &[]));
    assert!(!round.outcome(0).complete, "what it says does not");
    round.apply_answer(&answer(3, &[], &[]));
    assert!(round.outcome(0).complete);
}

#[test]
fn what_reads_count_on_does_not_rise_within_a_round() {
    let members = [(1, Heard), (2, Heard)];
    let one = view(&members);
    let two = View { policy: Policy::settled(1, 2), ..view(&members) };
    let mut round = Round::new(names(1), BTreeSet::new(), &one);
    round.apply_answer(&answer(1, &[], &[]));
    round.apply_view(&two);
    assert!(!round.outcome(0).complete, "raised meanwhile");
    let mut round = Round::new(names(1), BTreeSet::new(), &two);
    round.apply_answer(&answer(1, &[], &[]));
    assert!(round.outcome(0).complete);
    round.apply_view(&one);
    assert!(!round.outcome(0).complete, "lowered meanwhile");
}

#[test]
fn while_copies_become_more_a_version_is_settled_by_what_writes_make() {
    let halfway = Policy { epoch: 1, replicas: 3, write_quorum: 2, read_quorum: 1 };
    let members = [(1, Heard), (2, Heard), (3, Heard)];
    let mut round =
        Round::new(names(1), BTreeSet::new(), &View { policy: halfway, ..view(&members) });
    round.apply_answer(&answer(1, &[(0, stat(5, Kind::Object))], &[]));
    round.apply_answer(&answer(2, &[], &[]));
    round.apply_answer(&answer(3, &[], &[]));
    assert!(round.outcome(0).complete && !round.outcome(0).settled);
}

#[test]
fn fewer_members_than_a_quorum_are_waited_for_all_the_same() {
    let one = three_copies(&[(1, Heard)]);
    let mut round = Round::new(names(1), BTreeSet::new(), &one);
    assert!(!round.is_decided(), "nobody has said anything");
    round.apply_answer(&answer(1, &[], &[]));
    assert!(round.is_decided());
    assert_eq!(round.outcome(0).verdict(), Verdict::Absent);
}

#[test]
fn a_round_that_shows_something_above_the_ballot_is_outbid_however_complete() {
    let members = three_copies(&[(1, Heard), (2, Heard), (3, Heard)]);
    let mut round = Round::new(names(1), BTreeSet::from([0]), &members);
    for bits in [1, 2] {
        let promised = BatchAnswer { promised: vec![0], ..answer(bits, &[], &[]) };
        round.apply_answer(&promised);
    }
    round.apply_answer(&answer(3, &[(0, stat(9, Kind::Tombstone))], &[]));
    let located = round.outcome(0);
    assert!(located.complete);
    assert!(located.shows_above(Version::from_parts(8, 7)));
    assert!(!located.shows_above(Version::from_parts(9, 0)));
    assert!(!Located::default().shows_above(Version::from_parts(0, 0)));
}

#[test]
fn what_is_on_a_quorum_was_seen_by_whoever_was_promised_more_also_if_it_is_not_settled() {
    let found = |bits, unknown: &[u32]| answer(bits, &[(0, stat(5, Kind::Object))], unknown);
    let mut view = three_copies(&[(1, Heard), (2, Heard), (3, Heard)]);
    let mut round = Round::new(names(1), BTreeSet::new(), &view);
    round.apply_answer(&found(1, &[]));
    round.apply_answer(&answer(2, &[], &[]));
    assert!(!round.outcome(0).is_accepted, "it is on one of those that were heard");
    // One that drains and one that cannot read its copy have taken it all the same.
    round.apply_answer(&found(3, &[0]));
    view.members[0].state = MemberState::Draining;
    round.apply_view(&view);
    let located = round.outcome(0);
    assert_eq!((located.settled, located.is_accepted), (false, true));
    // One that has retired is not asked for promises.
    view.members.remove(0);
    round.apply_view(&view);
    assert!(!round.outcome(0).is_accepted);
    assert!(!Round::new(names(1), BTreeSet::new(), &view).outcome(0).is_accepted, "nothing");
}

#[test]
fn while_voters_may_be_asked_alone_others_prove_nothing_about_promises() {
    let mut view = three_copies(&[(1, Heard), (2, Heard), (3, Heard), (4, Heard)]);
    let candidates: Vec<_> = view.members.iter().map(Member::candidate).collect();
    let electorate = |phase| Arc::new(Electorate { phase, voters: 3, members: candidates.clone() });
    let voters = electorate(Phase::Rising).voters(&names(1)[0]);
    let other = (1..=4).map(id).find(|node| !voters.contains(node)).expect("one of four");
    for (phase, expected) in [
        (Phase::Rising, true),
        (Phase::Settling, true),
        (Phase::Reading, false),
        (Phase::Falling, false),
    ] {
        view.electorate = Some(electorate(phase));
        let mut round = Round::new(names(1), BTreeSet::new(), &view);
        for node in (1..=4).map(id) {
            let has_it = [voters[0], other].contains(&node);
            let found = [(0, stat(5, Kind::Object))];
            let bits = (1..=4).find(|bits| id(*bits) == node).expect("of these");
            round.apply_answer(&answer(bits, &found[..usize::from(has_it)], &[]));
        }
        assert_eq!(round.outcome(0).is_accepted, expected, "{phase:?}");
    }
}

#[test]
fn what_anybody_that_is_heard_may_have_promised_counts_until_enough_have_it() {
    let view = three_copies(&[(1, Heard), (2, Heard), (3, Heard)]);
    let above = |clock| Some(Version::from_parts(clock, 0));
    for (of_name, before, expected) in [
        (None, None, false),
        (above(6), None, true),
        (None, above(6), true),
        (above(5), above(4), false),
    ] {
        let mut round = Round::new(names(1), BTreeSet::new(), &view);
        round.apply_answer(&answer(1, &[(0, stat(5, Kind::Object))], &[]));
        let may_have_promised = of_name.iter().map(|version| (0, *version)).collect();
        let other =
            BatchAnswer { may_have_promised, promised_before: before, ..answer(2, &[], &[]) };
        round.apply_answer(&other);
        assert_eq!(round.outcome(0).may_be_missed(), expected, "{of_name:?} {before:?}");
        round.apply_answer(&answer(3, &[(0, stat(5, Kind::Object))], &[]));
        assert!(!round.outcome(0).may_be_missed(), "enough have it");
    }
    assert!(!Located::default().may_be_missed(), "nothing was found");
}
