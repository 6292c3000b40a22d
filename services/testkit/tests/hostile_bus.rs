//! Garbage on every exchange and every queue moves no process.

use std::time::Duration;

use holdfast_testkit::client;
use holdfast_testkit::cluster::{Options, ProcessCluster, SharedCluster, member};
use holdfast_testkit::seed::SeedQueue;
use holdfast_testkit::wait;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable, LongString, ShortString};

static CLUSTER: SharedCluster = SharedCluster::new();

const FLOODED: &[&str] = &["the broker is silent"];

const EXCHANGES: [&str; 3] = ["apiServers", "dataServers", "holdfast.locate"];

fn options() -> Options {
    Options { data_servers: 2, apis: 2, ..Options::default() }
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}

fn table(pairs: Vec<(&str, AMQPValue)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in pairs {
        table.insert(ShortString::from(name), value);
    }
    table
}

/// Headers of a heartbeat, each wrong in its own way.
fn hostile_headers() -> Vec<FieldTable> {
    let mut nested = table(vec![("deepest", AMQPValue::Void)]);
    for _ in 0..50 {
        nested = table(vec![("holdfast-node", AMQPValue::FieldTable(nested))]);
    }
    let array = FieldArray::from(vec![AMQPValue::Boolean(true), text("x")]);
    let int = AMQPValue::LongLongInt;
    let heartbeat = |changed: Vec<(&'static str, AMQPValue)>| {
        let mut pairs = vec![
            ("holdfast-protocol", int(1)),
            ("holdfast-node", text("00000000000000000000000000000007")),
            ("holdfast-generation", int(1)),
            ("holdfast-state", text("active")),
            ("holdfast-leaving", int(0)),
            ("holdfast-free-bytes", int(1)),
            ("holdfast-total-bytes", int(1)),
            ("holdfast-roster", text("0000000000000000")),
            ("holdfast-founded", int(1)),
            ("holdfast-newcomers-seen", int(0)),
            ("holdfast-sent-unix-millis", int(0)),
        ];
        pairs.extend(changed);
        table(pairs)
    };
    vec![
        nested.clone(),
        table(vec![("holdfast-protocol", AMQPValue::FieldArray(array.clone()))]),
        table(vec![("holdfast-protocol", int(99))]),
        table(vec![("holdfast-protocol", int(i64::MIN))]),
        table((0..500).map(|_| ("x", AMQPValue::Timestamp(u64::MAX))).collect()),
        heartbeat(vec![("holdfast-generation", int(i64::MAX))]),
        heartbeat(vec![("holdfast-generation", int(-1))]),
        heartbeat(vec![("holdfast-node", text("../../etc"))]),
        heartbeat(vec![("holdfast-node", AMQPValue::FieldTable(nested))]),
        heartbeat(vec![("holdfast-state", text(&"active".repeat(10_000)))]),
        heartbeat(vec![("holdfast-state", text("retired"))]),
        heartbeat(vec![("holdfast-free-bytes", int(i64::MAX))]),
        heartbeat(vec![("holdfast-free-bytes", AMQPValue::Double(1e300))]),
        heartbeat(vec![("holdfast-newcomers-seen", int(i64::MAX))]),
        heartbeat(vec![("holdfast-sent-unix-millis", int(i64::MAX))]),
        heartbeat(vec![("holdfast-roster", AMQPValue::FieldArray(array))]),
    ]
}

fn hostile_bodies() -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = [
        "",
        " ",
        "null",
        "7",
        "1e999",
        "{}",
        "[]",
        "\"",
        "\"\"",
        "\"no address\"",
        "\"host:99999\"",
        "\":80\"",
        "\"127.0.0.1:1\"",
        "[\"a\",\"b\"]",
        "{\"protocol\":1}",
        "{\"protocol\":99,\"id\":1,\"names\":[]}",
        "{\"protocol\":1,\"id\":1,\"names\":[{\"bucket\":\"objects\",\"key\":\"\"}]}",
        "{\"protocol\":1,\"id\":1,\"names\":[{\"bucket\":\"../..\",\"key\":\"a\"}]}",
        "{\"protocol\":1,\"id\":1,\"names\":[],\"traces\":{\"4294967295\":\"x\"}}",
        "{\"protocol\":1,\"id\":1,\"names\":[],\"trace\":\"00-zz\"}",
        "\"\\ud800\"",
        "\"a\\u0000b\"",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    bodies.push(vec![0xff; 100]);
    bodies.push(vec![b'['; 100_000]);
    bodies.push(vec![b'"'; 5 << 20]);
    bodies.push(format!("\"{}\"", "n".repeat(5 << 20)).into_bytes());
    let name = "{\"bucket\":\"objects\",\"key\":\"a\"},".repeat(1_000);
    let many = format!("{{\"protocol\":1,\"id\":1,\"names\":[{}]}}", name.trim_end_matches(','));
    bodies.push(many.into_bytes());
    bodies
}

