//! The log engine on a disk that loses power: a workload is recorded operation
//! by operation, the power is cut after each of them in many ways, and each time
//! the volume must come back with all that was promised.
//!
//! - A cut keeps nothing that was not synced, everything, all but one change,
//!   for each, and some subsets, torn.
//! - The index comes back as the newest that it can be and an older one; with
//!   nothing unsynced also torn, and at one cut of five as after each batch since
//!   it was last made durable. It is missing with nothing and everything, and
//!   with one subset of four.
//! - Of some cases the recovery and the compaction after it are cut too, after
//!   each operation; and the recovery after each kill of the process, when the
//!   disk still holds what was not synced.
//! - At one case of two the volume is then written to and opened once more, at
//!   half of them without its index.
//!
//! A case that fails is printed with its number. It is run alone with
//! `HOLDFAST_CRASH_CASE=<number> cargo test -p holdfast-store --test crash`.
//!
//! More of everything, in a release build with `-- --nocapture`:
//!
//! | variable | |
//! |---|---|
//! | `HOLDFAST_CRASH_WRITES=600` | random writes after the fixed ones |
//! | `HOLDFAST_CRASH_SUBSETS=64` | subsets of each cut |
//! | `HOLDFAST_CRASH_INDEXES=1` | at one of how many cuts each index is tried |
//! | `HOLDFAST_CRASH_NESTED=20` | one of how many cases is cut again |

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests look behind the seam"
)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "modules of a test")]

#[path = "../common/mod.rs"]
mod common;

mod cases;
mod check;
mod engine;
mod faults;
mod gate;
mod machine;
mod model;
mod session;
mod sweep;
mod workload;

use std::sync::atomic::Ordering;

use common::power::{Names, Options};

use self::cases::{Enumeration, Indexes, Plan};
use self::session::Recording;

/// Stands for a case of another disk.
const NO_CASE: &str = "none";

fn variable(name: &str, otherwise: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(otherwise, |value| value.parse().expect("a number"))
}

fn record(options: Options) -> Recording {
    let random = usize::try_from(variable("HOLDFAST_CRASH_WRITES", 40)).expect("a number");
    machine::executor().block_on(workload::record(options, random))
}

fn thorough(title: &'static str) -> Plan {
    let only = std::env::var("HOLDFAST_CRASH_CASE").ok();
    let own = only.as_deref().and_then(|only| only.strip_prefix(title)?.strip_prefix('/'));
    Plan {
        title,
        subsets: variable("HOLDFAST_CRASH_SUBSETS", 8),
        indexes: Indexes::Possible,
        all_indexes_every: usize::try_from(variable("HOLDFAST_CRASH_INDEXES", 5))
            .expect("a number"),
        nested_every: usize::try_from(variable("HOLDFAST_CRASH_NESTED", 400)).expect("a number"),
        kills: true,
        enough_failures: 10,
        // A number of another disk is none here.
        only: only.as_ref().map(|_| own.unwrap_or(NO_CASE).to_owned()),
    }
}

#[expect(clippy::print_stderr, reason = "how much was tried, and what to run again")]
fn assert_survives(options: Options, plan: &Plan) {
    let recording = record(options);
    let tally = Enumeration::run(&recording, plan);
    let operations = recording.disk.operation_count();
    eprintln!("{}: {operations} operations, {tally}", plan.title);
    let is_absent = plan.only.is_some() && tally.opens.load(Ordering::Relaxed) == 0;
    assert!(!is_absent || plan.only.as_deref() == Some(NO_CASE), "there is no such case");
    let failures = tally.failures.lock().unwrap();
    failures.iter().for_each(|failure| eprintln!("HOLDFAST_CRASH_CASE={failure}"));
    assert!(failures.is_empty(), "{} cases failed", failures.len());
}

#[test]
fn every_cut_keeps_what_was_promised() {
    assert_survives(Options::default(), &thorough("independent"));
}

#[test]
fn every_cut_of_a_journaled_disk_with_direct_writes_keeps_what_was_promised() {
    let options = Options { names: Names::Journaled, direct: true, ..Options::default() };
    // Fewer of each: what it can leave is little else than what is tried above.
    let plan = thorough("journaled");
    let fewer = Plan { subsets: plan.subsets / 4, all_indexes_every: 20, kills: false, ..plan };
    assert_survives(options, &fewer);
}
