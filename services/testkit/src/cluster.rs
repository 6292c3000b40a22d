//! A cluster of real processes and a broker of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};

use crate::broker::Broker;
use crate::process::{Service, fresh_directory};
use crate::wait;

/// The time between two heartbeats: ten times faster than in production.
pub const INTERVAL: Duration = Duration::from_millis(500);

/// After this a silent member is silent. Longer than four intervals, since the
/// tests' machines are busy.
pub const EXPIRY: Duration = Duration::from_millis(2_500);

/// What a cluster consists of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Data servers; they found the cluster together.
    pub data_servers: usize,
    /// Apis.
    pub apis: usize,
    /// Whether the services are told of the broker's address.
    pub broker: bool,
    /// Whether the broker runs before the services start.
    pub broker_runs: bool,
    /// Whether the services know the data servers' addresses.
    pub peers: bool,
    /// More variables for every service.
    pub env: Vec<(&'static str, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            data_servers: 3,
            apis: 2,
            broker: true,
            broker_runs: true,
            peers: false,
            env: Vec::new(),
        }
    }
}

/// Processes and their broker; dropping it kills them all.
#[derive(Debug)]
pub struct ProcessCluster {
    /// The apis.
    pub apis: Vec<Service>,
    /// The data servers.
    pub data_servers: Vec<Service>,
    /// The broker.
    pub broker: Broker,
    options: Options,
    directory: PathBuf,
    started: usize,
}

impl ProcessCluster {
    /// Starts everything and waits until every service is ready.
    pub async fn start(options: Options) -> Self {
        let mut cluster = Self::start_without_waiting(options).await;
        cluster.ready().await;
        cluster
    }

    /// Starts everything.
    pub async fn start_without_waiting(options: Options) -> Self {
        let broker = if options.broker_runs { Broker::start().await } else { Broker::prepare() };
        Self::start_on(broker, options).await
    }

    /// Starts everything but the broker, which the caller has prepared.
    pub async fn start_on(broker: Broker, options: Options) -> Self {
        let mut cluster = Self::configure_on(broker, options);
        cluster.launch();
        cluster
    }

    /// A broker, and services that are configured and not started yet.
    pub async fn prepare(options: Options) -> Self {
        Self::configure_on(Broker::start().await, options)
    }

    fn configure_on(broker: Broker, options: Options) -> Self {
        let directory = fresh_directory("cluster");
        let (apis, data_servers) = (Vec::new(), Vec::new());
        let mut cluster = Self { apis, data_servers, broker, options, directory, started: 0 };
        for _ in 0..cluster.options.data_servers {
            let service = cluster.new_data_server();
            cluster.data_servers.push(service);
        }
        for _ in 0..cluster.options.apis {
            let service = cluster.new_api();
            cluster.apis.push(service);
        }
        let peers = cluster.peers();
        let Self { data_servers, apis, options, .. } = &mut cluster;
        for service in data_servers.iter_mut().chain(apis) {
            if options.peers {
                service.set("DATASERVER_PEERS", peers.clone());
            }
        }
        cluster
    }

    /// Starts every service, without waiting.
    pub fn launch(&mut self) {
        self.services().for_each(Service::start);
    }

    /// Waits until every service is ready and every api hears every data
    /// server.
    pub async fn ready(&mut self) {
        for service in self.services() {
            service.ready().await;
        }
        for api in &self.apis {
            for data_server in &self.data_servers {
                let what = format!("{} takes data from {}", data_server.name(), api.name());
                let address = data_server.setting("ADVERTISE_ADDRESS");
                let address = address.unwrap_or(data_server.address());
                wait::until_true(&what, async || {
                    let member = member(api, address).await;
                    member.get("takes_data") == Some(&Value::Bool(true))
                })
                .await;
            }
        }
    }

    /// Where everything of this cluster is, until this process ends.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A data server that is neither started nor part of the list yet.
    #[must_use]
    pub fn new_data_server(&mut self) -> Service {
        let name = format!("dataserver-{}", self.started);
        let mut service = self.configure("holdfast-dataserver", &name);
        let root = self.directory.join(&name);
        service.set("STORAGE_ROOT", root.display().to_string());
        service.set("INITIAL_MEMBERS", self.options.data_servers.max(1).to_string());
        service
    }

    /// An api that is neither started nor part of the list yet.
    #[must_use]
    pub fn new_api(&mut self) -> Service {
        let name = format!("api-{}", self.started);
        self.configure("holdfast-api", &name)
    }

    fn configure(&mut self, binary: &'static str, name: &str) -> Service {
        self.started += 1;
        let mut service = Service::new(binary, name, &self.directory);
        let millis = |duration: Duration| format!("{}ms", duration.as_millis());
        service.set("HEARTBEAT_INTERVAL", millis(INTERVAL));
        service.set("HEARTBEAT_EXPIRY", millis(EXPIRY));
        service.set("SHUTDOWN_DELAY", "100ms");
        if self.options.broker {
            service.set("RABBITMQ_SERVER", self.broker.url());
        }
        if self.options.peers {
            service.set("DATASERVER_PEERS", self.peers());
        }
        for (variable, value) in &self.options.env {
            service.set(variable, value);
        }
        service
    }

    /// Every service, data servers first.
    pub fn services(&mut self) -> impl Iterator<Item = &mut Service> {
        self.data_servers.iter_mut().chain(&mut self.apis)
    }

    /// Every data server's address, as `DATASERVER_PEERS` wants it.
    #[must_use]
    pub fn peers(&self) -> String {
        let addresses: Vec<&str> = self.data_servers.iter().map(Service::address).collect();
        addresses.join(",")
    }

    /// The address of an api.
    ///
    /// # Panics
    /// When there are fewer.
    #[must_use]
    pub fn api(&self, index: usize) -> &str {
        self.apis.get(index).expect("the options gave it").address()
    }

    /// The data server at this address.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn data_server_at(&mut self, address: &str) -> &mut Service {
        let mut all = self.data_servers.iter_mut();
        all.find(|service| service.address() == address).expect("one of ours")
    }

    /// Fails for each warning and error of any service since the last check
    /// that `allowed` does not list.
    pub fn check_logs(&mut self, allowed: &[&str]) {
        for service in self.services() {
            service.check_log(allowed);
        }
    }
}

/// What `api` knows of the data server at `address`; null if nothing.
pub async fn member(api: &Service, address: &str) -> Value {
    let listed = api.data_servers().await;
    let members = listed.get("dataservers").and_then(Value::as_array).cloned();
    let mut members = members.unwrap_or_default().into_iter();
    members.find(|member| member.get("address") == Some(&address.into())).unwrap_or_default()
}

/// One cluster for all tests of a file, which use it one after the other. The
/// watchdogs remove it when the test process ends.
#[derive(Debug)]
pub struct SharedCluster(Mutex<Option<ProcessCluster>>);

impl SharedCluster {
    /// A cluster that is started by the first test that asks for it.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::const_new(None))
    }

    /// Waits for this test's turn; starts the cluster if it is the first.
    pub async fn lock(
        &'static self,
        options: Options,
    ) -> MutexGuard<'static, Option<ProcessCluster>> {
        let mut cluster = self.0.lock().await;
        if cluster.is_none() {
            *cluster = Some(ProcessCluster::start(options).await);
        }
        // What an earlier test left unread is not this one's.
        for service in cluster.iter_mut().flat_map(ProcessCluster::services) {
            service.skip_log();
        }
        cluster
    }
}

impl Default for SharedCluster {
    fn default() -> Self {
        Self::new()
    }
}
