//! The processes of a cluster, and what they run on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_api::config::ApiConfig;
use holdfast_api::server as api;
use holdfast_bus::{MemoryBroker, MemoryBrokerOptions, MemoryBus};
use holdfast_coordinator::service::{BusConnection, StartError};
use holdfast_dataserver::config::DataServerConfig;
use holdfast_dataserver::server::{self as data_server, Volume};
use holdfast_runtime::Runtime;
use holdfast_telemetry::metrics::Metrics;
use holdfast_telemetry::shutdown::Shutdown;
use tokio::sync::oneshot;

use crate::executor::{Executor, ProcessId};
use crate::network::{HostId, Net};
use crate::plan::Plan;
use crate::process::{Process, Skew};
use crate::random::mix;
use crate::trace::Trace;
use crate::volume::SimVolume;

/// How often data servers tell that they are there; the window is six times as
/// long.
const HEARTBEAT: &str = "500ms";

/// Where services listen.
pub const PORT: u16 = 8080;

/// Where operators ask.
pub const ADMIN_PORT: u16 = 9090;

/// The process of the broker and of whoever makes faults; nothing happens to it.
const WORLD: ProcessId = ProcessId(0);

/// What all processes share.
#[derive(Debug, Clone)]
pub struct World {
    /// Time and tasks.
    pub executor: Executor,
    /// The network.
    pub net: Arc<Net>,
    /// The broker.
    pub broker: MemoryBroker,
    /// What happens.
    pub trace: Trace,
    /// How many disks are full, and when there was room on one again last.
    full: Arc<Mutex<(usize, Option<Duration>)>>,
    seed: u64,
}

/// The longest that a request takes that was asked while a disk was full, and what
/// others believe of it takes to be renewed.
const REFUSED: Duration = Duration::from_secs(15);

impl World {
    /// Where nothing runs yet.
    #[must_use]
    pub fn new(plan: &Plan, executor: &Executor, trace: &Trace) -> Self {
        let net = Net::new(executor, mix(plan.seed, 0x6e65_7400));
        let options = MemoryBrokerOptions {
            delay: plan.bus_delay.clone(),
            drop_ratio: plan.bus_loss,
            duplicate_ratio: plan.bus_duplicates,
        };
        let runtime = outsider(250).runtime(executor, &net, mix(plan.seed, 250));
        let broker = MemoryBroker::new(runtime, options);
        let (executor, trace) = (executor.clone(), trace.clone());
        Self { executor, net, broker, trace, full: Arc::default(), seed: plan.seed }
    }

    /// Whether a disk is full, or was when a request was made that is answered now.
    #[must_use]
    pub fn may_lack_room(&self) -> bool {
        let (count, last) = *self.full.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |last| self.executor.now().saturating_sub(last) < REFUSED;
        count > 0 || last.is_some_and(is_recent)
    }

    /// The seam of somebody who is no part of the cluster.
    #[must_use]
    pub fn outside(&self, host: u64) -> Runtime {
        outsider(host).runtime(&self.executor, &self.net, mix(self.seed, host))
    }
}

fn outsider(host: u64) -> Process {
    Process { id: WORLD, host: HostId(host), files: Default::default(), skew: Skew::default() }
}

/// What a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The api.
    Api,
    /// A data server.
    DataServer,
}

/// A host with one service.
#[derive(Debug)]
pub struct Node {
    /// What it runs.
    pub role: Role,
    /// Where.
    pub host: HostId,
    /// What is wrong with its clock.
    pub skew: Skew,
    /// What it keeps.
    pub volume: SimVolume,
    /// `REPLICAS`.
    pub replicas: u32,
    /// The process, while there is one.
    pub running: Option<Running>,
}

/// A process.
#[derive(Debug)]
pub struct Running {
    /// The run.
    pub process: ProcessId,
    /// Its way to the broker.
    pub bus: Arc<MemoryBus>,
    /// Ends it in order.
    pub shutdown: Shutdown,
    ended: Arc<Mutex<Option<Ended>>>,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    InOrder,
    /// It has retired, and begins anew.
    Retired,
    /// Anything else.
    Failed(String),
}

/// All nodes.
#[derive(Debug)]
pub struct Cluster {
    /// What they share.
    pub world: World,
    /// Data servers first, then apis; those that were added come last.
    pub nodes: Vec<Node>,
    plan: Plan,
    next_process: u64,
}

impl Cluster {
    /// Starts what is planned.
    #[must_use]
    pub fn start(world: World, plan: &Plan) -> Self {
        let mut cluster = Self { world, nodes: Vec::new(), plan: plan.clone(), next_process: 1 };
        for _ in 0..plan.servers {
            cluster.add(Role::DataServer, plan.replicas);
        }
        for _ in 0..plan.apis {
            cluster.add(Role::Api, plan.replicas);
        }
        cluster
    }

    /// Starts one node more; gives its place.
    pub fn add(&mut self, role: Role, replicas: u32) -> usize {
        let place = self.nodes.len();
        let host = HostId(place as u64 + 1);
        let (skew, volume) = (Skew::default(), SimVolume::default());
        let off = mix(self.plan.seed, 0x736b_6577 + host.0) % (2 * self.plan.skew_millis + 1);
        skew.set(off.cast_signed() - self.plan.skew_millis.cast_signed());
        self.nodes.push(Node { role, host, skew, volume, replicas, running: None });
        self.launch(place);
        place
    }

    /// The places of the data servers.
    #[must_use]
    pub fn servers(&self) -> Vec<usize> {
        self.places(Role::DataServer)
    }

