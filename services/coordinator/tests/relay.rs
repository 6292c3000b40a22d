//! An owner refuses a large payload where a write needs all owners, so that what
//! the other one received is passed on; and those that it is read from or passed on
//! to do what real data servers do only now and then.

#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use crc_fast::CrcAlgorithm;
use futures_util::stream::{self, Stream, StreamExt};
use holdfast_bus::{Bus, Inbox, MemoryBroker, MemoryBrokerOptions, Message, Topic};
use holdfast_coordinator::error::ObjectError;
use holdfast_coordinator::objects::{Expected, Incoming, Objects, ObjectsConfig, Put, PutDone};
use holdfast_core::name::{Key, ObjectName};
use holdfast_core::node::NodeId;
use holdfast_core::object::{Digest, Metadata};
use holdfast_core::placement::{Candidate, choose_owners};
use holdfast_core::policy::{Policy, Wanted};
use holdfast_core::roster::{Entry, Roster};
use holdfast_core::wire::locate::BatchRequest;
use holdfast_core::wire::transfer::{Received, StagingId, WriteAnswer, WriteOutcome};
use holdfast_runtime::Runtime;
use http::StatusCode;
use warp::Filter;
use warp::reply::{Reply, Response};

use common::{entry, heartbeat, listen, no, node, serve, start_api};

/// Larger than what goes in one message, and than what waits in sockets.
const PAYLOAD_BYTES: usize = 24 << 20;
const CHUNK_BYTES: usize = 64 << 10;

/// How a member takes a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Takes {
    #[default]
    All,
    /// It refuses it.
    Nothing,
    /// It stops after the first bytes.
    Little,
    /// All of it, and never says so.
    AllInSilence,
}

/// What a member does, and what it was asked.
#[derive(Debug, Default)]
struct Member {
    takes: Takes,
    /// How often it says that it reads for as many as it may.
    busy: usize,
    /// How often it fails to say whether it still has what it received, once somebody
    /// else has received it, too.
    unsure: usize,
    /// Payloads that were offered to it.
    offered: usize,
    /// How often it was read.
    read: usize,
    committed: bool,
    staged: Option<Bytes>,
}

type Members = Arc<Mutex<BTreeMap<NodeId, Member>>>;

/// A cluster in which every object has as many copies as a write waits for.
struct Cluster {
    runtime: Runtime,
    objects: Objects,
    members: Members,
    /// In the order in which they should hold the object.
    order: Vec<NodeId>,
    name: ObjectName,
}

impl Cluster {
    async fn start(copies: u32, count: u128) -> Self {
        let runtime = Runtime::real();
        let (mut listeners, mut entries) = (Vec::new(), Vec::new());
        for bits in 1..=count {
            let (listener, address) = listen(&runtime).await;
            listeners.push((node(bits), listener));
            entries.push(entry(node(bits), &address));
        }
        let founder = entries.first().expect("there is one").clone();
        let all = Wanted::new(copies, Some(copies)).expect("a write may wait for all");
        let mut roster = Roster::found(node(99), Policy::settled_at(0, all), founder);
        for entry in &entries {
            roster.apply_entry(entry);
        }
        let ids: Vec<NodeId> = entries.iter().map(|entry| entry.id).collect();
        let members: Members = Arc::default();
        for id in &ids {
            members.lock().expect("no panic").insert(*id, Member::default());
        }
        for (id, listener) in listeners {
            serve(&runtime, listener, paths(id, &members, &roster));
        }
        let broker = MemoryBroker::new(runtime.clone(), MemoryBrokerOptions::default());
        let (bus, inbox) = broker.connect(&[Topic::ApiServers]);
        for entry in &entries {
            let (bus, inbox) = broker.connect(&[Topic::Locate]);
            live(&runtime, entry.clone(), roster.clone(), bus, inbox);
        }
        let name = ObjectName::seed(Key::new("k").expect("short"));
        let candidate = |id: &NodeId| Candidate { id: *id, weight: 1, zone: None };
        let candidates: Vec<Candidate> = ids.iter().map(candidate).collect();
        let order = choose_owners(&name, &candidates, ids.len());
        // They answer locates over HTTP alone.
        let (timeout, config) = (Duration::from_secs(2), ObjectsConfig::default());
        let (_, objects) = start_api(&runtime, (bus, inbox), (roster, &ids), timeout, config).await;
        Self { runtime, objects, members, order, name }
    }

    /// Changes what the member does that is at this place of the order.
    fn set(&self, place: usize, change: impl FnOnce(&mut Member)) {
        change(self.members.lock().expect("no panic").get_mut(&self.order[place]).expect("one"));
    }

    fn get<T>(&self, place: usize, look: impl FnOnce(&Member) -> T) -> T {
        look(&self.members.lock().expect("no panic")[&self.order[place]])
    }

