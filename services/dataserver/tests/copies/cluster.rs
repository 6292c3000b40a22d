//! Real data servers in one process, on a broker in memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use holdfast_bus::{MemoryBroker, MemoryBrokerOptions};
use holdfast_coordinator::data_servers::{DataServers, WriteRequest};
use holdfast_coordinator::service::{BusConnection, Ports, StartError};
use holdfast_core::name::{Key, ObjectName};
use holdfast_core::node::{Address, Generation, NodeId};
use holdfast_core::object::{Digest, Kind, Metadata, Stat};
use holdfast_core::stamp::Stamp;
use holdfast_core::version::Version;
use holdfast_core::wire::PROTOCOL_VERSION;
use holdfast_core::wire::locate::{BatchRequest, MAX_BATCH_NAMES};
use holdfast_dataserver::config::DataServerConfig;
use holdfast_dataserver::server;
use holdfast_http::client::{ClientLimits, HttpClient};
use holdfast_runtime::Runtime;
use holdfast_telemetry::metrics::Metrics;
use holdfast_telemetry::shutdown::Shutdown;
use holdfast_testkit::proxy::Proxy;
use holdfast_testkit::watchdog::watch_directory;
use holdfast_testkit::{client, ports, wait};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const LIMIT: Duration = Duration::from_secs(5);

/// What these tests wait for takes seconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// `RESERVE_BYTES`, and one that leaves no room on any disk.
const RESERVE: &str = "1MiB";
const WHOLE_DISK: &str = "8000000TiB";

/// So the window is 600 ms.
const INTERVAL: &str = "100ms";

/// One data server.
pub(crate) struct Member {
    pub(crate) root: PathBuf,
    pub(crate) node: NodeId,
    pub(crate) ports: Ports,
    /// Through which others reach it.
    pub(crate) link: Option<Proxy>,
    shutdown: Shutdown,
    run: JoinHandle<Result<(), StartError>>,
}

impl Member {
    /// Ends it, and gives how it ended.
    pub(crate) async fn stop(&mut self) -> Result<(), StartError> {
        self.shutdown.force();
        self.ended().await
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) -> Result<(), StartError> {
        wait::within("a data server ends", &mut self.run).await.expect("no panic")
    }

    pub(crate) fn is_running(&self) -> bool {
        !self.run.is_finished()
    }

    /// What it says of its repair.
    async fn repair(&self) -> String {
        let metrics = client::get(&self.ports.admin, "/metrics").await.expect("an answer").text();
        let of_repair = metrics.lines().filter(|line| line.starts_with("holdfast_repair"));
        let lines: Vec<&str> = of_repair.filter(|line| !line.contains("bucket")).collect();
        format!("\n{}:\n{}", self.node, lines.join("\n"))
    }

    /// What it has of these names.
    pub(crate) async fn holds(&self, keys: &[String]) -> BTreeMap<String, Stat> {
        let mut held = BTreeMap::new();
        for keys in keys.chunks(MAX_BATCH_NAMES) {
            held.append(&mut self.holds_of_batch(keys).await);
        }
        held
    }

    async fn holds_of_batch(&self, keys: &[String]) -> BTreeMap<String, Stat> {
        let request = BatchRequest {
            protocol: PROTOCOL_VERSION,
            id: 1,
            names: keys.iter().map(|key| name(key)).collect(),
            trace: None,
            traces: BTreeMap::new(),
            stamps: BTreeMap::new(),
            promises: BTreeMap::new(),
        };
        let (servers, address) = way_to(self);
        let body = serde_json::to_vec(&request).expect("plain").into();
        let answer = servers.locate(&address, self.node, body, LIMIT).await.expect("an answer");
        let found = answer.found.into_iter();
        found.map(|(index, stat)| (keys[index as usize].clone(), stat)).collect()
    }
}

pub(crate) fn name(key: &str) -> ObjectName {
    ObjectName::seed(Key::new(key).expect("short"))
}

/// Gives one member alone a version without content, as a coordinator does that
/// dies then.
pub(crate) async fn give(member: &Member, key: &str, kind: Kind, version: Version) {
    // The digest of nothing.
    let write = write_request(member, key, kind, version, Digest(0)).await;
    let (servers, address) = way_to(member);
    let written = servers.write(&address, member.node, &write, Bytes::new(), LIMIT).await;
    written.expect("it is taken");
}

