//! Data servers come and go under load: each new one gets its share, each drained
//! one hands its share over, and nothing is lost.

#![allow(clippy::print_stderr, reason = "why a request failed is worth knowing")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdfast_core::name::{Key, ObjectName};
use holdfast_core::node::NodeId;
use holdfast_core::placement::{Candidate, choose_owners};
use serde_json::Value;

use crate::client::{self, Connection};
use crate::cluster::{Options, ProcessCluster};
use crate::process::Service;

/// Data servers at first, and how many are added and then drained.
const SERVERS: usize = 3;

const REPLICAS: usize = 2;

/// How long a change of the cluster may take for every thousand objects.
const PATIENCE_PER_THOUSAND: Duration = Duration::from_secs(60);

/// The most bytes copied by bytes that had to move. More than 1, for the load's own
/// objects, which are small, move as well.
const MOST_COPIED: f64 = 1.3;

/// The fewest and the most copies on one data server, by the average.
const BALANCED: std::ops::RangeInclusive<f64> = 0.9..=1.1;

/// Objects from which on chance alone puts no data server outside of that: of so many
/// each of 6 has 1,333 copies, and the standard deviation is 30.
const ENOUGH_OBJECTS: usize = 4_000;

/// What a run is like.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Objects, all of the same size.
    pub objects: usize,
    /// That size.
    pub object_bytes: usize,
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// Objects that were stored at first.
    pub objects: usize,
    /// Requests of the load that was there all the time.
    pub requests: u64,
    /// Those that failed.
    pub failed: u64,
    /// Bytes that repair copied while the cluster grew, by those whose owners
    /// changed.
    pub growing: f64,
    /// The same while it shrank.
    pub shrinking: f64,
    /// The fewest and the most copies on one data server, by the average, after
    /// the growth.
    pub balance: (f64, f64),
    /// How long growing and shrinking took.
    pub took: (Duration, Duration),
    /// Objects that could not be read back as they were written.
    pub lost: Vec<String>,
}

impl Report {
    /// What must not be, a line each. The balance is judged only where there are
    /// enough objects: of few, chance puts more on one data server than on another.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut violations = Vec::new();
        if let Some(first) = self.lost.first() {
            violations.push(format!("{} objects are lost: {first}", self.lost.len()));
        }
        if self.failed > 0 {
            violations.push(format!("{} of {} requests failed", self.failed, self.requests));
        }
        for (copied, when) in [(self.growing, "growing"), (self.shrinking, "shrinking")] {
            // Nor is it what is no number, since nothing had to move.
            if !(0.0..=MOST_COPIED).contains(&copied) {
                violations.push(format!(
                    "{when} copied {copied:.3} of the bytes that had to move: above {MOST_COPIED}"
                ));
            }
        }
        let (least, most) = self.balance;
        let is_balanced = BALANCED.contains(&least) && BALANCED.contains(&most);
        if self.objects >= ENOUGH_OBJECTS && !is_balanced {
            let (from, to) = (BALANCED.start(), BALANCED.end());
            violations.push(format!(
                "one data server has {least:.3} of the average number of copies, another one \
                 {most:.3}: outside of {from} to {to}"
            ));
        }
        violations
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} requests of the load, {} failed", self.requests, self.failed)?;
        writeln!(
            f,
            "copied by bytes that had to move: {:.3} growing, {:.3} shrinking",
            self.growing, self.shrinking
        )?;
        writeln!(
            f,
            "copies on one data server, by the average: {:.3} to {:.3}",
            self.balance.0, self.balance.1
        )?;
        writeln!(f, "growing took {:.1?}, shrinking {:.1?}", self.took.0, self.took.1)?;
        writeln!(f, "{} objects lost: {:?}", self.lost.len(), self.lost.first())
    }
}

