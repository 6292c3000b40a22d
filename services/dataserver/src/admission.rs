//! Becoming a member: carries out the steps that
//! [`holdfast_core::admission`] chooses.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_bus::BusHealth;
use holdfast_coordinator::cluster::{Cluster, MergeError, Snapshot};
use holdfast_coordinator::data_servers::DataServers;
use holdfast_core::admission::{Situation, Step, Waiting, choose_step};
use holdfast_core::node::{Address, Generation, NodeId};
use holdfast_core::policy::{Policy, Wanted};
use holdfast_core::roster::{MemberState, Roster};
use holdfast_core::version::Version;
use holdfast_core::wire::transfer::MergedRoster;
use holdfast_runtime::{Runtime, Task};
use holdfast_telemetry::shutdown::Shutdown;
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use crate::gate::Gate;
use crate::report::Own;

/// What the task needs.
#[derive(Debug)]
pub struct Admission {
    /// The seam.
    pub runtime: Runtime,
    /// Who wants to become a member.
    pub own: Own,
    /// What is known of the others.
    pub cluster: Cluster,
    /// The way to the others.
    pub data_servers: DataServers,
    /// Whether the broker works.
    pub health: watch::Receiver<BusHealth>,
    /// Whether there are peers to ask instead.
    pub has_peers: bool,
    /// How often others are heard.
    pub heartbeat_interval: Duration,
    /// `INITIAL_MEMBERS`.
    pub initial_members: usize,
    /// What it takes.
    pub gate: Gate,
    /// `REPLICAS` and `WRITE_QUORUM` of a cluster that it founds.
    pub wanted: Wanted,
    /// Found a cluster at once.
    pub alone: bool,
    /// To end the process when another one uses a copy of this volume.
    pub shutdown: Shutdown,
    /// Set when that is why it ends.
    pub conflict: Arc<AtomicBool>,
}

impl Admission {
    /// Works until this data server takes data, and then watches over its
    /// entry in the roster.
    #[must_use]
    pub fn start(self) -> Task {
        let runtime = self.runtime.clone();
        runtime.spawn("admission", self.run())
    }

