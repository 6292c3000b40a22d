//! `holdfast`: an object store in one process. Read the settings, run, shut
//! down.

use std::process::ExitCode;

use holdfast_coordinator::process::{self, Binary};
use holdfast_standalone::config::{StandaloneConfig, variables};
use holdfast_standalone::run::run;

fn main() -> ExitCode {
    let version = env!("CARGO_PKG_VERSION");
    let binary = Binary { name: "holdfast", version, variables, commands: &[] };
    process::main(binary, StandaloneConfig::from_variables, run)
}
