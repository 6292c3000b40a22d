//! What this data server says of itself, in heartbeats and when it is probed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_coordinator::cluster::Cluster;
use holdfast_core::lifecycle::missed_members;
use holdfast_core::membership::View;
use holdfast_core::node::{Address, Generation, NodeId};
use holdfast_core::policy::Wanted;
use holdfast_core::roster::{Entry, MemberState};
use holdfast_core::stamp::Stamp;
use holdfast_core::wire::heartbeat::{NodeReport, RepairReport};
use holdfast_runtime::Runtime;
use holdfast_store::Store;
use tracing::warn;

/// Who this data server is, in this run.
#[derive(Debug, Clone)]
pub struct Own {
    /// The volume's id.
    pub node: NodeId,
    /// This run.
    pub generation: Generation,
    /// Where others reach it.
    pub address: Address,
    /// Share of the data it should get: GiB of disk, at least 1.
    pub weight: u32,
    /// Its failure zone.
    pub zone: Option<String>,
}

impl Own {
    /// Its entry in the roster, in a given state.
    #[must_use]
    pub fn entry(&self, state: MemberState) -> Entry {
        Entry {
            id: self.node,
            epoch: 0,
            lost: false,
            state,
            generation: self.generation,
            address: self.address.clone(),
            weight: self.weight,
            zone: self.zone.clone(),
        }
    }
}

/// Makes reports.
#[derive(Debug)]
pub struct Reporter {
    runtime: Runtime,
    own: Own,
    cluster: Cluster,
    store: Arc<dyn Store>,
    reserve_bytes: u64,
    wanted: Wanted,
    missed_after: Duration,
    leaving: AtomicBool,
    repair: Mutex<RepairReport>,
}

impl Reporter {
    /// Reports on this store and this view of the cluster, in which who is silent
    /// for `missed_after` is missed.
    #[must_use]
    pub fn new(
        runtime: Runtime,
        own: Own,
        cluster: Cluster,
        store: Arc<dyn Store>,
        reserve_bytes: u64,
        wanted: Wanted,
        missed_after: Duration,
    ) -> Self {
        let (leaving, repair) = (AtomicBool::new(false), Mutex::default());
        Self { runtime, own, cluster, store, reserve_bytes, wanted, missed_after, leaving, repair }
    }

    /// From now on every report says this of repair; who is missed, it finds out by
    /// itself.
    pub fn set_repair(&self, repair: RepairReport) {
        *self.repair.lock().unwrap_or_else(PoisonError::into_inner) = repair;
    }

    /// Who this is.
    #[must_use]
    pub fn own(&self) -> &Own {
        &self.own
    }

    /// From now on every report says that this data server shuts down.
    pub fn set_leaving(&self) {
        self.leaving.store(true, Ordering::SeqCst);
    }

    /// Its state as its own roster has it.
    #[must_use]
    pub fn state(&self) -> MemberState {
        let snapshot = self.cluster.snapshot();
        snapshot.roster.get(self.own.node).map_or(MemberState::Joining, |entry| entry.state)
    }

    /// How it is now.
    pub async fn report(&self) -> NodeReport {
        let (free_bytes, total_bytes) = self.space().await;
        let snapshot = self.cluster.snapshot();
        NodeReport {
            node: self.own.node,
            generation: self.own.generation,
            address: self.own.address.clone(),
            state: self.state(),
            leaving: self.leaving.load(Ordering::SeqCst),
            free_bytes,
            total_bytes,
            roster_digest: snapshot.view.digest,
            founded: snapshot.view.founded,
            newcomers_seen: self.newcomers_seen(),
            sent_unix_millis: self.runtime.unix_millis(),
            mono_millis: Stamp::at(self.own.generation, self.runtime.now()).mono_millis,
            replicas: self.wanted.replicas(),
            write_quorum: self.wanted.write_quorum(),
            repair: self.repair(&snapshot.view),
        }
    }

    fn repair(&self, view: &View) -> RepairReport {
        let missed = missed_members(view, self.missed_after, self.runtime.now());
        let told = self.repair.lock().unwrap_or_else(PoisonError::into_inner).clone();
        RepairReport { missed, ..told }
    }

    /// Free bytes above the reserve, and the size of the disk. A volume that
    /// takes no writes has no room.
    async fn space(&self) -> (u64, u64) {
        match self.store.usage().await {
            Ok(usage) if self.store.poisoned().is_none() => {
                let free = usage.space.free_bytes.saturating_sub(self.reserve_bytes);
                (free, usage.space.total_bytes)
            }
            Ok(usage) => (0, usage.space.total_bytes),
            Err(error) => {
                warn!(%error, "the volume does not say how full it is");
                (0, 0)
            }
        }
    }

    fn newcomers_seen(&self) -> u32 {
        let others = self.cluster.snapshot().view.newcomers(self.own.node).count();
        u32::try_from(others + 1).unwrap_or(u32::MAX)
    }
}
