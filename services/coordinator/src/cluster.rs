//! What this process knows of the data servers, kept up to date.
//!
//! One task owns the [`holdfast_core::membership::Membership`] and feeds it:
//! heartbeats from the bus, answers to probes, rosters that were fetched, and
//! time. Everybody else reads the [`Snapshot`] it publishes. The same task runs in an api and in
//! a data server; a data server also has its roster persisted before anybody
//! is told of it.

mod change;
mod discovery;
mod fetches;
mod task;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use holdfast_bus::{BusHealth, Message};
use holdfast_core::membership::{Moment, View};
use holdfast_core::node::{Address, NodeId};
use holdfast_core::roster::{Entry, ForeignCluster, Roster, RosterDigest};
use holdfast_core::wire::heartbeat::NodeReport;
use holdfast_runtime::{Runtime, Task};
use thiserror::Error;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::data_servers::DataServers;
use crate::metrics::ClusterMetrics;
pub use change::{Changer, Told};
pub use discovery::Peers;

/// How membership is timed.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// How often a data server is expected to be heard.
    pub heartbeat_interval: Duration,
    /// After how long without a word a member is silent.
    pub heartbeat_expiry: Duration,
    /// Where members may be found without the broker.
    pub peers: Peers,
    /// The data server's own id; `None` in an api.
    pub own: Option<NodeId>,
}

/// Makes a roster durable before anybody is told of it.
#[async_trait]
pub trait RosterKeeper: Send + Sync {
    /// Persists `roster`; once this returned, it survives a power cut.
    ///
    /// # Errors
    /// A sentence for the log.
    async fn persist(&self, roster: &Roster) -> Result<(), String>;
}

/// What this process knows at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Who is where, and heard or silent.
    pub view: View,
    /// The roster as it is known (and persisted, in a data server).
    pub roster: Roster,
    /// Digests of rosters that this one includes: what has such a digest has
    /// nothing new to tell.
    pub included: BTreeSet<RosterDigest>,
    /// When this was published, on the runtime's clock.
    pub at: Moment,
}

impl Snapshot {
    /// Whether a roster of this digest has nothing that this process lacks.
    #[must_use]
    pub fn includes(&self, digest: RosterDigest) -> bool {
        digest == self.view.digest || self.included.contains(&digest)
    }
}

/// Why a roster was not merged.
#[derive(Debug, Error)]
pub enum MergeError {
    /// It is of another cluster.
    #[error(transparent)]
    Foreign(#[from] ForeignCluster),
    /// It could not be made durable.
    #[error("the roster could not be persisted: {reason}")]
    Persist {
        /// What the disk said.
        reason: String,
    },
    /// There is no cluster yet to be a member of.
    #[error("no cluster is known yet")]
    Unfounded,
    /// The process shuts down.
    #[error("the process is shutting down")]
    Closed,
}

enum Command {
    Report(Box<NodeReport>),
    GuestProbed { address: Address, alive: bool },
    Merge { roster: Roster, reply: oneshot::Sender<Result<Roster, MergeError>> },
    Retire { drained: Entry, reply: oneshot::Sender<Result<bool, MergeError>> },
    Fetched { from: NodeId, roster: Option<Roster> },
    Fetch { from: NodeId, address: Address, digest: RosterDigest, reply: oneshot::Sender<bool> },
    ProbeEnded { id: NodeId },
}

/// The handle to the task. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cluster {
    snapshot: watch::Receiver<Arc<Snapshot>>,
    /// Told after each change of the snapshot.
    published: Arc<Notify>,
    commands: mpsc::Sender<Command>,
}

/// What the task is started with.
pub struct ClusterParts {
    /// The seam.
    pub runtime: Runtime,
    /// Timing and identity.
    pub config: ClusterConfig,
    /// The roster that was persisted, if any.
    pub roster: Roster,
    /// How to persist it; `None` in an api.
    pub keeper: Option<Arc<dyn RosterKeeper>>,
    /// Heartbeats.
    pub heartbeats: mpsc::Receiver<Message>,
    /// Whether the broker works.
    pub health: watch::Receiver<BusHealth>,
    /// How to reach data servers.
    pub data_servers: DataServers,
    /// Where to count.
    pub metrics: ClusterMetrics,
}

