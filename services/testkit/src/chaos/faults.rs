//! What goes wrong, one after the other and sometimes two at once.

use std::time::{Duration, Instant};

use super::Links;
use crate::cluster::ProcessCluster;
use crate::workload::Dice;

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL of a data server, and a start a while later.
    Kill,
    /// SIGSTOP of a data server.
    Pause,
    /// SIGTERM of a data server, and a start.
    Restart,
    /// No byte to or from a data server.
    Isolate,
    /// No byte between a data server and the broker.
    CutBroker,
    /// A data server loses its disk.
    Wipe,
    /// SIGKILL of an api.
    KillApi,
    /// SIGSTOP of an api.
    PauseApi,
    /// The broker dies.
    KillBroker,
    /// The broker hangs.
    PauseBroker,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Kill,
        Self::Pause,
        Self::Restart,
        Self::Isolate,
        Self::CutBroker,
        Self::Wipe,
        Self::KillApi,
        Self::PauseApi,
        Self::KillBroker,
        Self::PauseBroker,
    ];
}

/// A fault that is over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Over {
    /// What it was.
    pub kind: Kind,
    /// When it began, since the start of the load.
    pub start: Duration,
    /// When it was mended.
    pub end: Duration,
}

/// Makes faults.
#[derive(Debug)]
pub(super) struct Faults {
    dice: Dice,
    started: Instant,
    over: Vec<Over>,
}

impl Faults {
    pub(super) fn new(seed: u64, started: Instant) -> Self {
        Self { dice: Dice::new(seed), started, over: Vec::new() }
    }

    pub(super) fn over(self) -> Vec<Over> {
        self.over
    }

    /// Makes one fault, or two at once, and mends it.
    pub(super) async fn next(&mut self, cluster: &mut ProcessCluster, links: &Links) {
        let mut kinds = vec![self.kind()];
        if self.dice.roll(5) == 0 {
            kinds.push(self.kind());
        }
        let mut broken: Vec<(Kind, usize, Duration)> = Vec::new();
        for kind in kinds {
            let victim = self.victim(kind, cluster);
            // Two faults of one process would be one.
            if broken.iter().any(|(_, other, _)| *other == victim) {
                continue;
            }
            if kind == Kind::Wipe && !every_member_is_heard(cluster).await {
                continue;
            }
            let start = self.started.elapsed();
            break_it(kind, victim, cluster, links).await;
            broken.push((kind, victim, start));
        }
        tokio::time::sleep(Duration::from_millis(500 + self.dice.roll(4_500))).await;
        for (kind, victim, start) in broken {
            mend(kind, victim, cluster, links).await;
            self.over.push(Over { kind, start, end: self.started.elapsed() });
        }
        tokio::time::sleep(Duration::from_millis(self.dice.roll(3_000))).await;
    }

    /// Waits until everybody is back.
    pub(super) async fn heal(&mut self, cluster: &mut ProcessCluster, links: &Links) {
        for server in 0..cluster.data_servers.len() {
            links.set_cut(server, false);
        }
        for service in cluster.services() {
            service.ready().await;
        }
    }

    fn kind(&mut self) -> Kind {
        let choice = usize::try_from(self.dice.roll(Kind::ALL.len() as u64)).unwrap_or(0);
        Kind::ALL[choice]
    }

    /// Numbers of processes: data servers first, then apis, then the broker.
    fn victim(&mut self, kind: Kind, cluster: &ProcessCluster) -> usize {
        let (servers, apis) = (cluster.data_servers.len(), cluster.apis.len());
        let mut one_of = |count: usize| usize::try_from(self.dice.roll(count as u64)).unwrap_or(0);
        match kind {
            Kind::KillApi | Kind::PauseApi => servers + one_of(apis),
            Kind::KillBroker | Kind::PauseBroker => servers + apis,
            _ => one_of(servers),
        }
    }
}

async fn break_it(kind: Kind, victim: usize, cluster: &mut ProcessCluster, links: &Links) {
    let servers = cluster.data_servers.len();
    match kind {
        Kind::Kill => cluster.data_servers[victim].kill().await,
        Kind::Pause => cluster.data_servers[victim].pause(),
        Kind::Restart => {
            cluster.data_servers[victim].stop().await;
        }
        Kind::Isolate => links.set_cut(victim, true),
        Kind::CutBroker => links.brokers[victim].set_cut(true),
        Kind::Wipe => {
            let server = &mut cluster.data_servers[victim];
            server.kill().await;
            let root = server.setting("STORAGE_ROOT").expect("every data server has one");
            std::fs::remove_dir_all(root).expect("the volume is ours");
        }
        Kind::KillApi => cluster.apis[victim - servers].kill().await,
        Kind::PauseApi => cluster.apis[victim - servers].pause(),
        Kind::KillBroker => cluster.broker.kill().await,
        Kind::PauseBroker => cluster.broker.pause(),
    }
}

async fn mend(kind: Kind, victim: usize, cluster: &mut ProcessCluster, links: &Links) {
    let servers = cluster.data_servers.len();
    match kind {
        Kind::Kill | Kind::Restart | Kind::Wipe => cluster.data_servers[victim].start(),
        Kind::Pause => cluster.data_servers[victim].resume(),
        Kind::Isolate | Kind::CutBroker => links.set_cut(victim, false),
        Kind::KillApi => cluster.apis[victim - servers].restart().await,
        Kind::PauseApi => cluster.apis[victim - servers].resume(),
        Kind::KillBroker => cluster.broker.restart().await,
        Kind::PauseBroker => cluster.broker.resume(),
    }
    // One that was told that it is retired has ended to begin anew, as an
    // orchestrator would have it do.
    for server in &mut cluster.data_servers {
        server.start_again_if_ended();
    }
}

/// A second disk must not be lost before what was on the first is whole again.
async fn every_member_is_heard(cluster: &ProcessCluster) -> bool {
    let Some(api) = cluster.apis.first() else { return false };
    let Ok(page) = crate::client::get(api.admin(), "/admin/dataservers").await else {
        return false;
    };
    let listed = page.json();
    let members = listed["dataservers"].as_array().cloned().unwrap_or_default();
    let mut living = members.iter().filter(|member| member["state"] != "retired");
    living.all(|member| member["hearing"] == "heard" && member["state"] == "active")
}