    /// Stores a large object; also tells how long it took.
    async fn put(&self) -> (Result<PutDone, ObjectError>, Duration) {
        let began = self.runtime.now();
        let chunk = |start| PAYLOAD.slice(start..start + CHUNK_BYTES);
        let chunks: Vec<_> = (0..PAYLOAD_BYTES).step_by(CHUNK_BYTES).map(chunk).collect();
        let done = self.objects.put(Put {
            name: self.name.clone(),
            metadata: Metadata::default(),
            body: Incoming {
                bytes: stream::iter(chunks.into_iter().map(Ok)).boxed(),
                size_bytes: Some(PAYLOAD_BYTES as u64),
                expected: Expected::default(),
            },
            condition: None,
        });
        (done.await, self.runtime.now() - began)
    }

    /// Which places of the order have committed the object, all with its bytes.
    fn committed(&self) -> Vec<usize> {
        let is_committed = |place: &usize| {
            let (committed, staged) = self.get(*place, |it| (it.committed, it.staged.clone()));
            assert!(!committed || staged.is_some_and(|bytes| bytes == *PAYLOAD), "other bytes");
            committed
        };
        (0..self.order.len()).filter(is_committed).collect()
    }
}

static PAYLOAD: LazyLock<Bytes> = LazyLock::new(|| {
    let chunk: Vec<u8> = (0..CHUNK_BYTES).map(|place| (place % 251) as u8).collect();
    chunk.repeat(PAYLOAD_BYTES / CHUNK_BYTES).into()
});

/// Heartbeats and answers to locates, for as long as the test runs.
fn live(runtime: &Runtime, own: Entry, roster: Roster, bus: Arc<dyn Bus>, mut inbox: Inbox) {
    let clock = runtime.clone();
    runtime.spawn("member-on-bus", async move {
        let mut next = clock.sleep(Duration::ZERO);
        loop {
            tokio::select! {
                () = &mut next => {
                    let heartbeat = heartbeat(own.id, &own.address, &roster);
                    bus.publish(Topic::ApiServers, heartbeat).await.expect("sent");
                    next = clock.sleep(Duration::from_secs(1));
                }
                Some(message) = inbox.locate.recv() => {
                    let request = BatchRequest::decode(&message.body).expect("a batch");
                    let body = no(own.id, &own.address, &request, &roster).encode().into();
                    let correlation_id = message.correlation_id;
                    let reply = Message { body, correlation_id, ..Message::default() };
                    let to = message.reply_to.expect("an answer is wanted");
                    bus.reply(&to, reply).await.expect("sent");
                }
            }
        }
    });
}

fn problem(status: StatusCode, code: &str) -> Response {
    let body = serde_json::json!({ "code": code, "detail": "as the test wants it" });
    warp::reply::with_status(warp::reply::json(&body), status).into_response()
}

/// What a data server serves to others.
fn paths(
    id: NodeId,
    members: &Members,
    roster: &Roster,
) -> warp::filters::BoxedFilter<(Response,)> {
    let (address, digest) = (roster.get(id).expect("a member").address.clone(), roster.digest());
    let (known, all) = (roster.clone(), Arc::clone(members));
    let locate = warp::path!("internal" / "v1" / "locate").and(warp::body::bytes()).map(
        move |body: Bytes| {
            let request = BatchRequest::decode(&body).expect("a batch");
            warp::reply::json(&no(id, &address, &request, &known)).into_response()
        },
    );
    let (take, ask, read, commit) =
        (Arc::clone(&all), Arc::clone(&all), Arc::clone(&all), Arc::clone(&all));
    let stage = warp::path!("internal" / "v1" / "staging")
        .and(warp::post())
        .and(warp::body::stream())
        .then(move |body| receive(id, Arc::clone(&take), body));
    let keep = warp::path!("internal" / "v1" / "staging" / String).and(warp::post()).map(
        move |_: String| {
            let mut all = ask.lock().expect("no panic");
            let is_passed_on = all.values().filter(|member| member.staged.is_some()).count() > 1;
            let member = all.get_mut(&id).expect("one");
            if is_passed_on && member.unsure > 0 {
                member.unsure -= 1;
                return problem(StatusCode::INTERNAL_SERVER_ERROR, "internal");
            }
            StatusCode::NO_CONTENT.into_response()
        },
    );
    let give = warp::path!("internal" / "v1" / "staging" / String).and(warp::get()).map(
        move |_: String| {
            let mut all = read.lock().expect("no panic");
            let member = all.get_mut(&id).expect("one");
            if member.busy > 0 {
                member.busy -= 1;
                return problem(StatusCode::SERVICE_UNAVAILABLE, "busy");
            }
            member.read += 1;
            let staged = member.staged.clone().expect("it was received");
            warp::reply::Response::new(staged.into())
        },
    );
    let commit = warp::path!("internal" / "v1" / "staging" / String / ..).and(warp::put()).map(
        move |_: String| {
            commit.lock().expect("no panic").get_mut(&id).expect("one").committed = true;
            let answer = WriteAnswer { outcome: WriteOutcome::Stored, roster_digest: digest };
            warp::reply::json(&answer).into_response()
        },
    );
    locate.or(stage).unify().or(keep).unify().or(give).unify().or(commit).unify().boxed()
}

