//! Another number of copies, one process after the other, so that some ask for the
//! old one while others ask for the new one.

use std::time::{Duration, Instant};

use super::rolling::{Outcome, Rolling};
use super::whole::until;
use crate::cluster::{Options, ProcessCluster};

/// How long those that ask for different numbers are left to work together.
const TOGETHER: Duration = Duration::from_secs(1);

/// How long it may take until reads count on a number of copies that was asked for.
const PATIENCE: Duration = Duration::from_secs(90);

/// What is changed.
#[derive(Debug, Clone)]
pub struct Change {
    /// `REPLICAS` at first.
    pub from: u32,
    /// What it becomes, one after the other.
    pub to: Vec<u32>,
    /// Data servers.
    pub data_servers: usize,
    /// Chooses what clients do.
    pub seed: u64,
}

/// Changes `REPLICAS` under load, each time until writes and reads count on it and
/// each object has its copies.
///
/// # Panics
/// When the first cluster does not start.
pub async fn change_replicas(change: Change) -> Outcome {
    let env = vec![
        ("REPLICAS", change.from.to_string()),
        ("REPAIR_DELAY", "60s".to_owned()),
        ("REPAIR_INTERVAL", "2s".to_owned()),
    ];
    let options = Options { data_servers: change.data_servers, env, ..Options::default() };
    let cluster = ProcessCluster::start(options).await;
    let mut rolling = Rolling::start(cluster, change.seed, change.from as usize, TOGETHER);
    rolling.step(&format!("REPLICAS is {}", change.from)).await;
    let mut now = change.from;
    for replicas in change.to {
        // Fewer are enough from the first on that asks for fewer.
        rolling.expect_copies(now.min(replicas) as usize);
        let how = format!("asks for {replicas}");
        rolling.roll(&how, |service| service.set("REPLICAS", replicas.to_string())).await;
        let (cluster, deadline) = (&rolling.cluster, Instant::now() + PATIENCE);
        let agreed = until(deadline, async || counts_on(cluster, replicas).await).await;
        if let Err(seen) = agreed {
            rolling.violates(format!("REPLICAS is not {replicas}: {seen}"));
        }
        rolling.expect_copies(replicas as usize);
        rolling.step(&format!("REPLICAS is {replicas}")).await;
        now = replicas;
    }
    rolling.end().await
}

/// Whether everybody knows that writes and reads count on so many copies, or what
/// somebody knows instead.
async fn counts_on(cluster: &ProcessCluster, replicas: u32) -> Result<(), String> {
    let quorum = u64::from(replicas / 2 + 1);
    let expected =
        [("replicas", u64::from(replicas)), ("write_quorum", quorum), ("read_quorum", quorum)];
    for service in cluster.data_servers.iter().chain(&cluster.apis) {
        let policy = service.data_servers().await["policy"].take();
        if expected.iter().any(|(name, number)| policy[name].as_u64() != Some(*number)) {
            return Err(format!("{} knows {policy}", service.name()));
        }
    }
    Ok(())
}
