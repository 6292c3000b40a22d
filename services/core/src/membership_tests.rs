use super::*;
use proptest::prelude::*;

const EXPIRY: Duration = Duration::from_secs(10);

fn at(seconds: u64) -> Moment {
    Duration::from_secs(seconds)
}

fn report(id: u128, generation: u64) -> NodeReport {
    NodeReport {
        node: NodeId::from_bits(id),
        generation: Generation(generation),
        address: format!("ds-{id}:80").parse().expect("an address"),
        state: MemberState::Active,
        leaving: false,
        free_bytes: 100,
        total_bytes: 200,
        roster_digest: RosterDigest(0),
        founded: true,
        newcomers_seen: 0,
        sent_unix_millis: 0,
        mono_millis: 0,
        floor: None,
        replicas: 1,
        write_quorum: 1,
        repair: RepairReport::default(),
    }
}

fn entry(id: u128, state: MemberState) -> Entry {
    let report = report(id, 1);
    Entry {
        id: report.node,
        epoch: 0,
        lost: false,
        state,
        generation: report.generation,
        address: report.address,
        weight: 1,
        zone: None,
    }
}

fn roster(members: &[(u128, MemberState)]) -> Roster {
    let mut roster =
        Roster::found(NodeId::from_bits(9), Policy::default(), entry(members[0].0, members[0].1));
    for (id, state) in members {
        roster.apply_entry(&entry(*id, *state));
    }
    roster
}

fn hearing(membership: &Membership, id: u128, now: Moment) -> Option<Hearing> {
    membership.view(now).member(NodeId::from_bits(id)).map(|member| member.hearing)
}

#[test]
fn a_member_is_awaited_then_heard_then_silent_but_stays_listed() {
    let members = roster(&[(1, MemberState::Active)]);
    let mut membership = Membership::new(EXPIRY, members, at(0));
    assert_eq!(hearing(&membership, 1, at(5)), Some(Hearing::Awaited));
    membership.apply_report(report(1, 1), at(5));
    assert_eq!(hearing(&membership, 1, at(15)), Some(Hearing::Heard));
    assert!(membership.apply_time(at(15)).is_empty());
    let silent = [Change::FellSilent(NodeId::from_bits(1))];
    assert_eq!(membership.apply_time(at(16)), silent);
    assert!(membership.apply_time(at(17)).is_empty(), "reported once");
    assert_eq!(hearing(&membership, 1, at(1_000)), Some(Hearing::Silent));
    assert_eq!(membership.view(at(16)).writable().count(), 0);
    let back = membership.apply_report(report(1, 1), at(20));
    assert!(matches!(back, Applied::Taken { changes, .. } if changes.len() == 1));
}

#[test]
fn of_one_run_what_it_said_last_counts_in_whatever_order_it_comes() {
    let members = roster(&[(1, MemberState::Active), (2, MemberState::Active)]);
    let mut membership = Membership::new(EXPIRY, members, at(0));
    let said = |mono_millis, missed: &[u128]| NodeReport {
        mono_millis,
        repair: RepairReport {
            missed: missed.iter().map(|bits| NodeId::from_bits(*bits)).collect(),
            ..RepairReport::default()
        },
        ..report(1, 1)
    };
    let missed = |membership: &Membership, now| {
        let view = membership.view(now);
        view.member(NodeId::from_bits(1)).map(|member| member.repair.missed.len())
    };
    membership.apply_report(said(50, &[]), at(1));
    // The answer to a probe, which was under way for longer.
    membership.apply_report(said(40, &[2]), at(2));
    assert_eq!(missed(&membership, at(2)), Some(0), "it misses nobody any more");
    assert_eq!(hearing(&membership, 1, at(12)), Some(Hearing::Heard), "it was heard all the same");
    membership.apply_report(said(60, &[2]), at(3));
    assert_eq!(missed(&membership, at(3)), Some(1));
    membership.apply_report(NodeReport { leaving: true, ..said(55, &[]) }, at(4));
    assert_eq!(hearing(&membership, 1, at(4)), Some(Hearing::Leaving), "a goodbye is final");
    membership.apply_report(NodeReport { generation: Generation(2), ..said(1, &[]) }, at(5));
    assert_eq!(missed(&membership, at(5)), Some(0), "another run has another clock");
}