/// Runs 3 data servers, then 6, then the other 3.
///
/// # Panics
/// When the cluster does not get where it should in time.
pub async fn run(plan: Plan) -> Report {
    let env = vec![
        ("REPLICAS", REPLICAS.to_string()),
        ("REPAIR_DELAY", "30s".to_owned()),
        ("REPAIR_INTERVAL", "20s".to_owned()),
    ];
    let options = Options { data_servers: SERVERS, env, ..Options::default() };
    let mut cluster = ProcessCluster::start(options).await;
    store(&cluster, &plan).await;
    let load = Load::start(&cluster);
    let limit = PATIENCE_PER_THOUSAND * u32::try_from(plan.objects / 1_000 + 1).unwrap_or(1);

    let (before, began) = (repair_bytes(&cluster).await, Instant::now());
    let old = candidates(&cluster).await;
    for _ in 0..SERVERS {
        let mut server = cluster.new_data_server();
        server.start();
        cluster.data_servers.push(server);
    }
    cluster.ready().await;
    let new = candidates(&cluster).await;
    let counts = settle(&cluster, &plan, &new, limit).await;
    let grown = began.elapsed();
    let growing = repair_bytes(&cluster).await - before;
    let growing = growing / moved_bytes(&plan, &old, &new);
    let average = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    let least = counts.iter().copied().min().unwrap_or(0) as f64 / average;
    let most = counts.iter().copied().max().unwrap_or(0) as f64 / average;

    let (before, began) = (repair_bytes(&cluster).await, Instant::now());
    let mut left = 0.0;
    let mut moved = 0.0;
    for _ in 0..SERVERS {
        let from = candidates(&cluster).await;
        let mut leaving = cluster.data_servers.remove(0);
        drain(&cluster, &leaving, limit).await;
        left += leaving.metric("holdfast_repair_bytes_total", &[]).await;
        leaving.stop().await;
        let to = candidates(&cluster).await;
        settle(&cluster, &plan, &to, limit).await;
        moved += moved_bytes(&plan, &from, &to);
    }
    let shrunk = began.elapsed();
    let shrinking = (repair_bytes(&cluster).await + left - before) / moved;
    let (requests, failed) = load.stop().await;
    let lost = read_back(&cluster, &plan).await;
    Report {
        objects: plan.objects,
        requests,
        failed,
        growing,
        shrinking,
        balance: (least, most),
        took: (grown, shrunk),
        lost,
    }
}

fn key(index: usize) -> String {
    format!("elastic/{index}")
}

fn body(plan: &Plan, index: usize) -> Vec<u8> {
    (0..plan.object_bytes).map(|place| ((place ^ index) % 251) as u8).collect()
}

