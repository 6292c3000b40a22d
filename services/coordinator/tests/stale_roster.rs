//! An api that has not heard of a member asks the old ones, for a name or for a
//! page of a list, and all say "no".
//! Their answers carry the digest of a roster that it does not know, which it
//! must resolve before it concludes anything.

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_bus::{Bus, Inbox, MemoryBroker, MemoryBrokerOptions, Message, Topic};
use holdfast_coordinator::cluster::Cluster;
use holdfast_coordinator::error::ObjectError;
use holdfast_coordinator::objects::{ListPage, ListQuery, Objects, ObjectsConfig};
use holdfast_core::locate::{Located, Verdict};
use holdfast_core::name::{Key, ObjectName};
use holdfast_core::node::{Address, Generation, NodeId};
use holdfast_core::object::{Digest, Kind, Metadata, Stat};
use holdfast_core::policy::Policy;
use holdfast_core::roster::Roster;
use holdfast_core::version::Version;
use holdfast_core::wire::list::{ListAnswer, ListEntry, ListRequest};
use holdfast_core::wire::locate::{BatchAnswer, BatchRequest};
use holdfast_runtime::Runtime;
use tokio::sync::Semaphore;
use warp::Filter;
use warp::reply::Reply;

use common::{entry, heartbeat, listen, no, node, serve, start_api};

const OLD: NodeId = node(1);
const NEW: NodeId = node(2);

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

/// Who is given no stamp while others are finds the question late.
fn answer(id: NodeId, address: &Address, request: &BatchRequest, roster: &Roster) -> BatchAnswer {
    let late = !request.stamps.is_empty() && !request.stamps.contains_key(&id);
    let found = if id == NEW && !late { vec![(0, stat())] } else { Vec::new() };
    BatchAnswer { found, late, ..no(id, address, request, roster) }
}

/// A member's roster, and whether it tells more of it than its digest.
#[derive(Default)]
struct Told {
    roster: Roster,
    tells: bool,
}

/// What a test holds up of what a member does.
#[derive(Clone)]
struct Turnstile {
    /// Questions that have come, for tests to wait for.
    came: Arc<Semaphore>,
    /// Answers that may go.
    may_go: Arc<Semaphore>,
}

impl Turnstile {
    fn new(may_go: usize) -> Self {
        Self { came: Arc::new(Semaphore::new(0)), may_go: Arc::new(Semaphore::new(may_go)) }
    }

    fn open() -> Self {
        Self::new(Semaphore::MAX_PERMITS)
    }

    /// What is ready goes once it may.
    async fn pass<T>(self, ready: T) -> T {
        self.came.add_permits(1);
        self.may_go.acquire().await.expect("never closed").forget();
        ready
    }

    async fn next_came(&self) {
        self.came.acquire().await.expect("never closed").forget();
    }
}

/// A member's internal paths: its roster, if it tells it, its locate and its
/// list.
async fn serve_member(
    runtime: &Runtime,
    id: NodeId,
    rosters: Turnstile,
    locates: Turnstile,
) -> (Address, Arc<std::sync::Mutex<Told>>) {
    let (listener, address) = listen(runtime).await;
    let told: Arc<std::sync::Mutex<Told>> = Arc::default();
    let for_roster = Arc::clone(&told);
    let roster = warp::path!("internal" / "v1" / "roster").then(move || {
        let told = for_roster.lock().expect("no panic");
        rosters.clone().pass(match told.tells {
            true => warp::reply::json(&told.roster).into_response(),
            false => http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        })
    });
    let (here, for_locate) = (address.clone(), Arc::clone(&told));
    let locate = warp::path!("internal" / "v1" / "locate").and(warp::body::bytes()).then(
        move |body: Bytes| {
            let request = BatchRequest::decode(&body).expect("a batch");
            let roster = &for_locate.lock().expect("no panic").roster;
            let answer = answer(id, &here, &request, roster);
            locates.clone().pass(warp::reply::json(&answer).into_response())
        },
    );
    let (here, for_list) = (address.clone(), Arc::clone(&told));
    let list =
        warp::path!("internal" / "v1" / "list").and(warp::body::json()).map(move |request| {
            let roster = &for_list.lock().expect("no panic").roster;
            warp::reply::json(&page(id, &here, &request, roster)).into_response()
        });
    serve(runtime, listener, roster.or(locate).unify().or(list).unify().boxed());
    (address, told)
}