/// The same with content of any size.
pub(crate) async fn give_large(member: &Member, key: &str, version: Version, content: Bytes) {
    let (servers, address) = way_to(member);
    let (size_bytes, body) = (content.len() as u64, stream::iter([Ok(content)]));
    let upload = servers.stage(&address, member.node, Some(size_bytes), body).await;
    let upload = upload.expect("there is room");
    let digest = upload.received.digest;
    let write = write_request(member, key, Kind::Object, version, digest).await;
    servers.commit(&upload, &write, LIMIT).await.expect("it is taken");
}

fn way_to(member: &Member) -> (DataServers, Address) {
    let servers = DataServers::new(HttpClient::new(&Runtime::real(), ClientLimits::default()));
    (servers, member.ports.address.parse().expect("an address"))
}

async fn write_request(
    member: &Member,
    key: &str,
    kind: Kind,
    version: Version,
    digest: Digest,
) -> WriteRequest {
    let state = client::get(&member.ports.address, "/internal/v1/state").await.expect("an answer");
    let state = state.json();
    let number = |field: &str| state[field].as_u64().expect("a number");
    let generation = Generation(number("generation"));
    let stamp = Some(Stamp { generation, mono_millis: number("mono_millis") });
    WriteRequest { name: name(key), version, kind, metadata: Metadata::default(), digest, stamp }
}

/// Data servers that know each other.
pub(crate) struct Cluster {
    broker: MemoryBroker,
    directory: PathBuf,
    started: usize,
    replicas: u32,
    write_quorum: Option<u32>,
    /// Whether there is a link between each member and the others.
    has_links: bool,
    /// `REPAIR_DELAY` and `REPAIR_INTERVAL`.
    repair: (&'static str, &'static str),
    /// `RESERVE_BYTES` of what is started next.
    reserve: &'static str,
    pub(crate) members: Vec<Member>,
}

impl Cluster {
    /// Founds a cluster and waits until every member takes data.
    pub(crate) async fn start(count: usize, replicas: u32) -> Self {
        Self::start_with(count, replicas, ("1500ms", "4s"), false).await
    }

    /// The same, where nothing happens but for a cause within the test.
    pub(crate) async fn start_patient(count: usize, replicas: u32) -> Self {
        Self::start_with(count, replicas, ("10m", "1h"), false).await
    }

    /// The same with a link between each member and the others.
    pub(crate) async fn start_with_links(count: usize, replicas: u32) -> Self {
        Self::start_with(count, replicas, ("10m", "1h"), true).await
    }

    /// From now on each connection to a member passes so many bytes in a second.
    pub(crate) fn slow_down(&self, rate_bytes: u64) {
        self.members.iter().filter_map(|m| m.link.as_ref()).for_each(|l| l.set_rate(rate_bytes));
    }

    async fn start_with(
        count: usize,
        replicas: u32,
        repair: (&'static str, &'static str),
        has_links: bool,
    ) -> Self {
        let unique = Runtime::real().random_u128();
        let directory = std::env::temp_dir().join(format!("holdfast-copies-{unique:032x}"));
        // Members that are told to end as this is dropped may still write to it then.
        watch_directory(&directory);
        let broker = MemoryBroker::new(Runtime::real(), MemoryBrokerOptions::default());
        let members = Vec::new();
        let mut cluster = Self {
            broker,
            directory,
            started: 0,
            replicas,
            write_quorum: None,
            has_links,
            repair,
            reserve: RESERVE,
            members,
        };
        for _ in 0..count {
            cluster.add(count).await;
        }
        cluster.all_active(count).await;
        cluster
    }

    /// Starts one more; it has joined when [`Self::all_active`] says so.
    pub(crate) async fn add(&mut self, initial_members: usize) {
        let root = self.directory.join(self.started.to_string());
        self.started += 1;
        self.run(root, initial_members).await;
    }

