use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use futures_util::stream;
use holdfast_coordinator::data_servers::encode_header_json;
use holdfast_core::replica::PromisedAbove;
use holdfast_core::roster::{MemberState, Roster};
use holdfast_core::stamp::{Stamp, StampError};
use holdfast_core::version::Version;
use holdfast_core::wire::transfer::HEADER_STAT;
use holdfast_http::server::{ServerLimits, serve_filter};
use holdfast_runtime::Runtime;
use holdfast_telemetry::shutdown::Shutdown;
use warp::Filter;
use warp::reply::{Reply, Response};

use super::*;
use crate::test_support::{
    OWN, OWN_NODE, Rig, cluster, content, data_servers, entry, name, reporter, version,
};

const PAYLOAD: &[u8] = b"payload";
const FIRST: NodeId = NodeId::from_bits(1);
const SECOND: NodeId = NodeId::from_bits(2);
const RETIRED: NodeId = NodeId::from_bits(3);
const STRANGER: NodeId = NodeId::from_bits(4);

/// What a member gives when it is asked for an object.
#[derive(Clone, Debug, Default)]
struct Source {
    stat: Option<Stat>,
    chunks: Vec<&'static [u8]>,
    /// Whether the connection breaks after the last chunk.
    breaks: bool,
}

impl Source {
    fn of(stat: &Stat, chunks: &[&'static [u8]]) -> Self {
        Self { stat: Some(stat.clone()), chunks: chunks.to_vec(), breaks: false }
    }

    fn response(&self) -> Response {
        let Some(stat) = &self.stat else {
            return http::StatusCode::NOT_FOUND.into_response();
        };
        let end = self.breaks.then(|| Err(std::io::Error::other("it breaks")));
        let chunks = self.chunks.clone().into_iter().map(|chunk| Ok(Bytes::from_static(chunk)));
        let body = stream::iter(chunks.chain(end).collect::<Vec<_>>());
        let mut response = warp::reply::stream(body).into_response();
        response.headers_mut().insert(HEADER_STAT, encode_header_json(stat));
        response
    }
}

type Sources = Arc<Mutex<BTreeMap<NodeId, Source>>>;

/// Serves what `sources` says of `node`, and counts how often it was asked.
async fn serve(node: NodeId, sources: &Sources, asked: &Arc<Mutex<Vec<NodeId>>>) -> Address {
    let runtime = Runtime::real();
    let listener = runtime.listen("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_address().expect("bound").parse().expect("an address");
    let (sources, asked) = (Arc::clone(sources), Arc::clone(asked));
    let objects = warp::path!("internal" / "v1" / "objects" / ..).map(move || {
        asked.lock().expect("no panic").push(node);
        let source = sources.lock().expect("no panic").get(&node).cloned();
        source.unwrap_or_default().response()
    });
    // The others are probed, too, since nobody hears them.
    let nothing = warp::any().map(|| http::StatusCode::NOT_FOUND.into_response());
    let filter = objects.or(nothing).unify();
    let (limits, shutdown) = (ServerLimits::default(), Shutdown::new());
    runtime.spawn("source", serve_filter(runtime.clone(), listener, filter, limits, shutdown));
    address
}

struct Copies {
    rig: Rig,
    copier: Copier,
    sources: Sources,
    asked: Arc<Mutex<Vec<NodeId>>>,
}

impl Copies {
    async fn new(own: MemberState) -> Self {
        let (rig, sources, asked) = (Rig::new().await, Sources::default(), Arc::default());
        let mut roster = Roster::default();
        for (node, state) in [
            (OWN_NODE, own),
            (FIRST, MemberState::Active),
            (SECOND, MemberState::Draining),
            (RETIRED, MemberState::Retired),
        ] {
            let address = serve(node, &sources, &asked).await;
            let entry = entry(node, state, &address);
            match roster.is_founded() {
                true => drop(roster.apply_entry(&entry)),
                false => roster = Roster::found(NodeId::from_bits(9), Default::default(), entry),
            }
        }
        let cluster = cluster(&rig.runtime, roster).await;
        let copier = Copier::new(CopierParts {
            store: Arc::new(rig.store.clone()),
            gate: rig.gate.clone(),
            cluster: cluster.clone(),
            data_servers: data_servers(),
            reporter: reporter(&rig, cluster),
            objects: None,
            metrics: rig.metrics.clone(),
        });
        Self { rig, copier, sources, asked }
    }

    fn gives(&self, node: NodeId, source: Source) {
        self.sources.lock().expect("no panic").insert(node, source);
    }

    fn asked(&self) -> Vec<NodeId> {
        std::mem::take(&mut *self.asked.lock().expect("no panic"))
    }

    fn request(&self, stat: &Stat, from: &[NodeId]) -> CopyRequest {
        let stamp = Stamp::at(OWN, self.rig.runtime.now());
        CopyRequest {
            name: name("a"),
            stat: stat.clone(),
            from: from.to_vec(),
            held_as: None,
            stamp,
            is_settled: true,
        }
    }

    async fn copy(&self, stat: &Stat, from: &[NodeId]) -> Result<WriteOutcome, InternalError> {
        self.copier.copy(self.request(stat, from)).await
    }

    /// What is here, if it can be read.
    async fn read(&self) -> Option<(Stat, Bytes)> {
        let payload = self.rig.store.read(&name("a"), None, None).await.ok()?;
        let chunks: Vec<_> = futures_util::StreamExt::collect(payload.bytes).await;
        let bytes: Result<Vec<Bytes>, _> = chunks.into_iter().collect();
        Some((payload.stat, bytes.ok()?.concat().into()))
    }

    fn counted(&self, result: &str) -> u64 {
        self.rig.metrics.copies_received.with_label_values(&[result]).get()
    }
}

async fn stat_of(rig: &Rig, number: u64, payload: &'static [u8]) -> Stat {
    let staged = rig.stage(payload).await;
    let mut metadata = content(number).metadata;
    metadata.content_type = Some("text/plain".into());
    Stat {
        version: version(number),
        kind: Kind::Object,
        size_bytes: staged.size_bytes(),
        digest: staged.digest(),
        metadata,
    }
}

#[tokio::test]
async fn a_copy_comes_from_the_first_member_that_gives_it_whole() {
    let copies = Copies::new(MemberState::Active).await;
    let stat = stat_of(&copies.rig, 5, PAYLOAD).await;
    let broken = Source { breaks: true, ..Source::of(&stat, &[b"payl"]) };
    let other = Stat { size_bytes: 8, ..stat.clone() };
    for bad in [
        Source::default(),
        broken,
        Source::of(&stat, &[b"payl"]),
        Source::of(&stat, &[b"payload", b"!"]),
        Source::of(&stat, &[b"pAyload"]),
        Source::of(&other, &[b"payload!"]),
    ] {
        copies.gives(FIRST, bad.clone());
        copies.gives(SECOND, Source::default());
        let none = copies.copy(&stat, &[FIRST, SECOND]).await;
        assert!(matches!(none, Err(InternalError::NoSource { .. })), "{bad:?}: {none:?}");
        assert_eq!(copies.asked(), [FIRST, SECOND]);
        assert_eq!(copies.read().await, None, "{bad:?}");
    }
    copies.gives(SECOND, Source::of(&stat, &[b"pay", b"load"]));
    let stored = copies.copy(&stat, &[FIRST, SECOND]).await.expect("the second has it");
    assert_eq!(stored, WriteOutcome::Stored);
    assert_eq!(copies.asked(), [FIRST, SECOND]);
    assert_eq!(copies.read().await, Some((stat.clone(), PAYLOAD.into())), "metadata too");
    assert_eq!(copies.rig.gate.floor(), Some(version(5)));
    let again = copies.copy(&stat, &[FIRST, SECOND]).await.expect("it is here");
    assert_eq!(again, WriteOutcome::AlreadyStored);
    let older = stat_of(&copies.rig, 4, b"older").await;
    let older = copies.copy(&older, &[FIRST]).await.expect("something newer is here");
    assert!(matches!(older, WriteOutcome::Superseded { promised_above: false, .. }));
    assert!(copies.asked().is_empty(), "what is here is not fetched");
    let results = ["stored", "already-stored", "superseded", "no-source"];
    assert_eq!(results.map(|result| copies.counted(result)), [1, 1, 1, 6]);
}

#[tokio::test]
async fn a_damaged_copy_is_replaced() {
    let copies = Copies::new(MemberState::Active).await;
    let stat = stat_of(&copies.rig, 5, PAYLOAD).await;
    copies.gives(FIRST, Source::of(&stat, &[PAYLOAD]));
    copies.copy(&stat, &[FIRST]).await.expect("stored");
    copies.rig.store.memory.damage(&PAYLOAD.into());
    assert_eq!(copies.read().await, None);
    let mended = copies.copy(&stat, &[FIRST]).await.expect("stored");
    assert_eq!(mended, WriteOutcome::Stored);
    assert_eq!(copies.read().await, Some((stat, PAYLOAD.into())));
}

#[tokio::test]
async fn copies_come_from_members_only() {
    let copies = Copies::new(MemberState::Active).await;
    let stat = stat_of(&copies.rig, 5, PAYLOAD).await;
    for node in [OWN_NODE, RETIRED, STRANGER] {
        copies.gives(node, Source::of(&stat, &[PAYLOAD]));
    }
    for from in [&[][..], &[OWN_NODE], &[RETIRED], &[STRANGER, RETIRED, OWN_NODE]] {
        let refused = copies.copy(&stat, from).await;
        assert!(matches!(refused, Err(InternalError::ForeignSource)), "{refused:?}");
    }
    assert!(copies.asked().is_empty());
    assert_eq!(copies.read().await, None);
}

#[tokio::test]
async fn only_an_active_member_takes_copies() {
    for state in [MemberState::Joining, MemberState::Draining, MemberState::Retired] {
        let copies = Copies::new(state).await;
        let stat = stat_of(&copies.rig, 5, PAYLOAD).await;
        copies.gives(FIRST, Source::of(&stat, &[PAYLOAD]));
        let refused = copies.copy(&stat, &[FIRST]).await;
        assert!(matches!(refused, Err(InternalError::NotAdmitted)), "{refused:?}");
        assert!(copies.asked().is_empty());
    }
}

#[tokio::test]
async fn copies_obey_stamps_and_promises() {
    let copies = Copies::new(MemberState::Active).await;
    let (rig, stat) = (&copies.rig, stat_of(&copies.rig, 5, PAYLOAD).await);
    copies.gives(FIRST, Source::of(&stat, &[PAYLOAD]));
    let late = copies.request(&stat, &[FIRST]);
    rig.clock.advance(rig.gate.window());
    let refused = copies.copier.copy(late).await;
    assert!(
        matches!(refused, Err(InternalError::StaleStamp(StampError::TooOld { .. }))),
        "{refused:?}"
    );
    let ballot: Version = version(9);
    assert!(rig.gate.promise(&name("a"), ballot).await.is_given);
    let refused = copies.copy(&stat, &[FIRST]).await;
    let expected = PromisedAbove::Kept { ballot };
    assert!(
        matches!(&refused, Err(InternalError::Promised(above)) if *above == expected),
        "{refused:?}"
    );
    let tombstone = Stat { kind: Kind::Tombstone, size_bytes: 0, ..stat.clone() };
    let refused = copies.copy(&tombstone, &[FIRST]).await;
    assert!(matches!(refused, Err(InternalError::Promised(_))), "{refused:?}");
    assert!(copies.asked().is_empty(), "nothing is fetched for what is refused");
    assert_eq!(copies.counted("refused"), 3);
}

#[tokio::test]
async fn what_is_settled_under_a_promise_comes_from_whoever_has_it_under_another_version() {
    let copies = Copies::new(MemberState::Active).await;
    let found = stat_of(&copies.rig, 5, PAYLOAD).await;
    copies.gives(FIRST, Source::of(&found, &[PAYLOAD]));
    let ballot = version(9);
    assert!(copies.rig.gate.promise(&name("a"), ballot).await.is_given);
    let settled = found.settled_as(ballot);
    let plain = CopyRequest { is_settled: false, ..copies.request(&settled, &[FIRST]) };
    let request = CopyRequest { held_as: Some(found.version), ..plain };
    assert_eq!(copies.copier.copy(request).await.expect("promised"), WriteOutcome::Stored);
    assert_eq!(copies.asked(), [FIRST]);
    let held = copies.rig.stat("a").await.expect("stored");
    assert_eq!((held.version, held.written_as()), (ballot, found.version));
    assert_eq!(copies.read().await.map(|(_, bytes)| bytes).as_deref(), Some(PAYLOAD));
}

#[tokio::test]
async fn what_is_here_under_another_version_is_not_fetched() {
    let copies = Copies::new(MemberState::Active).await;
    let staged = copies.rig.stage(PAYLOAD).await;
    let put = copies.rig.gate.commit(name("a"), Basis::default(), content(5), staged).await;
    assert_eq!(put.expect("stored"), WriteOutcome::Stored);
    let (found, ballot) = (copies.rig.stat("a").await.expect("stored"), version(9));
    assert!(copies.rig.gate.promise(&name("a"), ballot).await.is_given);
    let settled = found.settled_as(ballot);
    let plain = CopyRequest { is_settled: false, ..copies.request(&settled, &[FIRST]) };
    let request = CopyRequest { held_as: Some(found.version), ..plain };
    assert_eq!(copies.copier.copy(request).await.expect("promised"), WriteOutcome::Stored);
    assert!(copies.asked().is_empty());
    assert_eq!(copies.rig.stat("a").await.as_ref(), Some(&settled));
    assert_eq!(copies.read().await.map(|(_, bytes)| bytes).as_deref(), Some(PAYLOAD));
    let known_as_before = copies.rig.store.read(&name("a"), Some(found.version), None).await;
    assert!(known_as_before.is_ok(), "{known_as_before:?}");
}

#[tokio::test]
async fn what_was_found_on_too_few_is_not_taken_below_a_promise_that_is_forgotten() {
    let copies = Copies::new(MemberState::Active).await;
    let (rig, stat) = (&copies.rig, stat_of(&copies.rig, 5, PAYLOAD).await);
    copies.gives(FIRST, Source::of(&stat, &[PAYLOAD]));
    assert!(rig.gate.promise(&name("a"), version(9)).await.is_given);
    rig.clock.advance(rig.gate.window() * 4);
    let unsettled = CopyRequest { is_settled: false, ..copies.request(&stat, &[FIRST]) };
    let refused = copies.copier.copy(unsettled).await;
    let expected = PromisedAbove::Forgotten { ballot: version(9) };
    assert!(
        matches!(&refused, Err(InternalError::Promised(above)) if *above == expected),
        "{refused:?}"
    );
    assert!(copies.asked().is_empty(), "nothing is fetched for what is refused");
    assert_eq!(copies.copy(&stat, &[FIRST]).await.expect("settled"), WriteOutcome::Stored);
}

#[tokio::test]
async fn a_promise_that_is_given_during_the_transfer_keeps_the_copy_out() {
    let copies = Copies::new(MemberState::Active).await;
    let stat = stat_of(&copies.rig, 5, PAYLOAD).await;
    let (name, sources) = (name("a"), copies.copier.sources(&[FIRST]).expect("a member"));
    copies.gives(FIRST, Source::of(&stat, &[PAYLOAD]));
    let staged =
        copies.copier.fetch(&name, &stat, stat.version, &sources).await.expect("it is there");
    assert!(copies.rig.gate.promise(&name, version(9)).await.is_given);
    let basis = Basis::default();
    let kept_out = copies.rig.gate.commit(name, basis, content(5), staged).await;
    assert!(matches!(kept_out, Err(crate::gate::GateError::Promised(_))), "{kept_out:?}");
    assert_eq!(copies.read().await, None);
}

#[tokio::test]
async fn a_tombstone_needs_no_transfer() {
    let copies = Copies::new(MemberState::Active).await;
    let stat = stat_of(&copies.rig, 5, PAYLOAD).await;
    let (size_bytes, digest) = (0, Default::default());
    let tombstone = Stat { kind: Kind::Tombstone, size_bytes, digest, ..stat };
    let stored = copies.copy(&tombstone, &[FIRST]).await.expect("it is all there");
    assert_eq!(stored, WriteOutcome::Stored);
    assert_eq!(copies.rig.stat("a").await, Some(tombstone));
    assert!(copies.asked().is_empty());
}

#[tokio::test]
async fn more_copies_than_may_be_are_refused() {
    let copies = Copies::new(MemberState::Active).await;
    let stat = stat_of(&copies.rig, 5, PAYLOAD).await;
    copies.gives(FIRST, Source::of(&stat, &[PAYLOAD]));
    let held = copies.copier.permits.acquire_many(16).await.expect("never closed");
    let refused = copies.copy(&stat, &[FIRST]).await;
    assert!(matches!(&refused, Err(error @ InternalError::Busy) if error.is_refusal()));
    drop(held);
    assert_eq!(copies.copy(&stat, &[FIRST]).await.expect("room"), WriteOutcome::Stored);
}
