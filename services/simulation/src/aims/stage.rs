//! What an aim works with: a cluster, and clients that ask when they are told
//! to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_runtime::{Runtime, Task};
use holdfast_testkit::history::Action;
use holdfast_testkit::workload::request;

use crate::client::Client;
use crate::cluster::{ADMIN_PORT, Cluster, PORT, TEND};
use crate::faults::{takes_data, text};
use crate::load::{self, Asking, Load};
use crate::network::HostId;
use crate::plan::Plan;
use crate::random::{Random, mix};

/// Hosts of the clients: more than an aim uses.
const CLIENTS: u64 = 4;

/// How long an operator waits.
const ADMIN_LIMIT: Duration = Duration::from_secs(2);

/// Every two of these places.
pub(super) fn pairs(places: &[usize]) -> impl Iterator<Item = (usize, usize)> {
    let before = |at| places.get(..at).unwrap_or_default();
    let with_those_before =
        move |(at, other): (usize, &usize)| before(at).iter().map(|one| (*one, *other)).collect();
    places.iter().enumerate().flat_map::<Vec<_>, _>(with_those_before)
}

/// See the module.
pub(super) struct Stage<'a> {
    pub(super) cluster: &'a mut Cluster,
    pub(super) random: Random,
    violations: &'a mut Vec<String>,
    load: Arc<Load>,
    clients: Vec<(Runtime, Arc<Client>)>,
    next_key: u64,
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        plan: &Plan,
        cluster: &'a mut Cluster,
        load: &Arc<Load>,
        violations: &'a mut Vec<String>,
    ) -> Self {
        let clients = (0..CLIENTS).map(|client| cluster.world.outside(201 + client));
        let clients = clients.map(|own| (own.clone(), Arc::new(Client::new(&own)))).collect();
        let random = Random::new(mix(plan.seed, 0x6169_6d00));
        Self { cluster, random, violations, load: Arc::clone(load), clients, next_key: 0 }
    }

    /// The places of the apis and of the data servers, each in any order.
    pub(super) fn places(&self) -> (Vec<usize>, Vec<usize>) {
        let shuffled = |mut places: Vec<usize>| {
            for end in (1..places.len()).rev() {
                places.swap(end, self.random.place(end + 1));
            }
            places
        };
        (shuffled(self.cluster.apis()), shuffled(self.cluster.servers()))
    }

    pub(super) fn host(&self, place: usize) -> HostId {
        self.cluster.node(place).host
    }

    /// A duration within bounds, in milliseconds.
    pub(super) fn millis(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.random.within(least, most))
    }

    /// Keys that nobody has used.
    pub(super) fn keys(&mut self, count: u64) -> Vec<String> {
        let first = self.next_key;
        self.next_key += count;
        (first..self.next_key).map(load::path).collect()
    }

    /// A value that nobody has written.
    pub(super) fn value(&self) -> u64 {
        self.load.value()
    }

    /// Lets a client ask; gives the task that waits for the answer.
    pub(super) fn ask(
        &self,
        client: usize,
        api: usize,
        key: &str,
        action: Action,
        patience: Duration,
    ) -> Vec<Task> {
        let Some((runtime, requests)) = self.clients.get(client) else { return Vec::new() };
        let (load, requests) = (Arc::clone(&self.load), Arc::clone(requests));
        if load.is_full(key) {
            return Vec::new();
        }
        let (key, api) = (key.to_owned(), self.host(api).address(PORT));
        let work = async move {
            let asking = Asking { client, requests: &requests, api: &api, key: &key, patience };
            load.ask(asking, request(action, ""), &mut BTreeMap::new()).await;
        };
        vec![runtime.spawn("aim", work)]
    }

    /// The same of many keys at once; `action` is made for each of them.
    pub(super) fn ask_all(
        &self,
        client: usize,
        api: usize,
        keys: &[String],
        action: impl Fn() -> Action,
        patience: Duration,
    ) -> Vec<Task> {
        keys.iter().flat_map(|key| self.ask(client, api, key, action(), patience)).collect()
    }

    /// A PUT of each of these keys, one after the other written to its end.
    pub(super) async fn put_all(&mut self, client: usize, api: usize, keys: &[String]) {
        let write = || Action::Write(self.load.value());
        let tasks = self.ask_all(client, api, keys, write, Duration::from_secs(12));
        self.wait(tasks).await;
    }

    /// So many objects that nobody has written before, with all of their copies, also
    /// those that are more than enough for an answer. Their keys.
    pub(super) async fn objects(&mut self, client: usize, api: usize, count: u64) -> Vec<String> {
        let keys = self.keys(count);
        self.put_all(client, api, &keys).await;
        let time = self.millis(500, 2_000);
        self.pass(time).await;
        keys
    }

    /// A GET of each of these keys, at once; waits for the answers.
    pub(super) async fn read_all(&mut self, client: usize, api: usize, keys: &[String]) {
        let tasks = self.ask_all(client, api, keys, || Action::Read, Duration::from_secs(5));
        self.wait(tasks).await;
    }

    pub(super) async fn wait(&mut self, tasks: Vec<Task>) {
        let executor = self.cluster.world.executor.clone();
        for mut task in tasks {
            loop {
                tokio::select! {
                    biased;
                    () = task.finished() => break,
                    () = executor.sleep(TEND) => self.tend(),
                }
            }
        }
    }

    /// Lets time pass.
    pub(super) async fn pass(&mut self, time: Duration) {
        let executor = self.cluster.world.executor.clone();
        let end = executor.now() + time;
        while executor.now() < end {
            executor.sleep(TEND.min(end - executor.now())).await;
            self.tend();
        }
    }

    fn tend(&mut self) {
        self.violations.extend(self.cluster.tend());
    }

    /// Cuts what one sends to the other, or mends it.
    pub(super) fn set_cut(&self, from: usize, to: usize, cut: bool) {
        self.cluster.world.net.set_cut(self.host(from), self.host(to), cut);
    }

    /// Both ways.
    pub(super) fn set_apart(&self, one: usize, other: usize, apart: bool) {
        self.set_cut(one, other, apart);
        self.set_cut(other, one, apart);
    }

    /// Every two of these.
    pub(super) fn set_all_apart(&self, places: &[usize], apart: bool) {
        pairs(places).for_each(|(one, other)| self.set_apart(one, other, apart));
    }

    /// Breaks the connections between two.
    pub(super) fn reset(&self, one: usize, other: usize) {
        self.cluster.world.net.reset(self.host(one), self.host(other));
    }

    pub(super) fn set_slow(&self, from: usize, to: usize, delay: Duration) {
        self.cluster.world.net.set_slow(self.host(from), self.host(to), delay);
    }

    /// Messages of the broker do not reach this process, or they do again.
    pub(super) fn set_deaf(&self, place: usize, deaf: bool) {
        if let Some(running) = &self.cluster.node(place).running {
            if deaf { running.bus.freeze() } else { running.bus.start() }
        }
    }

    /// The process stands still, or goes on.
    pub(super) fn set_paused(&self, place: usize, paused: bool) {
        let executor = &self.cluster.world.executor;
        if let Some(running) = &self.cluster.node(place).running {
            let process = running.process;
            if paused { executor.pause(process) } else { executor.resume(process) }
        }
    }

    /// The disk at a place has no room for payloads, or has room again.
    pub(super) fn set_full(&self, place: usize, full: bool) {
        self.cluster.set_full(place, full);
        self.note(&format!("the disk of server {place} is full: {full}"));
    }

    /// Something that must not be.
    pub(super) fn wrong(&mut self, what: String) {
        self.violations.push(what);
    }

    pub(super) fn note(&self, what: &str) {
        self.cluster.world.trace.add(what);
    }

    /// An operator's request to one api; `None` without an answer.
    pub(super) async fn operate(
        &mut self,
        api: usize,
        method: &str,
        path: &str,
    ) -> Option<serde_json::Value> {
        let (_, operator) = self.clients.last()?;
        let address = self.host(api).address(ADMIN_PORT);
        let asked = operator.send(&address, method, path, None, Vec::new(), ADMIN_LIMIT);
        let answer = asked.await;
        if method != "GET" {
            let told = answer.as_ref().map_or_else(Clone::clone, ToString::to_string);
            self.note(&format!("operator {method} {path}: {told}"));
        }
        serde_json::from_slice(&answer.ok()?.body).ok()
    }

    /// What an api says of the data server at a place.
    pub(super) async fn member(&mut self, api: usize, place: usize) -> Option<serde_json::Value> {
        let address = self.host(place).address(PORT);
        let members = self.members(api).await;
        members.into_iter().find(|one| text(one, "address") == address)
    }

    /// Waits until an api says that the data server at a place takes data.
    pub(super) async fn until_active(&mut self, api: usize, place: usize, limit: Duration) -> bool {
        let address = self.host(place).address(PORT);
        let is_active = |members: &[serde_json::Value]| {
            members.iter().any(|one| text(one, "address") == address && takes_data(one))
        };
        self.until(api, limit, is_active).await
    }

    /// The process at a place dies, and its disk is empty. Gives who it was, as an
    /// api knows it.
    pub(super) async fn lose_disk(&mut self, api: usize, place: usize) -> String {
        let member = self.member(api, place).await.unwrap_or_default();
        self.cluster.kill(place);
        self.cluster.node(place).volume.clear();
        self.note(&format!("server {place} has lost its disk"));
        text(&member, "node").to_owned()
    }

    /// Waits until an api says that `lost` is no member any more, and that there are
    /// as many others as data servers, all of which take data.
    pub(super) async fn until_replaced(&mut self, api: usize, lost: &str, limit: Duration) -> bool {
        let servers = self.cluster.servers().len();
        let is_there = |members: &[serde_json::Value]| {
            members.len() == servers
                && members.iter().all(|one| takes_data(one) && text(one, "node") != lost)
        };
        self.until(api, limit, is_there).await
    }

    /// Waits until an api says that `node` is no member any more.
    pub(super) async fn until_retired(&mut self, api: usize, node: &str, limit: Duration) -> bool {
        let is_gone = |members: &[serde_json::Value]| {
            !members.is_empty() && members.iter().all(|one| text(one, "node") != node)
        };
        self.until(api, limit, is_gone).await
    }

    /// Waits until the members that an api tells of are as they should be.
    async fn until(
        &mut self,
        api: usize,
        limit: Duration,
        is_right: impl Fn(&[serde_json::Value]) -> bool,
    ) -> bool {
        let executor = self.cluster.world.executor.clone();
        let end = executor.now() + limit;
        while executor.now() < end {
            if is_right(&self.members(api).await) {
                return true;
            }
            self.pass(Duration::from_millis(50)).await;
        }
        false
    }

    /// The members that an api tells of.
    async fn members(&mut self, api: usize) -> Vec<serde_json::Value> {
        let page = self.operate(api, "GET", "/admin/dataservers").await.unwrap_or_default();
        let all = page.get("dataservers").and_then(serde_json::Value::as_array);
        let is_member = |one: &&serde_json::Value| text(one, "state") != "retired";
        all.into_iter().flatten().filter(is_member).cloned().collect()
    }

    /// Drains the data server at a place, or takes that back.
    pub(super) async fn set_draining(&mut self, api: usize, place: usize, drains: bool) {
        let method = if drains { "POST" } else { "DELETE" };
        self.change(api, place, method, "drain").await;
    }

    /// Drains the data server at a place. Gives who it is, as an api knows it.
    pub(super) async fn drain(&mut self, api: usize, place: usize) -> String {
        let member = self.member(api, place).await.unwrap_or_default();
        self.set_draining(api, place, true).await;
        text(&member, "node").to_owned()
    }

    /// Gives up the data server at a place, if that loses nothing.
    pub(super) async fn retire(&mut self, api: usize, place: usize) {
        self.change(api, place, "POST", "retire").await;
    }

    async fn change(&mut self, api: usize, place: usize, method: &str, what: &str) {
        let Some(member) = self.member(api, place).await else { return };
        let node = member.get("node").and_then(serde_json::Value::as_str).unwrap_or_default();
        self.operate(api, method, &format!("/admin/dataservers/{node}/{what}")).await;
    }
}