/// A member that answers every batch over the bus, and knows `roster`.
fn answer_on_bus(
    runtime: &Runtime,
    bus: Arc<dyn Bus>,
    mut inbox: Inbox,
    (id, address): (NodeId, Address),
    roster: Roster,
    turnstile: Turnstile,
) {
    runtime.spawn("member-on-bus", async move {
        while let Some(message) = inbox.locate.recv().await {
            let request = BatchRequest::decode(&message.body).expect("a batch");
            let answer = answer(id, &address, &request, &roster).encode();
            let body = Bytes::from(turnstile.clone().pass(answer).await);
            let reply =
                Message { body, correlation_id: message.correlation_id, ..Message::default() };
            bus.reply(&message.reply_to.expect("an answer is wanted"), reply).await.expect("sent");
        }
    });
}

/// An api that knows only the old member, while only the new one has anything.
struct StaleApi {
    cluster: Cluster,
    objects: Objects,
    old_address: Address,
    /// What the old member tells of its roster.
    old_roster: Arc<std::sync::Mutex<Told>>,
}

/// What is held up.
struct Turnstiles {
    old_roster: Turnstile,
    old_on_bus: Turnstile,
    new_on_bus: Turnstile,
    new_over_http: Turnstile,
}

impl Turnstiles {
    fn open() -> Self {
        let (old_roster, old_on_bus) = (Turnstile::open(), Turnstile::open());
        let (new_on_bus, new_over_http) = (Turnstile::open(), Turnstile::open());
        Self { old_roster, old_on_bus, new_on_bus, new_over_http }
    }
}

/// `tells` says whether the old member gives its roster away.
async fn stale_api(tells: bool, config: ObjectsConfig, turnstiles: Turnstiles) -> StaleApi {
    let runtime = Runtime::real();
    let Turnstiles { old_roster: rosters, old_on_bus, new_on_bus, new_over_http } = turnstiles;
    let (old_address, old_roster) = serve_member(&runtime, OLD, rosters, Turnstile::open()).await;
    let (new_address, new_roster) =
        serve_member(&runtime, NEW, Turnstile::open(), new_over_http).await;
    let stale = Roster::found(node(9), Policy::default(), entry(OLD, &old_address));
    let mut current = stale.clone();
    current.apply_entry(&entry(NEW, &new_address));
    *new_roster.lock().expect("no panic") = Told { roster: current.clone(), tells: true };
    *old_roster.lock().expect("no panic") = Told { roster: current.clone(), tells };
    let broker = MemoryBroker::new(runtime.clone(), MemoryBrokerOptions::default());
    let (old_bus, old_inbox) = broker.connect(&Topic::ALL);
    let (new_bus, new_inbox) = broker.connect(&Topic::ALL);
    let (bus, inbox) = broker.connect(&[Topic::ApiServers]);
    // The heartbeat is from before the join; only the answers tell of it.
    old_bus.publish(Topic::ApiServers, heartbeat(OLD, &old_address, &stale)).await.expect("sent");
    let old = (OLD, old_address.clone());
    answer_on_bus(&runtime, old_bus, old_inbox, old, current.clone(), old_on_bus);
    answer_on_bus(&runtime, new_bus, new_inbox, (NEW, new_address), current, new_on_bus);
    // Nothing here waits for the timeout, on however busy a machine.
    let timeout = Duration::from_secs(20);
    let (cluster, objects) =
        start_api(&runtime, (bus, inbox), (stale, &[OLD]), timeout, config).await;
    StaleApi { cluster, objects, old_address, old_roster }
}

async fn locate_through_a_stale_api(tells: bool) -> Located {
    let api = stale_api(tells, ObjectsConfig::default(), Turnstiles::open()).await;
    api.objects.locate(&ObjectName::seed(key())).await.expect("an outcome")
}

