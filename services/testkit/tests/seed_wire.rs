//! Holdfast and the programs of the seed understand each other, in both
//! directions: each test plays one of the seed's programs byte for byte.

use std::time::Duration;

use holdfast_testkit::broker::Broker;
use holdfast_testkit::client;
use holdfast_testkit::cluster::{EXPIRY, INTERVAL, Options, ProcessCluster, SharedCluster};
use holdfast_testkit::process::Service;
use holdfast_testkit::seed::{SeedDataServer, SeedQueue, unquote};
use holdfast_testkit::wait;
use lapin::options::ExchangeDeclareOptions;

static CLUSTER: SharedCluster = SharedCluster::new();

fn options() -> Options {
    Options { data_servers: 2, apis: 1, ..Options::default() }
}

/// Longer than an answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// The seed waits this long for an answer, and takes none for "nowhere".
const SEED_TIMEOUT: Duration = Duration::from_secs(1);

/// The seed's `locate.Locate`: a connection and a queue for each lookup.
async fn seed_locate(url: &str, name: &str) -> Option<String> {
    let mut queue = SeedQueue::new(url).await;
    queue.publish("dataServers", name).await;
    queue.consume().await;
    let answer = queue.next(SEED_TIMEOUT).await;
    queue.close().await;
    answer.map(|message| unquote(&message.data))
}

async fn guests(api: &Service) -> Vec<String> {
    let listed = api.data_servers().await;
    let guests = listed.get("guests").cloned().unwrap_or_default();
    serde_json::from_value(guests).expect("a list of addresses")
}

async fn guest_is_listed(api: &Service, guest: &SeedDataServer) {
    wait::until_true("the guest is listed", async || {
        guests(api).await == [guest.address().to_owned()]
    })
    .await;
}

#[tokio::test]
async fn a_seed_api_hears_heartbeats_it_understands() {
    let guard = CLUSTER.lock(options()).await;
    let cluster = guard.as_ref().expect("started");
    let mut queue = SeedQueue::new(&cluster.broker.url()).await;
    queue.bind("apiServers").await;
    queue.consume().await;
    let mut unheard: Vec<String> =
        cluster.data_servers.iter().map(|service| service.address().to_owned()).collect();
    while !unheard.is_empty() {
        let message = queue.next(PATIENCE).await.expect("a heartbeat every interval");
        let address = unquote(&message.data);
        // Not only the same JSON, the same bytes.
        assert_eq!(message.data, format!("\"{address}\"").as_bytes());
        unheard.retain(|expected| *expected != address);
    }
}

#[tokio::test]
async fn a_seed_api_finds_stores_and_reads_objects() {
    let guard = CLUSTER.lock(options()).await;
    let cluster = guard.as_ref().expect("started");
    let url = cluster.broker.url();
    let at = cluster.data_servers[1].address();
    // objectstream.PutStream: a PUT of unknown length straight to a data server.
    let mut connection = client::Connection::open(at).await.expect("it listens");
    let headers = [("Transfer-Encoding", "chunked"), ("User-Agent", "Go-http-client/1.1")];
    connection.send_head("PUT", "/objects/seed-one", &headers).await.expect("sent");
    connection.send(b"16\r\nthis is a test objects\r\n0\r\n\r\n").await.expect("sent");
    assert_eq!(connection.response("PUT").await.expect("an answer").status, 200);
    let found = seed_locate(&url, "seed-one").await.expect("somebody has it");
    // objectstream.GetStream, and with the slash that the seed forgets.
    let answer = client::get(&found, "/objects/seed-one").await.expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "this is a test objects"));
    // The seed checks nothing but the status, and any data server may be asked.
    for service in &cluster.data_servers {
        let answer = client::get(service.address(), "/objects/seed-one").await.expect("an answer");
        assert_eq!(answer.status, 200);
        let answer = client::get(service.address(), "/objects/none").await.expect("an answer");
        assert_eq!(answer.status, 404);
    }
    // It is the same object for clients of the api.
    let answer = client::get(cluster.api(0), "/objects/seed-one").await.expect("an answer");
    assert_eq!(answer.text(), "this is a test objects");
    let answer = client::get(cluster.api(0), "/locate/seed-one").await.expect("an answer");
    assert_eq!(answer.json(), serde_json::Value::String(found));
}