#[test]
fn a_member_never_heard_is_silent_after_the_expiry() {
    let mut membership = Membership::new(EXPIRY, Roster::default(), at(0));
    let members = roster(&[(1, MemberState::Active), (2, MemberState::Active)]);
    membership.apply_roster(&members, at(100)).expect("no cluster before");
    assert_eq!(hearing(&membership, 1, at(105)), Some(Hearing::Awaited));
    assert_eq!(hearing(&membership, 1, at(111)), Some(Hearing::Silent));
    assert_eq!(membership.apply_time(at(111)).len(), 2);
    assert_eq!(membership.overdue(at(5), at(111)).len(), 2);
}

#[test]
fn a_goodbye_silences_at_once_and_only_a_new_run_undoes_it() {
    let mut membership = Membership::new(EXPIRY, roster(&[(1, MemberState::Active)]), at(0));
    membership.apply_report(report(1, 4), at(1));
    let goodbye = NodeReport { leaving: true, ..report(1, 4) };
    membership.apply_report(goodbye, at(2));
    assert_eq!(hearing(&membership, 1, at(2)), Some(Hearing::Leaving));
    assert_eq!(membership.apply_report(report(1, 4), at(3)), Applied::Stale);
    assert_eq!(membership.apply_report(report(1, 3), at(3)), Applied::Stale);
    assert_eq!(hearing(&membership, 1, at(3)), Some(Hearing::Leaving));
    assert_eq!(membership.view(at(3)).writable().count(), 0);
    assert_eq!(hearing(&membership, 1, at(13)), Some(Hearing::Silent));
    membership.apply_report(report(1, 5), at(4));
    assert_eq!(hearing(&membership, 1, at(4)), Some(Hearing::Heard));
}

#[test]
fn an_older_run_than_the_rosters_is_stale() {
    let mut newer = entry(1, MemberState::Active);
    newer.generation = Generation(7);
    let known = Roster::found(NodeId::from_bits(9), Policy::default(), newer);
    let mut membership = Membership::new(EXPIRY, known, at(0));
    assert_eq!(membership.apply_report(report(1, 6), at(1)), Applied::Stale);
    assert!(matches!(membership.apply_report(report(1, 7), at(1)), Applied::Taken { .. }));
}

#[test]
fn a_new_run_may_have_a_new_address() {
    let mut membership = Membership::new(EXPIRY, roster(&[(1, MemberState::Active)]), at(0));
    let moved = NodeReport { address: "new:81".parse().expect("an address"), ..report(1, 2) };
    membership.apply_report(moved, at(1));
    let view = membership.view(at(1));
    let member = view.member(NodeId::from_bits(1)).expect("listed");
    assert_eq!((member.address.as_str(), member.generation), ("new:81", Generation(2)));
}

#[test]
fn joining_and_silent_members_get_no_data() {
    let members =
        roster(&[(1, MemberState::Active), (2, MemberState::Joining), (3, MemberState::Active)]);
    let mut membership = Membership::new(EXPIRY, members, at(0));
    for id in [1, 2, 4] {
        membership.apply_report(report(id, 1), at(1));
    }
    let view = membership.view(at(2));
    let writable: Vec<_> = view.writable().map(|member| member.id.bits()).collect();
    assert_eq!(writable, [1]);
    assert_eq!(view.roster_members().count(), 3, "4 is a newcomer and does not count");
    assert_eq!(view.candidates(100).len(), 1);
    assert_eq!(view.candidates(101).len(), 0, "no room");
}

#[test]
fn retired_members_are_not_listed_and_cannot_return() {
    let mut membership = Membership::new(EXPIRY, roster(&[(1, MemberState::Active)]), at(0));
    membership.apply_report(report(1, 1), at(1));
    membership.apply_entry(&entry(1, MemberState::Retired), at(2));
    assert_eq!(hearing(&membership, 1, at(2)), None);
    assert_eq!(membership.apply_report(report(1, 9), at(3)), Applied::Refused);
    assert!(membership.view(at(3)).members.is_empty());
}