    /// From now on data servers start with another `REPLICAS`; all are started
    /// again, one after the other.
    pub(crate) async fn ask_for(&mut self, replicas: u32) {
        self.ask_for_quorum(replicas, None).await;
    }

    /// The same with a `WRITE_QUORUM`.
    pub(crate) async fn ask_for_quorum(&mut self, replicas: u32, write_quorum: Option<u32>) {
        (self.replicas, self.write_quorum) = (replicas, write_quorum);
        let count = self.members.len();
        for _ in 0..count {
            let mut member = self.members.remove(0);
            member.stop().await.expect("an orderly end");
            self.restart(member.root).await;
            self.all_active(count).await;
        }
    }

    /// Waits until every member knows of this policy: copies, W of writes, W of
    /// reads.
    pub(crate) async fn policy(&self, expected: [u64; 3]) {
        let mut seen = Vec::new();
        let agreed = tokio::time::timeout(PATIENCE, async {
            loop {
                seen.clear();
                for member in self.running() {
                    let listed = client::get(&member.ports.admin, "/admin/dataservers").await;
                    let policy = listed.expect("an answer").json()["policy"].clone();
                    let names = ["replicas", "write_quorum", "read_quorum"];
                    seen.push(names.map(|name| policy[name].as_u64().expect("a number")));
                }
                if seen.iter().all(|policy| *policy == expected) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let agreed = agreed.await.is_ok();
        assert!(agreed, "not {expected:?} but {seen:?}");
    }

    /// Starts the data server of this volume again.
    pub(crate) async fn restart(&mut self, root: PathBuf) {
        self.run(root, 1).await;
    }

    /// Starts the data server of this volume again, on a disk without room for
    /// payloads, or with.
    pub(crate) async fn restart_with_room(&mut self, root: PathBuf, has_room: bool) {
        self.reserve = if has_room { RESERVE } else { WHOLE_DISK };
        self.restart(root).await;
        self.reserve = RESERVE;
    }

    /// Drains one member through another one, until it has retired, and stops it.
    pub(crate) async fn drain(&mut self, place: usize, through: usize) -> Member {
        let (node, other) = (self.members[place].node, &self.members[through]);
        let path = format!("/admin/dataservers/{node}/drain");
        let told = client::request(&other.ports.admin, "POST", &path, &[], b"").await;
        let told = told.expect("an answer");
        assert_eq!(told.status, 200, "{}", told.text());
        assert_eq!(told.json()["state"], "draining");
        wait::until_within(PATIENCE, "the drained member has retired", async || {
            (known(other, node).await["state"] == "retired").then_some(())
        })
        .await;
        assert!(self.members[place].is_running(), "it waits to be removed");
        let ready = client::get(&self.members[place].ports.admin, "/readyz").await;
        assert_eq!(ready.expect("an answer").status, 503);
        let mut drained = self.members.remove(place);
        drained.stop().await.expect("an orderly end");
        drained
    }

    async fn run(&mut self, root: PathBuf, initial_members: usize) {
        let (listen, link) = match self.has_links {
            true => {
                let listen = format!("127.0.0.1:{}", ports::free());
                let link = Proxy::start(listen.clone()).await;
                (listen, Some(link))
            }
            false => ("127.0.0.1:0".to_owned(), None),
        };
        let reached_at = link.as_ref().map_or(String::new(), |link| link.address().to_owned());
        let variables = [
            ("LISTEN_ADDRESS", listen),
            ("ADVERTISE_ADDRESS", reached_at),
            ("ADMIN_LISTEN_ADDRESS", "127.0.0.1:0".to_owned()),
            ("RABBITMQ_HOST", "not-asked".to_owned()),
            ("STORAGE_ROOT", root.display().to_string()),
            ("RESERVE_BYTES", self.reserve.to_owned()),
            ("INITIAL_MEMBERS", initial_members.to_string()),
            ("REPLICAS", self.replicas.to_string()),
            ("WRITE_QUORUM", self.write_quorum.map_or(String::new(), |w| w.to_string())),
            ("HEARTBEAT_INTERVAL", INTERVAL.to_owned()),
            ("HEARTBEAT_EXPIRY", "500ms".to_owned()),
            ("REPAIR_DELAY", self.repair.0.to_owned()),
            ("REPAIR_INTERVAL", self.repair.1.to_owned()),
            ("SHUTDOWN_DELAY", "0s".to_owned()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        let config = DataServerConfig::from_variables(variables.into_iter()).expect("right");
        let (bus, inbox) = self.broker.connect(&server::TOPICS);
        let connection = BusConnection { bus, inbox };
        let shutdown = Shutdown::new();
        let (listening, ports) = oneshot::channel();
        let metrics = Metrics::new("test").expect("new");
        let run =
            server::run(Runtime::real(), config, metrics, connection, shutdown.clone(), listening);
        let run = tokio::spawn(run);
        let ports = wait::within("it listens", ports).await.expect("it has started");
        let state = client::get(&ports.address, "/internal/v1/state").await.expect("an answer");
        let node = state.json()["node"].as_str().expect("text").parse().expect("an id");
        self.members.push(Member { root, node, ports, link, shutdown, run });
    }

    /// Waits until every member sees so many active ones.
    pub(crate) async fn all_active(&self, count: usize) {
        wait::until_within(PATIENCE, "all members are active", async || {
            for member in self.running() {
                let known = dataservers(member).await;
                let active = known.iter().filter(|one| one["takes_data"] == true).count();
                if active != count {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.is_running())
    }

    /// Writes objects through one member; the keys.
    pub(crate) async fn put(&self, count: usize) -> Vec<String> {
        let member = self.running().next().expect("one runs");
        let keys: Vec<String> = (0..count).map(|number| format!("key-{number}")).collect();
        for key in &keys {
            wait::until_within(PATIENCE, "a write is taken", async || {
                let path = format!("/objects/{key}");
                let body = content(key);
                let answer = client::put(&member.ports.address, &path, &body).await.ok()?;
                (answer.status == 200).then_some(())
            })
            .await;
        }
        keys
    }

    /// Waits until each of these names has exactly so many copies.
    pub(crate) async fn copies(&self, keys: &[String], copies: usize, what: &str) {
        let mut seen = String::new();
        let held = tokio::time::timeout(PATIENCE, async {
            loop {
                let mut count: BTreeMap<&str, usize> =
                    keys.iter().map(|key| (key.as_str(), 0)).collect();
                let mut by_member = Vec::new();
                for member in self.running() {
                    let held = member.holds(keys).await;
                    by_member.push((member.node, held.len()));
                    for key in held.keys() {
                        *count
                            .entry(keys.iter().find(|k| *k == key).expect("asked"))
                            .or_default() += 1;
                    }
                }
                if count.values().all(|count| *count == copies) {
                    return;
                }
                seen = format!("{by_member:?} {count:?}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        if held.await.is_err() {
            for member in self.running() {
                seen.push_str(&member.repair().await);
            }
            panic!("{what}: not {copies} copies of each: {seen}");
        }
    }

    /// Reads every object through every member.
    pub(crate) async fn all_read(&self, keys: &[String]) {
        for member in self.running() {
            for key in keys {
                let path = format!("/objects/{key}");
                let answer = wait::until_within(PATIENCE, "an object is read", async || {
                    let answer = client::get(&member.ports.address, &path).await.ok()?;
                    (answer.status != 503).then_some(answer)
                })
                .await;
                assert_eq!((answer.status, answer.body), (200, content(key)), "{key}");
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &self.members {
            member.shutdown.force();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// What this object holds.
pub(crate) fn content(key: &str) -> Vec<u8> {
    // Every tenth has a file of its own.
    let times = if key.ends_with('7') { 10_000 } else { 1 };
    format!("the content of {key}").repeat(times).into_bytes()
}

/// The members as this one knows them.
pub(crate) async fn dataservers(member: &Member) -> Vec<Value> {
    let listed = client::get(&member.ports.admin, "/admin/dataservers").await.expect("an answer");
    listed.json()["dataservers"].as_array().expect("a list").clone()
}

/// What this member knows of another.
pub(crate) async fn known(member: &Member, node: NodeId) -> Value {
    let id = node.to_string();
    dataservers(member).await.into_iter().find(|one| one["node"] == *id).unwrap_or_default()
}
