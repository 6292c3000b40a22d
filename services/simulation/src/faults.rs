//! What goes wrong in a run, one after the other and at the same time.

use std::time::Duration;

use holdfast_runtime::Runtime;

use crate::client::Client;
use crate::cluster::{ADMIN_PORT, Cluster, Role};
use crate::network::HostId;
use crate::plan::{Kind, Plan};
use crate::random::{Random, mix};

/// How long an operator waits.
const ADMIN_LIMIT: Duration = Duration::from_secs(5);

/// How long after it a lost disk is known to everybody.
const NOTICED: Duration = Duration::from_secs(5);

/// A fault that goes on.
#[derive(Debug, Clone)]
struct Active {
    kind: Kind,
    victim: usize,
    until: Duration,
    /// For cuts: the directions. For slow links: the same.
    links: Vec<(HostId, HostId)>,
    /// For drains: who.
    node: String,
}

/// Makes faults and mends them.
pub struct Faults {
    random: Random,
    operator: Client,
    runtime: Runtime,
    kinds: Vec<Kind>,
    most: usize,
    calm_millis: u64,
    replicas: u32,
    active: Vec<Active>,
    has_added: bool,
    wiped: Option<Duration>,
    next: Duration,
}

impl Faults {
    /// No faults yet.
    #[must_use]
    pub fn new(plan: &Plan, runtime: Runtime) -> Self {
        Self {
            random: Random::new(mix(plan.seed, 0x6661_756c)),
            operator: Client::new(&runtime),
            runtime,
            kinds: plan.kinds.clone(),
            most: plan.most_faults,
            calm_millis: plan.calm_millis,
            replicas: plan.replicas,
            active: Vec::new(),
            has_added: false,
            wiped: None,
            next: Duration::ZERO,
        }
    }

    /// Mends what is due, and makes a new fault when it is time.
    pub async fn go_on(&mut self, cluster: &mut Cluster) {
        let now = cluster.world.executor.now();
        let (due, rest) = self.active.drain(..).partition(|one| one.until <= now);
        self.active = rest;
        for fault in due {
            self.mend(fault, cluster).await;
        }
        if now < self.next || self.active.len() >= self.most || self.kinds.is_empty() {
            return;
        }
        let pause = Duration::from_millis(self.random.below(self.calm_millis));
        self.next = now + pause;
        self.begin(cluster).await;
    }

    /// Mends everything.
    pub async fn heal(&mut self, cluster: &mut Cluster) {
        for fault in std::mem::take(&mut self.active) {
            self.mend(fault, cluster).await;
        }
        for place in 0..cluster.nodes.len() {
            cluster.launch(place);
        }
    }

    async fn begin(&mut self, cluster: &mut Cluster) {
        let Some(kind) = self.kinds.get(self.random.place(self.kinds.len())).copied() else {
            return;
        };
        let Some(victim) = self.victim(kind, cluster) else { return };
        let millis = match self.random.below(100) {
            0..65 => self.random.within(50, 4_000),
            65..93 => self.random.within(4_000, 10_000),
            _ => self.random.within(10_000, 25_000),
        };
        let now = cluster.world.executor.now();
        let until = now + Duration::from_millis(millis);
        let mut fault = Active { kind, victim, until, links: Vec::new(), node: String::new() };
        if self.break_it(&mut fault, cluster).await {
            let host = cluster.node(victim).host.0;
            cluster.world.trace.add(&format!("fault {kind:?} of {host} for {millis} ms"));
            self.active.push(fault);
        }
    }

    /// Somebody to whom nothing else happens.
    fn victim(&self, kind: Kind, cluster: &Cluster) -> Option<usize> {
        let candidates: Vec<usize> = match kind {
            Kind::KillApi | Kind::PauseApi => cluster.apis(),
            Kind::CutLink | Kind::Slow | Kind::Skew => (0..cluster.nodes.len()).collect(),
            _ => cluster.servers(),
        };
        let is_free = |place: &usize| self.active.iter().all(|fault| fault.victim != *place);
        let is_up = |place: &usize| cluster.node(*place).running.is_some();
        let free: Vec<usize> = candidates.into_iter().filter(is_free).filter(is_up).collect();
        free.get(self.random.place(free.len())).copied()
    }

