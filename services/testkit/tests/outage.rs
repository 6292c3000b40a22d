//! The broker may stop, hang, or refuse: reads, writes and deletes go on.

#![allow(clippy::disallowed_methods, reason = "load runs beside the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use holdfast_testkit::client;
use holdfast_testkit::cluster::{EXPIRY, Options, ProcessCluster, SharedCluster, member};
use holdfast_testkit::wait;
use tokio::task::JoinHandle;

static CLUSTER: SharedCluster = SharedCluster::new();

const OBJECTS: u64 = 20;

/// What is said of the broker while it is away.
const BROKER: &[&str] = &["broker", "the last message to the cluster"];

/// Clients that read what exists, and write and delete what is theirs, through
/// both apis until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    async fn start(cluster: &ProcessCluster) -> Self {
        for index in 0..OBJECTS {
            let body = format!("content {index}");
            let path = format!("/objects/existing-{index}");
            let stored = client::put(cluster.api(0), &path, body.as_bytes()).await;
            assert_eq!(stored.expect("an answer").status, 200);
        }
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut clients = Vec::new();
        for (number, api) in cluster.apis.iter().enumerate() {
            for reads in [true, false] {
                let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
                let address = api.address().to_owned();
                clients.push(tokio::spawn(async move {
                    let mut round = 0;
                    while !stop.load(Ordering::Relaxed) {
                        if reads {
                            read(&address, round % OBJECTS).await;
                        } else {
                            write(&address, &format!("/objects/mine-{number}-{}", round % 5)).await;
                        }
                        round += 1;
                        done.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }));
            }
        }
        Self { stop, done, clients }
    }

    /// Waits for as many more requests as show that it goes on.
    async fn goes_on(&self) {
        let before = self.done.load(Ordering::Relaxed);
        wait::until_true("the load goes on", async || {
            let failed = self.clients.iter().any(JoinHandle::is_finished);
            assert!(!failed, "a client failed");
            self.done.load(Ordering::Relaxed) > before + 200
        })
        .await;
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("no request failed");
        }
    }
}

async fn read(address: &str, index: u64) {
    let path = format!("/objects/existing-{index}");
    let answer = client::get(address, &path).await.expect("an answer");
    let expected = (200, format!("content {index}"));
    assert_eq!((answer.status, answer.text()), expected, "a read of an existing object failed");
}

async fn write(address: &str, path: &str) {
    let stored = client::put(address, path, path.as_bytes()).await.expect("an answer");
    assert_eq!(stored.status, 200, "{}", stored.text());
    assert_eq!(client::get(address, path).await.expect("an answer").text(), path);
    let deleted = client::delete(address, path).await.expect("an answer");
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    let answer = client::get(address, path).await.expect("an answer");
    assert_eq!(answer.status, 404, "{}", answer.text());
}

/// For longer than the expiry everybody is heard and takes data.
async fn nobody_falls_silent(cluster: &ProcessCluster) {
    wait::while_true(EXPIRY * 2, "everybody is heard", async || {
        for api in &cluster.apis {
            for data_server in &cluster.data_servers {
                let listed = member(api, data_server.address()).await;
                assert_eq!(listed.get("hearing"), Some(&"heard".into()), "{listed}");
            }
        }
        true
    })
    .await;
}

async fn lookups_use_the_bus(cluster: &ProcessCluster) {
    for api in &cluster.apis {
        let count = async || api.metric("holdfast_locate_requests_total", &["bus"]).await;
        let before = count().await;
        wait::until_true("lookups go over the bus", async || {
            read(api.address(), 0).await;
            count().await > before
        })
        .await;
    }
}

#[tokio::test]
async fn killed_and_restarted_under_load() {
    let mut guard = CLUSTER.lock(Options::default()).await;
    let cluster = guard.as_mut().expect("started");
    let load = Load::start(cluster).await;
    load.goes_on().await;
    cluster.broker.kill().await;
    load.goes_on().await;
    nobody_falls_silent(cluster).await;
    cluster.broker.restart().await;
    load.goes_on().await;
    load.stop().await;
    lookups_use_the_bus(cluster).await;
    cluster.check_logs(BROKER);
}

#[tokio::test]
async fn stopped_in_order_under_load() {
    let mut guard = CLUSTER.lock(Options::default()).await;
    let cluster = guard.as_mut().expect("started");
    let load = Load::start(cluster).await;
    cluster.broker.stop().await;
    load.goes_on().await;
    cluster.broker.restart().await;
    load.goes_on().await;
    load.stop().await;
    lookups_use_the_bus(cluster).await;
    cluster.check_logs(BROKER);
}

#[tokio::test]
async fn frozen_under_load() {
    let mut guard = CLUSTER.lock(Options::default()).await;
    let cluster = guard.as_mut().expect("started");
    let load = Load::start(cluster).await;
    load.goes_on().await;
    cluster.broker.pause();
    load.goes_on().await;
    nobody_falls_silent(cluster).await;
    cluster.broker.resume();
    load.goes_on().await;
    load.stop().await;
    lookups_use_the_bus(cluster).await;
    cluster.check_logs(BROKER);
}

