//! How a process begins, how it ends, and how it refuses to begin.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "load runs beside the test, and binaries are run"
)]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_testkit::client::{self, Connection};
use holdfast_testkit::cluster::{Options, ProcessCluster};
use holdfast_testkit::ports;
use holdfast_testkit::process::binary;
use holdfast_testkit::wait;

const SERVICES: [&str; 2] = ["holdfast-api", "holdfast-dataserver"];

/// After a failed sync nobody knows what the disk holds: the process ends, and
/// says so in a way of its own, so that whoever watches it starts it again.
#[tokio::test]
async fn a_data_server_whose_sync_fails_ends_with_a_status_of_its_own() {
    let mut cluster = cluster_with_content().await;
    let server = &mut cluster.data_servers[0];
    server.stop().await;
    // Of all that the log is made of, a pipe is what cannot be synced.
    let root = server.setting("STORAGE_ROOT").expect("it has a volume");
    let pipe = Path::new(root).join("log/00000000ffffffff-0000000000000001.seg");
    make_pipe(&pipe);
    server.skip_log();
    server.start();
    assert_eq!(server.ended().await.code(), Some(74));
    assert!(
        server.log().contains("the volume takes no more writes: fdatasync"),
        "{}",
        server.log()
    );
    std::fs::remove_file(&pipe).expect("it is ours");
    server.restart().await;
    expect_content(&cluster).await;
}

/// One data server, which holds one object.
async fn cluster_with_content() -> ProcessCluster {
    let options = Options { data_servers: 1, apis: 1, ..Options::default() };
    let cluster = ProcessCluster::start(options).await;
    let stored = client::put(cluster.api(0), "/objects/kept", b"content").await;
    assert_eq!(stored.expect("an answer").status, 200);
    cluster
}

fn make_pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.expect("it is part of every system").success());
}

async fn expect_content(cluster: &ProcessCluster) {
    let read = wait::until("the object is there", async || {
        let answer = client::get(cluster.api(0), "/objects/kept").await.expect("an answer");
        (answer.status == 200).then_some(answer)
    });
    assert_eq!(read.await.body, b"content");
}

/// Whoever watches a data server whose log takes long to read must not kill it
/// for that, or it begins again for ever.
#[tokio::test]
async fn a_data_server_that_opens_its_volume_for_long_is_alive_and_not_ready() {
    let mut cluster = cluster_with_content().await;
    cluster.data_servers[0].stop().await;
    // A pipe is opened once somebody writes to it: the disk that hangs.
    let root = cluster.data_servers[0].setting("STORAGE_ROOT").expect("it has a volume");
    let (format, kept) = (Path::new(root).join("format"), Path::new(root).join("format.kept"));
    std::fs::rename(&format, &kept).expect("it is ours");
    make_pipe(&format);
    let server = &mut cluster.data_servers[0];
    server.start();
    let is_live =
        async || client::get(server.admin(), "/livez").await.is_ok_and(|a| a.status == 200);
    wait::until_true("it is alive", is_live).await;
    let ready = server.admin_page("/readyz").await;
    assert_eq!((ready.status, ready.text().as_str()), (503, "opening the volume\n"));
    let metrics = server.admin_page("/metrics").await;
    assert!(metrics.text().contains("holdfast_build_info"), "{}", metrics.text());
    assert_eq!(server.admin_page("/admin/dataservers").await.status, 404);
    server.kill().await;
    std::fs::rename(&kept, &format).expect("it is ours");
    server.restart().await;
    assert_eq!(server.admin_page("/admin/dataservers").await.status, 200);
    expect_content(&cluster).await;
}

