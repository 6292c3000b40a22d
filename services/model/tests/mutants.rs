//! Rules broken on purpose: each must be noticed.
#![allow(clippy::print_stdout, reason = "what was noticed is worth knowing")]

use holdfast_model::catalogue;
use holdfast_model::explore::explore;
use holdfast_model::mutation::Mutation;
use holdfast_model::setup::Setup;

/// Each of these faults is noticed by the model that is there for it.
fn are_noticed(setups: Vec<Setup>) {
    for setup in setups {
        let mutation = setup.mutation;
        let explored = explore(setup, 2);
        println!("{mutation:?}: {}", explored.summary());
        assert!(!explored.counterexamples.is_empty(), "{mutation:?} is not noticed");
    }
}

#[test]
fn broken_rules_are_noticed() {
    are_noticed(catalogue::mutants());
}

/// Every fault that a model can plant is in one of the two tests of this file:
/// it is noticed, or another rule makes it good.
#[test]
fn no_fault_is_forgotten() {
    let planted = |setups: Vec<Setup>| -> Vec<Mutation> {
        setups.into_iter().filter_map(|setup| setup.mutation).collect()
    };
    let (noticed, spare) = (planted(catalogue::mutants()), planted(catalogue::doubly_guarded()));
    for mutation in Mutation::ALL {
        let places = [&noticed, &spare].map(|list| list.contains(mutation));
        assert_ne!(places, [false, false], "{mutation:?} is in no catalogue");
        assert_ne!(places, [true, true], "{mutation:?} is noticed and cannot be spare");
    }
}

/// Rules that another rule makes good: should one of these be noticed one day,
/// it is no longer spare, and docs/protocol.md must say so.
#[test]
fn spare_rules_are_known() {
    for setup in catalogue::doubly_guarded() {
        let mutation: Option<Mutation> = setup.mutation;
        let explored = explore(setup, 1);
        println!("{mutation:?}: {}", explored.summary());
        assert!(explored.counterexamples.is_empty(), "{mutation:?} is noticed: {explored}");
        assert!(explored.exhausted, "{mutation:?}: {} is too large", explored.name);
        assert!(explored.reached, "{mutation:?}: what {} is about does not happen", explored.name);
    }
}
