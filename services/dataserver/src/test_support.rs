//! What the unit tests of several rooms share.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use holdfast_bus::{Bus, MemoryBroker, MemoryBrokerOptions, Topic};
use holdfast_coordinator::cluster::{Cluster, ClusterConfig, ClusterParts, Peers};
use holdfast_coordinator::data_servers::DataServers;
use holdfast_coordinator::metrics::ClusterMetrics;
use holdfast_core::name::{Key, ObjectName};
use holdfast_core::node::{Address, Generation, NodeId};
use holdfast_core::object::{Metadata, Stat};
use holdfast_core::policy::{Policy, Wanted};
use holdfast_core::roster::{Entry, MemberState, Roster};
use holdfast_core::version::Version;
use holdfast_http::client::{ClientLimits, HttpClient};
use holdfast_runtime::{BoxFuture, Clock, Runtime};
use holdfast_store::{
    Held, ListPage, ListRequest, MemoryStore, Payload, PutOutcome, Staged, Staging,
    Stamp as Content, Store, StoreError, Usage, WalkPage,
};
use holdfast_telemetry::metrics::Metrics;
use tokio::sync::Semaphore;

use crate::floor::Floor;
use crate::gate::{Gate, GateParts};
use crate::list::{Lister, ListerParts};
use crate::locate::Answerer;
use crate::metrics::DataServerMetrics;
use crate::report::{Own, Reporter, ReporterParts};

/// The run that the tests are in.
pub(crate) const OWN: Generation = Generation(7);

/// So the window is a minute.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);

/// Wall clock of the tests, in Unix milliseconds.
pub(crate) const WALL_MILLIS: u64 = 1_000_000;

/// Who the tests are.
pub(crate) const OWN_NODE: NodeId = NodeId::from_bits(100);

pub(crate) fn own() -> Own {
    Own {
        node: OWN_NODE,
        generation: OWN,
        address: "127.0.0.1:1".parse().expect("an address"),
        weight: 1,
        zone: None,
    }
}

pub(crate) fn entry(id: NodeId, state: MemberState, address: &Address) -> Entry {
    let generation = if id == OWN_NODE { OWN } else { Generation(1) };
    let address = address.clone();
    Entry { id, epoch: 0, lost: false, state, generation, address, weight: 1, zone: None }
}

pub(crate) fn data_servers() -> DataServers {
    DataServers::new(HttpClient::new(&Runtime::real(), ClientLimits::default()))
}

/// What is known of the cluster: this roster.
pub(crate) async fn cluster(runtime: &Runtime, roster: Roster) -> Cluster {
    let broker = MemoryBroker::new(runtime.clone(), MemoryBrokerOptions::default());
    let (bus, inbox) = broker.connect(&[Topic::ApiServers]);
    let (cluster, _task) = Cluster::start(ClusterParts {
        runtime: runtime.clone(),
        config: ClusterConfig {
            heartbeat_interval: INTERVAL,
            heartbeat_expiry: INTERVAL * 2,
            peers: Peers::default(),
            own: Some(OWN_NODE),
        },
        roster,
        keeper: None,
        heartbeats: inbox.api_servers,
        health: bus.health(),
        data_servers: data_servers(),
        metrics: ClusterMetrics::new(&Metrics::new("test").expect("fixed names"))
            .expect("fixed names"),
    });
    let mut known = cluster.watch();
    let published = known.wait_for(|snapshot| snapshot.view.founded).await;
    assert!(published.is_ok(), "the task runs");
    cluster
}

/// Reports for a store in memory.
pub(crate) fn reporter(rig: &Rig, cluster: Cluster) -> Arc<Reporter> {
    let store = Arc::new(rig.store.clone());
    Arc::new(Reporter::new(ReporterParts {
        runtime: rig.runtime.clone(),
        own: own(),
        cluster,
        store,
        floor: rig.floor.clone(),
        reserve_bytes: 0,
        wanted: Wanted::copies(1),
        missed_after: INTERVAL,
    }))
}

/// A cluster of this data server alone.
pub(crate) fn roster_of_own() -> Roster {
    let entry = entry(OWN_NODE, MemberState::Active, &own().address);
    Roster::found(NodeId::from_bits(9), Policy::default(), entry)
}

/// Answers from a store in memory.
pub(crate) fn answerer(rig: &Rig, cluster: Cluster) -> Answerer {
    let broker = MemoryBroker::new(rig.runtime.clone(), MemoryBrokerOptions::default());
    let (bus, _inbox) = broker.connect(&Topic::ALL);
    let store = Arc::new(rig.store.clone());
    let (runtime, gate, metrics) = (rig.runtime.clone(), rig.gate.clone(), rig.metrics.clone());
    Answerer::new(runtime, own(), store, gate, cluster, bus, metrics)
}

/// Lists a store in memory.
pub(crate) fn lister(rig: &Rig, cluster: Cluster) -> Lister {
    Lister::new(ListerParts {
        runtime: rig.runtime.clone(),
        own: own(),
        store: Arc::new(rig.store.clone()),
        gate: rig.gate.clone(),
        cluster,
        late: rig.metrics.locates_late.clone(),
    })
}

/// A clock that stands still until it is moved. Sleeping takes real time.
#[derive(Debug, Default)]
pub(crate) struct ManualClock(Mutex<Duration>);

impl ManualClock {
    pub(crate) fn advance(&self, by: Duration) {
        *self.0.lock().expect("no panic") += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        *self.0.lock().expect("no panic")
    }

