//! Data servers come, go, die and come back.

#![allow(clippy::disallowed_methods, reason = "silence is measured by the real clock")]

use std::time::Instant;

use holdfast_testkit::client;
use holdfast_testkit::cluster::{EXPIRY, INTERVAL, Options, ProcessCluster, SharedCluster, member};
use holdfast_testkit::logs::AWAY;
use holdfast_testkit::process::Service;
use holdfast_testkit::seed::SeedQueue;
use holdfast_testkit::wait;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};

static CLUSTER: SharedCluster = SharedCluster::new();

async fn hearing(api: &Service, address: &str) -> String {
    let member = member(api, address).await;
    member.get("hearing").and_then(|hearing| hearing.as_str()).unwrap_or("unknown").to_owned()
}

async fn heard_as(api: &Service, address: &str, expected: &str) {
    let what = format!("{} hears {address} as {expected}", api.name());
    wait::until_true(&what, async || hearing(api, address).await == expected).await;
}

async fn put(address: &str, path: &str, body: &str) -> u16 {
    client::put(address, path, body.as_bytes()).await.expect("an answer").status
}

async fn get(address: &str, path: &str) -> (u16, String) {
    let answer = client::get(address, path).await.expect("an answer");
    let text = if answer.status == 200 { answer.text() } else { answer.code() };
    (answer.status, text)
}

/// The address of the only holder of an object.
async fn holder(api: &str, name: &str) -> String {
    let answer = client::get(api, &format!("/locate/{name}")).await.expect("an answer");
    answer.json().as_str().expect("it is there").to_owned()
}

/// A PUT that may meet a member which is dead but not silent yet.
async fn put_until_stored(api: &str, path: &str, body: &str) {
    wait::until_true("the PUT is taken", async || put(api, path, body).await == 200).await;
}

#[tokio::test]
async fn two_apis_agree() {
    let mut guard = CLUSTER.lock(Options::default()).await;
    let cluster = guard.as_mut().expect("started");
    let (one, two) = (cluster.api(0), cluster.api(1));
    for round in 0..20 {
        let path = format!("/objects/agree-{}", round % 5);
        let (writer, reader) = if round % 2 == 0 { (one, two) } else { (two, one) };
        let body = format!("round {round}");
        assert_eq!(put(writer, &path, &body).await, 200);
        assert_eq!(get(reader, &path).await, (200, body));
    }
    assert_eq!(client::delete(one, "/objects/agree-0").await.expect("an answer").status, 204);
    assert_eq!(get(two, "/objects/agree-0").await.0, 404);
    cluster.check_logs(&[]);
}

#[tokio::test]
async fn a_killed_data_server_is_silent_within_the_expiry_and_writes_go_on() {
    let mut guard = CLUSTER.lock(Options::default()).await;
    let cluster = guard.as_mut().expect("started");
    let victim = cluster.data_servers[0].address().to_owned();
    let killed = Instant::now();
    cluster.data_servers[0].kill().await;
    for api in &cluster.apis {
        heard_as(api, &victim, "silent").await;
    }
    // One more look, and what a busy machine adds.
    assert!(killed.elapsed() < EXPIRY + INTERVAL * 4, "{:?}", killed.elapsed());
    for index in 0..20 {
        assert_eq!(put(cluster.api(index % 2), &format!("/objects/after-{index}"), "x").await, 200);
    }
    let left = member(&cluster.apis[0], &victim).await;
    assert_eq!(left["state"], "active", "silence takes nobody off the roster");
    assert_eq!(left["takes_data"], false);
    cluster.data_servers[0].restart().await;
    cluster.ready().await;
    cluster.check_logs(&AWAY);
}

#[tokio::test]
async fn what_only_a_dead_member_holds_is_never_said_to_be_absent() {
    let mut guard = CLUSTER.lock(Options::default()).await;
    let cluster = guard.as_mut().expect("started");
    assert_eq!(put(cluster.api(0), "/objects/precious", "gold").await, 200);
    let dead = holder(cluster.api(0), "precious").await;
    cluster.data_server_at(&dead).kill().await;
    heard_as(&cluster.apis[1], &dead, "silent").await;
    cluster.apis[0].restart().await;
    heard_as(&cluster.apis[0], &dead, "silent").await;
    for api in [cluster.api(0), cluster.api(1)] {
        for path in ["/objects/precious", "/locate/precious", "/objects/never-there"] {
            let answer = client::get(api, path).await.expect("an answer");
            assert_eq!((answer.status, answer.code().as_str()), (503, "incomplete"), "{path}");
            assert!(answer.header("retry-after").is_some());
            let node = &answer.json()["silent"];
            assert_eq!(node.as_array().map(Vec::len), Some(1), "it says who: {node}");
        }
    }
    cluster.data_server_at(&dead).restart().await;
    for index in 0..2 {
        let api = cluster.api(index);
        wait::until_true("the object is back", async || {
            let (status, text) = get(api, "/objects/precious").await;
            assert_ne!(status, 404);
            (status, text.as_str()) == (200, "gold")
        })
        .await;
        wait::until_true("absence is proven again", async || {
            get(api, "/objects/never-there").await.0 == 404
        })
        .await;
    }
    cluster.ready().await;
    cluster.check_logs(&AWAY);
}

