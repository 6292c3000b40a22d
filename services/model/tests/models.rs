//! The rules as they are: no counterexample in any of these small clusters.
#![allow(clippy::print_stdout, reason = "how much was explored is worth knowing")]

use holdfast_model::catalogue;
use holdfast_model::explore::explore;
use holdfast_model::setup::Setup;

/// Visits every state.
fn holds(setup: Setup) {
    let explored = explore(setup, 1);
    println!("{}", explored.summary());
    assert!(explored.counterexamples.is_empty(), "{explored}");
    assert!(explored.exhausted, "{} is too large", explored.name);
    assert!(explored.reached, "{}: what it is about does not happen", explored.name);
}

#[test]
fn writes_reads_and_deletes() {
    holds(catalogue::writes_and_reads());
    holds(catalogue::deletes());
    holds(catalogue::damage());
}

#[test]
fn two_writers() {
    holds(catalogue::two_writers());
    holds(catalogue::two_writers_two_members());
}

#[test]
fn conditional_writes() {
    holds(catalogue::create_twice());
    holds(catalogue::create_and_put());
    holds(catalogue::replace_twice());
    holds(catalogue::create_and_find_out());
    holds(catalogue::create_and_delete());
    holds(catalogue::forgetful());
    holds(catalogue::forgotten_promise());
}

#[test]
fn letting_go() {
    holds(catalogue::letting_go());
    holds(catalogue::superseding());
    holds(catalogue::two_droppers());
}

#[test]
fn a_join() {
    holds(catalogue::join());
}

#[test]
fn a_drain() {
    holds(catalogue::drain_empty());
}

#[test]
fn a_lost_member() {
    holds(catalogue::lost());
    holds(catalogue::lost_read());
}

#[test]
fn another_number_of_copies() {
    holds(catalogue::raise());
}

#[test]
fn another_write_quorum() {
    holds(catalogue::every_copy_first());
    holds(catalogue::create_twice_every_copy_first());
    holds(catalogue::raise_quorum());
    holds(catalogue::raise_quorum_read());
    holds(catalogue::lower_quorum());
}

#[test]
fn electorates() {
    holds(catalogue::electorate_comes());
    holds(catalogue::electorate_comes_read());
    holds(catalogue::electorate_comes_astray());
    holds(catalogue::electorate_goes());
    holds(catalogue::electorate_goes_create());
    holds(catalogue::voters_read());
}

#[test]
fn tombstones_are_collected() {
    holds(catalogue::collecting());
    holds(catalogue::collecting_late());
}