/// A payload that is offered.
async fn receive(
    id: NodeId,
    members: Members,
    body: impl Stream<Item = Result<impl warp::Buf, warp::Error>> + Send,
) -> Response {
    let takes = {
        let mut all = members.lock().expect("no panic");
        let member = all.get_mut(&id).expect("one");
        member.offered += 1;
        member.takes
    };
    if takes == Takes::Nothing {
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "internal");
    }
    let (mut body, mut bytes) = (std::pin::pin!(body), BytesMut::new());
    while let Some(chunk) = body.next().await {
        let Ok(mut chunk) = chunk else { return StatusCode::BAD_REQUEST.into_response() };
        while chunk.has_remaining() {
            let part = chunk.chunk().len();
            bytes.extend_from_slice(chunk.chunk());
            chunk.advance(part);
        }
        if takes == Takes::Little {
            std::future::pending::<()>().await;
        }
    }
    if takes == Takes::AllInSilence {
        std::future::pending::<()>().await;
    }
    let bytes = bytes.freeze();
    let digest = Digest(crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &bytes));
    let received = Received { staging: StagingId(1), size_bytes: bytes.len() as u64, digest };
    members.lock().expect("no panic").get_mut(&id).expect("one").staged = Some(bytes);
    warp::reply::json(&received).into_response()
}

#[tokio::test]
async fn who_stands_still_is_passed_over_after_six_seconds() {
    let cluster = Cluster::start(2, 4).await;
    cluster.set(0, |owner| owner.takes = Takes::Nothing);
    cluster.set(2, |next| next.takes = Takes::Little);
    let (done, took) = cluster.put().await;
    assert!(matches!(done, Ok(PutDone::Stored(_))), "{done:?}");
    assert_eq!((cluster.committed(), cluster.get(2, |it| it.offered)), (vec![1, 3], 1));
    assert!(took >= Duration::from_secs(6), "{took:?}: who is slow has its time");
}

#[tokio::test]
async fn who_never_says_that_it_has_all_is_waited_for_three_times_as_long() {
    let cluster = Cluster::start(2, 4).await;
    cluster.set(0, |owner| owner.takes = Takes::Nothing);
    cluster.set(2, |next| next.takes = Takes::AllInSilence);
    let (done, took) = cluster.put().await;
    assert!(matches!(done, Ok(PutDone::Stored(_))), "{done:?}");
    assert_eq!(cluster.committed(), [1, 3]);
    assert!(took >= Duration::from_secs(18), "{took:?}: it may be writing");
}

#[tokio::test]
async fn eight_are_asked_at_most() {
    let cluster = Cluster::start(2, 12).await;
    for place in (0..12).filter(|place| *place != 1) {
        cluster.set(place, |other| other.takes = Takes::Nothing);
    }
    let (done, _) = cluster.put().await;
    assert!(matches!(done, Err(ObjectError::WriteFailed)), "{done:?}");
    let asked = (2..12).filter(|place| cluster.get(*place, |it| it.offered) == 1).count();
    assert_eq!((cluster.committed(), asked), (vec![], 8));
}

#[tokio::test]
async fn who_does_not_say_whether_it_still_has_it_is_asked_three_times() {
    for (unsure, committed) in [(2, [1, 2]), (3, [2, 3])] {
        let cluster = Cluster::start(2, 4).await;
        cluster.set(0, |owner| owner.takes = Takes::Nothing);
        cluster.set(1, |owner| owner.unsure = unsure);
        let (done, _) = cluster.put().await;
        assert!(matches!(done, Ok(PutDone::Stored(_))), "{unsure}: {done:?}");
        assert_eq!(cluster.committed(), committed, "{unsure} times unsure");
    }
}

#[tokio::test]
async fn who_reads_for_as_many_as_it_may_is_passed_over_and_keeps_what_it_has() {
    let cluster = Cluster::start(3, 5).await;
    cluster.set(0, |owner| owner.takes = Takes::Nothing);
    for place in [1, 2] {
        // More often than one that could not be read is asked again.
        cluster.set(place, |owner| owner.busy = 4);
    }
    let (done, _) = cluster.put().await;
    assert!(matches!(done, Ok(PutDone::Stored(_))), "{done:?}");
    assert_eq!(cluster.committed(), [1, 2, 3]);
    // Both were busy, by turns, before one was not any more.
    let reads = [1, 2].map(|place| cluster.get(place, |it| (it.busy, it.read)));
    assert_eq!(reads.iter().map(|(busy, _)| busy).sum::<usize>(), 0, "{reads:?}");
    assert_eq!(reads.iter().map(|(_, read)| read).sum::<usize>(), 1, "{reads:?}");
}
