//! Lets a cluster grow from 3 data servers to 6 and shrink to the other 3, under
//! load, and prints what came of it. Takes the number of objects. Ends with status 1
//! when anything was wrong: objects lost, requests failed, more copied than had to
//! move, or, of enough objects, copies spread unevenly.

#![allow(clippy::print_stdout, reason = "the report is what it is for")]

use std::process::ExitCode;

use holdfast_testkit::elastic::{Plan, run};

fn main() -> ExitCode {
    let objects = std::env::args().nth(1).map_or(Ok(5_000), |text| text.parse());
    let Ok(objects) = objects else {
        println!("usage: holdfast-elastic [number of objects]");
        return ExitCode::from(64);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("threads can be started");
    let report = runtime.block_on(run(Plan { objects, object_bytes: 4_096 }));
    println!("{report}");
    let violations = report.violations();
    violations.iter().for_each(|violation| println!("WRONG: {violation}"));
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
