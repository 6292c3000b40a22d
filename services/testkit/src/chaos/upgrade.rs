//! A rolling upgrade: neighbours of two releases side by side, forth and back.

use std::path::PathBuf;
use std::time::Duration;

use super::rolling::{Outcome, Rolling};
use crate::cluster::{Options, ProcessCluster};

/// How long each pair of neighbours is left to work together.
const TOGETHER: Duration = Duration::from_secs(4);

/// What is upgraded.
#[derive(Debug, Clone)]
pub struct Upgrade {
    /// Where the binaries of the release are that runs at first.
    pub from: PathBuf,
    /// Where those of the other one are; those of this build without it.
    pub to: Option<PathBuf>,
    /// Chooses what clients do.
    pub seed: u64,
    /// `REPLICAS`, and how many data servers there are.
    pub replicas: u32,
}

/// Upgrades one process after the other, then takes them all back, and upgrades
/// them again.
///
/// # Panics
/// When the first cluster does not start.
pub async fn upgrade(upgrade: Upgrade) -> Outcome {
    let env = vec![
        ("REPLICAS", upgrade.replicas.to_string()),
        // Nobody is given up because a start takes a while.
        ("REPAIR_DELAY", "60s".to_owned()),
        ("REPAIR_INTERVAL", "5s".to_owned()),
    ];
    let options = Options { data_servers: upgrade.replicas as usize, env, ..Options::default() };
    let mut cluster = ProcessCluster::prepare(options).await;
    let (from, to) = (Some(upgrade.from), upgrade.to);
    for service in cluster.services() {
        service.use_binaries(from.clone());
    }
    cluster.launch();
    cluster.ready().await;
    let mut rolling = Rolling::start(cluster, upgrade.seed, upgrade.replicas as usize, TOGETHER);
    rolling.step("all of the first release").await;
    rolling.roll("upgraded", |service| service.use_binaries(to.clone())).await;
    rolling.roll("taken back", |service| service.use_binaries(from.clone())).await;
    rolling.roll("upgraded again", |service| service.use_binaries(to.clone())).await;
    rolling.end().await
}
