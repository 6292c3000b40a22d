//! Upgrades a cluster of real processes from another build to this one under load,
//! takes it back, and upgrades it again; prints what came of it. Ends with status 1
//! when anything was wrong.

#![allow(clippy::print_stdout, reason = "the report is what it is for")]

use std::path::Path;
use std::process::ExitCode;

use holdfast_runtime::Runtime;
use holdfast_testkit::chaos::{Upgrade, upgrade};

const USAGE: &str = "holdfast-upgrade FROM [TO]: directories with holdfast-api and \
                     holdfast-dataserver; TO is this build unless given";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(from), to, None) = (arguments.next(), arguments.next(), arguments.next()) else {
        println!("usage: {USAGE}");
        return ExitCode::from(64);
    };
    for directory in [Some(&from), to.as_ref()].into_iter().flatten() {
        for binary in ["holdfast-api", "holdfast-dataserver"] {
            let path = Path::new(directory).join(binary);
            if !path.is_file() {
                println!("{} is not there: build that release first", path.display());
                return ExitCode::from(64);
            }
        }
    }
    let seed = Runtime::real().random_u64();
    let plan = Upgrade { from: from.into(), to: to.map(Into::into), seed, replicas: 3 };
    println!("seed {seed}, from {}", plan.from.display());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.expect("threads can be started").block_on(upgrade(plan));
    println!("{outcome}");
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
