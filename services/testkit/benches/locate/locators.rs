//! Holdfast's own locator, in this process, asking the same data servers.

use std::sync::Arc;
use std::time::Duration;

use holdfast_bus::{
    Bus, Inbox, MemoryBroker, MemoryBrokerOptions, Message, RabbitBus, RabbitConfig, Topic,
};
use holdfast_coordinator::cluster::{Cluster, ClusterConfig, ClusterParts, Peers};
use holdfast_coordinator::data_servers::DataServers;
use holdfast_coordinator::locator::{Locator, LocatorConfig, LocatorParts};
use holdfast_coordinator::metrics::{ClusterMetrics, LocateMetrics};
use holdfast_core::locate::Verdict;
use holdfast_core::name::{Key, ObjectName};
use holdfast_core::roster::Roster;
use holdfast_http::client::{ClientLimits, HttpClient};
use holdfast_runtime::Runtime;
use holdfast_telemetry::metrics::Metrics;
use tokio::sync::{mpsc, watch};

use crate::cluster::{DATA_SERVERS, EXPIRY, HEARTBEAT};
use crate::load::Client;

/// Two locators over one membership, which differ in how they ask.
pub(crate) struct Locators {
    /// Over RabbitMQ.
    pub(crate) bus: Locator,
    /// Over HTTP: to this one the broker is always away.
    pub(crate) http: Locator,
    health: watch::Receiver<holdfast_bus::BusHealth>,
    // The connection ends with it.
    _bus: Arc<RabbitBus>,
}

impl Locators {
    /// Starts both and waits until they know every data server.
    pub(crate) async fn start(url: &str) -> Self {
        let runtime = Runtime::real();
        let config = RabbitConfig::new(url).expect("the broker's own URL");
        let (rabbit, inbox) = RabbitBus::start(runtime.clone(), config, &[Topic::ApiServers]);
        let Inbox { api_servers, replies, .. } = inbox;
        let data_servers = DataServers::new(HttpClient::new(&runtime, ClientLimits::default()));
        let health = rabbit.health();
        let cluster = membership(&runtime, api_servers, health.clone(), &data_servers);
        wait_for_members(&cluster).await;
        let start = |bus: Arc<dyn Bus>, replies| {
            let (locator, _task) = Locator::start(LocatorParts {
                runtime: runtime.clone(),
                config: LocatorConfig::new(Duration::from_secs(1), Duration::from_secs(5)),
                cluster: cluster.clone(),
                bus,
                replies,
                data_servers: data_servers.clone(),
                metrics: LocateMetrics::new(&metrics()).expect("registered once"),
            });
            locator
        };
        let nobody = MemoryBroker::new(runtime.clone(), MemoryBrokerOptions::default());
        nobody.stop();
        let (away, away_inbox) = nobody.connect(&[]);
        let bus = Arc::clone(&rabbit) as Arc<dyn Bus>;
        let (bus, http) = (start(bus, replies), start(away, away_inbox.replies));
        Self { bus, http, health, _bus: rabbit }
    }

    /// Waits until the bus knows that its broker is gone.
    pub(crate) async fn wait_for_outage(&mut self) {
        let gone = self.health.wait_for(|health| !health.is_connected()).await;
        gone.expect("the bus is there");
    }
}

fn metrics() -> Metrics {
    Metrics::new("bench").expect("registered once")
}

fn membership(
    runtime: &Runtime,
    heartbeats: mpsc::Receiver<Message>,
    health: watch::Receiver<holdfast_bus::BusHealth>,
    data_servers: &DataServers,
) -> Cluster {
    let (cluster, _task) = Cluster::start(ClusterParts {
        runtime: runtime.clone(),
        config: ClusterConfig {
            heartbeat_interval: HEARTBEAT,
            heartbeat_expiry: EXPIRY,
            peers: Peers::default(),
            own: None,
        },
        roster: Roster::default(),
        keeper: None,
        heartbeats,
        health,
        data_servers: data_servers.clone(),
        metrics: ClusterMetrics::new(&metrics()).expect("registered once"),
    });
    cluster
}

async fn wait_for_members(cluster: &Cluster) {
    let mut snapshots = cluster.watch();
    let all = snapshots.wait_for(|snapshot| snapshot.view.writable().count() == DATA_SERVERS);
    let all = tokio::time::timeout(Duration::from_secs(30), all).await;
    all.expect("heartbeats come").expect("the cluster task runs");
}

/// Wrong answers are counted by the caller; no answer ends the run.
impl Client for Locator {
    async fn lookup(&mut self, name: &str) -> bool {
        let name = ObjectName::seed(Key::new(name.to_owned()).expect("a short name"));
        let located = self.locate(&name).await.expect("the locator runs");
        match located.verdict() {
            Verdict::Found(_) => true,
            Verdict::Absent => false,
            Verdict::Incomplete(silent) => panic!("{silent:?} did not answer"),
        }
    }
}
