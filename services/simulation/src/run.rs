//! One run: a cluster is founded, clients work while faults go on, everything
//! is mended, and what was seen is judged.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_runtime::Runtime;
use holdfast_testkit::history;

use crate::client::Client;
use crate::cluster::{Cluster, PORT, TEND, World};
use crate::executor::{Executor, ProcessId};
use crate::faults::{Faults, page};
use crate::load::Load;
use crate::plan::Plan;
use crate::random::mix;
use crate::trace::Trace;

/// How long founding a cluster may take.
const FOUNDING: Duration = Duration::from_secs(60);

/// How long everything may take to be whole again after the last fault.
const HEALING: Duration = Duration::from_secs(180);

/// How long an electorate may take before faults begin without one.
const ELECTING: Duration = Duration::from_secs(60);

/// How long a change of the number of copies may take.
const CHANGING: Duration = Duration::from_secs(180);

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which run.
    pub seed: u64,
    /// Of everything that happened, in order.
    pub digest: u64,
    /// Virtual time.
    pub lasted: Duration,
    /// Polls of tasks.
    pub steps: u64,
    /// Operations in the histories.
    pub operations: usize,
    /// Operations that were not possible or are uncertain.
    pub unavailable: u64,
    /// Everything that must not be.
    pub violations: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, digest, lasted, steps, operations, unavailable, violations } = self;
        write!(
            f,
            "seed {seed}: digest {digest:016x}, {:.0} s, {steps} steps, {operations} operations, \
             {unavailable} not possible",
            lasted.as_secs_f64()
        )?;
        violations.iter().try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

/// Runs a seed. With `is_traced`, everything that happens is told.
#[must_use]
pub fn run(seed: u64, is_traced: bool) -> Report {
    run_plan(&Plan::of(seed), is_traced)
}

/// Runs a plan.
#[must_use]
pub fn run_plan(plan: &Plan, is_traced: bool) -> Report {
    let executor = Executor::new(mix(plan.seed, 0x7363_6865));
    let trace = Trace::new(&executor, is_traced);
    trace.add(&format!("{plan:?}"));
    let world = World::new(plan, &executor, &trace);
    let report = Report {
        seed: plan.seed,
        digest: 0,
        lasted: Duration::ZERO,
        steps: 0,
        operations: 0,
        unavailable: 0,
        violations: Vec::new(),
    };
    // What was seen counts also when a task panics.
    let ended = Arc::new(Mutex::new((report, Duration::ZERO)));
    let (put, own) = (Arc::clone(&ended), plan.clone());
    let main = async move {
        let report = live(world, &own).await;
        put.lock().unwrap_or_else(PoisonError::into_inner).0 = report;
    };
    let run = std::panic::AssertUnwindSafe(|| executor.run(ProcessId(u64::MAX), main).1);
    let outcome = std::panic::catch_unwind(run);
    let mut report = ended.lock().unwrap_or_else(PoisonError::into_inner).0.clone();
    report.lasted = executor.now();
    report.digest = trace.digest();
    match outcome {
        Ok(steps) => report.steps = steps,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            report.violations.push(format!("panicked: {}", text.unwrap_or_default()));
        }
    }
    report
}

async fn live(world: World, plan: &Plan) -> Report {
    let runtime = world.outside(200);
    let mut violations = Vec::new();
    let mut cluster = Cluster::start(world.clone(), plan);
    let mut faults = Faults::new(plan, runtime.clone());
    let founded = faults.ready(&mut cluster, FOUNDING).await;
    violations.extend(founded.err().map(|missing| format!("not founded in time: {missing}")));
    world.trace.add("founded");
    let apis = cluster.apis();
    let apis = apis.iter().map(|api| cluster.node(*api).host.address(PORT)).collect();
    let load = Arc::new(Load::new(world.clone(), apis, plan));
    let mut clients = Vec::new();
    if violations.is_empty() {
        for client in 0..plan.clients {
            let own = world.outside(201 + client as u64);
            let run = Arc::clone(&load).run(client, own.clone(), mix(plan.seed, 0x6c6f_6164));
            clients.push(own.spawn("client", run));
        }
        let life = Life { runtime: runtime.clone(), plan, load: Arc::clone(&load) };
        life.live(&mut cluster, &mut faults, &mut violations).await;
    }
    load.end();
    for client in &mut clients {
        client.finished().await;
    }
    world.trace.add("the load is over");
    if violations.is_empty() {
        let copies = plan.changes.last().copied().unwrap_or(plan.replicas);
        let copies = usize::try_from(copies).unwrap_or(usize::MAX);
        let whole = tended(&mut cluster, &mut violations, async {
            load.read_back(&runtime, copies, HEALING).await
        });
        let whole = whole.await;
        violations.extend(whole.err().map(|missing| format!("not whole in time: {missing}")));
    }
    let histories = load.histories();
    violations.extend(load.wrong());
    for (key, operations) in &histories {
        let checked = history::check(operations);
        violations.extend(checked.err().map(|error| format!("{key}: {error}")));
    }
    world.trace.add("the run is over");
    Report {
        seed: plan.seed,
        digest: 0,
        lasted: Duration::ZERO,
        steps: 0,
        operations: histories.values().map(Vec::len).sum(),
        unavailable: load.unavailable(),
        violations,
    }
}