    /// False when it cannot be done now.
    async fn break_it(&mut self, fault: &mut Active, cluster: &mut Cluster) -> bool {
        let victim = fault.victim;
        let host = cluster.node(victim).host;
        let (world, hosts) = (cluster.world.clone(), hosts(cluster));
        let running = cluster.node(victim).running.as_ref();
        match fault.kind {
            Kind::Kill | Kind::KillApi => cluster.kill(victim),
            Kind::Restart => running.iter().for_each(|one| one.shutdown.begin()),
            Kind::Pause | Kind::PauseApi => {
                running.iter().for_each(|one| world.executor.pause(one.process));
            }
            Kind::Isolate => {
                running.iter().for_each(|one| one.bus.freeze());
                let others = hosts.iter().filter(|other| **other != host);
                fault.links = others.flat_map(|other| [(host, *other), (*other, host)]).collect();
            }
            Kind::CutLink => {
                let Some(other) = hosts.get(self.random.place(hosts.len())).copied() else {
                    return false;
                };
                if other == host {
                    return false;
                }
                fault.links = vec![(host, other)];
                if self.random.percent(50) {
                    fault.links.push((other, host));
                }
            }
            Kind::Reset => hosts.iter().for_each(|other| world.net.reset(host, *other)),
            Kind::CutBroker if self.random.percent(50) => {
                running.iter().for_each(|one| one.bus.freeze());
            }
            Kind::CutBroker => running.iter().for_each(|one| one.bus.stop()),
            Kind::Wipe => {
                // Before the first loss is noticed, all seems whole.
                if !self.active.is_empty()
                    || self.has_just_lost(cluster)
                    || !self.is_whole(cluster).await
                {
                    return false;
                }
                cluster.kill(victim);
                cluster.node(victim).volume.clear();
                self.wiped = Some(world.executor.now());
            }
            Kind::Fill => cluster.set_full(victim, true),
            Kind::StopBroker => world.broker.stop(),
            Kind::FreezeBroker => world.broker.freeze(),
            Kind::Skew => {
                let millis = self.random.within(0, 1_200_000).cast_signed() - 600_000;
                cluster.node(victim).skew.set(millis);
            }
            Kind::Slow => {
                let delay = Duration::from_millis(self.random.within(20, 900));
                let others = hosts.iter().filter(|other| **other != host);
                fault.links = others.flat_map(|other| [(host, *other), (*other, host)]).collect();
                for (from, to) in &fault.links {
                    world.net.set_slow(*from, *to, delay);
                }
            }
            Kind::Add => {
                if self.has_added {
                    return false;
                }
                self.has_added = true;
                let replicas = cluster.node(victim).replicas;
                cluster.add(Role::DataServer, replicas);
            }
            Kind::Drain => return self.drain(fault, cluster).await,
        }
        if matches!(fault.kind, Kind::Isolate | Kind::CutLink) {
            for (from, to) in &fault.links {
                world.net.set_cut(*from, *to, true);
            }
        }
        true
    }

    async fn mend(&mut self, fault: Active, cluster: &mut Cluster) {
        let world = cluster.world.clone();
        let victim = fault.victim;
        let host = cluster.node(victim).host.0;
        world.trace.add(&format!("mended {:?} of {host}", fault.kind));
        match fault.kind {
            Kind::Kill | Kind::KillApi | Kind::Wipe => cluster.launch(victim),
            Kind::Restart => {
                cluster.kill(victim);
                cluster.launch(victim);
            }
            Kind::Pause | Kind::PauseApi => {
                let running = cluster.node(victim).running.as_ref();
                running.iter().for_each(|one| world.executor.resume(one.process));
            }
            Kind::Fill => cluster.set_full(victim, false),
            Kind::StopBroker | Kind::FreezeBroker => world.broker.start(),
            Kind::Drain if self.random.percent(30) => {
                let path = format!("/admin/dataservers/{}/drain", fault.node);
                self.ask("DELETE", &path, cluster).await;
            }
            _ => {}
        }
        if matches!(fault.kind, Kind::Isolate | Kind::CutBroker) {
            cluster.node(victim).running.iter().for_each(|one| one.bus.start());
        }
        for (from, to) in fault.links {
            match fault.kind {
                Kind::Slow => world.net.set_slow(from, to, Duration::ZERO),
                _ => world.net.set_cut(from, to, false),
            }
        }
    }

    async fn drain(&mut self, fault: &mut Active, cluster: &Cluster) -> bool {
        let address = cluster.node(fault.victim).host.address(crate::cluster::PORT);
        let members = self.members(cluster).await;
        let active = members.iter().filter(|one| text(one, "state") == "active").count();
        let here = |one: &&serde_json::Value| {
            text(one, "address") == address && text(one, "state") == "active"
        };
        let Some(member) = members.iter().find(here) else { return false };
        let needed = usize::try_from(self.replicas).unwrap_or(usize::MAX);
        // An operator who knows of a lost disk does not drain: before it is
        // noticed, the cluster cannot refuse.
        if active <= needed || self.has_just_lost(cluster) {
            return false;
        }
        fault.node = text(member, "node").to_owned();
        self.ask("POST", &format!("/admin/dataservers/{}/drain", fault.node), cluster).await
    }