fn pids(cluster: &ProcessCluster) -> Vec<u32> {
    cluster.apis.iter().chain(&cluster.data_servers).map(|service| service.pid()).collect()
}

async fn serves(cluster: &mut ProcessCluster) {
    for service in cluster.apis.iter_mut().chain(&mut cluster.data_servers) {
        assert!(service.is_running(), "{} ended:\n{}", service.name(), service.log());
    }
    // Hearing may be late when a queue was full of garbage; then it catches up.
    cluster.ready().await;
    for index in 0..2 {
        let path = format!("/objects/serves-{index}");
        let stored = client::put(cluster.api(index), &path, b"x").await.expect("an answer");
        assert_eq!(stored.status, 200, "{}", stored.text());
        let read = client::get(cluster.api(1 - index), &path).await.expect("an answer");
        assert_eq!((read.status, read.text().as_str()), (200, "x"));
        let missed = client::get(cluster.api(index), "/objects/none").await.expect("an answer");
        assert_eq!(missed.status, 404, "{}", missed.text());
    }
}

/// Sends all garbage of at most `most_bytes` to every exchange.
async fn flood(queue: &SeedQueue, most_bytes: usize) {
    for exchange in EXCHANGES {
        for body in hostile_bodies().iter().filter(|body| body.len() <= most_bytes) {
            let reply_to = queue.properties();
            let nowhere =
                BasicProperties::default().with_reply_to(ShortString::from("no-such-queue"));
            for properties in [BasicProperties::default(), reply_to, nowhere] {
                queue.publish_raw(exchange, "", body, properties).await;
            }
        }
        for headers in hostile_headers() {
            for body in ["\"127.0.0.1:1\"", "\"x\"", "{}"] {
                let properties = queue.properties().with_headers(headers.clone());
                queue.publish_raw(exchange, "", body.as_bytes(), properties).await;
            }
        }
    }
}

#[tokio::test]
async fn garbage_on_every_exchange_is_dropped_and_counted() {
    let mut guard = CLUSTER.lock(options()).await;
    let cluster = guard.as_mut().expect("started");
    let before = pids(cluster);
    let queue = SeedQueue::new(&cluster.broker.url()).await;
    flood(&queue, usize::MAX).await;
    serves(cluster).await;
    assert_eq!(pids(cluster), before);
    // A flood fills the queues, which drop the oldest: what is small is sent
    // again until each kind was counted.
    wait::until_true("each kind is counted", async || {
        flood(&queue, 100_000).await;
        let mut counts = Vec::new();
        for api in &cluster.apis {
            for reason in ["body", "header", "protocol"] {
                counts.push(api.metric("holdfast_heartbeats_dropped_total", &[reason]).await);
            }
        }
        for data_server in &cluster.data_servers {
            for reason in ["body", "protocol", "size"] {
                counts.push(data_server.metric("holdfast_locates_dropped_total", &[reason]).await);
            }
        }
        counts.iter().all(|count| *count > 0.0)
    })
    .await;
    // The address that garbage named is nobody's.
    let api = &cluster.apis[0];
    wait::until_true("what garbage claimed is forgotten", async || {
        let listed = api.data_servers().await;
        listed["guests"].as_array().is_some_and(Vec::is_empty)
            && member(api, "127.0.0.1:1").await["takes_data"] != true
    })
    .await;
    // A flood may hold up what each service sends to itself to see that the
    // broker works.
    cluster.check_logs(FLOODED);
}

/// The reply queues that the broker knows, as whoever is on the broker can
/// learn them: from the locates that name them.
async fn reply_queues(cluster: &ProcessCluster, spy: &mut SeedQueue) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    while found.len() < cluster.apis.len() {
        for api in &cluster.apis {
            client::get(api.address(), "/objects/none").await.expect("an answer");
        }
        while let Some(message) = spy.next(Duration::from_millis(300)).await {
            if let Some(reply_to) = message.properties.reply_to() {
                let name = reply_to.to_string();
                if !found.contains(&name) {
                    found.push(name);
                }
            }
        }
    }
    found
}