#[tokio::test]
async fn who_has_nothing_is_silent() {
    let guard = CLUSTER.lock(options()).await;
    let cluster = guard.as_ref().expect("started");
    let url = cluster.broker.url();
    assert_eq!(seed_locate(&url, "nowhere").await, None);
    client::put(cluster.api(0), "/objects/gone", b"x").await.expect("an answer");
    assert!(seed_locate(&url, "gone").await.is_some());
    client::delete(cluster.api(0), "/objects/gone").await.expect("an answer");
    assert_eq!(seed_locate(&url, "gone").await, None, "a tombstone is no object");
    assert_eq!(client::get(cluster.api(0), "/locate/gone").await.expect("an answer").status, 404);
}

#[tokio::test]
async fn a_name_is_tried_as_it_stands_and_then_decoded() {
    let guard = CLUSTER.lock(options()).await;
    let cluster = guard.as_ref().expect("started");
    let url = cluster.broker.url();
    // What a client of the seed's api asks for arrives escaped on the wire.
    for (path, on_the_wire) in [
        ("/objects/with%20space", "with%20space"),
        ("/objects/%E5%AF%B9%E8%B1%A1", "%E5%AF%B9%E8%B1%A1"),
        ("/objects/plain", "plain"),
        // The name itself has a percent sign.
        ("/objects/100%2525", "100%25"),
    ] {
        let stored = client::put(cluster.api(0), path, path.as_bytes()).await.expect("an answer");
        assert_eq!(stored.status, 200, "{path}");
        let found = seed_locate(&url, on_the_wire).await;
        let found = found.unwrap_or_else(|| panic!("{on_the_wire} is found"));
        let expected = client::get(cluster.api(0), &path.replace("objects", "locate")).await;
        assert_eq!(expected.expect("an answer").json(), serde_json::Value::String(found));
    }
    assert!(seed_locate(&url, "with space").await.is_some(), "as it stands");
    assert_eq!(seed_locate(&url, "no%20space").await, None);
    assert_eq!(seed_locate(&url, "bad%escape%zz").await, None);
}

#[tokio::test]
async fn many_answers_to_one_queue_are_never_mixed_up_with_batches() {
    let guard = CLUSTER.lock(options()).await;
    let cluster = guard.as_ref().expect("started");
    client::put(cluster.api(0), "/objects/often", b"x").await.expect("an answer");
    let mut queue = SeedQueue::new(&cluster.broker.url()).await;
    queue.consume().await;
    for _ in 0..50 {
        queue.publish("dataServers", "often").await;
    }
    let mut answers = Vec::new();
    while answers.len() < 50 {
        answers.push(unquote(&queue.next(PATIENCE).await.expect("one each").data));
    }
    assert!(answers.iter().all(|answer| answer == &answers[0]), "{answers:?}");
    assert!(queue.next(Duration::from_millis(100)).await.is_none(), "one holder, one answer");
}

#[tokio::test]
async fn a_seed_data_server_is_a_guest_and_counts_nowhere() {
    let mut guard = CLUSTER.lock(options()).await;
    let cluster = guard.as_mut().expect("started");
    let guest = SeedDataServer::start(&cluster.broker.url(), INTERVAL).await;
    let api = &cluster.apis[0];
    guest_is_listed(api, &guest).await;
    let listed = api.data_servers().await;
    assert_eq!(listed["dataservers"].as_array().map(Vec::len), Some(2), "{listed}");
    assert_eq!(api.metric("holdfast_dataservers", &["guest"]).await, 1.0);
    assert_eq!(api.metric("holdfast_dataservers", &["active"]).await, 2.0);
    // New data goes to members only.
    for index in 0..20 {
        let path = format!("/objects/native-{index}");
        assert_eq!(client::put(api.address(), &path, b"x").await.expect("an answer").status, 200);
    }
    assert_eq!(guest.file_count(), 0);
    // What only the guest has is found, by its escaped name.
    guest.insert("old%20file", b"from the seed");
    let answer = client::get(api.address(), "/objects/old%20file").await.expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "from the seed"));
    let answer = client::get(api.address(), "/locate/old%20file").await.expect("an answer");
    assert_eq!(answer.json(), guest.address());
    // A miss is still a miss, and an overwrite goes to a member and wins.
    assert_eq!(client::get(api.address(), "/objects/none").await.expect("an answer").status, 404);
    client::put(api.address(), "/objects/old%20file", b"new").await.expect("an answer");
    let answer = client::get(api.address(), "/objects/old%20file").await.expect("an answer");
    assert_eq!(answer.text(), "new");
    // So does a delete.
    guest.insert("doomed", b"from the seed");
    let answer = client::delete(api.address(), "/objects/doomed").await.expect("an answer");
    assert_eq!(answer.status, 204);
    let answer = client::get(api.address(), "/objects/doomed").await.expect("an answer");
    assert_eq!(answer.status, 404);
    guest.fall_silent();
    wait::until_true("the guest expires", async || guests(api).await.is_empty()).await;
    assert_eq!(api.metric("holdfast_dataservers", &["guest"]).await, 0.0);
    assert_eq!(api.metric("holdfast_dataservers", &["silent"]).await, 0.0);
    cluster.check_logs(&[]);
}