#[tokio::test]
async fn an_api_that_ends_finishes_what_it_began() {
    let options = Options { data_servers: 1, apis: 2, ..Options::default() };
    let mut cluster = ProcessCluster::start(options).await;
    cluster.apis[0].set("SHUTDOWN_DELAY", "1500ms");
    cluster.apis[0].restart().await;
    let large: Vec<u8> = (0..32 << 20_u32).map(|index| (index % 251) as u8).collect();
    let stored = client::put(cluster.api(0), "/objects/large", &large).await;
    assert_eq!(stored.expect("an answer").status, 200);
    // A read that is under way, and far from its end: 32 MiB do not fit into
    // the buffers of a connection.
    let mut reader = Connection::open(cluster.api(0)).await.expect("it listens");
    reader.send_head("GET", "/objects/large", &[]).await.expect("sent");
    let head = reader.head().await.expect("an answer");
    assert_eq!(head.status, 200);
    // A connection that was kept, and clients that come and go.
    let mut kept = Connection::open(cluster.api(0)).await.expect("it listens");
    assert_eq!(
        kept.request("GET", "/locate/large", &[], b"").await.expect("an answer").status,
        200
    );
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, address) = (Arc::clone(&stop), cluster.api(0).to_owned());
    let load = tokio::spawn(async move {
        let mut served = 0;
        while !stopped.load(Ordering::Relaxed) {
            let answer = client::get(&address, "/locate/large").await.expect("still accepted");
            assert_eq!(answer.status, 200);
            served += 1;
        }
        served
    });
    cluster.apis[0].terminate();
    let api = &cluster.apis[0];
    wait::until_true("it is unready at once", async || !api.is_ready().await).await;
    let answer = kept.request("GET", "/locate/large", &[], b"").await.expect("an answer");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(kept.is_closed().await);
    let answer = client::get(api.address(), "/locate/large").await.expect("still accepted");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    stop.store(true, Ordering::Relaxed);
    assert!(load.await.expect("no request was refused") > 0);
    // The listener is closed, and the read still goes on.
    let address = api.address().to_owned();
    wait::until_true("it accepts nobody", async || Connection::open(&address).await.is_err()).await;
    assert!(cluster.apis[0].is_running(), "a read is in flight");
    let mut body: Vec<u8> = Vec::with_capacity(large.len());
    let mut buffer = vec![0; 1 << 16];
    while body.len() < large.len() {
        let count = reader.read(&mut buffer).await.expect("it is finished");
        assert_ne!(count, 0, "cut off after {} bytes", body.len());
        body.extend(&buffer[..count]);
    }
    assert!(body == large, "another content");
    assert_eq!(cluster.apis[0].ended().await.code(), Some(0));
    let answer = client::get(cluster.api(1), "/locate/large").await.expect("an answer");
    assert_eq!(answer.status, 200);
    for data_server in &mut cluster.data_servers {
        assert_eq!(data_server.stop().await.code(), Some(0));
    }
    cluster.check_logs(&["silent"]);
}

fn run(service: &str, arguments: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(binary(service));
    command.env_clear().args(arguments).envs(env.iter().copied());
    command.output().expect("the binary was just built")
}

#[test]
fn everything_that_is_wrong_is_said_at_once_and_nothing_is_opened() {
    let root = std::env::temp_dir().join(format!("holdfast-unopened-{}", std::process::id()));
    let admin = format!("127.0.0.1:{}", ports::free());
    for service in SERVICES {
        let output = run(
            service,
            &[],
            &[
                ("LISTEN_ADDRESS", "nowhere"),
                ("ADMIN_LISTEN_ADDRESS", &admin),
                ("STORAGE_ROOT", root.to_str().expect("ASCII")),
                ("RABBITMQ_SERVER", "http://broker"),
                ("DATASERVER_PEERS", "host-without-port"),
                ("HEARTBEAT_INTERVAL", "fast"),
                ("HEARTBEAT_EXPIRY", "-1s"),
                ("MAX_CONNECTIONS", "0"),
                ("MAX_OBJECT_BYTES", "much"),
                ("REPLICAS", "3"),
                ("WRITE_QUORUM", "1"),
                ("LOG_FORMAT", "xml"),
            ],
        );
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{said}");
        // An api learns from the roster how many copies there are.
        let refused = said.contains("  WRITE_QUORUM: 1 is less than 2, more than half of 3 copies");
        assert_eq!(refused, service == "holdfast-dataserver", "{said}");
        for variable in [
            "LISTEN_ADDRESS",
            "RABBITMQ_SERVER",
            "DATASERVER_PEERS",
            "HEARTBEAT_INTERVAL",
            "HEARTBEAT_EXPIRY",
            "MAX_CONNECTIONS",
            "MAX_OBJECT_BYTES",
            "LOG_FORMAT",
        ] {
            assert!(said.contains(variable), "{service} does not name {variable}:\n{said}");
        }
        assert!(!root.exists(), "{service} made its directory");
    }
}

#[test]
fn timeouts_that_contradict_each_other_are_refused() {
    let broker = ("RABBITMQ_SERVER", "amqp://127.0.0.1:1");
    for (wrong, named) in [
        ([("HEARTBEAT_INTERVAL", "6s"), broker], "HEARTBEAT_EXPIRY"),
        ([("LOCATE_TIMEOUT", "40s"), broker], "LOCATE_TIMEOUT"),
    ] {
        let output = run("holdfast-api", &[], &wrong);
        assert_eq!(output.status.code(), Some(64));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(named), "{said}");
    }
}

#[test]
fn the_version_is_told_and_arguments_are_refused() {
    for service in SERVICES {
        let output = run(service, &["--version"], &[]);
        assert_eq!(output.status.code(), Some(0));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said, format!("{service} {}\n", env!("CARGO_PKG_VERSION")));
        assert_eq!(run(service, &["--no-such-option"], &[]).status.code(), Some(64));
    }
}

#[test]
fn a_port_that_is_taken_ends_the_start_with_status_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let broker = ("RABBITMQ_SERVER", "amqp://127.0.0.1:1");
    let output = run("holdfast-api", &[], &[("LISTEN_ADDRESS", &address), broker]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&address));
}
