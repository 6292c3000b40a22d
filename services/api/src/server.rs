//! Runs an api.

use std::sync::Arc;

use holdfast_bus::Topic;
use holdfast_coordinator::assembly::Coordinator;
use holdfast_coordinator::cluster::Cluster;
use holdfast_coordinator::service::{
    BusConnection, Ports, Servers, Sockets, StartError, Starting, end, open_admin_port,
};
use holdfast_coordinator::{admin, routes};
use holdfast_runtime::Runtime;
use holdfast_telemetry::admin::Health;
use holdfast_telemetry::metrics::Metrics;
use holdfast_telemetry::shutdown::{Phase, Shutdown};
use tokio::sync::oneshot;
use tracing::info;

use crate::config::ApiConfig;

/// What an api listens to.
pub const TOPICS: [Topic; 1] = [Topic::ApiServers];

/// Runs an api until the end of `shutdown`. `listening` is told where, once it
/// accepts connections.
///
/// # Errors
/// [`StartError`]; once it listens, only `shutdown` ends it.
pub async fn run(
    runtime: Runtime,
    config: ApiConfig,
    metrics: Metrics,
    connection: BusConnection,
    shutdown: Shutdown,
    listening: oneshot::Sender<Ports>,
) -> Result<(), StartError> {
    let settings = &config.common;
    let starting = Arc::new(Starting);
    let admin = open_admin_port(&runtime, settings, &metrics, starting, &shutdown).await?;
    let sockets = Sockets::bind(&runtime, settings, admin).await?;
    let ports = sockets.ports.clone();
    let BusConnection { bus, inbox } = connection;
    let (heartbeats, replies) = (inbox.api_servers, inbox.replies);
    let coordinator =
        Coordinator::start(&runtime, settings, &metrics, &bus, heartbeats, replies, None)?;
    let cluster = coordinator.cluster.clone();
    let servers = Servers {
        public: routes::routes(&coordinator.objects),
        route_of: routes::template,
        untimed: &[],
        admin: admin::routes(coordinator.operators(&runtime, settings)),
        health: Arc::new(Readiness { cluster, shutdown: shutdown.clone() }),
        metrics,
    };
    let (public, _admin) = servers.start(&runtime, settings, sockets, &shutdown)?;
    info!(address = %ports.address, admin = %ports.admin, "api is listening");
    // Whoever started it may not want to know.
    let _ = listening.send(ports);
    end(&runtime, settings, &shutdown, std::future::ready(()), public).await;
    coordinator.stop();
    bus.close().await;
    Ok(())
}

/// An api is ready once it knows the roster and hears a member. A lost broker
/// does not make it unready, nor does a member that is silent: reads of what
/// the others hold go on.
#[derive(Debug)]
struct Readiness {
    cluster: Cluster,
    shutdown: Shutdown,
}

impl Health for Readiness {
    fn readiness(&self) -> Result<(), Vec<String>> {
        let view = &self.cluster.snapshot().view;
        let mut reasons = Vec::new();
        if self.shutdown.phase() != Phase::Running {
            reasons.push("shutting down".to_owned());
        }
        if !view.founded && view.guests.is_empty() {
            reasons.push("no roster is known yet: no data server was heard".to_owned());
        } else if view.writable().next().is_none() && view.guests.is_empty() {
            reasons.push("no data server that takes data is heard".to_owned());
        }
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }
}
