//! A cluster of real processes under faults, while clients write and read it;
//! and whether anything that they saw was wrong.

#![allow(clippy::print_stderr, reason = "a run is long, and somebody waits")]

mod clients;
mod faults;
mod report;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::{Options, ProcessCluster};
use crate::proxy::Proxy;
use clients::Load;
use faults::Faults;
pub use faults::Kind;
pub use report::Report;

/// What a run is like.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How long faults go on.
    pub duration: Duration,
    /// Chooses the faults; what processes make of them is not repeatable.
    pub seed: u64,
    /// `REPLICAS`.
    pub replicas: u32,
    /// Data servers.
    pub data_servers: usize,
    /// Clients.
    pub clients: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(90),
            seed: 1,
            replicas: 3,
            data_servers: 5,
            clients: 6,
        }
    }
}

/// After how long a silent member's copies are made anew in these runs.
const REPAIR_DELAY: &str = "4s";

/// How long everything may take to be whole again after the last fault.
const HEALING: Duration = Duration::from_secs(90);

/// Runs faults against load and checks what the clients saw.
///
/// # Panics
/// When the cluster does not start or does not come back.
pub async fn run(plan: Plan) -> Report {
    let env = vec![
        ("REPLICAS", plan.replicas.to_string()),
        ("REPAIR_DELAY", REPAIR_DELAY.to_owned()),
        ("REPAIR_INTERVAL", "5s".to_owned()),
    ];
    let options = Options { data_servers: plan.data_servers, env, ..Options::default() };
    let mut cluster = ProcessCluster::prepare(options).await;
    let links = Links::insert(&mut cluster).await;
    cluster.launch();
    cluster.ready().await;
    let apis: Vec<String> =
        (0..cluster.apis.len()).map(|api| cluster.api(api).to_owned()).collect();
    let load = Arc::new(Load::new(apis));
    let clients: Vec<_> = (0..plan.clients)
        .map(|client| tokio::spawn(Arc::clone(&load).run(client, plan.seed)))
        .collect();
    let mut faults = Faults::new(plan.seed, load.started());
    let end = Instant::now() + plan.duration;
    while Instant::now() < end {
        faults.next(&mut cluster, &links).await;
    }
    faults.heal(&mut cluster, &links).await;
    load.stop();
    for client in clients {
        client.await.expect("clients do not panic");
    }
    eprintln!("the faults are over: reading everything back");
    let whole = load.read_back(HEALING, plan.replicas as usize).await;
    Report::new(&load, faults.over(), whole)
}

/// The links of the data servers, which can be cut.
#[derive(Debug)]
pub(crate) struct Links {
    /// To each data server.
    pub(crate) servers: Vec<Proxy>,
    /// From each data server to the broker.
    pub(crate) brokers: Vec<Proxy>,
}

impl Links {
    async fn insert(cluster: &mut ProcessCluster) -> Self {
        let (mut servers, mut brokers) = (Vec::new(), Vec::new());
        let (broker, url) = (cluster.broker.address().to_string(), cluster.broker.url());
        for server in &mut cluster.data_servers {
            let link = Proxy::start(server.address().to_owned()).await;
            server.set("ADVERTISE_ADDRESS", link.address());
            servers.push(link);
            let link = Proxy::start(broker.clone()).await;
            server.set("RABBITMQ_SERVER", url.replace(&broker, link.address()));
            brokers.push(link);
        }
        Self { servers, brokers }
    }

    fn set_cut(&self, server: usize, cut: bool) {
        for links in [&self.servers, &self.brokers] {
            if let Some(link) = links.get(server) {
                link.set_cut(cut);
            }
        }
    }
}
