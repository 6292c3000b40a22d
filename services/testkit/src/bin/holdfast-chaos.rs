//! Runs a cluster of real processes under faults for as long as it is told to,
//! and prints what came of it. Ends with status 1 when anything was wrong.

#![allow(clippy::print_stdout, reason = "the report is what it is for")]

use std::process::ExitCode;
use std::time::Duration;

use holdfast_core::settings::parse_duration;
use holdfast_runtime::Runtime;
use holdfast_testkit::chaos::{Plan, run};

const USAGE: &str = "holdfast-chaos [DURATION, such as 10m] [--seed N] [--data-servers N] [--replicas N] [--clients N]";

fn main() -> ExitCode {
    let plan = match plan(std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(error) => {
            println!("{error}\nusage: {USAGE}");
            return ExitCode::from(64);
        }
    };
    println!("seed {}, {:?}", plan.seed, plan.duration);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let report = runtime.expect("threads can be started").block_on(run(plan));
    println!("{report}");
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn plan(mut arguments: impl Iterator<Item = String>) -> Result<Plan, String> {
    let seed = Runtime::real().random_u64();
    let mut plan = Plan { seed, duration: Duration::from_secs(3_600), ..Plan::default() };
    while let Some(argument) = arguments.next() {
        if !argument.starts_with("--") {
            plan.duration = parse_duration(&argument)?;
            continue;
        }
        let value = arguments.next().and_then(|value| value.parse::<u64>().ok());
        let value = value.ok_or_else(|| format!("{argument} needs a number"))?;
        let count = usize::try_from(value).map_err(|_| format!("{argument}: too large"))?;
        match argument.as_str() {
            "--seed" => plan.seed = value,
            "--data-servers" => plan.data_servers = count,
            "--replicas" => plan.replicas = u32::try_from(value).map_err(|e| e.to_string())?,
            "--clients" => plan.clients = count,
            other => return Err(format!("{other} is unknown")),
        }
    }
    Ok(plan)
}
