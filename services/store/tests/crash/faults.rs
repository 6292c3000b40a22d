//! The tests of the test: on a disk that lies, or with an index that leads the
//! log, it must find that something is lost.

use std::path::Path;

use crate::cases::{Enumeration, Indexes, Plan};
use crate::common::power::{Matching, Options};
use crate::machine;
use crate::workload;

/// The least that finds it.
fn plan(indexes: Indexes) -> Plan {
    Plan {
        title: "fault",
        subsets: 1,
        indexes,
        all_indexes_every: 1,
        nested_every: 0,
        kills: false,
        enough_failures: 1,
        only: None,
    }
}

fn failures(options: Options, indexes: Indexes) -> Vec<String> {
    let recording = machine::executor().block_on(workload::record(options, 0));
    let tally = Enumeration::run(&recording, &plan(indexes));
    tally.failures.into_inner().unwrap()
}

fn assert_found(options: Options) {
    let failures = failures(options, Indexes::Newest);
    assert!(!failures.is_empty(), "nobody noticed");
}

fn lying_files(directory: &'static str) -> Options {
    Options { lying_files: Some(Matching::below(directory)), ..Options::default() }
}

fn lying_directories(lies: impl Fn(&Path) -> bool + Send + Sync + 'static) -> Options {
    Options { lying_directories: Some(Matching::new(lies)), ..Options::default() }
}

#[test]
fn without_any_fault_nothing_is_found() {
    assert_eq!(failures(Options::default(), Indexes::Newest), Vec::<String>::new());
}

#[test]
fn segments_that_are_not_synced_are_found() {
    assert_found(lying_files("/volume/log"));
}

#[test]
fn payload_files_that_are_not_synced_are_found() {
    assert_found(lying_files("/volume/large"));
}

#[test]
fn names_of_segments_that_are_not_synced_are_found() {
    assert_found(lying_directories(|path| path == Path::new("/volume/log")));
}

#[test]
fn names_of_payload_directories_that_are_not_synced_are_found() {
    assert_found(lying_directories(|path| path == Path::new("/volume/large")));
}

#[test]
fn names_of_payload_files_that_are_not_synced_are_found() {
    assert_found(lying_directories(|path| path.parent() == Some(Path::new("/volume/large"))));
}

#[test]
fn an_index_that_leads_the_log_is_found() {
    assert!(!failures(Options::default(), Indexes::Leading).is_empty(), "nobody noticed");
}
