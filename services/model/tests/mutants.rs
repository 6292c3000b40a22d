//! Rules broken on purpose: each must be noticed.
#![allow(clippy::print_stdout, reason = "what was noticed is worth knowing")]

use holdfast_model::catalogue;
use holdfast_model::explore::explore;
use holdfast_model::mutation::Mutation;

/// Every fault that a model can plant, but for those of the deeper run, is
/// noticed by the model that is there for it.
#[test]
fn broken_rules_are_noticed() {
    for setup in catalogue::mutants() {
        let mutation = setup.mutation;
        let explored = explore(setup, 2);
        println!("{mutation:?}: {}", explored.summary());
        assert!(!explored.counterexamples.is_empty(), "{mutation:?} is not noticed");
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
    }
}
