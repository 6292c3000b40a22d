//! `holdfast`: an object store in one process. Read the settings, run, shut
//! down.

use std::process::ExitCode;

use holdfast_coordinator::process;
use holdfast_standalone::config::StandaloneConfig;
use holdfast_standalone::run::run;

fn main() -> ExitCode {
    process::main("holdfast", env!("CARGO_PKG_VERSION"), StandaloneConfig::from_variables, run)
}