#[tokio::test]
async fn an_api_that_starts_while_the_holder_is_dead_never_says_absent() {
    let mut guard = CLUSTER.lock(Options::default()).await;
    let cluster = guard.as_mut().expect("started");
    assert_eq!(put(cluster.api(0), "/objects/warm-up", "gold").await, 200);
    let dead = holder(cluster.api(0), "warm-up").await;
    cluster.data_server_at(&dead).kill().await;
    let mut late = cluster.new_api();
    late.start();
    // From its very first answer on.
    let mut answers = 0;
    wait::until_true("it knows of the dead member", async || {
        if let Ok(answer) = client::get(late.address(), "/objects/warm-up").await {
            assert_eq!(answer.status, 503, "{}", answer.text());
            answers += 1;
        }
        hearing_if_up(&late, &dead).await == "silent"
    })
    .await;
    assert!(answers > 0);
    cluster.data_server_at(&dead).restart().await;
    wait::until_true("the object is back", async || {
        get(late.address(), "/objects/warm-up").await.0 == 200
    })
    .await;
    late.check_log(&AWAY);
    cluster.ready().await;
    cluster.check_logs(&AWAY);
}

async fn hearing_if_up(api: &Service, address: &str) -> String {
    match client::get(api.admin(), "/livez").await {
        Ok(_) => hearing(api, address).await,
        Err(_) => String::new(),
    }
}

#[tokio::test]
async fn a_data_server_that_shuts_down_gets_no_new_data_and_returns_as_a_new_run() {
    let mut guard = CLUSTER.lock(Options::default()).await;
    let cluster = guard.as_mut().expect("started");
    let leaver = cluster.data_servers[2].address().to_owned();
    let before = member(&cluster.apis[0], &leaver).await;
    // Long enough that it says goodbye and is still there.
    cluster.data_servers[2].set("SHUTDOWN_DELAY", "1500ms");
    cluster.data_servers[2].restart().await;
    cluster.ready().await;
    let signalled = Instant::now();
    cluster.data_servers[2].terminate();
    for api in &cluster.apis {
        heard_as(api, &leaver, "leaving").await;
        assert!(signalled.elapsed() < EXPIRY, "at once, not by expiry");
        let listed = member(api, &leaver).await;
        assert_eq!((&listed["takes_data"], &listed["state"]), (&false.into(), &"active".into()));
    }
    for index in 0..20 {
        let name = format!("while-leaving-{index}");
        let api = cluster.api(index % 2);
        assert_eq!(put(api, &format!("/objects/{name}"), "x").await, 200);
        assert_ne!(holder(api, &name).await, leaver);
    }
    let status = cluster.data_servers[2].ended().await;
    assert_eq!(status.code(), Some(0));
    cluster.data_servers[2].set("SHUTDOWN_DELAY", "100ms");
    cluster.data_servers[2].start();
    cluster.ready().await;
    let after = member(&cluster.apis[0], &leaver).await;
    assert_eq!(after["node"], before["node"]);
    let generation = |listed: &serde_json::Value| listed["generation"].as_u64().expect("a number");
    assert_eq!(generation(&after), generation(&before) + 2, "two restarts");
    cluster.check_logs(&AWAY);
}

#[tokio::test]
async fn heartbeats_of_an_earlier_run_are_ignored() {
    let mut guard = CLUSTER.lock(Options::default()).await;
    let cluster = guard.as_mut().expect("started");
    cluster.data_servers[1].restart().await;
    cluster.ready().await;
    let api = &cluster.apis[0];
    let address = cluster.data_servers[1].address();
    let listed = member(api, address).await;
    let stale = api.metric("holdfast_heartbeats_dropped_total", &["stale"]).await;
    // Somebody else's address, and a goodbye, in the name of the first run.
    let text = |text: &str| AMQPValue::LongString(LongString::from(text));
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("holdfast-protocol", AMQPValue::LongLongInt(1)),
        ("holdfast-node", text(listed["node"].as_str().expect("an id"))),
        ("holdfast-generation", AMQPValue::LongLongInt(1)),
        ("holdfast-state", text("active")),
        ("holdfast-leaving", AMQPValue::LongLongInt(1)),
        ("holdfast-free-bytes", AMQPValue::LongLongInt(1)),
        ("holdfast-total-bytes", AMQPValue::LongLongInt(1)),
        ("holdfast-roster", text("0000000000000000")),
        ("holdfast-founded", AMQPValue::LongLongInt(1)),
        ("holdfast-newcomers-seen", AMQPValue::LongLongInt(0)),
        ("holdfast-sent-unix-millis", AMQPValue::LongLongInt(1)),
    ] {
        headers.insert(ShortString::from(name), value);
    }
    let queue = SeedQueue::new(&cluster.broker.url()).await;
    let properties = queue.properties().with_headers(headers);
    queue.publish_raw("apiServers", "", b"\"127.0.0.1:1\"", properties).await;
    wait::until_true("it is counted", async || {
        api.metric("holdfast_heartbeats_dropped_total", &["stale"]).await > stale
    })
    .await;
    let still = member(api, address).await;
    assert_eq!((&still["hearing"], &still["takes_data"]), (&"heard".into(), &true.into()));
    assert_eq!(member(api, "127.0.0.1:1").await, serde_json::Value::Null);
    cluster.check_logs(&AWAY);
}

