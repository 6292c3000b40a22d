//! Telling everybody that this data server is there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_bus::{Bus, BusHealth, Message, Topic};
use holdfast_coordinator::cluster::{Cluster, Snapshot};
use holdfast_core::membership::Hearing;
use holdfast_core::node::{Generation, NodeId};
use holdfast_core::roster::RosterDigest;
use holdfast_core::wire::heartbeat;
use holdfast_runtime::{Runtime, Task};
use tokio::sync::watch;
use tracing::debug;

use crate::metrics::DataServerMetrics;
use crate::report::Reporter;

/// Least time between two heartbeats, however much there is to tell.
const LEAST_PAUSE: Duration = Duration::from_millis(50);

/// What makes a heartbeat due before its time: who just arrived should not have
/// to wait a whole interval to hear the others, nor they to hear the news.
type News = (RosterDigest, BTreeMap<NodeId, Generation>);

fn news(snapshot: &Snapshot) -> News {
    let heard = snapshot.view.members.iter().filter(|member| member.hearing == Hearing::Heard);
    (snapshot.view.digest, heard.map(|member| (member.id, member.generation)).collect())
}

/// Sends heartbeats. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Heart {
    runtime: Runtime,
    interval: Duration,
    reporter: Arc<Reporter>,
    cluster: Cluster,
    bus: Arc<dyn Bus>,
    metrics: DataServerMetrics,
}

impl Heart {
    /// A heart that does not beat yet.
    #[must_use]
    pub fn new(
        runtime: Runtime,
        interval: Duration,
        reporter: Arc<Reporter>,
        cluster: Cluster,
        bus: Arc<dyn Bus>,
        metrics: DataServerMetrics,
    ) -> Self {
        Self { runtime, interval, reporter, cluster, bus, metrics }
    }

    /// Beats until the task is aborted: once per interval, at once when the
    /// broker comes back, and when there is news.
    #[must_use]
    pub fn start(&self) -> Task {
        let heart = self.clone();
        self.runtime.spawn("heartbeat", heart.run())
    }

    async fn run(self) {
        let mut snapshots = self.cluster.watch();
        let mut health = self.bus.health();
        loop {
            let told = news(&snapshots.borrow_and_update());
            let connected = health.borrow_and_update().is_connected();
            self.beat().await;
            self.runtime.sleep(LEAST_PAUSE.min(self.interval)).await;
            let due = self.runtime.sleep(self.interval.saturating_sub(LEAST_PAUSE));
            tokio::select! {
                biased;
                () = due => {}
                result = wait_for_news(&mut snapshots, &told) => if result.is_none() { return },
                result = wait_for_broker(&mut health, connected) => if result.is_none() { return },
            }
        }
    }

    /// Sends one heartbeat, and hears it: a data server needs no broker to know
    /// of itself.
    pub async fn beat(&self) {
        let report = self.reporter.report().await;
        self.cluster.apply_report(report.clone()).await;
        if !self.bus.health().borrow().is_connected() {
            return;
        }
        let (body, headers) = heartbeat::encode(&report);
        let message = Message { body: Bytes::from(body), headers, ..Message::default() };
        match self.bus.publish(Topic::ApiServers, message).await {
            Ok(()) => self.metrics.heartbeats_sent.inc(),
            Err(error) => {
                debug!(%error, "a heartbeat was not sent");
                self.metrics.heartbeat_failures.inc();
            }
        }
    }

    /// The last heartbeat: says that this data server shuts down.
    pub async fn say_goodbye(&self) {
        self.reporter.set_leaving();
        self.beat().await;
    }
}

async fn wait_for_news(snapshots: &mut watch::Receiver<Arc<Snapshot>>, told: &News) -> Option<()> {
    snapshots.wait_for(|snapshot| news(snapshot) != *told).await.ok().map(|_| ())
}

async fn wait_for_broker(
    health: &mut watch::Receiver<BusHealth>,
    was_connected: bool,
) -> Option<()> {
    if was_connected {
        health.wait_for(|health| !health.is_connected()).await.ok()?;
    }
    health.wait_for(|health| health.is_connected()).await.ok().map(|_| ())
}
