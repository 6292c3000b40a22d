//! An api without its ports, over members that a test plays itself: what it does
//! with answers that a real member gives only now and then.

use std::sync::Arc;
use std::time::Duration;

use holdfast_bus::{Bus, Inbox, Message};
use holdfast_coordinator::cluster::{Cluster, ClusterConfig, ClusterParts, Peers};
use holdfast_coordinator::data_servers::DataServers;
use holdfast_coordinator::locator::{Locator, LocatorConfig, LocatorParts};
use holdfast_coordinator::metrics::{ClusterMetrics, LocateMetrics, ObjectMetrics};
use holdfast_coordinator::objects::{Objects, ObjectsConfig};
use holdfast_core::node::{Address, Generation, NodeId};
use holdfast_core::roster::{Entry, MemberState, Roster};
use holdfast_core::wire::PROTOCOL_VERSION;
use holdfast_core::wire::heartbeat::{NodeReport, RepairReport, encode};
use holdfast_core::wire::locate::{BatchAnswer, BatchRequest};
use holdfast_http::client::{ClientLimits, HttpClient};
use holdfast_http::server::{ServerLimits, serve_filter};
use holdfast_runtime::{Listener, Runtime};
use holdfast_telemetry::metrics::Metrics;
use holdfast_telemetry::shutdown::Shutdown;
use http::StatusCode;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};

/// The member with this number.
pub(crate) const fn node(bits: u128) -> NodeId {
    NodeId::from_bits(bits)
}

/// Its entry in a roster.
pub(crate) fn entry(id: NodeId, address: &Address) -> Entry {
    Entry {
        id,
        epoch: 0,
        lost: false,
        state: MemberState::Active,
        generation: Generation(1),
        address: address.clone(),
        weight: 1,
        zone: None,
    }
}

/// What it says of itself.
pub(crate) fn heartbeat(id: NodeId, address: &Address, roster: &Roster) -> Message {
    let (body, headers) = encode(&NodeReport {
        node: id,
        generation: Generation(1),
        address: address.clone(),
        state: MemberState::Active,
        leaving: false,
        free_bytes: 1 << 30,
        total_bytes: 1 << 30,
        roster_digest: roster.digest(),
        founded: true,
        newcomers_seen: 0,
        sent_unix_millis: 0,
        mono_millis: 0,
        floor: None,
        replicas: roster.policy.replicas,
        write_quorum: roster.policy.write_quorum,
        repair: RepairReport::default(),
    });
    Message { body: body.into(), headers, ..Message::default() }
}

/// A locate answer of a member that has nothing.
pub(crate) fn no(
    id: NodeId,
    address: &Address,
    request: &BatchRequest,
    roster: &Roster,
) -> BatchAnswer {
    BatchAnswer {
        protocol: PROTOCOL_VERSION,
        id: request.id,
        node: id,
        generation: Generation(1),
        address: address.clone(),
        roster_digest: roster.digest(),
        mono_millis: 0,
        unix_millis: 0,
        found: Vec::new(),
        unknown: Vec::new(),
        floor: None,
        promised: Vec::new(),
        may_have_promised: Vec::new(),
        promised_before: None,
        late: false,
    }
}

/// A port of its own.
pub(crate) async fn listen(runtime: &Runtime) -> (Box<dyn Listener>, Address) {
    let listener = runtime.listen("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_address().expect("bound").parse().expect("an address");
    (listener, address)
}

/// Serves a member's internal paths; anything else is not there.
pub(crate) fn serve(
    runtime: &Runtime,
    listener: Box<dyn Listener>,
    paths: BoxedFilter<(Response,)>,
) {
    let nothing = warp::any().map(|| StatusCode::NOT_FOUND.into_response());
    let filter = paths.or(nothing).unify();
    let (limits, shutdown) = (ServerLimits::default(), Shutdown::new());
    runtime.spawn("member", serve_filter(runtime.clone(), listener, filter, limits, shutdown));
}

/// An api that knows `roster`, and waits until it has heard `members`.
pub(crate) async fn start_api(
    runtime: &Runtime,
    (bus, inbox): (Arc<dyn Bus>, Inbox),
    (roster, members): (Roster, &[NodeId]),
    locate_timeout: Duration,
    config: ObjectsConfig,
) -> (Cluster, Objects) {
    let metrics = Metrics::new("test").expect("fixed names");
    let data_servers = DataServers::new(HttpClient::new(runtime, ClientLimits::default()));
    let heartbeat_interval = Duration::from_secs(5);
    let (cluster, _task) = Cluster::start(ClusterParts {
        runtime: runtime.clone(),
        config: ClusterConfig {
            heartbeat_interval,
            heartbeat_expiry: Duration::from_secs(10),
            peers: Peers::default(),
            own: None,
        },
        roster,
        keeper: None,
        heartbeats: inbox.api_servers,
        health: bus.health(),
        data_servers: data_servers.clone(),
        metrics: ClusterMetrics::new(&metrics).expect("fixed names"),
    });
    let mut known = cluster.watch();
    let heard = known.wait_for(|snapshot| {
        let is_heard = |id: &NodeId| snapshot.view.member(*id).is_some_and(|it| it.stamp.is_some());
        members.iter().all(is_heard)
    });
    assert!(heard.await.is_ok(), "the task runs");
    let (locator, _task) = Locator::start(LocatorParts {
        runtime: runtime.clone(),
        config: LocatorConfig::new(locate_timeout, heartbeat_interval),
        cluster: cluster.clone(),
        bus,
        replies: inbox.replies,
        data_servers: data_servers.clone(),
        metrics: LocateMetrics::new(&metrics).expect("fixed names"),
    });
    let counts = ObjectMetrics::new(&metrics).expect("fixed names");
    let objects =
        Objects::new(runtime.clone(), config, cluster.clone(), locator, data_servers, counts);
    (cluster, objects)
}
