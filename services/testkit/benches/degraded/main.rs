//! What reads and writes cost while one of three owners is dead, and while it is
//! stopped, compared with all three up.
//!
//! ```sh
//! cargo bench -p holdfast-testkit --bench degraded           # 5 rounds, about 3 minutes
//! cargo bench -p holdfast-testkit --bench degraded -- 1      # 1 round
//! ```
//!
//! It needs RabbitMQ installed: it starts a broker of its own, three data servers
//! with three copies of each object and one api as release processes, measures by
//! turns, and leaves neither a process nor a file behind. Every write is durable
//! on two data servers before it is answered.
//!
//! The exit status is 1 when a median is above 1.2 for p50, or above 2 for p99. Not
//! part of continuous integration.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "it starts real processes, measures real time and prints a table"
)]

#[path = "../common/rounds.rs"]
mod rounds;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use holdfast_testkit::client::Connection;
use holdfast_testkit::cluster::{Options, ProcessCluster, member};
use holdfast_testkit::wait;

const ROUNDS: usize = 5;
const REQUESTS: usize = 2_000;
const OBJECTS: usize = 200;

/// What is measured, and what the median of its ratios must not be above.
const GOALS: [(&str, f64); 4] =
    [("GET p50", 1.2), ("GET p99", 2.0), ("PUT p50", 1.2), ("PUT p99", 2.0)];

fn main() -> ExitCode {
    rounds::run(ROUNDS, measure)
}

async fn measure(rounds: usize) -> bool {
    let env = vec![("REPLICAS", "3".to_owned()), ("REPAIR_DELAY", "1h".to_owned())];
    let mut cluster = ProcessCluster::start(Options { apis: 1, env, ..Options::default() }).await;
    store(&cluster).await;
    let (mut dead, mut stopped) = (Ratios::default(), Ratios::default());
    for round in 0..rounds {
        let victim = round % 3;
        let address = cluster.data_servers[victim].address().to_owned();
        let up = run(&cluster).await;
        cluster.data_servers[victim].kill().await;
        is_heard_as(&cluster, &address, "silent").await;
        dead.add(&up, &run(&cluster).await);
        cluster.data_servers[victim].restart().await;
        cluster.ready().await;
        let up = run(&cluster).await;
        cluster.data_servers[victim].pause();
        is_heard_as(&cluster, &address, "silent").await;
        stopped.add(&up, &run(&cluster).await);
        cluster.data_servers[victim].resume();
        cluster.ready().await;
        println!("round {} of {rounds}", round + 1);
    }
    println!("one of three owners, by all up     GET p50   GET p99   PUT p50   PUT p99");
    println!("dead                             {dead}");
    println!("stopped                          {stopped}");
    // Both are told of.
    let met = [dead.meet("dead"), stopped.meet("stopped")];
    met.into_iter().all(|met| met)
}

async fn store(cluster: &ProcessCluster) {
    let mut api = Connection::open(cluster.api(0)).await.expect("it listens");
    for index in 0..OBJECTS {
        let path = format!("/objects/read-{index}");
        let stored = api.request("PUT", &path, &[], &[7; 4_096]).await.expect("an answer");
        assert_eq!(stored.status, 200);
    }
}

async fn is_heard_as(cluster: &ProcessCluster, address: &str, hearing: &str) {
    wait::until_true("the api notices", async || {
        member(&cluster.apis[0], address).await["hearing"] == hearing
    })
    .await;
}

/// p50 and p99 of reads, then of writes.
async fn run(cluster: &ProcessCluster) -> [Duration; 4] {
    let mut api = Connection::open(cluster.api(0)).await.expect("it listens");
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    for index in 0..REQUESTS {
        let path = format!("/objects/read-{}", index % OBJECTS);
        let began = Instant::now();
        let got = api.request("GET", &path, &[], b"").await.expect("an answer");
        reads.push(began.elapsed());
        assert_eq!((got.status, got.body.len()), (200, 4_096));
        if index % 4 == 0 {
            let path = format!("/objects/written-{}", index % OBJECTS);
            let began = Instant::now();
            let stored = api.request("PUT", &path, &[], &[7; 4_096]).await.expect("an answer");
            writes.push(began.elapsed());
            assert_eq!(stored.status, 200);
        }
    }
    let at = |times: &mut Vec<Duration>, percent: usize| {
        times.sort_unstable();
        times[times.len() * percent / 100]
    };
    [at(&mut reads, 50), at(&mut reads, 99), at(&mut writes, 50), at(&mut writes, 99)]
}

/// What the same took by turns, divided.
#[derive(Default)]
struct Ratios([Vec<f64>; 4]);

impl Ratios {
    fn add(&mut self, up: &[Duration; 4], degraded: &[Duration; 4]) {
        for ((ratios, up), degraded) in self.0.iter_mut().zip(up).zip(degraded) {
            ratios.push(degraded.as_secs_f64() / up.as_secs_f64());
        }
    }

    fn medians(&self) -> [f64; 4] {
        let mut all = self.0.clone();
        all.each_mut().map(|ratios| {
            ratios.sort_unstable_by(f64::total_cmp);
            ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
        })
    }

    /// Whether every median is as low as it should be; tells those that are not.
    fn meet(&self, what: &str) -> bool {
        let mut met = true;
        for ((of, most), median) in GOALS.into_iter().zip(self.medians()) {
            if !(0.0..=most).contains(&median) {
                println!("one of three owners {what}: {of} is {median:.2}, above {most}");
                met = false;
            }
        }
        met
    }
}

impl std::fmt::Display for Ratios {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.medians().iter().try_for_each(|median| write!(f, "{median:>10.2}"))
    }
}
