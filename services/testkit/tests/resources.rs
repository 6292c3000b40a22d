//! Memory and file descriptors stay bounded, however much is asked for and
//! however large an object is.
//!
//! Two sizes can be set: `HOLDFAST_TEST_REQUESTS` (default 100000) and
//! `HOLDFAST_TEST_OBJECT_BYTES` (default 536870912). The whole promise, an
//! object of 2 GiB, is shown by
//! `HOLDFAST_TEST_OBJECT_BYTES=2147483648 cargo test --release -p holdfast-testkit --test resources`.

#![allow(clippy::disallowed_methods, reason = "many clients at once")]

use std::io::Write;
use std::time::{Duration, Instant};

use holdfast_testkit::client::{self, Connection};
use holdfast_testkit::cluster::{Options, ProcessCluster};
use holdfast_testkit::process::Usage;
use holdfast_testkit::wait;

/// Enough that lookups share batches.
const CLIENTS: u64 = 64;
const NAMES: u64 = 64;
const MIB: u64 = 1 << 20;
/// What is sent and read at once.
const BLOCK: usize = 1 << 20;

fn setting(variable: &str, default: u64) -> u64 {
    let value = std::env::var(variable).ok();
    value.map_or(default, |value| value.parse().expect("a number"))
}

/// The api and every data server.
fn usages(cluster: &ProcessCluster) -> Vec<(String, Usage)> {
    let services = cluster.apis.iter().chain(&cluster.data_servers);
    services.map(|service| (service.name().to_owned(), service.usage())).collect()
}

/// One client's share: reads, heads, misses, overwrites and deletes over one
/// connection.
async fn ask(address: String, client: u64, count: u64) {
    let mut connection = Connection::open(&address).await.expect("it listens");
    for round in 0..count {
        // Another client writes the same names.
        let path = format!("/objects/name-{}", (round * 7 + client) % NAMES);
        let (method, body) = match round % 50 {
            0 => ("PUT", &b"a small body that is written again and again"[..]),
            1..=25 => ("HEAD", &b""[..]),
            _ => ("GET", &b""[..]),
        };
        let answer = connection.request(method, &path, &[], body).await.expect("an answer");
        let status = answer.status;
        assert!(status == 200 || (status == 404 && method != "PUT"), "{method} {path}: {status}");
    }
}

