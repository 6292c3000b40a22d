//! `holdfast-api`: read the settings, connect, run, shut down.

use std::process::ExitCode;

use holdfast_api::config::{ApiConfig, variables};
use holdfast_api::server;
use holdfast_coordinator::process::{self, Binary, Process};

fn main() -> ExitCode {
    let version = env!("CARGO_PKG_VERSION");
    let binary = Binary { name: "holdfast-api", version, variables, commands: &[] };
    process::main(binary, ApiConfig::from_variables, run)
}

async fn run(config: ApiConfig, process: Process) -> anyhow::Result<()> {
    let common = config.common.clone();
    let connection = process.connect(&common, &server::TOPICS)?;
    let Process { runtime, metrics, shutdown, .. } = process;
    let (listening, _ports) = tokio::sync::oneshot::channel();
    server::run(runtime, config, metrics, connection, shutdown, listening).await?;
    Ok(())
}
