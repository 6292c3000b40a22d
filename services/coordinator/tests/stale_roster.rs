//! An api that has not heard of a member asks the old ones, and all say "no".
//! Their answers carry the digest of a roster that it does not know, which it
//! must resolve before it concludes anything.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_bus::{Bus, Inbox, MemoryBroker, MemoryBrokerOptions, Message, Topic};
use holdfast_coordinator::cluster::{Cluster, ClusterConfig, ClusterParts, Peers};
use holdfast_coordinator::data_servers::DataServers;
use holdfast_coordinator::locator::{Locator, LocatorConfig, LocatorParts};
use holdfast_coordinator::metrics::{ClusterMetrics, LocateMetrics};
use holdfast_core::locate::Verdict;
use holdfast_core::name::{Key, ObjectName};
use holdfast_core::node::{Address, Generation, NodeId};
use holdfast_core::object::{Digest, Kind, Metadata, Stat};
use holdfast_core::policy::Policy;
use holdfast_core::roster::{Entry, MemberState, Roster};
use holdfast_core::version::Version;
use holdfast_core::wire::PROTOCOL_VERSION;
use holdfast_core::wire::heartbeat::RepairReport;
use holdfast_core::wire::heartbeat::{NodeReport, encode};
use holdfast_core::wire::locate::{BatchAnswer, BatchRequest};
use holdfast_http::client::{ClientLimits, HttpClient};
use holdfast_http::server::{ServerLimits, serve_filter};
use holdfast_runtime::Runtime;
use holdfast_telemetry::metrics::Metrics;
use holdfast_telemetry::shutdown::Shutdown;
use warp::Filter;
use warp::reply::Reply;

const OLD: NodeId = node(1);
const NEW: NodeId = node(2);

const fn node(bits: u128) -> NodeId {
    NodeId::from_bits(bits)
}