    /// Whether a disk was lost and not everybody may have noticed.
    fn has_just_lost(&self, cluster: &Cluster) -> bool {
        let now = cluster.world.executor.now();
        self.wiped.is_some_and(|at| now.saturating_sub(at) < NOTICED)
    }

    async fn ask(&self, method: &str, path: &str, cluster: &Cluster) -> bool {
        let apis = cluster.apis();
        let Some(api) = apis.get(self.random.place(apis.len())) else { return false };
        let address = cluster.node(*api).host.address(ADMIN_PORT);
        let answer =
            self.operator.send(&address, method, path, None, Vec::new(), ADMIN_LIMIT).await;
        let told = answer.as_ref().map_or_else(Clone::clone, ToString::to_string);
        cluster.world.trace.add(&format!("operator {method} {path}: {told}"));
        answer.is_ok()
    }

    async fn members(&self, cluster: &Cluster) -> Vec<serde_json::Value> {
        members(&self.operator, cluster).await
    }

    /// A second disk must not be lost before what was on the first is whole
    /// again. And those that remain must be enough for the successor to join: with
    /// fewer than W that know of it, somebody has to say that the lost one is gone
    /// for good.
    async fn is_whole(&self, cluster: &Cluster) -> bool {
        let page = page(&self.operator, cluster).await;
        let list = page.get("dataservers").and_then(|list| list.as_array());
        let is_living = |one: &&serde_json::Value| text(one, "state") != "retired";
        let living: Vec<_> = list.into_iter().flatten().filter(is_living).collect();
        let policy = page.get("policy");
        let write_quorum = policy.and_then(|policy| policy.get("write_quorum"));
        let write_quorum = write_quorum.and_then(serde_json::Value::as_u64);
        let is_enough = write_quorum.is_some_and(|quorum| living.len() as u64 > quorum);
        let is_sound = |one: &&serde_json::Value| {
            text(one, "hearing") == "heard" && text(one, "state") == "active"
        };
        is_enough && living.len() >= 3 && living.iter().all(is_sound)
    }

    /// Waits until so many data servers take data.
    ///
    /// # Errors
    /// When it takes too long.
    pub async fn ready(&self, cluster: &mut Cluster, limit: Duration) -> Result<(), String> {
        let deadline = cluster.world.executor.now() + limit;
        loop {
            let members = self.members(cluster).await;
            let ready = members.iter().filter(|one| takes_data(one)).count();
            let wanted = cluster.servers().len();
            if ready == wanted {
                return Ok(());
            }
            if cluster.world.executor.now() > deadline {
                return Err(format!("{ready} of {wanted} data servers are ready: {members:?}"));
            }
            cluster.tend();
            self.runtime.sleep(crate::cluster::TEND).await;
        }
    }

    /// From now on so many active members must stay.
    pub fn set_replicas(&mut self, replicas: u32) {
        self.replicas = self.replicas.max(replicas);
    }
}

fn hosts(cluster: &Cluster) -> Vec<HostId> {
    cluster.nodes.iter().map(|node| node.host).collect()
}

pub(crate) fn text<'a>(value: &'a serde_json::Value, name: &str) -> &'a str {
    value.get(name).and_then(serde_json::Value::as_str).unwrap_or_default()
}

/// Whether new data goes to a member that an api tells of.
pub(crate) fn takes_data(member: &serde_json::Value) -> bool {
    member.get("takes_data").and_then(serde_json::Value::as_bool) == Some(true)
}

/// The page of the data servers, as the first api that answers knows it.
pub(crate) async fn page(operator: &Client, cluster: &Cluster) -> serde_json::Value {
    for api in cluster.apis() {
        let address = cluster.node(api).host.address(ADMIN_PORT);
        let path = "/admin/dataservers";
        let answer = operator.send(&address, "GET", path, None, Vec::new(), ADMIN_LIMIT).await;
        if let Ok(answer) = answer
            && let Ok(page) = serde_json::from_slice(&answer.body)
        {
            return page;
        }
    }
    serde_json::Value::Null
}

async fn members(operator: &Client, cluster: &Cluster) -> Vec<serde_json::Value> {
    let page = page(operator, cluster).await;
    page.get("dataservers").and_then(|list| list.as_array()).cloned().unwrap_or_default()
}