    async fn run(self) {
        self.renew_entry().await;
        let mut notice = Notice::default();
        let mut listening_since = None;
        let mut waiting = None;
        let mut snapshots = self.cluster.watch();
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            if !self.check_generation(&snapshot) {
                return;
            }
            // Who listened for a moment has heard nothing: it starts again.
            if !self.is_listening() {
                listening_since = None;
            } else if listening_since.is_none() {
                listening_since = Some(self.runtime.now());
            }
            let warmed_up = listening_since.is_some_and(|since| {
                self.runtime.now().saturating_sub(since) >= self.heartbeat_interval * 2
            });
            let step = self.choose(&snapshot, warmed_up, &notice);
            let pause = self.carry_out(&step, &snapshot, &mut notice, &mut waiting).await;
            tokio::select! {
                biased;
                changed = snapshots.changed() => if changed.is_err() { return },
                () = self.runtime.sleep(pause) => {}
            }
        }
    }

    /// A restart is a new run, perhaps at a new address: the roster should know.
    async fn renew_entry(&self) {
        let snapshot = self.cluster.snapshot();
        let Some(entry) = snapshot.roster.get(self.own.node) else { return };
        self.log_failure(self.cluster.merge_entry(self.own.entry(entry.state)).await);
    }

    /// Another run with this id that is not an earlier one means that the volume
    /// was copied or rolled back: what it holds may be out of date, and its "no"
    /// would be believed. It must not answer once more.
    fn check_generation(&self, snapshot: &Snapshot) -> bool {
        let entry = snapshot.roster.get(self.own.node);
        let heard = snapshot.view.member(self.own.node);
        let others = entry
            .map(|entry| (entry.generation, &entry.address))
            .into_iter()
            .chain(heard.map(|member| (member.generation, &member.address)));
        let own = (self.own.generation, &self.own.address);
        let other = others.filter(|other| is_another_run(*other, own)).max();
        if let Some((generation, address)) = other {
            error!(
                node = %self.own.node,
                generation = self.own.generation.0,
                other_generation = generation.0,
                other_address = %address,
                "another data server runs on a copy of this volume, or this volume is an old copy"
            );
            self.conflict.store(true, Ordering::SeqCst);
            self.shutdown.force();
        }
        other.is_none()
    }

    fn is_listening(&self) -> bool {
        self.has_peers || self.health.borrow().is_connected()
    }

    fn choose(&self, snapshot: &Snapshot, warmed_up: bool, notice: &Notice) -> Step {
        let view = &snapshot.view;
        let newcomers: Vec<(NodeId, u32)> = view
            .newcomers(self.own.node)
            .map(|member| (member.id, member.newcomers_seen))
            .collect();
        let own_state = snapshot.roster.get(self.own.node).map(|entry| entry.state);
        let others = || view.members.iter().filter(|member| member.id != self.own.node);
        if self.alone && own_state.is_none() && !view.founded {
            return Step::Found;
        }
        choose_step(&Situation {
            own: self.own.node,
            view,
            own_state,
            newcomers: &newcomers,
            founded_elsewhere: others().any(|m| !m.in_roster && m.founded),
            warmed_up,
            initial_members: self.initial_members,
            write_quorum: view.policy.read_quorum().max(view.policy.write_quorum()),
            told: &notice.told,
            unable: &notice.unable,
        })
    }

    /// Takes one step; gives how long to wait before looking again, unless
    /// something changes.
    async fn carry_out(
        &self,
        step: &Step,
        snapshot: &Snapshot,
        notice: &mut Notice,
        waiting: &mut Option<Waiting>,
    ) -> Duration {
        let soon = self.heartbeat_interval / 10;
        match step {
            Step::Found => {
                let id = NodeId::from_bits(self.runtime.random_u128());
                let policy = Policy::settled_at(0, self.wanted);
                let roster = Roster::found(id, policy, self.own.entry(MemberState::Active));
                info!(cluster = %id, node = %self.own.node, "founding a new cluster");
                self.log_failure(self.cluster.merge_roster(roster).await);
            }
            Step::Enter => {
                info!(node = %self.own.node, "joining the cluster");
                let entry = self.own.entry(MemberState::Joining);
                self.log_failure(self.cluster.merge_entry(entry).await);
            }
            Step::Tell(ids) => self.tell(ids, snapshot, notice).await,
            Step::Activate => {
                // Promises of before the join were given without this member.
                if let Some(promised) = notice.promised
                    && let Err(error) = self.gate.inherit(promised).await
                {
                    warn!(node = %self.own.node, %error, "the join waits: the floor could not be raised");
                    return self.heartbeat_interval;
                }
                let unable: Vec<_> = notice.unable.iter().map(NodeId::to_string).collect();
                info!(node = %self.own.node, ?unable, "the join counts: taking data from now on");
                let entry = self.own.entry(MemberState::Active);
                self.log_failure(self.cluster.merge_entry(entry).await);
            }
            Step::Wait(reason) if *waiting != Some(*reason) => {
                info!(?reason, node = %self.own.node, "not a member yet");
                *waiting = Some(*reason);
            }
            Step::Wait(_) => {}
            Step::Done => return self.heartbeat_interval * 10,
        }
        soon
    }

    async fn tell(&self, ids: &[NodeId], snapshot: &Snapshot, notice: &mut Notice) {
        let limit = self.heartbeat_interval;
        for member in ids.iter().filter_map(|id| snapshot.view.member(*id)) {
            let (address, roster) = (&member.address, &snapshot.roster);
            match self.data_servers.merge_roster(address, member.id, roster, limit).await {
                Ok(MergedRoster { roster: theirs, promised }) => {
                    notice.unable.remove(&member.id);
                    notice.told.insert(member.id);
                    notice.promised = notice.promised.max(promised);
                    self.log_failure(self.cluster.merge_roster(theirs).await);
                }
                Err(error) => {
                    debug!(node = %member.id, %error, "could not tell of the join");
                    // What it says now counts, not what it said before.
                    match error.is_not_persisted() {
                        true => notice.unable.insert(member.id),
                        false => notice.unable.remove(&member.id),
                    };
                }
            }
        }
    }

    fn log_failure(&self, merged: Result<Roster, MergeError>) {
        if let Err(error) = merged {
            warn!(node = %self.own.node, %error, "the roster could not be changed");
        }
    }
}

/// Who knows of a join.
#[derive(Debug, Default)]
struct Notice {
    /// Members that have persisted it.
    told: BTreeSet<NodeId>,
    /// Members that have said last that their disk does not take it.
    unable: BTreeSet<NodeId>,
    /// At least what those have promised that have persisted it.
    promised: Option<Version>,
}

/// Whether what is known of this id cannot be this run or one before it.
fn is_another_run(other: (Generation, &Address), own: (Generation, &Address)) -> bool {
    other.0 > own.0 || (other.0 == own.0 && other.1 != own.1)
}

/// Whether a data server in this state may be given data.
#[must_use]
pub fn takes_data(state: MemberState) -> bool {
    state == MemberState::Active
}

/// Whether a snapshot shows this data server as a member that serves.
#[must_use]
pub fn is_admitted(snapshot: &Arc<Snapshot>, own: NodeId) -> bool {
    let state = snapshot.roster.get(own).map(|entry| entry.state);
    matches!(state, Some(MemberState::Active | MemberState::Draining))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_volume_is_told_from_an_earlier_run() {
        let (here, there): (Address, Address) =
            ("a:1".parse().expect("an address"), "b:1".parse().expect("an address"));
        let own = (Generation(3), &here);
        for earlier in [(Generation(3), &here), (Generation(2), &there), (Generation(2), &here)] {
            assert!(!is_another_run(earlier, own));
        }
        for other in [(Generation(3), &there), (Generation(4), &here), (Generation(4), &there)] {
            assert!(is_another_run(other, own));
        }
    }
}