impl Cluster {
    /// Starts the task.
    #[must_use]
    pub fn start(parts: ClusterParts) -> (Self, Task) {
        let (commands, received) = mpsc::channel(1_024);
        let now = parts.runtime.now();
        let (publish, snapshot) = watch::channel(Arc::new(Snapshot::default()));
        let published = Arc::new(Notify::new());
        let runtime = parts.runtime.clone();
        let publisher = task::Publisher { snapshot: publish, published: Arc::clone(&published) };
        let task = task::ClusterTask::new(parts, publisher, commands.clone(), now);
        let task = runtime.spawn("cluster", task.run(received));
        (Self { snapshot, published, commands }, task)
    }

    /// What is known now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// What is known, and each change of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    /// Waits until what is known is as wanted; for ever, if it never is. Cancel
    /// safe.
    ///
    /// For many that wait within one task, which go on in the order in which they
    /// began to wait. Those that wait for the receiver of [`Self::watch`] are woken
    /// in random order, and a simulated run could not be repeated.
    pub async fn wait_until(&self, is_wanted: impl Fn(&Snapshot) -> bool) {
        loop {
            // Before the look, so that what is published after it is not missed.
            let published = self.published.notified();
            if is_wanted(&self.snapshot()) {
                return;
            }
            published.await;
        }
    }

    /// Takes what a data server said of itself, over whichever way. Drops it
    /// when the process shuts down.
    pub async fn apply_report(&self, report: NodeReport) {
        let _ = self.commands.send(Command::Report(Box::new(report))).await;
    }

    /// Merges a roster and, in a data server, persists the result; gives the
    /// result back.
    ///
    /// # Errors
    /// [`MergeError`]; nothing was changed then.
    pub async fn merge_roster(&self, roster: Roster) -> Result<Roster, MergeError> {
        let (reply, answer) = oneshot::channel();
        let merge = Command::Merge { roster, reply };
        self.commands.send(merge).await.map_err(|_| MergeError::Closed)?;
        answer.await.map_err(|_| MergeError::Closed)?
    }

    /// Merges one entry into the roster of this cluster.
    ///
    /// # Errors
    /// As [`Self::merge_roster`].
    pub async fn merge_entry(&self, entry: Entry) -> Result<Roster, MergeError> {
        let cluster = self.snapshot().roster.cluster.ok_or(MergeError::Unfounded)?;
        // A roster of one entry is merged like any other.
        self.merge_roster(Roster::of_entry(cluster, entry)).await
    }

    /// Retires a member that drains, if its entry is still `drained`; false if it
    /// was changed meanwhile, and nothing is then. It looks and persists in one
    /// step, so that no drain that was taken back ends so.
    ///
    /// # Errors
    /// As [`Self::merge_roster`].
    pub async fn retire(&self, drained: Entry) -> Result<bool, MergeError> {
        let (reply, answer) = oneshot::channel();
        let retire = Command::Retire { drained, reply };
        self.commands.send(retire).await.map_err(|_| MergeError::Closed)?;
        answer.await.map_err(|_| MergeError::Closed)?
    }

    /// Makes sure that the roster with `digest`, which `from` has, is included
    /// here; fetches it if need be. False when that failed. Cancel safe.
    pub async fn include(&self, from: NodeId, address: Address, digest: RosterDigest) -> bool {
        if self.snapshot().includes(digest) {
            return true;
        }
        let (reply, answer) = oneshot::channel();
        let fetch = Command::Fetch { from, address, digest, reply };
        if self.commands.send(fetch).await.is_err() {
            return false;
        }
        answer.await.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::stream::{FuturesUnordered, StreamExt};

    use super::*;

    #[tokio::test]
    async fn those_that_wait_in_one_task_go_on_in_their_order() {
        let (publish, snapshot) = watch::channel(Arc::new(Snapshot::default()));
        let (published, (commands, _)) = (Arc::new(Notify::new()), mpsc::channel(1));
        let cluster = Cluster { snapshot, published: Arc::clone(&published), commands };
        let (first, second) = (Duration::from_secs(1), Duration::from_secs(2));
        let tell = |at| {
            publish.send_replace(Arc::new(Snapshot { at, ..Snapshot::default() }));
            published.notify_waiters();
        };
        let wait = |number: usize| {
            let cluster = cluster.clone();
            async move {
                cluster.wait_until(|snapshot| snapshot.at >= second).await;
                number
            }
        };
        let mut waiting: FuturesUnordered<_> = (0..64).map(wait).collect();
        assert_eq!(waiting.next().now_or_never(), None);
        tell(first);
        assert_eq!(waiting.next().now_or_never(), None, "not as wanted");
        tell(second);
        assert_eq!(waiting.collect::<Vec<_>>().await, Vec::from_iter(0..64));
        cluster.wait_until(|snapshot| snapshot.at >= second).await;
    }
}
