use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn wanted(replicas: u32, write_quorum: u32) -> Wanted {
    Wanted::new(replicas, Some(write_quorum)).expect("it makes sense")
}

/// Everything that may be asked for.
fn sensible() -> Vec<Wanted> {
    let pairs = (1..=MAX_REPLICAS).flat_map(|r| (1..=MAX_REPLICAS).map(move |w| (r, w)));
    pairs.filter_map(|(r, w)| Wanted::new(r, Some(w)).ok()).collect()
}

/// The steps from one settled policy to another, when everything is repaired
/// as soon as that is waited for.
fn way(from: Wanted, to: Wanted) -> Vec<(u32, u32, u32)> {
    let mut policy = Policy::settled_at(7, from);
    let mut steps = Vec::new();
    while let Some(step) = policy.next(to, true) {
        match step {
            PolicyStep::Take(next) => {
                assert_eq!(next.epoch, policy.epoch + 1);
                policy = next;
            }
            PolicyStep::Repair => panic!("everything is repaired"),
        }
        steps.push((policy.replicas, policy.write_quorum, policy.read_quorum));
        assert!(steps.len() < 5, "{steps:?}");
    }
    steps
}

#[test]
fn quorums_overlap_by_more_than_half() {
    let quorums: Vec<u32> = (1..=5).map(|r| Policy::settled(0, r).write_quorum).collect();
    assert_eq!(quorums, [1, 2, 2, 3, 3]);
}

#[test]
fn what_makes_no_sense_is_refused_with_what_would() {
    for (replicas, fewest) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)] {
        for asked in 0..=6 {
            let said = Wanted::new(replicas, Some(asked));
            let expected = if asked < fewest {
                Err(Senseless::TooFew { asked, least: fewest, replicas })
            } else if asked > replicas {
                Err(Senseless::TooMany { asked, replicas })
            } else {
                Ok(Wanted { replicas, write_quorum: asked })
            };
            assert_eq!(said, expected);
        }
        assert_eq!(Wanted::new(replicas, None), Ok(wanted(replicas, fewest)));
        assert_eq!(Wanted::copies(replicas), wanted(replicas, fewest));
    }
    for replicas in [0, 6, u32::MAX] {
        assert_eq!(Wanted::new(replicas, None), Err(Senseless::Replicas { replicas }));
    }
}

#[test]
fn an_earlier_release_asks_for_more_than_half() {
    assert_eq!(Wanted::heard(3, 0), Some(Wanted::copies(3)));
    assert_eq!(Wanted::heard(3, 3), Some(wanted(3, 3)));
    for (replicas, write_quorum) in [(0, 0), (0, 2), (3, 1), (3, 4), (u32::MAX, 0)] {
        assert_eq!(Wanted::heard(replicas, write_quorum), None, "{replicas} {write_quorum}");
    }
}

#[test]
fn going_up_reads_come_last_and_going_down_first() {
    let copies = |from, to| way(Wanted::copies(from), Wanted::copies(to));
    assert_eq!(copies(1, 3), [(3, 2, 1), (3, 2, 2)]);
    assert_eq!(copies(3, 1), [(3, 2, 1), (1, 1, 1)]);
    assert_eq!(copies(2, 3), [(3, 2, 2)]);
    assert_eq!(copies(3, 2), [(2, 2, 2)]);
    assert_eq!(copies(3, 5), [(5, 3, 2), (5, 3, 3)]);
    assert!(copies(4, 4).is_empty());
    assert_eq!(way(wanted(3, 2), wanted(3, 3)), [(3, 3, 2), (3, 3, 3)]);
    assert_eq!(way(wanted(3, 3), wanted(3, 2)), [(3, 3, 2), (3, 2, 2)]);
    // Fewer copies, and yet more of them in a write; and the other way round.
    assert_eq!(way(wanted(5, 3), wanted(4, 4)), [(4, 4, 3), (4, 4, 4)]);
    assert_eq!(way(wanted(4, 4), wanted(5, 3)), [(4, 4, 3), (5, 3, 3)]);
    assert_eq!(way(wanted(5, 5), wanted(1, 1)), [(5, 5, 1), (1, 1, 1)]);
}

