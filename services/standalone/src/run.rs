//! Runs an api and its data server in one process.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, anyhow};
use holdfast_api::server as api;
use holdfast_bus::Topic;
use holdfast_bus::{MemoryBroker, MemoryBrokerOptions};
use holdfast_coordinator::process::Process;
use holdfast_coordinator::service::{BusConnection, Ports, http_client, wait_until_ready};
use holdfast_dataserver::server as data_server;
use holdfast_telemetry::metrics::Metrics;
use holdfast_telemetry::shutdown::{Phase, Shutdown};
use tokio::sync::oneshot;

use crate::config::StandaloneConfig;

/// Runs until the process is told to end. The api ends first: its last requests
/// still need the data server.
///
/// # Errors
/// When one of the two does not start.
pub async fn run(config: StandaloneConfig, process: Process) -> anyhow::Result<()> {
    let Process { runtime, metrics, shutdown, .. } = process;
    let broker = MemoryBroker::new(runtime.clone(), MemoryBrokerOptions::default());
    let connect = |topics: &[Topic]| {
        let (bus, inbox) = broker.connect(topics);
        BusConnection { bus, inbox }
    };
    let (api_bus, data_bus) = (connect(&api::TOPICS), connect(&data_server::TOPICS));
    let data_shutdown = Shutdown::new();
    let data_metrics = Metrics::new(env!("CARGO_PKG_VERSION"))?;
    let root = config.data_server.volume.storage_root.clone();
    let (data_listening, data_ports) = oneshot::channel();
    let mut data = Box::pin(data_server::run(
        runtime.clone(),
        config.data_server,
        data_metrics,
        data_bus,
        data_shutdown.clone(),
        data_listening,
    ));
    let data_ports = tokio::select! {
        biased;
        ended = &mut data => return ended.context("the data server did not start"),
        ports = data_ports => ports.map_err(|_| anyhow!("the data server did not start"))?,
    };
    let client = http_client(&runtime, &config.api.common);
    let ended_by = shutdown.clone();
    let (api_listening, api_ports) = oneshot::channel();
    let mut api =
        Box::pin(api::run(runtime.clone(), config.api, metrics, api_bus, shutdown, api_listening));
    let announce = async {
        let ports = api_ports.await.map_err(|_| anyhow!("the api did not start"))?;
        wait_until_ready(&runtime, &client, &ports.admin.parse()?).await;
        greet(&ports, &data_ports, &root);
        anyhow::Ok(())
    };
    let both = async {
        let announced = announce.await;
        match announced {
            Ok(()) => std::future::pending().await,
            Err(error) => error,
        }
    };
    let ended = tokio::select! {
        biased;
        ended = &mut api => ended.context("the api did not start"),
        ended = &mut data => {
            ended.context("the data server failed")?;
            return Err(anyhow!("the data server ended by itself"));
        }
        error = both => Err(error),
    };
    if ended_by.phase() == Phase::Forced {
        data_shutdown.force();
    }
    data_shutdown.begin();
    data.await.context("the data server did not end well")?;
    ended
}

fn greet(ports: &Ports, data_ports: &Ports, root: &Path) {
    let (address, admin, root) = (&ports.address, &ports.admin, root.display());
    let text = format!(
        "Holdfast is listening on http://{address}; objects are kept in {root}.\n\
         Probes and metrics: http://{admin} (api), http://{} (data server). Try:\n\n  \
         curl -T README.md http://{address}/objects/readme\n  \
         curl http://{address}/objects/readme\n  \
         curl -X DELETE http://{address}/objects/readme\n",
        data_ports.admin
    );
    // A closed standard output is nobody's fault.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