async fn list_through_a_stale_api(
    tells: bool,
    config: ObjectsConfig,
) -> Result<ListPage, ObjectError> {
    let query = ListQuery { limit: 10, ..ListQuery::default() };
    stale_api(tells, config, Turnstiles::open()).await.objects.list(&query).await
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

/// The new member is met in the middle of the batch, which it got, too, and finds
/// late.
async fn locate_while_the_new_one_is_met(turnstiles: Turnstiles) -> Located {
    let api = stale_api(true, ObjectsConfig::default(), turnstiles).await;
    api.objects.locate(&ObjectName::seed(key())).await.expect("an outcome")
}

/// Time for something to do the harm that it did once. A test that passes does so
/// however long this is.
async fn a_moment() {
    Runtime::real().sleep(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn who_finds_the_question_late_over_both_ways_is_waited_for() {
    let (new_on_bus, new_over_http) = (Turnstile::new(0), Turnstile::new(1));
    let locate = locate_while_the_new_one_is_met(Turnstiles {
        new_on_bus: new_on_bus.clone(),
        new_over_http: new_over_http.clone(),
        ..Turnstiles::open()
    });
    let (located, ()) = tokio::join!(locate, async {
        // Once without its stamp, and once with the one that it gave then.
        new_over_http.next_came().await;
        new_over_http.next_came().await;
        new_on_bus.may_go.add_permits(1);
        a_moment().await;
        new_over_http.may_go.add_permits(1);
    });
    let found = matches!(located.verdict(), Verdict::Found(replica) if replica.node == NEW);
    assert!(found, "{located:?}");
}

#[tokio::test]
async fn who_answers_before_it_is_known_is_asked_when_it_is_met() {
    let (old_on_bus, new_on_bus) = (Turnstile::new(0), Turnstile::open());
    let locate = locate_while_the_new_one_is_met(Turnstiles {
        old_on_bus: old_on_bus.clone(),
        new_on_bus: new_on_bus.clone(),
        ..Turnstiles::open()
    });
    let (located, ()) = tokio::join!(locate, async {
        new_on_bus.next_came().await;
        a_moment().await;
        old_on_bus.may_go.add_permits(1);
    });
    let found = matches!(located.verdict(), Verdict::Found(replica) if replica.node == NEW);
    assert!(found, "{located:?}");
}

#[tokio::test]
async fn who_is_met_between_an_answer_and_its_judgement_is_waited_for() {
    let old_on_bus = Turnstile::new(0);
    let turnstiles = Turnstiles { old_on_bus: old_on_bus.clone(), ..Turnstiles::open() };
    let StaleApi { cluster, objects, old_roster, .. } =
        stale_api(true, ObjectsConfig::default(), turnstiles).await;
    let current = old_roster.lock().expect("no panic").roster.clone();
    let name = ObjectName::seed(key());
    let (located, ()) = tokio::join!(objects.locate(&name), async {
        old_on_bus.next_came().await;
        a_moment().await;
        // Both in one turn of this thread: the roster is known, and the answer of
        // one who knows it is there, before the lookup goes on.
        old_on_bus.may_go.add_permits(1);
        cluster.merge_roster(current).await.expect("it is of this cluster");
    });
    let located = located.expect("an outcome");
    let found = matches!(located.verdict(), Verdict::Found(replica) if replica.node == NEW);
    assert!(found, "{located:?}");
}

#[tokio::test]
async fn a_roster_that_was_asked_for_earlier_does_not_stand_for_a_later_one() {
    let old_roster = Turnstile::new(0);
    let turnstiles = Turnstiles { old_roster: old_roster.clone(), ..Turnstiles::open() };
    let StaleApi { cluster, old_address, old_roster: told, .. } =
        stale_api(true, ObjectsConfig::default(), turnstiles).await;
    let include = async |digest| {
        let included = cluster.include(OLD, old_address.clone(), digest).await;
        (included, cluster.snapshot().roster.clone())
    };
    let earlier = told.lock().expect("no panic").roster.clone();
    let mut later = earlier.clone();
    later.apply_entry(&entry(node(3), &"ds-3:80".parse().expect("an address")));
    let (of_earlier, of_later) = (earlier.digest(), later.digest());
    let (first, second) = tokio::join!(include(of_earlier), async {
        // The answer is on its way when the member learns of another one, and tells.
        old_roster.next_came().await;
        told.lock().expect("no panic").roster = later;
        let open = async {
            a_moment().await;
            old_roster.may_go.add_permits(2);
        };
        tokio::join!(include(of_later), open).0
    });
    let (included, roster) = first;
    assert!(included && roster.get(NEW).is_some(), "{roster:?}");
    let (included, roster) = second;
    assert!(included && roster.get(node(3)).is_some(), "{roster:?}");
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
