//! The end of a member: empty after a drain, or given up by the others.
//!
//! A member that an operator drained stays up, takes part in nothing, and is not
//! ready any more: it waits to be removed. One that was given up for lost, and is
//! back, ends its process, so that the next start makes its volume a new member.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_coordinator::cluster::{Changer, Snapshot};
use holdfast_core::membership::Moment;
use holdfast_core::node::NodeId;
use holdfast_core::roster::{Entry, MemberState};
use holdfast_runtime::{Runtime, Task};
use holdfast_store::Store;
use holdfast_telemetry::shutdown::Shutdown;
use tracing::{error, info, warn};

/// What the task needs.
#[derive(Debug)]
pub struct Retirement {
    /// The seam.
    pub runtime: Runtime,
    /// Who this is.
    pub own: NodeId,
    /// The volume.
    pub store: Arc<dyn Store>,
    /// How members are told of changes.
    pub changer: Changer,
    /// How long a message may be under way and still count.
    pub window: Duration,
    /// How often others are heard.
    pub heartbeat_interval: Duration,
    /// To end the process of a member that was given up.
    pub shutdown: Shutdown,
    /// Set when that is why it ends.
    pub is_retired: Arc<AtomicBool>,
}

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing yet.
    Wait,
    /// See whether the volume is empty, and retire.
    Retire,
    /// Tell the others that this member has retired, and stay.
    Stay,
    /// End the process.
    End,
}

/// `draining_for` is how long it has taken no data; `by_itself` whether it
/// retired in this run.
fn choose(
    entry: Option<&Entry>,
    draining_for: Option<Duration>,
    window: Duration,
    by_itself: bool,
) -> Step {
    let Some(entry) = entry else { return Step::Wait };
    match entry.state {
        MemberState::Joining | MemberState::Active => Step::Wait,
        // What was let in before may take until now to be written.
        MemberState::Draining if draining_for.is_some_and(|time| time >= window) => Step::Retire,
        MemberState::Draining => Step::Wait,
        MemberState::Retired if by_itself && !entry.lost => Step::Stay,
        MemberState::Retired => Step::End,
    }
}

impl Retirement {
    /// Watches over this member's entry until the task is aborted.
    #[must_use]
    pub fn start(self) -> Task {
        let runtime = self.runtime.clone();
        runtime.spawn("retirement", self.run())
    }

    async fn run(self) {
        let mut draining_since = None;
        let (mut by_itself, mut is_told, mut complained) = (false, false, false);
        loop {
            let snapshot = self.changer.cluster.snapshot();
            let entry = snapshot.roster.get(self.own);
            let draining_for = self.draining_for(entry, &mut draining_since);
            let votes = snapshot.view.electorate.as_ref().is_some_and(|all| all.has(self.own));
            match choose(entry, draining_for.filter(|_| !votes), self.window, by_itself) {
                Step::Wait => {}
                Step::Retire => {
                    if self.is_empty(&mut complained).await
                        && let Some(entry) = entry
                    {
                        // The drain may have been taken back while this looked.
                        match self.changer.cluster.retire(entry.clone()).await {
                            Ok(true) => {
                                info!(node = %self.own, "everything was handed over: this data server retires");
                                by_itself = true;
                                is_told = self.tell(entry.retired()).await;
                                continue;
                            }
                            Ok(false) => {}
                            Err(error) => warn!(%error, "this data server could not retire"),
                        }
                    }
                }
                Step::Stay => {
                    if let Some(entry) = entry.filter(|_| !is_told) {
                        is_told = self.tell(entry.clone()).await;
                    }
                }
                Step::End => {
                    self.end(&snapshot);
                    return;
                }
            }
            self.runtime.sleep(self.heartbeat_interval).await;
        }
    }

    /// For how long the roster that is persisted here has said that this member
    /// drains.
    fn draining_for(
        &self,
        entry: Option<&Entry>,
        since: &mut Option<(u32, Moment)>,
    ) -> Option<Duration> {
        let now = self.runtime.now();
        let drains = entry.filter(|entry| entry.state == MemberState::Draining);
        // A drain that was taken back is another one than the next.
        *since = drains.map(|entry| {
            since.filter(|(epoch, _)| *epoch == entry.epoch).unwrap_or((entry.epoch, now))
        });
        since.map(|(_, since)| now.saturating_sub(since))
    }