#[tokio::test]
async fn what_was_replaced_or_deleted_while_its_holder_was_away_stays_so() {
    let mut guard = CLUSTER.lock(Options::default()).await;
    let cluster = guard.as_mut().expect("started");
    // Both names on one member, so that one death is enough.
    let mut names = Vec::new();
    let mut away = String::new();
    for index in 0.. {
        let name = format!("old-{index}");
        assert_eq!(put(cluster.api(0), &format!("/objects/{name}"), "old").await, 200);
        let at = holder(cluster.api(0), &name).await;
        if away.is_empty() {
            away.clone_from(&at);
        }
        if at == away {
            names.push(format!("/objects/{name}"));
        }
        if names.len() == 2 {
            break;
        }
    }
    cluster.data_server_at(&away).kill().await;
    for api in &cluster.apis {
        heard_as(api, &away, "silent").await;
    }
    put_until_stored(cluster.api(0), &names[0], "new").await;
    assert_eq!(get(cluster.api(1), &names[0]).await, (200, "new".to_owned()));
    let deleted = client::delete(cluster.api(1), &names[1]).await.expect("an answer");
    assert_eq!(deleted.status, 204);
    // A member that is away might hold something newer than the tombstone.
    assert_eq!(get(cluster.api(0), &names[1]).await, (503, "incomplete".to_owned()));
    cluster.data_server_at(&away).start();
    // In every moment of the return, not only after it.
    let dead = away.clone();
    let (one, two) = (cluster.apis[0].address().to_owned(), cluster.apis[1].address().to_owned());
    for api in [one, two] {
        let listed = cluster.apis.iter().find(|service| service.address() == api);
        let listed = listed.expect("one of ours");
        wait::until_true("it is back", async || {
            assert_eq!(get(&api, &names[0]).await, (200, "new".to_owned()));
            assert_ne!(get(&api, &names[1]).await.0, 200, "the deleted object is back");
            hearing(listed, &dead).await == "heard"
        })
        .await;
        assert_eq!(get(&api, &names[0]).await, (200, "new".to_owned()));
        wait::until_true("absence is proven again", async || {
            let (status, _) = get(&api, &names[1]).await;
            assert_ne!(status, 200, "the deleted object is back");
            status == 404
        })
        .await;
    }
    cluster.ready().await;
    cluster.check_logs(&AWAY);
}

#[tokio::test]
async fn a_new_data_server_joins_and_gets_its_share_of_new_names() {
    let options = Options { data_servers: 2, apis: 1, ..Options::default() };
    let mut cluster = ProcessCluster::start(options).await;
    assert_eq!(put(cluster.api(0), "/objects/before", "x").await, 200);
    let mut joiner = cluster.new_data_server();
    joiner.start();
    joiner.ready().await;
    cluster.data_servers.push(joiner);
    cluster.ready().await;
    let joined = cluster.data_servers[2].address().to_owned();
    let mut share = 0;
    for index in 0..90 {
        let name = format!("spread-{index}");
        assert_eq!(put(cluster.api(0), &format!("/objects/{name}"), "x").await, 200);
        share += usize::from(holder(cluster.api(0), &name).await == joined);
    }
    // A third of 90 is 30; less than 12 or more than 51 come once in 10,000 runs.
    assert!((12..=51).contains(&share), "{share} of 90");
    assert_eq!(get(cluster.api(0), "/objects/before").await.0, 200);
    cluster.check_logs(&[]);
}

#[tokio::test]
async fn without_data_servers_there_is_no_service_and_the_answer_says_so() {
    let options = Options { data_servers: 0, apis: 1, ..Options::default() };
    let mut cluster = ProcessCluster::start_without_waiting(options).await;
    let api = &cluster.apis[0];
    wait::until_true("it listens", async || client::get(api.admin(), "/livez").await.is_ok()).await;
    for (method, path) in [
        ("PUT", "/objects/a"),
        ("GET", "/objects/a"),
        ("DELETE", "/objects/a"),
        ("GET", "/locate/a"),
    ] {
        let answer = client::request(api.address(), method, path, &[], b"").await;
        let answer = answer.expect("an answer");
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (503, "no-data-servers"),
            "{method} {path}"
        );
        assert!(answer.header("retry-after").is_some(), "{method} {path}");
    }
    assert_eq!(api.admin_page("/readyz").await.status, 503);
    cluster.check_logs(&["status=503"]);
}
