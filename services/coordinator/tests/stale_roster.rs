//! An api that has not heard of a member asks the old ones, for a name or for a
//! page of a list, and all say "no".
//! Their answers carry the digest of a roster that it does not know, which it
//! must resolve before it concludes anything.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_bus::{Bus, Inbox, MemoryBroker, MemoryBrokerOptions, Message, Topic};
use holdfast_coordinator::cluster::{Cluster, ClusterConfig, ClusterParts, Peers};
use holdfast_coordinator::data_servers::DataServers;
use holdfast_coordinator::error::ObjectError;
use holdfast_coordinator::locator::{Locator, LocatorConfig, LocatorParts};
use holdfast_coordinator::metrics::{ClusterMetrics, LocateMetrics, ObjectMetrics};
use holdfast_coordinator::objects::{ListPage, ListQuery, Objects, ObjectsConfig};
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
use holdfast_core::wire::list::{ListAnswer, ListEntry, ListRequest};
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

fn stat() -> Stat {
    Stat {
        version: Version::from_parts(5, 5),
        kind: Kind::Object,
        size_bytes: 1,
        digest: Digest(0),
        metadata: Metadata::default(),
    }
}

fn key() -> Key {
    Key::new("k").expect("short")
}

/// A member that was not heard yet is asked without a stamp, and says so once.
fn page(id: NodeId, address: &Address, request: &ListRequest, roster: &Roster) -> ListAnswer {
    let entries = if id == NEW { vec![ListEntry::new(key(), &stat())] } else { Vec::new() };
    let late = request.stamp.is_none();
    ListAnswer {
        node: id,
        generation: Generation(1),
        address: address.clone(),
        roster_digest: roster.digest(),
        mono_millis: 0,
        entries: if late { Vec::new() } else { entries },
        more: false,
        unknown: false,
        late,
    }
}

fn answer(id: NodeId, address: &Address, request: &BatchRequest, roster: &Roster) -> BatchAnswer {
    BatchAnswer {
        protocol: PROTOCOL_VERSION,
        id: request.id,
        node: id,
        generation: Generation(1),
        address: address.clone(),
        roster_digest: roster.digest(),
        mono_millis: 0,
        unix_millis: 0,
        found: if id == NEW { vec![(0, stat())] } else { Vec::new() },
        unknown: Vec::new(),
        floor: None,
        promised: Vec::new(),
        may_have_promised: Vec::new(),
        promised_before: None,
        late: false,
    }
}

/// A member's roster, and whether it tells more of it than its digest.
#[derive(Default)]
struct Told {
    roster: Roster,
    tells: bool,
}

/// A member's internal paths: its roster, if it tells it, its locate and its
/// list.
async fn serve_member(runtime: &Runtime, id: NodeId) -> (Address, Arc<std::sync::Mutex<Told>>) {
    let listener = runtime.listen("127.0.0.1:0").await.expect("a free port");
    let address: Address = listener.local_address().expect("bound").parse().expect("an address");
    let told: Arc<std::sync::Mutex<Told>> = Arc::default();
    let for_roster = Arc::clone(&told);
    let roster = warp::path!("internal" / "v1" / "roster").map(move || {
        let told = for_roster.lock().expect("no panic");
        match told.tells {
            true => warp::reply::json(&told.roster).into_response(),
            false => http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    });
    let (here, for_locate) = (address.clone(), Arc::clone(&told));
    let locate = warp::path!("internal" / "v1" / "locate").and(warp::body::bytes()).map(
        move |body: Bytes| {
            let request = BatchRequest::decode(&body).expect("a batch");
            let roster = &for_locate.lock().expect("no panic").roster;
            warp::reply::json(&answer(id, &here, &request, roster)).into_response()
        },
    );
    let (here, for_list) = (address.clone(), Arc::clone(&told));
    let list =
        warp::path!("internal" / "v1" / "list").and(warp::body::json()).map(move |request| {
            let roster = &for_list.lock().expect("no panic").roster;
            warp::reply::json(&page(id, &here, &request, roster)).into_response()
        });
    let nothing = warp::any().map(|| http::StatusCode::NOT_FOUND.into_response());
    let filter = roster.or(locate).unify().or(list).unify().or(nothing).unify();
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

/// An api that knows only the old member, while only the new one has anything.
/// `tells` says whether the old member gives its roster away.
async fn stale_api(tells: bool, config: ObjectsConfig) -> Objects {
    let runtime = Runtime::real();
    let (old_address, old_roster) = serve_member(&runtime, OLD).await;
    let (new_address, new_roster) = serve_member(&runtime, NEW).await;
    let stale = Roster::found(node(9), Policy::default(), entry(OLD, &old_address));
    let mut current = stale.clone();
    current.apply_entry(&entry(NEW, &new_address));
    *new_roster.lock().expect("no panic") = Told { roster: current.clone(), tells: true };
    *old_roster.lock().expect("no panic") = Told { roster: current.clone(), tells };
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
    let mut known = cluster.watch();
    let heard = known.wait_for(|snapshot| {
        snapshot.view.member(OLD).is_some_and(|member| member.stamp.is_some())
    });
    assert!(heard.await.is_ok(), "the task runs");
    let (locator, _task) = Locator::start(LocatorParts {
        runtime: runtime.clone(),
        config: LocatorConfig::new(Duration::from_secs(1), Duration::from_secs(5)),
        cluster: cluster.clone(),
        bus,
        replies: inbox.replies,
        data_servers: data_servers.clone(),
        metrics: LocateMetrics::new(&metrics).expect("fixed names"),
    });
    let counts = ObjectMetrics::new(&metrics).expect("fixed names");
    Objects::new(runtime, config, cluster, locator, data_servers, counts)
}

async fn locate_through_a_stale_api(tells: bool) -> holdfast_core::locate::Located {
    let objects = stale_api(tells, ObjectsConfig::default()).await;
    objects.locate(&ObjectName::seed(key())).await.expect("an outcome")
}

async fn list_through_a_stale_api(
    tells: bool,
    config: ObjectsConfig,
) -> Result<ListPage, ObjectError> {
    let query = ListQuery { limit: 10, ..ListQuery::default() };
    stale_api(tells, config).await.list(&query).await
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

#[tokio::test]
async fn an_unknown_roster_is_fetched_before_a_page_is_told() {
    let page =
        list_through_a_stale_api(true, ObjectsConfig::default()).await.expect("all have told");
    let keys: Vec<&str> = page.objects.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!((keys, page.next), (vec!["k"], None), "the new member has it");
}

#[tokio::test]
async fn a_page_whose_roster_stays_unknown_proves_nothing() {
    let told = list_through_a_stale_api(false, ObjectsConfig::default()).await;
    let is_refused =
        matches!(&told, Err(ObjectError::IncompleteList { silent }) if silent == &[OLD]);
    assert!(is_refused, "{told:?}");
}

#[tokio::test]
async fn pages_that_were_drawn_out_over_the_window_prove_nothing() {
    let mut config = ObjectsConfig::default();
    config.list.window = Duration::ZERO;
    let told = list_through_a_stale_api(true, config).await;
    let is_refused =
        matches!(&told, Err(ObjectError::IncompleteList { silent }) if silent == &[OLD, NEW]);
    assert!(is_refused, "{told:?}");
}
