use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use holdfast_coordinator::data_servers::{DataServerError, DataServers, Upload, WriteRequest};
use holdfast_core::name::ObjectName;
use holdfast_core::node::{Address, Generation, NodeId};
use holdfast_core::object::Stat;
use holdfast_core::roster::MemberState;
use holdfast_core::stamp::Stamp as CoreStamp;
use holdfast_core::wire::transfer::{CopyRequest, PinRequest};
use holdfast_http::server::{ServerLimits, serve_filter};
use holdfast_telemetry::metrics::Metrics;
use holdfast_telemetry::shutdown::Shutdown;
use warp::Filter;

use super::*;
use crate::copies::CopierParts;
use crate::repair::metrics::RepairMetrics;
use crate::routes::internal_routes;
use crate::test_support::{
    OWN, OWN_NODE, Rig, answerer, cluster, data_servers, entry, lister, name, reporter,
    roster_of_own, version,
};

const LIMIT: Duration = Duration::from_secs(5);
const OTHER: NodeId = NodeId::from_bits(1);
const STRANGER: NodeId = NodeId::from_bits(2);

/// A data server over a store in memory, that is asked over HTTP.
struct Served {
    rig: Rig,
    staging: StagingTable,
    address: Address,
    client: DataServers,
}

impl Served {
    async fn new() -> Self {
        let rig = Rig::new().await;
        let listener = rig.runtime.listen("127.0.0.1:0").await.expect("a free port");
        let address: Address =
            listener.local_address().expect("bound").parse().expect("an address");
        let mut roster = roster_of_own();
        // The other one is this one, too, under its name: it refuses to be it.
        roster.apply_entry(&entry(OTHER, MemberState::Active, &address));
        let cluster = cluster(&rig.runtime, roster).await;
        let reporter = reporter(&rig, cluster.clone());
        let copier = Copier::new(CopierParts {
            store: Arc::new(rig.store.clone()),
            gate: rig.gate.clone(),
            cluster: cluster.clone(),
            data_servers: data_servers(),
            reporter: Arc::clone(&reporter),
            objects: None,
            metrics: rig.metrics.clone(),
        });
        let registry = Metrics::new("test").expect("new");
        let staging = StagingTable::new(rig.runtime.clone(), rig.metrics.staged.clone());
        let internal = Internal {
            runtime: rig.runtime.clone(),
            store: Arc::new(rig.store.clone()),
            gate: rig.gate.clone(),
            copier,
            answerer: answerer(&rig, cluster.clone()),
            lister: lister(&rig, cluster.clone()),
            cluster,
            reporter,
            staging: staging.clone(),
            hints: Hints::new(RepairMetrics::new(&registry).expect("new")),
            activity: Activity::new(),
        };
        let nothing = warp::any().map(|| http::StatusCode::NOT_FOUND.into_response());
        let filter = internal_routes(&internal, 1 << 20).or(nothing).unify();
        let (limits, shutdown, runtime) =
            (ServerLimits::default(), Shutdown::new(), Runtime::real());
        runtime.spawn("served", serve_filter(runtime.clone(), listener, filter, limits, shutdown));
        Self { rig, staging, address, client: data_servers() }
    }

    fn stamp(&self) -> CoreStamp {
        CoreStamp::at(OWN, self.rig.runtime.now())
    }

    async fn request(&self, key: &str, number: u64, payload: &'static [u8]) -> WriteRequest {
        let staged = self.rig.stage(payload).await;
        WriteRequest {
            name: name(key),
            version: version(number),
            kind: Kind::Object,
            metadata: Metadata::default(),
            digest: staged.digest(),
            stamp: Some(self.stamp()),
        }
    }

    async fn write(&self, request: &WriteRequest) -> Result<WriteOutcome, DataServerError> {
        let payload = Bytes::from_static(b"payload");
        let written = self.client.write(&self.address, OWN_NODE, request, payload, LIMIT).await;
        written.map(|answer| answer.outcome)
    }
}

