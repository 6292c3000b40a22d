//! Clients that read objects, write over them and ask for names that are not there,
//! and what became of each request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast_testkit::client::{self, Connection};
use holdfast_testkit::cluster::ProcessCluster;
use holdfast_testkit::wait;
use tokio::task::JoinHandle;

/// Objects that are asked for.
pub(crate) const NAMES: usize = 500;

const CLIENTS: usize = 6;
const OBJECT_BYTES: usize = 4_096;

/// How long an electorate may take to be complete.
const PATIENCE: Duration = Duration::from_secs(120);

/// What clients ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A GET of an object.
    Read,
    /// A PUT over it.
    Write,
    /// A GET of a name that is not there.
    Absent,
}

/// One request and its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    pub(crate) asked: Asked,
    pub(crate) name: usize,
    /// Whether it was done, and not refused.
    pub(crate) served: bool,
}

impl Request {
    pub(crate) fn took(&self) -> Duration {
        self.ended - self.began
    }
}

/// Stores what will be asked for.
pub(crate) async fn store(cluster: &ProcessCluster) {
    let mut api = Connection::open(cluster.api(0)).await.expect("it listens");
    for name in 0..NAMES {
        let stored = api.request("PUT", &path(name), &[], &[7; OBJECT_BYTES]).await;
        assert_eq!(stored.expect("an answer").status, 200);
    }
}

/// Waits until those who vote for a name are enough to answer for it.
pub(crate) async fn voters_answer(cluster: &ProcessCluster) {
    wait::until_within(PATIENCE, "voters answer", async || {
        let mut all = true;
        for api in &cluster.apis {
            let page = client::get(api.admin(), "/admin/dataservers").await.ok()?.json();
            all &= page["electorate"]["phase"] == "reading";
        }
        all.then_some(())
    })
    .await;
}

pub(crate) fn path(name: usize) -> String {
    format!("/objects/name-{name}")
}

/// Clients at work, through every api by turns.
pub(crate) struct Load {
    is_done: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Request>>>,
}

impl Load {
    pub(crate) fn start(cluster: &ProcessCluster) -> Self {
        let is_done = Arc::new(AtomicBool::new(false));
        let clients = (0..CLIENTS).map(|client| {
            let api = cluster.api(client % cluster.apis.len()).to_owned();
            tokio::spawn(ask(api, client, Arc::clone(&is_done)))
        });
        Self { clients: clients.collect(), is_done }
    }

    /// Ends it; gives all requests, in the order in which they began.
    pub(crate) async fn stop(self) -> Vec<Request> {
        self.is_done.store(true, Ordering::SeqCst);
        let mut requests = Vec::new();
        for client in self.clients {
            requests.extend(client.await.expect("no panic"));
        }
        requests.sort_by_key(|request| request.began);
        requests
    }
}

async fn ask(api: String, client: usize, is_done: Arc<AtomicBool>) -> Vec<Request> {
    let mut connection = Connection::open(&api).await.expect("it listens");
    let mut requests = Vec::new();
    let mut turn = client * 7;
    while !is_done.load(Ordering::SeqCst) {
        turn += 1;
        let name = turn % NAMES;
        let asked = match turn % 5 {
            0 => Asked::Write,
            1 => Asked::Absent,
            _ => Asked::Read,
        };
        let (path, body) = (path(name), [8; OBJECT_BYTES]);
        let began = Instant::now();
        let answer = match asked {
            Asked::Read => connection.request("GET", &path, &[], b"").await,
            Asked::Write => connection.request("PUT", &path, &[], &body).await,
            Asked::Absent => {
                connection.request("GET", &format!("/objects/none-{name}"), &[], b"").await
            }
        };
        let status = answer.map_or(0, |answer| answer.status);
        let served = matches!((asked, status), (Asked::Absent, 404) | (_, 200));
        let is_true = served || matches!(status, 503 | 0);
        assert!(is_true, "{asked:?} of {path} was answered {status}");
        if status == 0 {
            connection = Connection::open(&api).await.expect("it listens");
        }
        requests.push(Request { began, ended: Instant::now(), asked, name, served });
    }
    requests
}