#[test]
fn reads_wait_for_the_repair() {
    let halfway = Policy { epoch: 1, replicas: 3, write_quorum: 2, read_quorum: 1 };
    assert_eq!(halfway.next(Wanted::copies(3), false), Some(PolicyStep::Repair));
    let halfway = Policy { epoch: 1, replicas: 3, write_quorum: 3, read_quorum: 2 };
    assert_eq!(halfway.next(wanted(3, 3), false), Some(PolicyStep::Repair));
    // Nothing has to be repaired for what was there before.
    let back = Policy { epoch: 2, write_quorum: 2, ..halfway };
    assert_eq!(halfway.next(wanted(3, 2), false), Some(PolicyStep::Take(back)));
}

#[test]
fn after_a_loss_reads_count_on_less_until_all_is_repaired() {
    let counts: Vec<_> = (1..=5)
        .map(|replicas| {
            let after = Policy::settled(0, replicas).after_loss()?;
            assert_eq!(after.next(Wanted::copies(replicas), false), Some(PolicyStep::Repair));
            let repaired = after.next(Wanted::copies(replicas), true);
            assert_eq!(repaired, Some(PolicyStep::Take(Policy::settled(2, replicas))));
            Some((after.read_quorum(), after.serves_single_copies()))
        })
        .collect();
    // With one copy only what is lost is in question.
    let two = Some((1, false));
    assert_eq!(counts, [None, two, two, Some((2, false)), Some((2, false))]);
    let twice = Policy::settled(0, 5).after_loss().and_then(|once| once.after_loss());
    assert_eq!(twice.map(|twice| (twice.read_quorum(), twice.epoch)), Some((1, 2)));
}

#[test]
fn the_last_epoch_is_no_way_out() {
    let policy = Policy { epoch: u32::MAX, ..Policy::settled(0, 3) };
    assert!(policy.next(Wanted::copies(1), true).is_some());
}

proptest! {
    /// Whatever is asked for, and however often that changes on the way: reads
    /// never count on more copies than any acknowledged version was given,
    /// by a write under the policy now or before, or by a full repair.
    #[test]
    fn a_read_never_counts_on_more_than_was_made(
        start in select(sensible()),
        asked in prop::collection::vec((select(sensible()), any::<bool>()), 1..20),
    ) {
        let mut policy = Policy::settled_at(0, start);
        // The least number of copies of anything acknowledged.
        let mut made = policy.write_quorum;
        for (wanted, repaired) in asked {
            if repaired {
                made = policy.write_quorum;
            }
            match policy.next(wanted, repaired) {
                Some(PolicyStep::Take(next)) => {
                    prop_assert_eq!(next.epoch, policy.epoch + 1);
                    prop_assert!(Wanted::new(next.replicas, Some(next.write_quorum)).is_ok());
                    // Some write still under the one, and read under the other.
                    prop_assert!(next.read_quorum <= policy.write_quorum);
                    prop_assert!(policy.read_quorum <= next.write_quorum);
                    made = made.min(next.write_quorum);
                    policy = next;
                }
                Some(PolicyStep::Repair) => prop_assert!(!repaired),
                None => prop_assert!(policy.is_settled_at(wanted)),
            }
            prop_assert!(policy.read_quorum <= made, "{:?} and {}", policy, made);
            prop_assert!(policy.read_quorum <= policy.write_quorum);
        }
    }

    /// From wherever it is, what is asked for is reached.
    #[test]
    fn the_way_ends_where_it_should(
        start in select(sensible()),
        between in select(sensible()),
        end in select(sensible()),
        steps in 0_usize..3,
    ) {
        let mut policy = Policy::settled_at(0, start);
        let goals = std::iter::repeat_n(between, steps).chain(std::iter::repeat_n(end, 3));
        for goal in goals {
            if let Some(PolicyStep::Take(next)) = policy.next(goal, true) {
                policy = next;
            }
        }
        prop_assert!(policy.is_settled_at(end), "{policy:?}");
    }
}

#[test]
fn a_change_is_noticed_by_every_writer_and_every_reader() {
    for (members, wanted) in (1..=9).flat_map(|n| sensible().into_iter().map(move |w| (n, w))) {
        let policy = Policy::settled_at(0, wanted);
        let noticed = policy.notice_quorum(members);
        if members >= policy.write_quorum() {
            assert!(noticed + policy.write_quorum() > members, "{members} {wanted:?}");
            assert!(noticed >= policy.write_quorum());
        }
    }
}