async fn store(cluster: &ProcessCluster, plan: &Plan) {
    let tasks = (0..8).map(|task| {
        let (api, plan) = (cluster.api(task % 2).to_owned(), plan.clone());
        tokio::spawn(async move {
            let mut connection = Connection::open(&api).await.expect("it listens");
            for index in (task..plan.objects).step_by(8) {
                let path = format!("/objects/{}", key(index));
                let stored = connection.request("PUT", &path, &[], &body(&plan, index)).await;
                assert_eq!(stored.expect("an answer").status, 200);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("everything is stored");
    }
}

async fn read_back(cluster: &ProcessCluster, plan: &Plan) -> Vec<String> {
    let mut lost = Vec::new();
    let mut connection = Connection::open(cluster.api(1)).await.expect("it listens");
    for index in 0..plan.objects {
        let path = format!("/objects/{}", key(index));
        let got = connection.request("GET", &path, &[], b"").await.expect("an answer");
        if got.status != 200 || got.body != body(plan, index) {
            lost.push(format!("{path}: {} {}", got.status, got.code()));
        }
    }
    lost
}

/// The active members, as placement sees them.
///
/// # Panics
/// Without an api.
pub async fn candidates(cluster: &ProcessCluster) -> BTreeMap<NodeId, Candidate> {
    let listed = cluster.apis.first().expect("there is one").data_servers().await;
    let members = listed["dataservers"].as_array().cloned().unwrap_or_default();
    let active = members.iter().filter(|member| member["state"] == "active");
    let candidate = |member: &Value| {
        let id: NodeId = member["node"].as_str()?.parse().ok()?;
        let weight = u32::try_from(member["weight"].as_u64()?).ok()?;
        Some((id, Candidate { id, weight, zone: None }))
    };
    active.filter_map(candidate).collect()
}

fn owners(index: usize, candidates: &BTreeMap<NodeId, Candidate>) -> BTreeSet<NodeId> {
    let name = ObjectName::seed(Key::new(key(index)).expect("short"));
    let candidates: Vec<Candidate> = candidates.values().cloned().collect();
    choose_owners(&name, &candidates, REPLICAS).into_iter().collect()
}

/// Bytes of the copies that are at other members after a change.
fn moved_bytes(
    plan: &Plan,
    from: &BTreeMap<NodeId, Candidate>,
    to: &BTreeMap<NodeId, Candidate>,
) -> f64 {
    let moved =
        (0..plan.objects).map(|index| owners(index, to).difference(&owners(index, from)).count());
    (moved.sum::<usize>() * plan.object_bytes) as f64
}

async fn repair_bytes(cluster: &ProcessCluster) -> f64 {
    let mut sum = 0.0;
    for server in &cluster.data_servers {
        sum += server.metric("holdfast_repair_bytes_total", &[]).await;
    }
    sum
}

/// Waits until every object is at its owners and nowhere else; gives how many
/// copies each of these has.
async fn settle(
    cluster: &ProcessCluster,
    plan: &Plan,
    candidates: &BTreeMap<NodeId, Candidate>,
    limit: Duration,
) -> Vec<u64> {
    let deadline = Instant::now() + limit;
    let mut connection = Connection::open(cluster.api(0)).await.expect("it listens");
    let mut counts: BTreeMap<NodeId, u64> = BTreeMap::new();
    for index in 0..plan.objects {
        let owners = owners(index, candidates);
        loop {
            let path = format!("/locate/{}?replicas", key(index));
            let found = connection.request("GET", &path, &[], b"").await.expect("an answer");
            let replicas = found.json().as_array().cloned().unwrap_or_default();
            let holders: BTreeSet<NodeId> =
                replicas.iter().filter_map(|one| one["node"].as_str()?.parse().ok()).collect();
            if holders == owners {
                break;
            }
            assert!(Instant::now() < deadline, "{}: {holders:?} are not {owners:?}", key(index));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for owner in owners {
            *counts.entry(owner).or_default() += 1;
        }
    }
    counts.into_values().collect()
}

async fn drain(cluster: &ProcessCluster, leaving: &Service, limit: Duration) {
    let api = cluster.apis.first().expect("there is one");
    let listed = api.data_servers().await;
    let members = listed["dataservers"].as_array().cloned().unwrap_or_default();
    let member = members.iter().find(|member| member["address"] == leaving.address());
    let id = member.and_then(|member| member["node"].as_str()).expect("it is a member").to_owned();
    let path = format!("/admin/dataservers/{id}/drain");
    let told = client::request(api.admin(), "POST", &path, &[], b"").await.expect("an answer");
    assert_eq!(told.status, 200, "{}", told.text());
    let what = format!("{} has handed everything over", leaving.name());
    crate::wait::until_within(limit, &what, async || {
        let listed = api.data_servers().await;
        let members = listed["dataservers"].as_array().cloned().unwrap_or_default();
        let member = members.into_iter().find(|member| member["node"] == id.as_str())?;
        (member["state"] == "retired").then_some(())
    })
    .await;
}

/// Requests that go on all the time.
struct Load {
    stop: Arc<AtomicBool>,
    requests: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(cluster: &ProcessCluster) -> Self {
        let (stop, requests, failed) = (Arc::default(), Arc::default(), Arc::default());
        let mut load = Self { stop, requests, failed, tasks: Vec::new() };
        for task in 0..2 {
            let api = cluster.api(task).to_owned();
            let (stop, requests, failed) =
                (Arc::clone(&load.stop), Arc::clone(&load.requests), Arc::clone(&load.failed));
            load.tasks.push(tokio::spawn(async move {
                let mut round = 0_u64;
                while !stop.load(Ordering::SeqCst) {
                    let path = format!("/objects/load/{task}/{}", round % 20);
                    let text = round.to_string();
                    let put = client::put(&api, &path, text.as_bytes()).await;
                    let got = client::get(&api, &path).await;
                    let fine = put.as_ref().is_ok_and(|answer| answer.status == 200)
                        && got.as_ref().is_ok_and(|answer| answer.text() == text);
                    if !fine {
                        eprintln!("round {round} of {path}: {put:?}, then {got:?}");
                    }
                    requests.fetch_add(2, Ordering::SeqCst);
                    failed.fetch_add(u64::from(!fine), Ordering::SeqCst);
                    round += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }));
        }
        load
    }

    async fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.expect("the load does not panic");
        }
        (self.requests.load(Ordering::SeqCst), self.failed.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fine() -> Report {
        Report {
            objects: ENOUGH_OBJECTS,
            requests: 100,
            failed: 0,
            growing: 1.0,
            shrinking: 1.2,
            balance: (0.95, 1.05),
            took: (Duration::ZERO, Duration::ZERO),
            lost: Vec::new(),
        }
    }

    #[test]
    fn each_thing_that_must_not_be_is_told() {
        assert_eq!(fine().violations(), Vec::<String>::new());
        let told = |change: fn(&mut Report), expected: &str| {
            let mut report = fine();
            change(&mut report);
            let violations = report.violations();
            assert!(matches!(&violations[..], [one] if one.contains(expected)), "{violations:?}");
        };
        told(|report| report.failed = 1, "1 of 100 requests failed");
        told(|report| report.growing = 1.31, "growing copied 1.310");
        told(|report| report.growing = f64::NAN, "growing copied NaN");
        told(|report| report.shrinking = 1.31, "shrinking copied 1.310");
        told(|report| report.balance.0 = 0.89, "has 0.890");
        told(|report| report.balance.1 = 1.11, "another one 1.110");
        told(|report| report.lost = vec!["one".to_owned()], "1 objects are lost: one");
    }

    #[test]
    fn of_few_objects_the_balance_is_not_judged() {
        let report = Report { objects: ENOUGH_OBJECTS - 1, balance: (0.5, 1.5), ..fine() };
        assert_eq!(report.violations(), Vec::<String>::new());
    }
}
