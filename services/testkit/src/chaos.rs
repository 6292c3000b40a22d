//! A cluster of real processes under faults, while clients write and read it;
//! and whether anything that they saw was wrong.

#![allow(clippy::print_stderr, reason = "a run is long, and somebody waits")]

mod bursts;
mod change;
mod clients;
mod deck;
mod faults;
mod full;
mod kind;
mod lists;
mod replicas;
mod report;
mod rolling;
mod skew;
mod stage;
mod upgrade;
mod verdict;
mod waits;
mod whole;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::Options;
use clients::Load;
use faults::Faults;
pub use kind::Kind;
pub use replicas::{Change, change_replicas};
pub use report::{Report, Seen};
pub use rolling::Outcome as RollingOutcome;
use stage::Stage;
pub use upgrade::{Upgrade, upgrade};
pub use verdict::Wrong;

/// What a run is like.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How long faults go on: at least as long, and until each kind was there, but
    /// not twice as long.
    pub duration: Duration,
    /// Chooses the faults; what processes make of them is not repeatable.
    pub seed: u64,
    /// `REPLICAS`.
    pub replicas: u32,
    /// Data servers at first.
    pub data_servers: usize,
    /// Clients.
    pub clients: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(90),
            seed: 1,
            replicas: 3,
            data_servers: 5,
            clients: 6,
        }
    }
}

/// After how long a silent member's copies are made anew in these runs.
const REPAIR_DELAY: &str = "4s";

/// How long everything may take to be whole again once nothing is broken.
const HEALING: Duration = Duration::from_secs(90);

/// Runs faults against load and checks what the clients saw.
///
/// # Panics
/// When the cluster does not start.
pub async fn run(plan: Plan) -> Report {
    let env = vec![
        ("REPLICAS", plan.replicas.to_string()),
        ("REPAIR_DELAY", REPAIR_DELAY.to_owned()),
        ("REPAIR_INTERVAL", "5s".to_owned()),
    ];
    let options = Options { data_servers: plan.data_servers, env, ..Options::default() };
    let mut stage = Stage::start(options).await;
    let left_out = stage.left_out();
    for (kind, reason) in &left_out {
        eprintln!("*** LEFT OUT: {kind:?}: {reason}");
    }
    let is_left_out = |kind: &Kind| left_out.iter().any(|(left_out, _)| left_out == kind);
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| !is_left_out(kind)).collect();

    let apis = stage.cluster.apis.iter().map(|api| api.address().to_owned()).collect();
    let load = Arc::new(Load::new(apis, plan.replicas as usize));
    let mut clients: Vec<_> = (0..plan.clients)
        .map(|client| tokio::spawn(Arc::clone(&load).run(client, plan.seed)))
        .collect();
    clients.push(tokio::spawn(Arc::clone(&load).run_bursts()));
    let mut faults = Faults::new(kinds, plan.seed, load.started());
    let (end, latest) = (plan.duration, plan.duration * 2);
    while faults.elapsed() < end || (faults.elapsed() < latest && !faults.has_made_all()) {
        faults.next(&mut stage, &load).await;
    }
    faults.heal(&mut stage).await;
    load.stop();
    for client in clients {
        client.await.expect("clients do not panic");
    }
    eprintln!("the faults are over: reading everything back");
    let began = Instant::now();
    let whole = load.read_back(began + HEALING).await;
    Report::new(&load, faults, left_out, (whole, began.elapsed()), &stage.logs())
}