/// Waits for `work`, and looks after what ends meanwhile.
async fn tended<T>(
    cluster: &mut Cluster,
    violations: &mut Vec<String>,
    work: impl Future<Output = T>,
) -> T {
    let executor = cluster.world.executor.clone();
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = executor.sleep(TEND) => violations.extend(cluster.tend()),
        }
    }
}

/// The time between founding and healing.
struct Life<'a> {
    runtime: Runtime,
    plan: &'a Plan,
    load: Arc<Load>,
}

impl Life<'_> {
    async fn live(&self, cluster: &mut Cluster, faults: &mut Faults, violations: &mut Vec<String>) {
        if let Some(aim) = self.plan.aim {
            aim.play(self.plan, cluster, &self.load, violations).await;
            faults.heal(cluster).await;
            cluster.world.trace.add("healed");
            return;
        }
        let mut changes = self.plan.changes.iter();
        if self.plan.replicas == 1 {
            // One copy promises nothing across silences.
            self.pass(cluster, Duration::from_secs(8), violations).await;
            self.load.set_paused(true);
            self.pass(cluster, Duration::from_secs(13), violations).await;
            if let Some(replicas) = changes.next() {
                self.change(cluster, faults, *replicas).await;
                self.load.set_paused(false);
                let settled = self.settled(cluster, faults, *replicas).await;
                violations.extend(settled.err());
                faults.set_replicas(*replicas);
            }
        }
        if self.plan.awaits_voters {
            self.await_voters(cluster, violations).await;
        }
        self.suffer(cluster, faults, violations).await;
        for replicas in changes {
            self.change(cluster, faults, *replicas).await;
            self.suffer(cluster, faults, violations).await;
        }
        faults.heal(cluster).await;
        cluster.world.trace.add("healed");
    }

    /// Faults for the duration of the plan.
    async fn suffer(
        &self,
        cluster: &mut Cluster,
        faults: &mut Faults,
        violations: &mut Vec<String>,
    ) {
        let end = cluster.world.executor.now() + self.plan.duration;
        while cluster.world.executor.now() < end {
            faults.go_on(cluster).await;
            violations.extend(cluster.tend());
            self.runtime.sleep(TEND / 5).await;
        }
    }

    async fn pass(&self, cluster: &mut Cluster, time: Duration, violations: &mut Vec<String>) {
        tended(cluster, violations, self.runtime.sleep(time)).await;
    }

    /// Waits until voters answer for names, as an api says.
    async fn await_voters(&self, cluster: &mut Cluster, violations: &mut Vec<String>) {
        let deadline = cluster.world.executor.now() + ELECTING;
        let operator = Client::new(&self.runtime);
        while cluster.world.executor.now() < deadline {
            let page = page(&operator, cluster).await;
            if page.pointer("/electorate/phase").is_some_and(|phase| phase == "reading") {
                cluster.world.trace.add("voters answer");
                return;
            }
            self.pass(cluster, TEND, violations).await;
        }
        cluster.world.trace.add("voters do not answer in time");
    }

    /// Starts one data server after the other with another `REPLICAS`.
    async fn change(&self, cluster: &mut Cluster, faults: &Faults, replicas: u32) {
        cluster.world.trace.add(&format!("REPLICAS becomes {replicas}"));
        for place in cluster.servers() {
            cluster.kill(place);
            if let Some(node) = cluster.nodes.get_mut(place) {
                node.replicas = replicas;
            }
            cluster.launch(place);
            // Whether all are back already does not matter.
            let _ = faults.ready(cluster, Duration::from_secs(5)).await;
        }
    }

    /// Waits until the roster has this number of copies for good.
    async fn settled(
        &self,
        cluster: &mut Cluster,
        faults: &Faults,
        replicas: u32,
    ) -> Result<(), String> {
        let deadline = cluster.world.executor.now() + CHANGING;
        let operator = Client::new(&self.runtime);
        let quorum = u64::from(replicas / 2 + 1);
        loop {
            faults.ready(cluster, CHANGING).await?;
            let page = page(&operator, cluster).await;
            let policy = page.get("policy").cloned().unwrap_or_default();
            let number = |name: &str| policy.get(name).and_then(serde_json::Value::as_u64);
            let is_there = number("replicas") == Some(u64::from(replicas))
                && number("write_quorum") == Some(quorum)
                && number("read_quorum") == Some(quorum);
            if is_there {
                cluster.world.trace.add(&format!("REPLICAS is {replicas}"));
                return Ok(());
            }
            if cluster.world.executor.now() > deadline {
                return Err(format!("REPLICAS is not {replicas} in time: {policy}"));
            }
            self.runtime.sleep(TEND).await;
        }
    }
}