#[test]
fn guests_live_while_they_are_heard_and_are_bounded() {
    let mut membership = Membership::new(EXPIRY, Roster::default(), at(0));
    let guest: Address = "seed:80".parse().expect("an address");
    assert_eq!(membership.apply_guest(guest.clone(), at(0)).len(), 1);
    assert_eq!(membership.apply_guest(guest.clone(), at(5)).len(), 0);
    assert_eq!(membership.view(at(5)).guests, std::slice::from_ref(&guest));
    assert_eq!(membership.apply_time(at(16)), [Change::GuestExpired(guest)]);
    for i in 0..2_000 {
        let address = format!("seed-{i}:80").parse().expect("an address");
        membership.apply_guest(address, at(20));
    }
    assert_eq!(membership.view(at(20)).guests.len(), MAX_STRANGERS);
}

#[test]
fn strangers_are_bounded_and_forgotten() {
    let mut membership = Membership::new(EXPIRY, Roster::default(), at(0));
    for id in 0..2_000 {
        membership.apply_report(report(id, 1), at(0));
    }
    assert_eq!(membership.view(at(0)).members.len(), MAX_STRANGERS);
    membership.apply_time(at(11));
    assert!(membership.view(at(11)).members.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Report { id: u128, generation: u64, leaving: bool },
    Roster { id: u128, retired: bool },
    Time,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1u128..4, 1u64..4, any::<bool>()).prop_map(|(id, generation, leaving)| Step::Report {
            id,
            generation,
            leaving
        }),
        (1u128..4, any::<bool>()).prop_map(|(id, retired)| Step::Roster { id, retired }),
        Just(Step::Time),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    #[test]
    fn any_order_of_messages_keeps_the_invariants(steps in steps()) {
        let mut membership = Membership::new(EXPIRY, Roster::default(), at(0));
        let mut highest: BTreeMap<NodeId, Generation> = BTreeMap::new();
        for (second, step) in steps.into_iter().enumerate() {
            let now = at(second as u64);
            match step {
                Step::Report { id, generation, leaving } => {
                    let told = NodeReport { leaving, ..report(id, generation) };
                    membership.apply_report(told, now);
                }
                Step::Roster { id, retired } => {
                    let state = if retired { MemberState::Retired } else { MemberState::Active };
                    let known = roster(&[(id, state)]);
                    membership.apply_roster(&known, now).expect("one cluster");
                }
                Step::Time => { membership.apply_time(now); }
            }
            let view = membership.view(now);
            for member in &view.members {
                let entry = membership.roster().get(member.id);
                prop_assert!(entry.is_none_or(|entry| entry.state != MemberState::Retired));
                prop_assert_eq!(entry.is_some(), member.in_roster);
                if member.in_roster {
                    let before = highest.insert(member.id, member.generation);
                    prop_assert!(before <= Some(member.generation), "generations never go back");
                }
            }
            let roster_size = membership.roster().members().count();
            prop_assert_eq!(view.roster_members().count(), roster_size, "nobody is forgotten");
        }
    }
}

#[test]
fn a_majority_is_heard_since_it_was_last_missed() {
    let active = |id| (id, MemberState::Active);
    let mut membership = Membership::new(EXPIRY, roster(&[active(1), active(2), active(3)]), at(0));
    let since = |membership: &Membership, now| membership.view(at(now)).majority_since;
    membership.apply_report(report(1, 1), at(1));
    assert_eq!(since(&membership, 1), None, "one of three");
    membership.apply_report(report(2, 1), at(2));
    for now in [4, 8, 12] {
        membership.apply_report(report(1, 1), at(now));
        membership.apply_report(report(2, 1), at(now));
        membership.apply_time(at(now));
        assert_eq!(since(&membership, now), Some(at(2)));
    }
    // What a process that slept hears first makes no majority of old news.
    membership.apply_report(report(1, 1), at(40));
    assert_eq!(since(&membership, 40), None);
    membership.apply_report(report(3, 1), at(41));
    assert_eq!(since(&membership, 41), Some(at(41)));
}