#[tokio::test]
async fn garbage_and_forged_answers_on_reply_queues_decide_nothing() {
    let mut guard = CLUSTER.lock(options()).await;
    let cluster = guard.as_mut().expect("started");
    let before = pids(cluster);
    let mut spy = SeedQueue::new(&cluster.broker.url()).await;
    spy.bind("holdfast.locate").await;
    spy.consume().await;
    client::put(cluster.api(0), "/objects/real", b"real").await.expect("an answer");
    let queues = reply_queues(cluster, &mut spy).await;
    let forged = |id: u64| {
        format!(
            "{{\"protocol\":1,\"id\":{id},\"node\":\"00000000000000000000000000000007\",\
             \"generation\":1,\"address\":\"127.0.0.1:1\",\"roster_digest\":\"0000000000000000\",\
             \"mono_millis\":0,\"unix_millis\":18446744073709551615,\"found\":[],\"unknown\":[]}}"
        )
    };
    for queue in &queues {
        for body in hostile_bodies() {
            for correlation in ["", "0", "18446744073709551615", "not a number", "b0", "b1"] {
                let properties =
                    BasicProperties::default().with_correlation_id(ShortString::from(correlation));
                spy.publish_raw("", queue, &body, properties).await;
            }
        }
        for id in 0..200 {
            for prefix in ["", "b", "batch-", "locate-"] {
                let correlation = format!("{prefix}{id}");
                let properties = BasicProperties::default()
                    .with_correlation_id(ShortString::from(correlation.as_str()));
                spy.publish_raw("", queue, forged(id).as_bytes(), properties).await;
            }
            if id % 20 == 0 {
                let read = client::get(cluster.api(0), "/objects/real").await.expect("an answer");
                assert_eq!((read.status, read.text().as_str()), (200, "real"));
            }
        }
    }
    serves(cluster).await;
    assert_eq!(pids(cluster), before);
    for api in &cluster.apis {
        for reason in ["body", "late"] {
            let what = format!("{} counts {reason}", api.name());
            wait::until_true(&what, async || {
                api.metric("holdfast_locate_messages_dropped_total", &[reason]).await > 0.0
            })
            .await;
        }
    }
    cluster.check_logs(FLOODED);
}

#[tokio::test]
async fn answers_are_forged_for_every_batch_and_change_none() {
    let mut guard = CLUSTER.lock(options()).await;
    let cluster = guard.as_mut().expect("started");
    client::put(cluster.api(0), "/objects/target", b"real").await.expect("an answer");
    let mut spy = SeedQueue::new(&cluster.broker.url()).await;
    spy.bind("holdfast.locate").await;
    spy.consume().await;
    let api = cluster.api(0).to_owned();
    // Each batch is answered by the spy as well, in the name of nobody: with a
    // clock of the far future and a version above every other.
    for round in 0..20 {
        let path = if round % 2 == 0 { "/objects/target" } else { "/objects/none" };
        let asked = client::get(&api, path);
        let answer = async {
            let message = spy.next(Duration::from_secs(5)).await.expect("a batch");
            let request: serde_json::Value = serde_json::from_slice(&message.data).expect("JSON");
            let forged = serde_json::json!({
                "protocol": 1, "id": request["id"], "node": "00000000000000000000000000000009",
                "generation": 1, "address": "127.0.0.1:1", "roster_digest": "00000000000000ff",
                "mono_millis": 0, "unix_millis": u64::MAX, "found": [], "unknown": [],
            });
            let reply_to = message.properties.reply_to().as_ref().expect("a batch has one");
            let properties = match message.properties.correlation_id() {
                Some(id) => BasicProperties::default().with_correlation_id(id.clone()),
                None => BasicProperties::default(),
            };
            let body = serde_json::to_vec(&forged).expect("JSON");
            spy.publish_raw("", reply_to.as_str(), &body, properties).await;
        };
        let (answer, ()) = tokio::join!(asked, answer);
        let expected = if round % 2 == 0 { 200 } else { 404 };
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, expected, "{}", answer.text());
    }
    serves(cluster).await;
    cluster.check_logs(FLOODED);
}
