//! `holdfastctl`: read the arguments, do what they ask for.

use std::process::ExitCode;

use holdfast_ctl::arguments::{self, Asked};
use holdfast_ctl::output::{chain, complain, say};
use holdfast_ctl::{drain, load, selftest, volumes};
use holdfast_runtime::Runtime;
use holdfast_telemetry::shutdown::Shutdown;

/// As in sysexits.h: the command was used wrongly.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let asked = match arguments::parse(std::env::args_os().skip(1)) {
        Ok(asked) => asked,
        Err(error) => {
            complain(format_args!("holdfastctl: {error}; see --help"));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(threads) => threads.block_on(run(asked)),
        Err(error) => failed(&format!("no threads to run on: {error}")),
    }
}

async fn run(asked: Asked) -> ExitCode {
    let runtime = Runtime::real();
    match asked {
        Asked::Text(text) => {
            say(format_args!("{text}"));
            ExitCode::SUCCESS
        }
        Asked::Selftest(options) => match selftest::run(&runtime, &options).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&chain(&error)),
        },
        Asked::Load(options) => match Shutdown::on_signals(&runtime) {
            Ok(shutdown) => load::run(&runtime, &options, &shutdown).await,
            Err(error) => failed(&format!("no signals: {error}")),
        },
        Asked::DrainDataServers(options) => match Shutdown::on_signals(&runtime) {
            Ok(shutdown) => match drain::run(&runtime, &options, &shutdown).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(&chain(&error)),
            },
            Err(error) => failed(&format!("no signals: {error}")),
        },
        Asked::GrowVolumes(options) => match volumes::run(&runtime, &options).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&chain(&error)),
        },
    }
}

fn failed(reason: &str) -> ExitCode {
    complain(format_args!("holdfastctl: {reason}"));
    ExitCode::FAILURE
}
