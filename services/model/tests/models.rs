//! The rules as they are: no counterexample in any of these small clusters.
#![allow(clippy::print_stdout, reason = "how much was explored is worth knowing")]

use holdfast_model::explore::explore;
use holdfast_model::history::Ask;
use holdfast_model::setup::Setup;

fn holds(setup: Setup) {
    let explored = explore(setup, 2);
    println!("{explored}");
    assert!(explored.counterexamples.is_empty());
    assert!(explored.exhausted, "too large");
    assert!(explored.reached, "nothing happens in {}", explored.name);
}

#[test]
fn writes_and_reads() {
    holds(Setup {
        clients: vec![vec![Ask::Put(1)], vec![Ask::Read]],
        initial: vec![0, 1],
        duplicates: true,
        ..Setup::new("writes and reads", 3, 3)
    });
}

#[test]
fn two_writers() {
    holds(Setup {
        clients: vec![vec![Ask::Put(1)], vec![Ask::Put(2)], vec![Ask::Read]],
        ..Setup::new("two writers and a reader", 3, 3)
    });
}

#[test]
fn deletes() {
    holds(Setup {
        clients: vec![vec![Ask::Delete], vec![Ask::Delete], vec![Ask::Read]],
        initial: vec![0, 1],
        ..Setup::new("deletes", 3, 3)
    });
}

#[test]
fn late() {
    holds(Setup {
        clients: vec![vec![Ask::Put(1), Ask::Put(3)], vec![Ask::Put(2)]],
        ticks: 3,
        restarts: 1,
        ..Setup::new("late messages", 3, 3)
    });
}

#[test]
fn create_twice() {
    holds(Setup {
        clients: vec![vec![Ask::Create(1)], vec![Ask::Create(2)]],
        ..Setup::new("create twice", 3, 3)
    });
}
#[test]
fn create_and_put() {
    holds(Setup {
        clients: vec![vec![Ask::Create(1)], vec![Ask::Put(2)]],
        ..Setup::new("create and put", 3, 3)
    });
}
