//! Processes that are started again one after the other, each in another way, while
//! clients write, read and list through both apis.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::HEALING;
use super::clients::Load;
use crate::cluster::ProcessCluster;
use crate::history;
use crate::process::Service;

/// How long everything may take to be whole again after a start.
const PATIENCE: Duration = Duration::from_secs(60);

const CLIENTS: usize = 6;

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
pub(super) struct Rolling {
    pub(super) cluster: ProcessCluster,
    load: Arc<Load>,
    clients: Vec<JoinHandle<()>>,
    outcome: Outcome,
    unavailable: u64,
    together: Duration,
}

impl Rolling {
    /// Puts load on a cluster that is ready and keeps so many copies. Each pair of
    /// neighbours will be left to work `together`.
    pub(super) fn start(
        cluster: ProcessCluster,
        seed: u64,
        copies: usize,
        together: Duration,
    ) -> Self {
        let apis = cluster.apis.iter().map(|api| api.address().to_owned()).collect();
        let load = Arc::new(Load::new(apis, copies));
        let client = |client| tokio::spawn(Arc::clone(&load).run(client, seed));
        let clients = (0..CLIENTS).map(client).collect();
        Self { cluster, load, clients, outcome: Outcome::default(), unavailable: 0, together }
    }

    /// Starts every process again, changed: data servers and apis by turns.
    pub(super) async fn roll(&mut self, how: &str, change: impl Fn(&mut Service)) {
        for place in 0..self.cluster.data_servers.len() {
            self.replace(how, &change, |cluster| &mut cluster.data_servers[place]).await;
            if place < self.cluster.apis.len() {
                self.replace(how, &change, |cluster| &mut cluster.apis[place]).await;
            }
        }
    }

    async fn replace(
        &mut self,
        how: &str,
        change: impl Fn(&mut Service),
        which: impl Fn(&mut ProcessCluster) -> &mut Service,
    ) {
        let service = which(&mut self.cluster);
        let name = service.name().to_owned();
        let status = service.stop().await;
        if !status.success() {
            self.outcome.violations.push(format!("{name} ended with {status}"));
        }
        change(service);
        service.start();
        self.cluster.ready().await;
        self.step(&format!("{name} {how}")).await;
    }

    /// From now on each object is to have so many copies.
    pub(super) fn expect_copies(&self, copies: usize) {
        self.load.expect_copies(copies);
    }

    /// Lets them work together, and waits until every object has its copies.
    pub(super) async fn step(&mut self, what: &str) {
        tokio::time::sleep(self.together).await;
        if let Err(missing) = self.load.become_redundant(Instant::now() + PATIENCE).await {
            self.violates(format!("{what}: {missing}"));
        }
        let all = self.load.unavailable.load(Ordering::SeqCst);
        let since = all - std::mem::replace(&mut self.unavailable, all);
        eprintln!("{what}: {since} requests were not served");
        self.outcome.steps.push((what.to_owned(), since));
    }

    pub(super) fn violates(&mut self, what: String) {
        self.outcome.violations.push(what);
    }

    /// Ends the load, reads everything back and looks at all that was seen.
    pub(super) async fn end(mut self) -> Outcome {
        self.load.stop();
        for client in self.clients {
            client.await.expect("clients do not panic");
        }
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