#[tokio::test]
async fn with_guests_alone_the_api_works_as_in_the_seed() {
    let options = Options { data_servers: 0, apis: 1, ..Options::default() };
    let mut cluster = ProcessCluster::start_without_waiting(options).await;
    let api = &cluster.apis[0];
    wait::until_true("it listens", async || client::get(api.admin(), "/livez").await.is_ok()).await;
    wait::until_true("the api's exchanges are there", async || {
        api.log().contains("listening") && api.metric("holdfast_broker_connected", &[]).await > 0.0
    })
    .await;
    let nobody = client::put(api.address(), "/objects/a", b"x").await.expect("an answer");
    assert_eq!((nobody.status, nobody.code().as_str()), (503, "no-data-servers"));
    let declared = SeedQueue::new(&cluster.broker.url()).await;
    // In the seed an operator declares it; here data servers do, and there are none.
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    declared.declare_exchange("dataServers", durable).await;
    let guest = SeedDataServer::start(&cluster.broker.url(), INTERVAL).await;
    guest_is_listed(api, &guest).await;
    let stored = client::put(api.address(), "/objects/a%20b", b"on the guest").await;
    assert_eq!(stored.expect("an answer").status, 200);
    assert_eq!(guest.file("a%20b").as_deref(), Some(&b"on the guest"[..]));
    let answer = client::get(api.address(), "/objects/a%20b").await.expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "on the guest"));
    let answer = client::get(api.address(), "/locate/a%20b").await.expect("an answer");
    assert_eq!(answer.json(), guest.address());
    guest.fall_silent();
    let (api, limit) = (&cluster.apis[0], EXPIRY * 4);
    wait::until_within(limit, "503 again", async || {
        let answer = client::put(api.address(), "/objects/a", b"x").await.expect("an answer");
        (answer.status == 503).then_some(())
    })
    .await;
    // A request that fails is worth a line.
    cluster.check_logs(&["status=503"]);
}

#[tokio::test]
async fn exchanges_that_are_there_are_used_as_they_are() {
    let broker = Broker::start().await;
    let queue = SeedQueue::new(&broker.url()).await;
    // Not durable, where Holdfast would declare them durable.
    for exchange in ["apiServers", "dataServers", "holdfast.locate"] {
        queue.declare_exchange(exchange, ExchangeDeclareOptions::default()).await;
    }
    let options = Options { data_servers: 1, apis: 1, broker_runs: false, ..Options::default() };
    let mut cluster = ProcessCluster::start_on(broker, options).await;
    cluster.ready().await;
    client::put(cluster.api(0), "/objects/a", b"x").await.expect("an answer");
    assert!(seed_locate(&cluster.broker.url(), "a").await.is_some());
    let before = cluster.apis[0].metric("holdfast_locate_requests_total", &["bus"]).await;
    assert_eq!(client::get(cluster.api(0), "/objects/a").await.expect("an answer").status, 200);
    let after = cluster.apis[0].metric("holdfast_locate_requests_total", &["bus"]).await;
    assert!(after > before, "over the bus");
    cluster.check_logs(&[]);
}
