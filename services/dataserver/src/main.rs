//! `holdfast-dataserver`: read the settings, connect, run, shut down; or do one
//! of its commands.

use std::process::ExitCode;

use holdfast_coordinator::process::{self, Binary, Process};
use holdfast_dataserver::commands::COMMANDS;
use holdfast_dataserver::config::{DataServerConfig, variables};
use holdfast_dataserver::server;

fn main() -> ExitCode {
    let binary = Binary {
        name: "holdfast-dataserver",
        version: env!("CARGO_PKG_VERSION"),
        variables,
        commands: COMMANDS,
    };
    process::main(binary, DataServerConfig::from_variables, run)
}

async fn run(config: DataServerConfig, process: Process) -> anyhow::Result<()> {
    let common = config.common.clone();
    let connection = process.connect(&common, &server::TOPICS)?;
    let Process { runtime, metrics, shutdown, .. } = process;
    let (listening, _ports) = tokio::sync::oneshot::channel();
    server::run(runtime, config, metrics, connection, shutdown, listening).await?;
    Ok(())
}
