//! What one member does for all of them: gives up who is lost, retires who is
//! not needed any more, and changes the number of copies step by step.
//!
//! Any member could; the active one with the lowest id that is heard does. Two
//! that do it at once do no harm.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_coordinator::cluster::{Changer, MergeError, Snapshot, Told};
use holdfast_core::electorate::{Electorate, Phase, lasts};
use holdfast_core::lifecycle::{
    given_up, lost_members, next_policy, retirable_members, retired, steward,
};
use holdfast_core::membership::Moment;
use holdfast_core::node::NodeId;
use holdfast_core::policy::Policy;
use holdfast_core::roster::{Entry, Roster};
use holdfast_runtime::{Runtime, Task};
use tracing::{info, warn};

/// What the task needs.
#[derive(Debug)]
pub struct Steward {
    /// The seam.
    pub runtime: Runtime,
    /// Who this is.
    pub own: NodeId,
    /// How members are told of changes.
    pub changer: Changer,
    /// `REPAIR_DELAY`.
    pub delay: Duration,
    /// How often others are heard.
    pub heartbeat_interval: Duration,
    /// How long a message may be under way and still count.
    pub window: Duration,
}

/// A policy and its electorate, which are changed as one.
type Terms = (Policy, Option<Electorate>);

/// What this process knows to count, and since when.
#[derive(Debug)]
struct Counted {
    terms: Terms,
    since: Moment,
}

impl Steward {
    /// Looks now and then whether it is this member's turn, and there is
    /// something to do, until the task is aborted.
    #[must_use]
    pub fn start(self) -> Task {
        let runtime = self.runtime.clone();
        runtime.spawn("steward", self.run())
    }

    async fn run(self) {
        let mut counted: Option<Counted> = None;
        loop {
            self.runtime.sleep(self.heartbeat_interval).await;
            let snapshot = self.changer.cluster.snapshot();
            if steward(&snapshot.view) != Some(self.own) {
                counted = None;
                continue;
            }
            self.give_up_lost().await;
            self.retire_lost().await;
            let snapshot = self.changer.cluster.snapshot();
            self.change_policy(&snapshot, &mut counted).await;
        }
    }

    /// To tell of one takes a while, in which another one may have come back: each
    /// is judged anew.
    async fn give_up_lost(&self) {
        let mut told = BTreeSet::new();
        loop {
            let snapshot = self.changer.cluster.snapshot();
            let lost = lost_members(&snapshot.view, self.delay, self.runtime.now());
            let Some(id) = lost.into_iter().find(|id| told.insert(*id)) else { return };
            let Some(entry) = snapshot.roster.get(id) else { continue };
            warn!(node = %id, delay = ?self.delay, "a data server was silent for too long: its copies are made anew, and it drains");
            self.tell_entry(given_up(entry)).await;
        }
    }

    async fn retire_lost(&self) {
        let mut told = BTreeSet::new();
        loop {
            let snapshot = self.changer.cluster.snapshot();
            let retirable = retirable_members(&snapshot.view);
            let Some(id) = retirable.into_iter().find(|id| told.insert(*id)) else { return };
            let Some(entry) = snapshot.roster.get(id) else { continue };
            info!(node = %id, "others have everything that a lost data server had: it retires");
            self.tell_entry(retired(entry)).await;
        }
    }

    async fn tell_entry(&self, entry: Entry) {
        let (node, told) = (entry.id, self.changer.tell_entry(entry).await);
        log_told(&told, &format!("the state of {node}"));
    }

    /// One step towards what all ask for, and towards an electorate that fits the
    /// members. The next one waits until this one counts.
    async fn change_policy(&self, snapshot: &Snapshot, counted: &mut Option<Counted>) {
        let view = &snapshot.view;
        let terms: Terms = (view.policy, view.electorate.as_deref().cloned());
        let now = self.runtime.now();
        let known = counted.as_ref().filter(|counted| counted.terms == terms);
        let has_lasted =
            known.is_some_and(|known| now.saturating_sub(known.since) >= lasts(self.window));
        let is_known = known.is_some();
        let next = next_policy(view, has_lasted);
        let phase = terms.1.as_ref().map(|electorate| electorate.phase);
        let is_timed = matches!(phase, Some(Phase::Rising | Phase::Falling));
        if next.is_none() && !is_timed {
            return;
        }
        if !is_known {
            if !self.tell_policy(snapshot, &terms).await {
                return;
            }
            *counted = Some(Counted { terms, since: self.runtime.now() });
        }
        let Some(next) = next else { return };
        let to = next.1.as_ref().map_or("none", |electorate| electorate.phase.as_str());
        info!(policy = ?next.0, electorate = to, "copies, or who answers for them, change by one step");
        if self.tell_policy(snapshot, &next).await {
            *counted = Some(Counted { terms: next, since: self.runtime.now() });
        }
    }

    async fn tell_policy(&self, snapshot: &Snapshot, (policy, electorate): &Terms) -> bool {
        let Some(cluster) = snapshot.roster.cluster else { return false };
        let change = Roster::of_policy(cluster, *policy, electorate.clone());
        let told = self.changer.tell(change).await;
        log_told(&told, "the number of copies, or who answers for them");
        told.is_ok_and(|told| told.counts())
    }
}

fn log_told(told: &Result<Told, MergeError>, what: &str) {
    match told {
        Ok(told) if told.counts() => {}
        Ok(Told { persisted, needed }) => {
            info!(persisted, needed, what, "too few members were told of a change; it will spread");
        }
        Err(error) => warn!(%error, what, "a change was not made"),
    }
}