/// The code of a refusal that certainly changed nothing.
fn code<T: std::fmt::Debug>(refused: Result<T, DataServerError>) -> String {
    match refused {
        Err(error @ DataServerError::Refused { .. }) if !error.changed_nothing() => {
            panic!("it may have changed something: {error}")
        }
        Err(DataServerError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn writes_say_what_they_build_on_and_are_told_why_not() {
    let served = Served::new().await;
    let first = served.request("a", 5, b"payload").await;
    assert_eq!(served.write(&first).await.expect("fresh"), WriteOutcome::Stored);
    assert!(served.rig.gate.promise(&name("a"), version(9)).await.is_given);
    let below = WriteRequest { version: version(6), ..first.clone() };
    assert_eq!(code(served.write(&below).await), "promised");
    let itself = WriteRequest { version: version(9), ..first.clone() };
    assert_eq!(served.write(&itself).await.expect("promised"), WriteOutcome::Stored);
    served.rig.clock.advance(served.rig.gate.window());
    let late = WriteRequest { version: version(10), ..first.clone() };
    assert_eq!(code(served.write(&late).await), "stale-stamp");
    let other_run = CoreStamp { generation: Generation(1), ..served.stamp() };
    let other_run = WriteRequest { stamp: Some(other_run), ..late.clone() };
    assert_eq!(code(served.write(&other_run).await), "stale-stamp");
    let again = WriteRequest { stamp: Some(served.stamp()), ..late };
    assert_eq!(served.write(&again).await.expect("fresh"), WriteOutcome::Stored);
    let without = WriteRequest { version: version(11), stamp: None, ..first };
    assert!(served.write(&without).await.is_err());
}

#[tokio::test]
async fn a_staged_payload_outlives_a_refusal() {
    let served = Served::new().await;
    let (client, address) = (&served.client, &served.address);
    let body = stream::iter([Ok(Bytes::from_static(b"payload"))]);
    let upload = client.stage(address, OWN_NODE, Some(7), body).await.expect("room");
    let request = served.request("a", 5, b"payload").await;
    served.rig.clock.advance(served.rig.gate.window());
    assert_eq!(code(client.commit(&upload, &request, LIMIT).await), "stale-stamp");
    let fresh = WriteRequest { stamp: Some(served.stamp()), ..request };
    let stored = client.commit(&upload, &fresh, LIMIT).await.expect("it is still there");
    assert_eq!(stored.outcome, WriteOutcome::Stored);
}

/// All that is read of a staged payload.
async fn read_back(served: &Served, upload: &Upload) -> Vec<u8> {
    let body = served.client.read_staged(upload, LIMIT).await.expect("it waits");
    body.try_collect::<Vec<_>>().await.expect("all of it").concat()
}

#[tokio::test]
async fn a_staged_payload_can_be_read_until_it_is_committed_or_taken_back() {
    let served = Served::new().await;
    let (client, address) = (&served.client, &served.address);
    let payload = vec![7; 1 << 20];
    let stage = async |payload: &Vec<u8>| {
        let (length, body) = (payload.len() as u64, Bytes::from(payload.clone()));
        let body = stream::iter([Ok(body)]);
        client.stage(address, OWN_NODE, Some(length), body).await.expect("room")
    };
    let upload = stage(&payload).await;
    // Also at the same time, and after somebody read only its beginning.
    let mut begun = client.read_staged(&upload, LIMIT).await.expect("it waits");
    let first = begun.next().await.expect("not empty").expect("sound");
    drop(begun);
    let (one, other) = tokio::join!(read_back(&served, &upload), read_back(&served, &upload));
    assert!(one == payload && other == payload && payload.starts_with(&first));
    // One that was begun goes on.
    let begun = client.read_staged(&upload, LIMIT).await.expect("it waits");
    let digest = upload.received.digest;
    let request = WriteRequest { digest, ..served.request("a", 5, b"").await };
    let stored = client.commit(&upload, &request, LIMIT).await.expect("it is there");
    assert_eq!(stored.outcome, WriteOutcome::Stored);
    assert!(begun.try_collect::<Vec<_>>().await.expect("all of it").concat() == payload);
    for refused in [
        client.read_staged(&upload, LIMIT).await.err(),
        client.keep_staged(&upload, LIMIT).await.err(),
    ] {
        let error = refused.expect("it has its name");
        assert!(error.is_gone() && error.changed_nothing(), "{error}");
    }
    let upload = stage(&payload).await;
    client.keep_staged(&upload, LIMIT).await.expect("it waits");
    client.abandon(&upload, LIMIT).await.expect("it is taken back");
    let error = client.read_staged(&upload, LIMIT).await.err().expect("it was taken back");
    assert!(error.is_gone(), "{error}");
}

#[tokio::test]
async fn no_more_staged_payloads_are_read_than_may_be() {
    let served = Served::new().await;
    let body = stream::iter([Ok(Bytes::from(vec![7; 1 << 20]))]);
    let upload = served.client.stage(&served.address, OWN_NODE, None, body).await.expect("room");
    let table = &served.staging;
    let mut reads = Vec::new();
    let refused = loop {
        match table.read(upload.received.staging).await {
            Ok(read) => reads.push(read),
            Err(error) => break error,
        }
        assert!(reads.len() < 1_000, "there is no bound");
    };
    assert!(matches!(refused, InternalError::Busy), "{refused}");
    let busy = served.client.read_staged(&upload, LIMIT).await.err().expect("no turn is left");
    assert!(busy.is_busy() && !busy.is_gone(), "{busy}");
    reads.pop();
    assert_eq!(read_back(&served, &upload).await.len(), 1 << 20);
}

fn copy_request(name: ObjectName, stat: Stat, from: NodeId, stamp: CoreStamp) -> CopyRequest {
    CopyRequest { name, stat, from: vec![from], held_as: None, stamp, is_settled: true }
}

#[tokio::test]
async fn copies_and_pins_are_asked_for_over_http() {
    let served = Served::new().await;
    let (client, address) = (&served.client, &served.address);
    let request = served.request("a", 5, b"payload").await;
    served.write(&request).await.expect("stored");
    let stat = served.rig.stat("a").await.expect("stored");
    let copy = copy_request(name("a"), stat.clone(), OTHER, served.stamp());
    let answer = client.copy(address, OWN_NODE, &copy, LIMIT).await.expect("it is here");
    assert_eq!(answer.outcome, WriteOutcome::AlreadyStored);
    let elsewhere = CopyRequest { name: name("b"), ..copy.clone() };
    assert_eq!(code(client.copy(address, OWN_NODE, &elsewhere, LIMIT).await), "no-source");
    let foreign = CopyRequest { from: vec![STRANGER], ..elsewhere };
    assert_eq!(code(client.copy(address, OWN_NODE, &foreign, LIMIT).await), "foreign-source");
    let meant = client.copy(address, OTHER, &copy, LIMIT).await;
    assert!(matches!(meant, Err(DataServerError::AnotherNode)), "{meant:?}");

    let copies = vec![(name("a"), version(5)), (name("a"), version(6)), (name("b"), version(1))];
    let pin = PinRequest { node: OTHER, generation: Generation(1), copies };
    let answer = client.pin(address, OWN_NODE, &pin, LIMIT).await.expect("a member asks");
    assert_eq!((answer.node, answer.generation, answer.pinned), (OWN_NODE, OWN, vec![0]));
    let stranger = PinRequest { node: STRANGER, ..pin };
    assert_eq!(code(client.pin(address, OWN_NODE, &stranger, LIMIT).await), "foreign-source");
}

#[test]
fn what_a_write_builds_on_must_be_there_and_right() {
    let with = |header: &'static str, value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(header, value.parse().expect("a header"));
        basis(&headers)
    };
    let stamp = CoreStamp { generation: Generation(2), mono_millis: 3 };
    let both = with(HEADER_STAMP, "2-3").expect("a stamp");
    assert_eq!(both, Basis { stamp: Some(stamp), ..Basis::default() });
    for (header, bad) in [(HEADER_STAMP, "2"), (HEADER_STAMP, "")] {
        let refused = with(header, bad);
        assert!(matches!(refused, Err(InternalError::Header { .. })), "{refused:?}");
    }
    assert!(basis(&HeaderMap::new()).is_err());
}
