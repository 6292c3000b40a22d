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

use crate::floor::Floor;

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

/// What reports are made of.
#[derive(Debug)]
pub struct ReporterParts {
    /// The seam.
    pub runtime: Runtime,
    /// Who this is.
    pub own: Own,
    /// What is known of the others.
    pub cluster: Cluster,
    /// The volume.
    pub store: Arc<dyn Store>,
    /// Its floor.
    pub floor: Floor,
    /// What is kept free of it.
    pub reserve_bytes: u64,
    /// What `REPLICAS` and `WRITE_QUORUM` ask for.
    pub wanted: Wanted,
    /// Who is silent for so long is missed.
    pub missed_after: Duration,
}

/// Makes reports.
#[derive(Debug)]
pub struct Reporter {
    parts: ReporterParts,
    leaving: AtomicBool,
    repair: Mutex<RepairReport>,
}

impl Reporter {
    /// Reports on this store and this view of the cluster.
    #[must_use]
    pub fn new(parts: ReporterParts) -> Self {
        Self { parts, leaving: AtomicBool::new(false), repair: Mutex::default() }
    }

    /// From now on every report says this of repair; who is missed, it finds out by
    /// itself.
    pub fn set_repair(&self, repair: RepairReport) {
        *self.repair.lock().unwrap_or_else(PoisonError::into_inner) = repair;
    }

    /// Who this is.
    #[must_use]
    pub fn own(&self) -> &Own {
        &self.parts.own
    }

    /// From now on every report says that this data server shuts down.
    pub fn set_leaving(&self) {
        self.leaving.store(true, Ordering::SeqCst);
    }

    /// Its state as its own roster has it.
    #[must_use]
    pub fn state(&self) -> MemberState {
        let snapshot = self.parts.cluster.snapshot();
        snapshot.roster.get(self.parts.own.node).map_or(MemberState::Joining, |entry| entry.state)
    }

    /// How it is now.
    pub async fn report(&self) -> NodeReport {
        let (free_bytes, total_bytes) = self.space().await;
        let snapshot = self.parts.cluster.snapshot();
        NodeReport {
            node: self.parts.own.node,
            generation: self.parts.own.generation,
            address: self.parts.own.address.clone(),
            state: self.state(),
            leaving: self.leaving.load(Ordering::SeqCst),
            free_bytes,
            total_bytes,
            roster_digest: snapshot.view.digest,
            founded: snapshot.view.founded,
            newcomers_seen: self.newcomers_seen(),
            sent_unix_millis: self.parts.runtime.unix_millis(),
            mono_millis: Stamp::at(self.parts.own.generation, self.parts.runtime.now()).mono_millis,
            floor: self.parts.floor.get(),
            replicas: self.parts.wanted.replicas(),
            write_quorum: self.parts.wanted.write_quorum(),
            repair: self.repair(&snapshot.view),
        }
    }

    fn repair(&self, view: &View) -> RepairReport {
        let missed = missed_members(view, self.parts.missed_after, self.parts.runtime.now());
        let told = self.repair.lock().unwrap_or_else(PoisonError::into_inner).clone();
        RepairReport { missed, ..told }
    }

    /// Free bytes above the reserve, and the size of the disk. A volume that
    /// takes no writes has no room.
    async fn space(&self) -> (u64, u64) {
        match self.parts.store.usage().await {
            Ok(usage) if self.parts.store.poisoned().is_none() => {
                let free = usage.space.free_bytes.saturating_sub(self.parts.reserve_bytes);
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
        let others = self.parts.cluster.snapshot().view.newcomers(self.parts.own.node).count();
        u32::try_from(others + 1).unwrap_or(u32::MAX)
    }
}