#[tokio::test]
async fn out_of_memory_under_load() {
    let mut guard = CLUSTER.lock(Options::default()).await;
    let cluster = guard.as_mut().expect("started");
    let load = Load::start(cluster).await;
    cluster.broker.set_memory_alarm(true).await;
    load.goes_on().await;
    nobody_falls_silent(cluster).await;
    cluster.broker.set_memory_alarm(false).await;
    load.goes_on().await;
    load.stop().await;
    lookups_use_the_bus(cluster).await;
    cluster.check_logs(BROKER);
}

#[tokio::test]
async fn every_connection_closed_by_an_operator_under_load() {
    let mut guard = CLUSTER.lock(Options::default()).await;
    let cluster = guard.as_mut().expect("started");
    let load = Load::start(cluster).await;
    cluster.broker.close_connections().await;
    load.goes_on().await;
    load.stop().await;
    lookups_use_the_bus(cluster).await;
    cluster.check_logs(BROKER);
}

#[tokio::test]
async fn a_login_of_any_characters_is_taken_and_never_shown() {
    const PASSWORD: &str = "p@ss/w%rd:1#?[ä] ";
    let mut guard = CLUSTER.lock(Options::default()).await;
    let cluster = guard.as_mut().expect("it was started");
    cluster.broker.add_user("us@r:/%", PASSWORD, "a/b %2f").await;
    let mut services = [cluster.new_data_server(), cluster.new_api(), cluster.new_api()];
    for service in &mut services {
        service.set("RABBITMQ_SERVER", "");
        service.set("DATASERVER_PEERS", "");
        service.set("INITIAL_MEMBERS", "1");
        service.set("RABBITMQ_HOST", "127.0.0.1");
        service.set("RABBITMQ_PORT", cluster.broker.port().to_string());
        service.set("RABBITMQ_VHOST", "a/b %2f");
        service.set("RABBITMQ_USERNAME", "us@r:/%");
        service.set("RABBITMQ_PASSWORD", PASSWORD);
    }
    let [data_server, api, refused] = &mut services;
    refused.set("RABBITMQ_PASSWORD", PASSWORD.trim());
    for service in [&mut *data_server, &mut *api] {
        service.start();
        service.ready().await;
    }
    // Nobody else is in this virtual host.
    let members = api.data_servers().await;
    assert_eq!(members["dataservers"].as_array().map(Vec::len), Some(1), "{members}");
    refused.start();
    wait::until_true("the broker refuses the wrong password", async || {
        refused.log().contains("the broker refused")
    })
    .await;
    for service in &services {
        assert!(!service.log().contains(PASSWORD.trim()), "{}", service.log());
    }
}

#[tokio::test]
async fn an_api_that_starts_during_the_outage_serves() {
    let options = Options { data_servers: 2, apis: 1, peers: true, ..Options::default() };
    let mut cluster = ProcessCluster::start(options).await;
    client::put(cluster.api(0), "/objects/a", b"x").await.expect("an answer");
    cluster.broker.kill().await;
    let mut late = cluster.new_api();
    late.start();
    late.ready().await;
    write(late.address(), "/objects/late").await;
    assert_eq!(client::get(late.address(), "/objects/a").await.expect("an answer").text(), "x");
    // So does one that was there before and starts again.
    cluster.apis[0].restart().await;
    write(cluster.api(0), "/objects/again").await;
    late.check_log(BROKER);
    cluster.check_logs(BROKER);
}

#[tokio::test]
async fn everything_starts_without_a_broker_and_finds_it_later() {
    let options =
        Options { data_servers: 2, apis: 2, peers: true, broker_runs: false, ..Options::default() };
    let mut cluster = ProcessCluster::start(options).await;
    let load = Load::start(&cluster).await;
    load.goes_on().await;
    cluster.broker.restart().await;
    load.goes_on().await;
    load.stop().await;
    lookups_use_the_bus(&cluster).await;
    cluster.check_logs(BROKER);
}

#[tokio::test]
async fn without_peers_everybody_waits_for_the_broker() {
    let options = Options { data_servers: 1, apis: 1, broker_runs: false, ..Options::default() };
    let mut cluster = ProcessCluster::start_without_waiting(options).await;
    let api = &cluster.apis[0];
    wait::until_true("it listens", async || client::get(api.admin(), "/livez").await.is_ok()).await;
    let answer = client::get(api.address(), "/objects/a").await.expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (503, "no-data-servers"));
    cluster.broker.restart().await;
    cluster.ready().await;
    write(cluster.api(0), "/objects/a").await;
    cluster.check_logs(&[BROKER, &["status=503"]].concat());
}

#[tokio::test]
async fn where_no_broker_is_set_none_is_missing() {
    let options = Options {
        data_servers: 1,
        apis: 1,
        broker: false,
        broker_runs: false,
        peers: true,
        ..Options::default()
    };
    let mut cluster = ProcessCluster::start(options).await;
    let stored = client::put(cluster.api(0), "/objects/a", b"x").await.expect("an answer");
    assert_eq!(stored.status, 200);
    for service in cluster.apis.iter().chain(&cluster.data_servers) {
        let page = client::get(service.admin(), "/metrics").await.expect("an answer").text();
        assert!(page.contains("holdfast_dataservers"), "{page}");
        // An alert about a lost broker would never end.
        assert!(!page.contains("holdfast_broker_connected"), "{page}");
    }
    cluster.check_logs(&[]);
}
