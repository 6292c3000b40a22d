//! One of five data servers dies under load, or hangs: what clients see of it, and
//! when all copies are there again.
//!
//! ```sh
//! cargo bench -p holdfast-testkit --bench one_of_five         # 4 rounds, about 2 minutes
//! cargo bench -p holdfast-testkit --bench one_of_five -- 1    # 1 round
//! ```
//!
//! It needs RabbitMQ installed: it starts a broker of its own, five data servers
//! with three copies of each object and two apis as release processes, and under
//! load kills a data server (SIGKILL), in every other round stops it (SIGSTOP)
//! instead. Then it waits until every object has three copies on the others; nothing
//! is commanded meanwhile. A new, empty one takes its place in the next round.
//! Neither a process nor a file is left behind. Every write is durable on two data
//! servers before it is answered.
//!
//! The exit status is 1 when a request failed, or when more than one in a hundred of
//! those that met the silence before it was noticed took a second. Not part of
//! continuous integration.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "it starts real processes, measures real time and prints a table"
)]

#[path = "../common/load.rs"]
mod load;
#[path = "../common/rounds.rs"]
mod rounds;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use holdfast_testkit::client::{self, Connection};
use holdfast_testkit::cluster::{Options, ProcessCluster, member};
use holdfast_testkit::wait;

use crate::load::{Asked, Load, NAMES, Request};

const ROUNDS: usize = 4;
const COPIES: usize = 3;

/// How long a silent member is waited for, until its copies are made anew.
const REPAIR_DELAY: Duration = Duration::from_secs(10);

/// Load with all data servers up.
const BEFORE: Duration = Duration::from_secs(5);

/// How long it may take until all copies are there again.
const PATIENCE: Duration = Duration::from_secs(120);

/// What 99 of 100 requests must not take during detection.
const GOAL: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    rounds::run(ROUNDS, measure)
}

async fn measure(rounds: usize) -> bool {
    let env = vec![
        ("REPLICAS", COPIES.to_string()),
        ("REPAIR_DELAY", format!("{}s", REPAIR_DELAY.as_secs())),
        ("REPAIR_INTERVAL", "20s".to_owned()),
    ];
    let options = Options { data_servers: 5, apis: 2, env, ..Options::default() };
    let mut cluster = ProcessCluster::start(options).await;
    load::store(&cluster).await;
    let mut met = true;
    for round in 0..rounds {
        load::voters_answer(&cluster).await;
        let load = Load::start(&cluster);
        let began = Instant::now();
        tokio::time::sleep(BEFORE).await;
        let victim = round % cluster.data_servers.len();
        let address = cluster.data_servers[victim].address().to_owned();
        let gone = Instant::now();
        let hangs = round % 2 == 1;
        match hangs {
            true => cluster.data_servers[victim].pause(),
            false => cluster.data_servers[victim].kill().await,
        }
        is_noticed(&cluster, &address).await;
        let noticed = Instant::now();
        has_all_copies(&cluster).await;
        let whole = Instant::now();
        let requests = load.stop().await;
        println!("round {} of {rounds}: {}", round + 1, if hangs { "stopped" } else { "killed" });
        println!("  noticed by both apis after {:.1?}", noticed - gone);
        println!(
            "  every object has {COPIES} copies again after {:.1?}, of which {REPAIR_DELAY:?} is REPAIR_DELAY",
            whole - gone
        );
        println!(
            "  requests                              number  failed         p50         p99     longest"
        );
        report("all up", &requests, began, gone);
        let detection = report("until it is noticed", &requests, gone, noticed);
        let after = report("until all copies are there", &requests, noticed, whole);
        met &= detection.failed + after.failed == 0 && detection.p99 < GOAL;
        drop(cluster.data_servers.remove(victim));
        let mut next = cluster.new_data_server();
        next.start();
        cluster.data_servers.push(next);
        cluster.ready().await;
    }
    met
}

async fn is_noticed(cluster: &ProcessCluster, address: &str) {
    for api in &cluster.apis {
        wait::until_true("the silence is noticed", async || {
            member(api, address).await["hearing"] == "silent"
        })
        .await;
    }
}

/// Waits until every name has been seen with all copies of its newest version, on
/// members that are heard.
async fn has_all_copies(cluster: &ProcessCluster) {
    let deadline = Instant::now() + PATIENCE;
    let mut api = Connection::open(cluster.api(0)).await.expect("it listens");
    for name in 0..NAMES {
        let path = format!("/locate/name-{name}?replicas");
        loop {
            let found = api.request("GET", &path, &[], b"").await.expect("an answer");
            if client::copies_of_newest(&found.json()) >= COPIES {
                break;
            }
            assert!(Instant::now() < deadline, "{path}: {}", found.text());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What a time was like.
struct Seen {
    failed: usize,
    p99: Duration,
}

/// Requests that were under way at some moment of this time.
fn report(what: &str, requests: &[Request], from: Instant, to: Instant) -> Seen {
    let met = |request: &&Request| request.ended > from && request.began < to;
    let requests: Vec<&Request> = requests.iter().filter(met).collect();
    let failed = requests.iter().filter(|request| !request.served).count();
    let mut worst = Duration::ZERO;
    for (asked, of) in [(Asked::Read, "GET"), (Asked::Write, "PUT"), (Asked::Absent, "GET, 404")] {
        let of_it = requests.iter().filter(|request| request.asked == asked);
        let mut times: Vec<Duration> = of_it.clone().map(|request| request.took()).collect();
        times.sort_unstable();
        let at = |percent: usize| times.get(times.len() * percent / 100).copied();
        let (p50, p99) = (at(50).unwrap_or_default(), at(99).unwrap_or_default());
        worst = worst.max(p99);
        println!(
            "  {what:<28}{of:<9}{:>7} {:>7} {:>8.1} ms {:>8.1} ms {:>8.1} ms",
            times.len(),
            of_it.filter(|request| !request.served).count(),
            p50.as_secs_f64() * 1e3,
            p99.as_secs_f64() * 1e3,
            times.last().copied().unwrap_or_default().as_secs_f64() * 1e3,
        );
    }
    if let Some(first) = requests.iter().find(|request| !request.served) {
        let path = load::path(first.name);
        println!("  the first that failed: {:?} of {path} after {:?}", first.asked, first.took());
    }
    Seen { failed, p99: worst }
}