    /// The places of the apis.
    #[must_use]
    pub fn apis(&self) -> Vec<usize> {
        self.places(Role::Api)
    }

    fn places(&self, role: Role) -> Vec<usize> {
        (0..self.nodes.len()).filter(|place| self.node(*place).role == role).collect()
    }

    /// The node at a place.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn node(&self, place: usize) -> &Node {
        self.nodes.get(place).expect("places are those of nodes")
    }

    /// Starts the process of a node, unless it runs.
    pub fn launch(&mut self, place: usize) {
        let (world, plan) = (self.world.clone(), self.plan.clone());
        let id = ProcessId(self.next_process);
        let Some(node) = self.nodes.get_mut(place).filter(|node| node.running.is_none()) else {
            return;
        };
        self.next_process += 1;
        let process = Process {
            id,
            host: node.host,
            files: node.volume.files.clone(),
            skew: node.skew.clone(),
        };
        let runtime = process.runtime(&world.executor, &world.net, plan.seed);
        let topics = match node.role {
            Role::Api => api::TOPICS.as_slice(),
            Role::DataServer => data_server::TOPICS.as_slice(),
        };
        let (bus, inbox) = world.broker.connect(topics);
        let connection = BusConnection { bus: Arc::clone(&bus) as _, inbox };
        let shutdown = Shutdown::new();
        let ended = Arc::new(Mutex::new(None));
        let (put, stop, role) = (Arc::clone(&ended), shutdown.clone(), node.role);
        let variables = variables(node, &plan).into_iter();
        let volume = node.volume.clone();
        let main = async move {
            let metrics = Metrics::new("simulation").expect("fixed names");
            let (listening, _ports) = oneshot::channel();
            let result = match role {
                Role::Api => {
                    let config = ApiConfig::from_variables(variables).expect("right");
                    api::run(runtime, config, metrics, connection, stop, listening).await
                }
                Role::DataServer => {
                    let config = DataServerConfig::from_variables(variables).expect("right");
                    let own = runtime.clone();
                    let volume = Volume::Given(Box::new(move |root| volume.open(&own, root)));
                    let run = data_server::run_with(
                        runtime, config, metrics, connection, stop, listening, volume,
                    );
                    run.await
                }
            };
            let how = match result {
                Ok(()) => Ended::InOrder,
                Err(StartError::Retired) => Ended::Retired,
                Err(error) => Ended::Failed(error.to_string()),
            };
            *put.lock().unwrap_or_else(PoisonError::into_inner) = Some(how);
        };
        world.trace.add(&format!("{:?} {} starts", role, node.host.0));
        let _main = world.executor.spawn(id, Box::pin(main));
        node.running = Some(Running { process: id, bus, shutdown, ended });
    }

    /// The disk of a node has no room for payloads from now on, or has room again.
    pub fn set_full(&self, place: usize, is_full: bool) {
        self.node(place).volume.set_full(is_full);
        let mut full = self.world.full.lock().unwrap_or_else(PoisonError::into_inner);
        *full = match (is_full, *full) {
            (true, (count, last)) => (count + 1, last),
            (false, (count, _)) => (count.saturating_sub(1), Some(self.world.executor.now())),
        };
    }

    /// Ends the process of a node, as kill -9 does.
    pub fn kill(&mut self, place: usize) {
        let Some(node) = self.nodes.get_mut(place) else { return };
        if let Some(running) = node.running.take() {
            self.world.trace.add(&format!("{:?} {} is killed", node.role, node.host.0));
            self.world.executor.kill(running.process);
        }
    }

    /// Starts what has ended by itself again, as an orchestrator does. Gives
    /// what must not have ended.
    pub fn tend(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        for place in 0..self.nodes.len() {
            let Some(ended) = self.node(place).running.as_ref().and_then(Running::ended) else {
                continue;
            };
            let host = self.node(place).host;
            self.world.trace.add(&format!("{} has ended: {ended:?}", host.0));
            if let Ended::Failed(reason) = ended {
                wrong.push(format!("the service on host {} ended: {reason}", host.0));
            }
            self.kill(place);
            self.launch(place);
        }
        wrong
    }
}

impl Running {
    fn ended(&self) -> Option<Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn variables(node: &Node, plan: &Plan) -> Vec<(String, String)> {
    let peers: Vec<String> =
        (1..=plan.servers).map(|host| HostId(host as u64).address(PORT)).collect();
    let mut all = vec![
        ("LISTEN_ADDRESS", node.host.address(PORT)),
        ("ADMIN_LISTEN_ADDRESS", node.host.address(ADMIN_PORT)),
        ("RABBITMQ_HOST", "broker".to_owned()),
        ("REPLICAS", node.replicas.to_string()),
        ("HEARTBEAT_INTERVAL", HEARTBEAT.to_owned()),
        ("HEARTBEAT_EXPIRY", "1250ms".to_owned()),
        ("SHUTDOWN_DELAY", "500ms".to_owned()),
    ];
    if plan.has_peers {
        all.push(("DATASERVER_PEERS", peers.join(",")));
    }
    if node.role == Role::DataServer {
        all.extend([
            ("STORAGE_ROOT", "/volume".to_owned()),
            ("INITIAL_MEMBERS", plan.servers.to_string()),
            ("REPAIR_DELAY", "5s".to_owned()),
            ("REPAIR_INTERVAL", "8s".to_owned()),
            ("SCRUB_INTERVAL", "20s".to_owned()),
        ]);
    }
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// How often it is looked whether a process has ended.
pub const TEND: Duration = Duration::from_millis(250);
