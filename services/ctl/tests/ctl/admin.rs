//! What behaves like the admin port of an api, with a cluster of data servers
//! behind it that hand over a little between two looks.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use crate::cluster::{Cluster, NAME};
use crate::support::{Answer, Done, Serving, answer, ctl, serve, start};

const GIB: u64 = 1 << 30;

pub(crate) struct Admin {
    serving: Serving,
    state: Arc<Mutex<State>>,
}

pub(crate) struct State {
    pub(crate) members: Vec<Value>,
    pub(crate) replicas: usize,
    /// Whether this api has heard of a cluster.
    pub(crate) founded: bool,
    /// How much a draining one hands over between two looks.
    pub(crate) pace: u64,
    /// What was asked, a method and a path.
    pub(crate) log: Vec<String>,
    /// Requests, by their number, that are done and not answered.
    pub(crate) mute: Range<usize>,
    /// How many drains are told to too few at first.
    pub(crate) uncounted: usize,
    /// What every request is answered with instead.
    pub(crate) answer: Option<(u16, &'static str)>,
    /// One that is started again once it has retired joins as a new one.
    pub(crate) reborn: bool,
}

impl Admin {
    /// Of five data servers, with so many copies of each object.
    pub(crate) async fn start(replicas: usize) -> Self {
        let state = State {
            members: (0..5).map(member).collect(),
            replicas,
            founded: true,
            pace: 50,
            log: Vec::new(),
            mute: 0..0,
            uncounted: 0,
            answer: None,
            reborn: false,
        };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let serving =
            serve(None, move |request| shared.lock().expect("no panic").handle(&request)).await;
        Self { serving, state }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.serving.address)
    }

    /// The state of each, those that have retired too.
    pub(crate) fn states(&self) -> Vec<String> {
        let state = self.state();
        state.members.iter().map(|member| text(member, "state").to_owned()).collect()
    }

    /// The requests that change something, since the last look.
    pub(crate) fn changes(&self) -> Vec<String> {
        let mut log = std::mem::take(&mut self.state().log);
        log.retain(|line| !line.starts_with("GET"));
        log
    }
}

/// The arguments of a drain in a pod of this cluster.
fn arguments(cluster: &Cluster, admin: &str, keep: u32, timeout: &str) -> Vec<String> {
    let directory = cluster.directory.display().to_string();
    let fixed = ["drain-dataservers", "--statefulset", NAME, "--service-account", &directory];
    let given = ["--keep", &keep.to_string(), "--admin", admin, "--timeout", timeout];
    fixed.iter().chain(&given).map(|one| (*one).to_owned()).collect()
}

/// Runs it to its end.
pub(crate) async fn drain(cluster: &Cluster, admin: &Admin, keep: u32, timeout: &str) -> Done {
    let arguments = arguments(cluster, &admin.url(), keep, timeout);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    ctl(&arguments, &cluster.variables()).await
}

/// Begins it.
pub(crate) fn drain_begins(cluster: &Cluster, admin: &Admin, keep: u32) -> std::process::Child {
    let arguments = arguments(cluster, &admin.url(), keep, "60s");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    start(&arguments, &cluster.variables())
}

/// An id that ends in the ordinal.
pub(crate) fn id(ordinal: u64) -> String {
    format!("{ordinal:032x}")
}

/// An active data server.
pub(crate) fn member(ordinal: u64) -> Value {
    json!({
        "node": id(ordinal),
        "address": format!("{NAME}-{ordinal}.{NAME}-headless.ns.svc.cluster.local:8081"),
        "generation": 1, "state": "active", "hearing": "heard", "takes_data": true,
        "last_heard_seconds_ago": 0.5, "free_bytes": 6 * GIB, "total_bytes": 10 * GIB, "weight": 10,
        "zone": null, "lost": false, "copies_held": 100, "bytes_held": 4 * GIB,
        "repair_backlog": 0, "repair_passed": null,
    })
}

pub(crate) fn text<'a>(member: &'a Value, name: &str) -> &'a str {
    member[name].as_str().expect("text")
}

impl State {
    fn handle(&mut self, request: &Request<Bytes>) -> Answer {
        let (method, path) = (request.method().as_str(), request.uri().path());
        self.log.push(format!("{method} {path}"));
        let is_mute = self.mute.contains(&(self.log.len() - 1));
        let told = if let Some((status, body)) = self.answer {
            answer(status, body)
        } else if (method, path) == ("GET", "/admin/dataservers") {
            let listing = self.list();
            self.hand_over();
            answer(200, listing.to_string())
        } else {
            let id = path.strip_prefix("/admin/dataservers/").expect("a data server");
            let id = id.strip_suffix("/drain").expect("nobody should ask for more").to_owned();
            assert_eq!(method, "POST", "nobody should take it back");
            self.drain(&id)
        };
        if is_mute { None } else { told }
    }

    fn list(&self) -> Value {
        let policy = json!({
            "epoch": 0, "replicas": self.replicas, "write_quorum": 2, "read_quorum": 2,
        });
        let kept = |member: &Value| match text(member, "state") {
            "retired" => json!({
                "node": member["node"], "address": member["address"], "generation": 1,
                "state": "retired",
            }),
            _ => member.clone(),
        };
        let members: Vec<Value> = self.members.iter().map(kept).collect();
        let (members, cluster) = match self.founded {
            true => (members, json!(id(99))),
            false => (Vec::new(), Value::Null),
        };
        json!({
            "cluster": cluster, "roster_digest": id(0), "policy": policy,
            "dataservers": members, "guests": [],
        })
    }

    fn hand_over(&mut self) {
        let mut born = Vec::new();
        for member in &mut self.members {
            if text(member, "state") != "draining" {
                continue;
            }
            let left = member["copies_held"].as_u64().expect("a number").saturating_sub(self.pace);
            member["copies_held"] = left.into();
            if left == 0 && member["hearing"] == "heard" {
                member["state"] = "retired".into();
                if std::mem::take(&mut self.reborn) {
                    let mut new = member.clone();
                    new["node"] = id(77).into();
                    new["state"] = "active".into();
                    born.push(new);
                }
            }
        }
        self.members.extend(born);
    }

    fn drain(&mut self, id: &str) -> Answer {
        let active = self.members.iter().filter(|member| text(member, "state") == "active");
        let remaining = active.filter(|member| text(member, "node") != id).count();
        let found = self.members.iter_mut().find(|member| text(member, "node") == id);
        let Some(found) = found else { return problem(404, "unknown-dataserver", "no such id") };
        match text(found, "state") {
            "draining" => {}
            "active" if remaining < self.replicas => {
                return problem(409, "too-few-dataservers", "2 active data server(s) would remain");
            }
            "active" => {
                found["state"] = "draining".into();
                found["takes_data"] = false.into();
            }
            state => return problem(409, "wrong-state", &format!("the data server is {state}")),
        }
        if let Some(rest) = self.uncounted.checked_sub(1) {
            self.uncounted = rest;
            return problem(503, "not-counted-yet", "1 of the 3 data servers that must know of it");
        }
        let done = json!({ "node": id, "state": "draining", "persisted": 5, "needed": 4 });
        answer(200, done.to_string())
    }
}

fn problem(status: u16, code: &str, detail: &str) -> Answer {
    let body = json!({
        "type": "about:blank", "title": code, "status": status, "code": code, "detail": detail,
    });
    answer(status, body.to_string())
}