fn entry(id: NodeId, address: &Address) -> Entry {
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

fn answer(id: NodeId, address: &Address, request: &BatchRequest, roster: &Roster) -> BatchAnswer {
    let stat = Stat {
        version: Version::from_parts(5, 5),
        kind: Kind::Object,
        size_bytes: 1,
        digest: Digest(0),
        metadata: Metadata::default(),
    };
    BatchAnswer {
        protocol: PROTOCOL_VERSION,
        id: request.id,
        node: id,
        generation: Generation(1),
        address: address.clone(),
        roster_digest: roster.digest(),
        mono_millis: 0,
        unix_millis: 0,
        found: if id == NEW { vec![(0, stat)] } else { Vec::new() },
        unknown: Vec::new(),
        floor: None,
        promised: Vec::new(),
        late: false,
    }
}

/// A member's internal paths: its roster, if it tells it, and its locate.
async fn serve_member(
    runtime: &Runtime,
    id: NodeId,
) -> (Address, Arc<std::sync::Mutex<Option<Roster>>>) {
    let listener = runtime.listen("127.0.0.1:0").await.expect("a free port");
    let address: Address = listener.local_address().expect("bound").parse().expect("an address");
    let told: Arc<std::sync::Mutex<Option<Roster>>> = Arc::default();
    let (here, for_roster, for_locate) = (address.clone(), Arc::clone(&told), Arc::clone(&told));
    let roster = warp::path!("internal" / "v1" / "roster").map(move || {
        match &*for_roster.lock().expect("no panic") {
            Some(roster) => warp::reply::json(roster).into_response(),
            None => http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    });
    let locate = warp::path!("internal" / "v1" / "locate").and(warp::body::bytes()).map(
        move |body: Bytes| {
            let request = BatchRequest::decode(&body).expect("a batch");
            let roster = for_locate.lock().expect("no panic").clone().unwrap_or_default();
            warp::reply::json(&answer(id, &here, &request, &roster)).into_response()
        },
    );
    let nothing = warp::any().map(|| http::StatusCode::NOT_FOUND.into_response());
    let filter = roster.or(locate).unify().or(nothing).unify();
    let (limits, shutdown) = (ServerLimits::default(), Shutdown::new());
    runtime.spawn("member", serve_filter(runtime.clone(), listener, filter, limits, shutdown));
    (address, told)
}

/// The old member says "no" to every batch, and knows `roster`.
fn answer_no(
    runtime: &Runtime,
    bus: Arc<dyn Bus>,
    mut inbox: Inbox,
    address: Address,
    roster: Roster,
) {
    runtime.spawn("old-member", async move {
        while let Some(message) = inbox.locate.recv().await {
            let request = BatchRequest::decode(&message.body).expect("a batch");
            let body = Bytes::from(answer(OLD, &address, &request, &roster).encode());
            let reply =
                Message { body, correlation_id: message.correlation_id, ..Message::default() };
            bus.reply(&message.reply_to.expect("an answer is wanted"), reply).await.expect("sent");
        }
    });
}

fn heartbeat(address: &Address, roster: &Roster) -> Message {
    let (body, headers) = encode(&NodeReport {
        node: OLD,
        generation: Generation(1),
        address: address.clone(),
        state: MemberState::Active,
        leaving: false,
        free_bytes: 1,
        total_bytes: 1,
        roster_digest: roster.digest(),
        founded: true,
        newcomers_seen: 0,
        sent_unix_millis: 0,
        mono_millis: 0,
        replicas: 1,
        write_quorum: 1,
        repair: RepairReport::default(),
    });
    Message { body: body.into(), headers, ..Message::default() }
}

/// Looks a name up that only the new member has, through an api that knows only
/// the old one. `tells` says whether the old member gives its roster away.
async fn locate_through_a_stale_api(tells: bool) -> holdfast_core::locate::Located {
    let runtime = Runtime::real();
    let (old_address, old_roster) = serve_member(&runtime, OLD).await;
    let (new_address, new_roster) = serve_member(&runtime, NEW).await;
    let stale = Roster::found(node(9), Policy::default(), entry(OLD, &old_address));
    let mut current = stale.clone();
    current.apply_entry(&entry(NEW, &new_address));
    *new_roster.lock().expect("no panic") = Some(current.clone());
    if tells {
        *old_roster.lock().expect("no panic") = Some(current.clone());
    }
    let broker = MemoryBroker::new(runtime.clone(), MemoryBrokerOptions::default());
    let (old_bus, old_inbox) = broker.connect(&Topic::ALL);
    let (bus, inbox) = broker.connect(&[Topic::ApiServers]);
    // The heartbeat is from before the join; only the answers tell of it.
    old_bus.publish(Topic::ApiServers, heartbeat(&old_address, &stale)).await.expect("sent");
    answer_no(&runtime, old_bus, old_inbox, old_address, current);
    let metrics = Metrics::new("test").expect("fixed names");
    let data_servers = DataServers::new(HttpClient::new(&runtime, ClientLimits::default()));
    let (cluster, _task) = Cluster::start(ClusterParts {
        runtime: runtime.clone(),
        config: ClusterConfig {
            heartbeat_interval: Duration::from_secs(5),
            heartbeat_expiry: Duration::from_secs(10),
            peers: Peers::default(),
            own: None,
        },
        roster: stale,
        keeper: None,
        heartbeats: inbox.api_servers,
        health: bus.health(),
        data_servers: data_servers.clone(),
        metrics: ClusterMetrics::new(&metrics).expect("fixed names"),
    });
    let (locator, _task) = Locator::start(LocatorParts {
        runtime,
        config: LocatorConfig::new(Duration::from_secs(1), Duration::from_secs(5)),
        cluster,
        bus,
        replies: inbox.replies,
        data_servers,
        metrics: LocateMetrics::new(&metrics).expect("fixed names"),
    });
    let name = ObjectName::seed(Key::new("k").expect("short"));
    locator.locate(&name).await.expect("an outcome")
}

#[tokio::test]
async fn an_unknown_roster_is_fetched_before_anything_is_concluded() {
    let located = locate_through_a_stale_api(true).await;
    let found = matches!(located.verdict(), Verdict::Found(replica) if replica.node == NEW);
    assert!(found, "{located:?}");
}

#[tokio::test]
async fn an_answer_whose_roster_stays_unknown_proves_nothing() {
    let located = locate_through_a_stale_api(false).await;
    assert_eq!(located.verdict(), Verdict::Incomplete(&[OLD]), "{located:?}");
}
