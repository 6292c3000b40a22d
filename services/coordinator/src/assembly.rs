//! The parts that an api and a data server have in common, put together.

use std::sync::Arc;
use std::time::Duration;

use holdfast_bus::{Bus, Message};
use holdfast_core::node::NodeId;
use holdfast_core::roster::Roster;
use holdfast_runtime::{Runtime, Task};
use holdfast_telemetry::metrics::Metrics;
use tokio::sync::mpsc;

use crate::admin::Operators;
use crate::cluster::{Changer, Cluster, ClusterConfig, ClusterParts, RosterKeeper};
use crate::data_servers::DataServers;
use crate::locator::{Locator, LocatorConfig, LocatorParts};
use crate::metrics::{ClusterMetrics, LocateMetrics, ObjectMetrics};
use crate::objects::{ListConfig, Objects, ObjectsConfig};
use crate::service::{StartError, http_client};
use crate::settings::CommonSettings;

/// How long a member may at least take to persist a change of the roster: a sync
/// on a busy disk.
const LEAST_LIMIT: Duration = Duration::from_secs(5);

/// What a data server adds: it is a member itself, and keeps the roster.
pub struct OwnMembership {
    /// Its id.
    pub node: NodeId,
    /// The roster as it was persisted last.
    pub roster: Roster,
    /// How it is persisted.
    pub keeper: Arc<dyn RosterKeeper>,
}

/// Membership, locate and objects, running.
#[derive(Debug)]
pub struct Coordinator {
    /// Who the data servers are.
    pub cluster: Cluster,
    /// The way to them.
    pub data_servers: DataServers,
    /// What clients do.
    pub objects: Objects,
    own: Option<NodeId>,
    tasks: [Task; 2],
}

impl Coordinator {
    /// Starts membership and locate, and puts objects on top.
    ///
    /// # Errors
    /// [`StartError::Metrics`].
    pub fn start(
        runtime: &Runtime,
        settings: &CommonSettings,
        metrics: &Metrics,
        bus: &Arc<dyn Bus>,
        heartbeats: mpsc::Receiver<Message>,
        replies: mpsc::Receiver<Message>,
        own: Option<OwnMembership>,
    ) -> Result<Self, StartError> {
        let data_servers = DataServers::new(http_client(runtime, settings));
        let (node, roster, keeper) = match own {
            None => (None, Roster::default(), None),
            Some(own) => (Some(own.node), own.roster, Some(own.keeper)),
        };
        let (cluster, cluster_task) = Cluster::start(ClusterParts {
            runtime: runtime.clone(),
            config: ClusterConfig {
                heartbeat_interval: settings.heartbeat_interval,
                heartbeat_expiry: settings.heartbeat_expiry,
                peers: settings.peers.clone(),
                own: node,
            },
            roster,
            keeper,
            heartbeats,
            health: bus.health(),
            data_servers: data_servers.clone(),
            metrics: ClusterMetrics::new(metrics)?,
        });
        let (locator, locator_task) = Locator::start(LocatorParts {
            runtime: runtime.clone(),
            config: LocatorConfig::new(settings.locate_timeout, settings.heartbeat_interval),
            cluster: cluster.clone(),
            bus: Arc::clone(bus),
            replies,
            data_servers: data_servers.clone(),
            metrics: LocateMetrics::new(metrics)?,
        });
        let config = ObjectsConfig {
            max_object_bytes: settings.max_object_bytes,
            body_timeout: settings.body_timeout,
            list: ListConfig::new(settings.locate_timeout, settings.heartbeat_interval),
            ..ObjectsConfig::default()
        };
        let objects = Objects::new(
            runtime.clone(),
            config,
            cluster.clone(),
            locator,
            data_servers.clone(),
            ObjectMetrics::new(metrics)?,
        );
        Ok(Self { cluster, data_servers, objects, own: node, tasks: [cluster_task, locator_task] })
    }

    /// What operators' requests are answered with.
    #[must_use]
    pub fn operators(&self, runtime: &Runtime, settings: &CommonSettings) -> Operators {
        let changer = Changer {
            cluster: self.cluster.clone(),
            data_servers: self.data_servers.clone(),
            own: self.own,
            limit: settings.heartbeat_interval.max(LEAST_LIMIT),
        };
        Operators { runtime: runtime.clone(), changer }
    }

    /// Ends membership and locate; requests that still come fail.
    pub fn stop(&self) {
        self.tasks.iter().for_each(Task::abort);
    }
}
