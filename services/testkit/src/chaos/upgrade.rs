//! A rolling upgrade: neighbours of two releases side by side, forth and back,
//! while clients write, read and list through both.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::HEALING;
use super::clients::Load;
use crate::cluster::{Options, ProcessCluster};
use crate::history;
use crate::process::Service;

/// How long each pair of neighbours is left to work together.
const TOGETHER: Duration = Duration::from_secs(4);

/// How long everything may take to be whole again after a start.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What ran, and how many requests could not be served since the step before.
    pub steps: Vec<(String, u64)>,
    /// Operations that were answered.
    pub answered: usize,
    /// Everything that must not be.
    pub violations: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (step, unavailable) in &self.steps {
            writeln!(f, "{step}: {unavailable} requests were not served")?;
        }
        writeln!(f, "{} operations were answered", self.answered)?;
        writeln!(f, "{} violations", self.violations.len())?;
        self.violations.iter().try_for_each(|violation| writeln!(f, "{violation}"))
    }
}

/// The way of one run.
struct Run {
    upgrade: Upgrade,
    cluster: ProcessCluster,
    load: Arc<Load>,
    outcome: Outcome,
    unavailable: u64,
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
    for service in cluster.services() {
        service.use_binaries(Some(upgrade.from.clone()));
    }
    cluster.launch();
    cluster.ready().await;
    let apis = cluster.apis.iter().map(|api| api.address().to_owned()).collect();
    let load = Arc::new(Load::new(apis, upgrade.replicas as usize));
    let clients: Vec<_> =
        (0..6).map(|client| tokio::spawn(Arc::clone(&load).run(client, upgrade.seed))).collect();
    let outcome = Outcome::default();
    let mut run = Run { upgrade, cluster, load, outcome, unavailable: 0 };
    run.step("all of the first release").await;
    let (from, to) = (Some(run.upgrade.from.clone()), run.upgrade.to.clone());
    run.roll("upgraded", to.clone()).await;
    run.roll("taken back", from).await;
    run.roll("upgraded again", to).await;
    run.load.stop();
    for client in clients {
        client.await.expect("clients do not panic");
    }
    run.end().await
}

impl Run {
    /// Gives every process other binaries, one after the other: data servers and
    /// apis by turns.
    async fn roll(&mut self, how: &str, binaries: Option<PathBuf>) {
        for place in 0..self.cluster.data_servers.len() {
            self.replace(how, binaries.clone(), |cluster| &mut cluster.data_servers[place]).await;
            if place < self.cluster.apis.len() {
                self.replace(how, binaries.clone(), |cluster| &mut cluster.apis[place]).await;
            }
        }
    }

    async fn replace(
        &mut self,
        how: &str,
        binaries: Option<PathBuf>,
        which: impl Fn(&mut ProcessCluster) -> &mut Service,
    ) {
        let service = which(&mut self.cluster);
        let name = service.name().to_owned();
        let status = service.stop().await;
        if !status.success() {
            self.outcome.violations.push(format!("{name} ended with {status}"));
        }
        service.use_binaries(binaries);
        service.start();
        self.cluster.ready().await;
        self.step(&format!("{name} {how}")).await;
    }

    /// Lets them work together, and waits until every object has its copies.
    async fn step(&mut self, what: &str) {
        tokio::time::sleep(TOGETHER).await;
        if let Err(missing) = self.load.become_redundant(Instant::now() + PATIENCE).await {
            self.outcome.violations.push(format!("{what}: {missing}"));
        }
        let all = self.load.unavailable.load(Ordering::SeqCst);
        let since = all - std::mem::replace(&mut self.unavailable, all);
        eprintln!("{what}: {since} requests were not served");
        self.outcome.steps.push((what.to_owned(), since));
    }

    async fn end(mut self) -> Outcome {
        let whole = self.load.read_back(Instant::now() + HEALING).await;
        let violations = &mut self.outcome.violations;
        violations.extend(whole.err().map(|missing| format!("in the end: {missing}")));
        violations.extend(self.load.unexpected());
        violations.extend(self.load.wrong_bytes());
        let histories = self.load.histories();
        for (key, operations) in &histories {
            if let Err(error) = history::check(operations) {
                violations.push(format!("{key}: {error}"));
            }
        }
        let answered = |one: &&history::Operation| one.outcome != history::Outcome::Maybe;
        self.outcome.answered = histories.values().flatten().filter(answered).count();
        self.outcome
    }
}