    /// Whether nothing is left. What cannot be read may be something: then an
    /// operator must decide.
    async fn is_empty(&self, complained: &mut bool) -> bool {
        match self.store.walk(None, 1).await {
            Ok(page) if page.unreadable_count > 0 => {
                if page.entries.is_empty() && !*complained {
                    error!(
                        node = %self.own,
                        "part of this volume cannot be read, so it is not known to be empty and does \
                         not retire; repair it with fsck, or stop it and retire it"
                    );
                    *complained = true;
                }
                false
            }
            Ok(page) => page.entries.is_empty(),
            Err(error) => {
                warn!(%error, "whether this volume is empty cannot be told");
                false
            }
        }
    }

    async fn tell(&self, entry: Entry) -> bool {
        match self.changer.tell_entry(entry).await {
            Ok(told) => told.counts(),
            Err(error) => {
                warn!(%error, "the others were not told that this data server has retired");
                false
            }
        }
    }

    fn end(&self, snapshot: &Snapshot) {
        warn!(
            node = %self.own,
            roster = %snapshot.view.digest,
            "this data server was given up by the others and has retired: it ends, and the next \
             start sets its records aside and joins as a new member"
        );
        self.is_retired.store(true, Ordering::SeqCst);
        self.shutdown.begin();
    }
}

#[cfg(test)]
mod tests {
    use holdfast_core::node::Generation;

    use super::*;
    use crate::test_support::{OWN_NODE, cluster, roster_of_own};

    #[tokio::test]
    async fn a_drain_that_was_taken_back_does_not_end_in_retirement() {
        let roster = roster_of_own();
        let active = roster.get(OWN_NODE).expect("a member").clone();
        let cluster = cluster(&Runtime::real(), roster).await;
        let state = || cluster.snapshot().roster.get(OWN_NODE).map(|entry| entry.state);
        let drained = Entry { state: MemberState::Draining, ..active.clone() };
        let back = Entry { epoch: 1, ..active.clone() };
        let again = Entry { epoch: 1, ..drained.clone() };
        for change in [&drained, &back, &again] {
            cluster.merge_entry(change.clone()).await.expect("of this cluster");
            for before in [&active, &drained, &back].into_iter().filter(|it| *it != change) {
                assert_eq!(cluster.retire(before.clone()).await.ok(), Some(false), "{before:?}");
                assert_eq!(state(), Some(change.state), "nothing was changed");
            }
        }
        assert_eq!(cluster.retire(again).await.ok(), Some(true));
        assert_eq!(state(), Some(MemberState::Retired));
    }

    #[test]
    fn a_member_retires_after_the_window_and_stays_if_it_was_asked_to_go() {
        let window = Duration::from_secs(30);
        let entry = |state, lost| Entry {
            id: NodeId::from_bits(1),
            epoch: 0,
            state,
            lost,
            generation: Generation(1),
            address: "h:1".parse().expect("an address"),
            weight: 1,
            zone: None,
        };
        let choose = |state, lost, seconds: Option<u64>, by_itself| {
            let time = seconds.map(Duration::from_secs);
            choose(Some(&entry(state, lost)), time, window, by_itself)
        };
        assert_eq!(choose(MemberState::Active, false, None, false), Step::Wait);
        assert_eq!(choose(MemberState::Draining, false, Some(29), false), Step::Wait);
        assert_eq!(choose(MemberState::Draining, false, Some(30), false), Step::Retire);
        assert_eq!(choose(MemberState::Retired, false, None, true), Step::Stay);
        assert_eq!(choose(MemberState::Retired, true, None, true), Step::End);
        assert_eq!(choose(MemberState::Retired, false, None, false), Step::End);
        assert_eq!(super::choose(None, None, window, false), Step::Wait);
    }
}