async fn ask_all(address: &str, requests: u64) {
    let share = requests / CLIENTS;
    let clients = (0..CLIENTS).map(|client| tokio::spawn(ask(address.to_owned(), client, share)));
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("every request is answered");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_requests_leave_nothing_behind() {
    let requests = setting("HOLDFAST_TEST_REQUESTS", 100_000);
    let options = Options { data_servers: 2, apis: 1, ..Options::default() };
    let mut cluster = ProcessCluster::start(options).await;
    let address = cluster.api(0).to_owned();
    let started = Instant::now();
    ask_all(&address, requests / 10).await;
    let early = usages(&cluster);
    ask_all(&address, requests - requests / 10).await;
    let late = usages(&cluster);
    println(&format!("{requests} requests took {:?}", started.elapsed()));
    for ((name, early), (_, late)) in early.iter().zip(&late) {
        println(&format!(
            "{name}: {} KiB, then {} KiB",
            early.resident_bytes >> 10,
            late.resident_bytes >> 10
        ));
        let limit = early.resident_bytes + 8 * MIB;
        assert!(late.resident_bytes <= limit, "{name} grew from {early:?} to {late:?}");
    }
    // What idles after the first tenth idles after the last as well.
    let descriptors = |usages: &[(String, Usage)]| -> Vec<usize> {
        usages.iter().map(|(_, usage)| usage.descriptors).collect()
    };
    // Pooled connections between services idle for 30 s.
    let patience = Duration::from_secs(90);
    wait::until_within(patience, "clients' connections are gone", async || {
        let now = usages(&cluster);
        let gone = |((_, now), (_, early)): (&(String, Usage), &(String, Usage))| {
            now.descriptors <= early.descriptors
        };
        now.iter().zip(&early).all(gone).then_some(())
    })
    .await;
    let idle = descriptors(&usages(&cluster));
    ask_all(&address, requests / 20).await;
    wait::until_within(patience, "descriptors are as many as before", async || {
        let now = descriptors(&usages(&cluster));
        now.iter().zip(&idle).all(|(now, idle)| now <= idle).then_some(())
    })
    .await;
    cluster.check_logs(&[]);
}

/// Says something beside the test's result.
fn println(text: &str) {
    // Nobody may be listening.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn free_bytes() -> u64 {
    let space = rustix::fs::statvfs(std::env::temp_dir()).expect("it is a directory");
    space.f_bavail * space.f_frsize
}

/// A body that is made while it is sent and checked while it is read.
fn block(index: u64) -> Vec<u8> {
    let mut block = vec![0_u8; BLOCK];
    for (place, word) in block.chunks_exact_mut(8).enumerate() {
        let value = (index << 32 | place as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        word.copy_from_slice(&value.to_le_bytes());
    }
    block
}

async fn put_blocks(address: &str, path: &str, bytes: u64) {
    let mut connection = Connection::open(address).await.expect("it listens");
    let length = bytes.to_string();
    connection.send_head("PUT", path, &[("Content-Length", &length)]).await.expect("sent");
    for index in 0..bytes / MIB {
        connection.send(&block(index)).await.expect("taken");
    }
    let answer = connection.response("PUT").await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

async fn get_blocks(address: &str, path: &str, bytes: u64) {
    let mut connection = Connection::open(address).await.expect("it listens");
    connection.send_head("GET", path, &[]).await.expect("sent");
    let head = connection.head().await.expect("an answer");
    assert_eq!(head.header("content-length"), Some(bytes.to_string().as_str()));
    let mut read = vec![0; BLOCK];
    for index in 0..bytes / MIB {
        let mut filled = 0;
        while filled < read.len() {
            let rest = read.get_mut(filled..).expect("it is not full");
            let count = connection.read(rest).await.expect("it goes on");
            assert_ne!(count, 0, "cut off in MiB {index}");
            filled += count;
        }
        assert!(read == block(index), "MiB {index} is another");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_object_passes_through_little_memory() {
    let bytes = setting("HOLDFAST_TEST_OBJECT_BYTES", 512 * MIB) / MIB * MIB;
    let needed = bytes * 2 + (1 << 30);
    if free_bytes() < needed {
        println(&format!("skipped: {needed} bytes of disk are needed, {} are free", free_bytes()));
        return;
    }
    let options = Options { data_servers: 2, apis: 1, ..Options::default() };
    let mut cluster = ProcessCluster::start(options).await;
    // Whatever the first requests need is there before.
    put_blocks(cluster.api(0), "/objects/first", 2 * MIB).await;
    get_blocks(cluster.api(0), "/objects/first", 2 * MIB).await;
    for service in cluster.apis.iter().chain(&cluster.data_servers) {
        Usage::reset_peak(service.pid());
    }
    let before = usages(&cluster);
    let started = Instant::now();
    put_blocks(cluster.api(0), "/objects/large", bytes).await;
    println(&format!("PUT of {} MiB: {:?}", bytes / MIB, started.elapsed()));
    let started = Instant::now();
    get_blocks(cluster.api(0), "/objects/large", bytes).await;
    println(&format!("GET of {} MiB: {:?}", bytes / MIB, started.elapsed()));
    for ((name, before), (_, after)) in before.iter().zip(usages(&cluster)) {
        let raised = after.peak_resident_bytes.saturating_sub(before.resident_bytes);
        println(&format!("{name}: peak raised by {} KiB", raised >> 10));
        assert!(raised <= 64 * MIB, "{name}: {before:?}, then {after:?}");
    }
    assert_eq!(
        client::delete(cluster.api(0), "/objects/large").await.expect("an answer").status,
        204
    );
    cluster.check_logs(&[]);
}