    fn unix_millis(&self) -> u64 {
        WALL_MILLIS
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Runtime::real().sleep(duration)
    }
}

/// A directory of its own, removed in the end.
#[derive(Debug)]
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir();
        let path = path.join(format!("holdfast-unit-{:032x}", Runtime::real().random_u128()));
        Runtime::real().files().create_directories(&path).expect("writable");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What stays is in the temporary directory, where nobody minds.
        let _ = Runtime::real().files().remove_directory_all(&self.0);
    }
}

pub(crate) fn name(key: &str) -> ObjectName {
    ObjectName::seed(Key::new(key).expect("short"))
}

/// Versions by number, at the wall clock of the tests.
pub(crate) fn version(number: u64) -> Version {
    Version::from_parts((WALL_MILLIS << 16) + number, 1)
}

pub(crate) fn content(number: u64) -> Content {
    Content { version: version(number), metadata: Metadata::default() }
}

pub(crate) fn metrics() -> DataServerMetrics {
    DataServerMetrics::new(&Metrics::new("test").expect("fixed names")).expect("fixed names")
}

/// A gate over a store in memory, under a clock that is moved by hand.
pub(crate) struct Rig {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) runtime: Runtime,
    pub(crate) store: SlowStore,
    pub(crate) gate: Gate,
    pub(crate) floor: Floor,
    pub(crate) metrics: DataServerMetrics,
    pub(crate) directory: TempDir,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with_interval(INTERVAL).await
    }

    pub(crate) async fn with_interval(heartbeat_interval: Duration) -> Self {
        let clock = Arc::new(ManualClock::default());
        clock.advance(Duration::from_secs(1_000));
        let runtime = Runtime::real().with_clock(Arc::clone(&clock) as _);
        let (directory, store, metrics) = (TempDir::new(), SlowStore::default(), metrics());
        let floor = Floor::open(&runtime, directory.path()).await.expect("an empty directory");
        let gate = Gate::new(GateParts {
            runtime: runtime.clone(),
            store: Arc::new(store.clone()),
            generation: OWN,
            heartbeat_interval,
            floor: floor.clone(),
            metrics: metrics.clone(),
        });
        Self { clock, runtime, store, floor, gate, metrics, directory }
    }

    /// The same volume in its next run.
    pub(crate) async fn restarted(self) -> Self {
        let floor = Floor::open(&self.runtime, self.directory.path()).await.expect("sound");
        let gate = Gate::new(GateParts {
            runtime: self.runtime.clone(),
            store: Arc::new(self.store.clone()),
            generation: OWN,
            heartbeat_interval: INTERVAL,
            floor: floor.clone(),
            metrics: self.metrics.clone(),
        });
        Self { floor, gate, ..self }
    }

    pub(crate) async fn stage(&self, payload: &'static [u8]) -> Box<dyn Staged> {
        let mut staging = self.store.stage(None).await.expect("room");
        staging.write(payload.into()).await.expect("room");
        staging.finish().await.expect("room")
    }

    pub(crate) async fn stat(&self, key: &str) -> Option<Stat> {
        self.store.stat(&[name(key)]).await.remove(0).expect("memory")
    }
}

/// A store in memory whose commits can be held up, after they were let in.
#[derive(Clone, Debug)]
pub(crate) struct SlowStore {
    pub(crate) memory: MemoryStore,
    /// One permit for each commit that may go on.
    pub(crate) may_commit: Arc<Semaphore>,
    /// Commits that have begun.
    begun: Arc<AtomicU64>,
}

impl Default for SlowStore {
    fn default() -> Self {
        let may_commit = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        Self { memory: MemoryStore::new(), may_commit, begun: Arc::default() }
    }
}

impl SlowStore {
    /// From now on commits wait for a permit.
    pub(crate) fn hold(&self) {
        self.may_commit.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(crate) async fn await_commit(&self) {
        while self.begun.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl Store for SlowStore {
    async fn stage(&self, size_bytes: Option<u64>) -> Result<Box<dyn Staging>, StoreError> {
        self.memory.stage(size_bytes).await
    }

    async fn commit(
        &self,
        name: ObjectName,
        stamp: Content,
        staged: Box<dyn Staged>,
    ) -> Result<PutOutcome, StoreError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.may_commit.acquire().await.expect("never closed").forget();
        // Between what was decided and what is done anything may run.
        tokio::task::yield_now().await;
        self.memory.commit(name, stamp, staged).await
    }

    async fn delete(&self, name: ObjectName, stamp: Content) -> Result<PutOutcome, StoreError> {
        self.memory.delete(name, stamp).await
    }

    async fn forget(&self, name: &ObjectName, version: Version) -> Result<bool, StoreError> {
        self.memory.forget(name, version).await
    }

    async fn stat(&self, names: &[ObjectName]) -> Vec<Result<Option<Stat>, StoreError>> {
        self.memory.stat(names).await
    }

    async fn inspect(&self, names: &[ObjectName]) -> Vec<Result<Option<Held>, StoreError>> {
        self.memory.inspect(names).await
    }

    async fn read(
        &self,
        name: &ObjectName,
        version: Option<Version>,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<Payload, StoreError> {
        self.memory.read(name, version, range).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, StoreError> {
        self.memory.list(request).await
    }

    async fn walk(&self, after: Option<&ObjectName>, limit: usize) -> Result<WalkPage, StoreError> {
        self.memory.walk(after, limit).await
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        self.memory.usage().await
    }

    fn poisoned(&self) -> Option<String> {
        self.memory.poisoned()
    }
}
