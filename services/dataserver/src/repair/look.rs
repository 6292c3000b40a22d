//! Looks names up, like a reader, and does what follows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use holdfast_coordinator::cluster::Snapshot;
use holdfast_coordinator::data_servers::{BUSY, DataServerError};
use holdfast_core::locate::Located;
use holdfast_core::membership::{Hearing, Member, Moment, View};
use holdfast_core::name::ObjectName;
use holdfast_core::node::NodeId;
use holdfast_core::object::{Kind, Stat};
use holdfast_core::repair::{Plan, homes, in_charge, lacks_room, plan};
use holdfast_core::version::Version;
use holdfast_core::wire::transfer::{CopyRequest, WriteOutcome};
use holdfast_runtime::Runtime;
use holdfast_store::Walked;
use tracing::{debug, error};

use super::beside::{Beside, LARGE_BYTES};
use super::collect::{Tombstone, collect, is_old};
use super::lap::{Found, Shape};
use super::let_go::{LetGo, Release};
use super::metrics::{Kind as Work, RepairMetrics};
use super::pacer::Pacer;
use super::{PAGE, RepairParts};
use crate::admission::takes_data;

/// How often a name is looked up again after something was done about it.
const ROUNDS: usize = 4;

/// What a copy may take beside its bytes.
const COPY_GRACE: Duration = Duration::from_secs(60);

/// No transfer between data servers is slower than this and still worth it.
const SLOWEST_BYTES: u64 = 256 * 1024;

/// How often a copy is offered to a member that has enough to do.
const TRIES: usize = 32;

/// The longest pause between two offers.
const LONGEST_WAIT_MILLIS: u64 = 500;

/// What became of a copy.
enum Sent {
    /// The receiver has it, or something newer; how many bytes it took.
    Kept(u64),
    /// It takes as many as it can.
    Busy,
    /// It may have promised not to take it.
    NeedsPromise,
    /// It does not have it.
    Failed,
}

/// What became of a copy in the end.
enum Copied {
    /// The receiver has that version, or a newer one.
    Kept,
    /// W members have it, under a later version.
    Settled,
    /// Neither.
    Failed,
}

/// What is done about one name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Rest,
    Wait,
    Copy { stat: Stat, from: Vec<NodeId>, to: Vec<NodeId> },
    Forget(Version),
    LetGo { version: Version, rely_on: Vec<NodeId> },
    Collect(Version),
}

/// What is left to be done about a name, together with others or beside them.
#[derive(Debug)]
pub(super) enum End {
    Rest,
    Release(Release),
    Collect(Tombstone),
    Large(Subject),
}

/// Where a name is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lane<'a> {
    /// With others, which wait for each other: nothing that takes long.
    Page,
    /// By itself, with a turn for large copies. What is copied is counted here,
    /// and to be paid for.
    Beside(&'a AtomicU64),
}

/// A name that is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) name: ObjectName,
    /// Whether the copy that is here is known to be damaged.
    pub(super) is_damaged: bool,
}

impl From<Walked> for Subject {
    fn from(walked: Walked) -> Self {
        Self { name: walked.name, is_damaged: walked.is_damaged }
    }
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct Look {
    parts: RepairParts,
    own: NodeId,
    let_go: LetGo,
    beside: Beside,
    pacer: Pacer,
}

impl Look {
    pub(super) fn new(parts: RepairParts, let_go: LetGo, pacer: Pacer) -> Self {
        let own = parts.reporter.own().node;
        Self { parts, own, let_go, beside: Beside::default(), pacer }
    }

    /// Whether something was left to be done.
    pub(super) fn is_unfinished(&self) -> bool {
        self.let_go.is_unfinished()
    }

    pub(super) fn take_unfinished(&self) -> bool {
        self.let_go.take_unfinished()
    }

    /// How many copies were let go of, or made beside the lap, since this was
    /// asked last.
    pub(super) fn take_done(&self) -> u64 {
        self.let_go.take_dropped() + self.beside.take_done()
    }

    /// Whether all that was copied beside the lap has ended since this was asked
    /// last.
    pub(super) fn take_ended(&self) -> bool {
        self.beside.take_ended()
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.parts.runtime
    }

    pub(super) fn pacer(&self) -> &Pacer {
        &self.pacer
    }

    /// The cluster as it is now.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.parts.cluster.snapshot()
    }

    /// `REPAIR_DELAY`.
    pub(super) fn delay(&self) -> Duration {
        self.parts.settings.delay
    }

    /// Begins to let go of a copy.
    pub(super) fn release(&self, release: Release) {
        if self.let_go.begin(vec![release]) > 0 {
            self.set_unfinished();
        }
    }

    pub(super) fn set_unfinished(&self) {
        self.let_go.set_unfinished();
    }

    /// Looks all of them up at once, so that they share messages, and does what
    /// follows, which the pacer bounds.
    pub(super) async fn look(&self, subjects: Vec<Subject>, shape: &Shape) -> Found {
        let away = away(&self.parts.cluster.snapshot().view);
        let settled =
            subjects.into_iter().map(|subject| self.settle(subject, shape, &away, Lane::Page));
        let mut settled = stream::iter(settled).buffer_unordered(PAGE);
        let (mut found, mut releases) = (Found::default(), Vec::new());
        let (mut tombstones, mut large) = (Vec::new(), Vec::new());
        while let Some((one, end)) = settled.next().await {
            found.add(&one);
            match end {
                End::Rest => {}
                End::Release(release) => releases.push(release),
                End::Collect(tombstone) => tombstones.push(tombstone),
                End::Large(subject) => large.push(subject),
            }
        }
        found.unfinished += self.let_go.begin(releases);
        collect(&self.parts, tombstones).await;
        for subject in large {
            self.beside.begin(self, subject);
        }
        found
    }

    /// Looks one name up and does what follows, and again until there is nothing
    /// more, or what there is has to wait.
    pub(super) async fn settle(
        &self,
        mut subject: Subject,
        shape: &Shape,
        away: &BTreeSet<NodeId>,
        lane: Lane<'_>,
    ) -> (Found, End) {
        let mut done_count = 0;
        for round in 1..=ROUNDS {
            let looked_up = self.parts.runtime.now();
            let Ok(located) = self.parts.objects.locate_all(&subject.name).await else { break };
            let homes = self.homes(&subject.name, &located, shape);
            let mut found = count(self.own, &subject, &located, &homes, shape, away);
            found.done = done_count;
            let step = choose(self.own, &subject, &located, &homes, shape, self.takes_data());
            let done = match step {
                Step::Rest => return (found, End::Rest),
                Step::Wait => break,
                Step::LetGo { version, rely_on } => {
                    let release = Release { name: subject.name, version, rely_on };
                    return (found, End::Release(release));
                }
                Step::Collect(version) if is_old(&self.parts, version) => {
                    return (found, End::Collect((subject.name, version)));
                }
                Step::Collect(_) => return (found, End::Rest),
                Step::Forget(version) => {
                    let metrics = self.metrics().clone();
                    let on_end = move |is_ok| metrics.on_work(Work::Forget, is_ok);
                    self.parts.gate.forget_later(subject.name, version, on_end);
                    return (found, End::Rest);
                }
                Step::Copy { stat, .. }
                    if stat.size_bytes >= LARGE_BYTES && matches!(lane, Lane::Page) =>
                {
                    found.unfinished = 1;
                    return (found, End::Large(subject));
                }
                Step::Copy { stat, from, to } => {
                    let (mut all, mut any) = (true, false);
                    for node in to {
                        let found = (&located, looked_up);
                        match self.copy(&subject, found, &stat, &from, node, lane).await {
                            Copied::Kept => {
                                subject.is_damaged &= node != self.own;
                                any = true;
                            }
                            Copied::Failed => all = false,
                            // Under another version: it is looked up again.
                            Copied::Settled => break,
                        }
                    }
                    // Whoever got one of two done does not wait longer and longer.
                    found.done += u64::from(any && !all);
                    all
                }
            };
            done_count += u64::from(done);
            if !done || round == ROUNDS {
                found.unfinished = 1;
                return (found, End::Rest);
            }
        }
        (Found { looked_at: 1, undecided: 1, unfinished: 1, ..Found::default() }, End::Rest)
    }

    /// Where copies of a name belong, as long as disks are as full as they are.
    fn homes(&self, name: &ObjectName, located: &Located, shape: &Shape) -> Vec<NodeId> {
        let snapshot = self.parts.cluster.snapshot();
        let lacks_room = |node| lacks_room(&snapshot.view, located, node);
        let electorate = shape.electorate.as_deref();
        homes(name, &shape.candidates, &shape.policy, electorate, lacks_room)
    }

    fn takes_data(&self) -> bool {
        takes_data(self.parts.reporter.state())
    }

    /// Has `node` take a version, of which it was `located` after `looked_up`.
    async fn copy(
        &self,
        subject: &Subject,
        (located, mut looked_up): (&Located, Moment),
        stat: &Stat,
        from: &[NodeId],
        node: NodeId,
        lane: Lane<'_>,
    ) -> Copied {
        let runtime = &self.parts.runtime;
        let mut located = located.clone();
        // One of the two, for as long as it takes.
        let (_turn, _large) = match lane {
            Lane::Page => (Some(self.pacer.turn(stat.size_bytes).await), None),
            Lane::Beside(_) => (None, Some(self.pacer.on_large_copy())),
        };
        if located.may_be_missed() {
            return self.settle_promised(subject, stat, lane).await;
        }
        for _ in 0..TRIES {
            // The receiver refuses what was found out too long ago.
            if runtime.now().saturating_sub(looked_up) > self.parts.gate.window() / 2 {
                looked_up = runtime.now();
                let Ok(again) = self.parts.objects.locate_all(&subject.name).await else { break };
                located = again;
                let newest = located.newest().map(|replica| replica.stat.version);
                if newest != Some(stat.version) || !located.complete {
                    break;
                }
            }
            match self.send(subject, &located, stat, from, node).await {
                Sent::Kept(size_bytes) => {
                    if let Lane::Beside(copied) = lane {
                        copied.fetch_add(size_bytes, Ordering::Relaxed);
                    }
                    return Copied::Kept;
                }
                Sent::Failed => break,
                Sent::NeedsPromise => return self.settle_promised(subject, stat, lane).await,
                // Others want to copy to it, too.
                Sent::Busy => {
                    let jitter = runtime.random_u64() % LONGEST_WAIT_MILLIS;
                    runtime.sleep(Duration::from_millis(jitter)).await;
                }
            }
        }
        self.metrics().on_work(Work::Copy, false);
        Copied::Failed
    }

    /// Settles a name whose newest version is on so few members that somebody may
    /// have been promised something above it without seeing it.
    async fn settle_promised(&self, subject: &Subject, stat: &Stat, lane: Lane<'_>) -> Copied {
        let settled = self.parts.objects.settle(&subject.name, copy_limit(stat)).await;
        let is_settled = settled.as_ref().is_ok_and(|located| located.complete);
        self.metrics().on_work(Work::Copy, is_settled);
        if !is_settled {
            let error = settled.err();
            debug!(key = %subject.name, ?error, "a version could not be settled");
            return Copied::Failed;
        }
        // To one member at least, and once more where it was.
        self.metrics().bytes.inc_by(stat.size_bytes);
        if let Lane::Beside(copied) = lane {
            copied.fetch_add(stat.size_bytes, Ordering::Relaxed);
        }
        Copied::Settled
    }

    async fn send(
        &self,
        subject: &Subject,
        located: &Located,
        stat: &Stat,
        from: &[NodeId],
        node: NodeId,
    ) -> Sent {
        let snapshot = self.parts.cluster.snapshot();
        let Some((member, stamp)) = snapshot.view.member(node).zip(located.stamp(node)) else {
            return Sent::Failed;
        };
        let from = from.iter().copied().filter(|source| *source != node).collect();
        let (name, stat) = (subject.name.clone(), stat.clone());
        let size_bytes = stat.size_bytes;
        let (limit, is_settled) = (copy_limit(&stat), located.is_accepted);
        let request = CopyRequest { name, stat, from, held_as: None, stamp, is_settled };
        let copied = self.parts.data_servers.copy(&member.address, node, &request, limit);
        let copied = tokio::select! {
            biased;
            copied = copied => copied,
            // A long transfer must not keep its turn when nobody is there.
            () = self.falls_silent(node) => return Sent::Failed,
        };
        match copied {
            Ok(answer) => {
                let is_new = answer.outcome == WriteOutcome::Stored;
                let copied = if is_new { size_bytes } else { 0 };
                self.metrics().bytes.inc_by(copied);
                self.metrics().on_work(Work::Copy, true);
                Sent::Kept(copied)
            }
            Err(DataServerError::Refused { code, .. }) if code == BUSY => Sent::Busy,
            Err(error) if error.needs_promise() => Sent::NeedsPromise,
            Err(error) => {
                debug!(key = %subject.name, %node, %error, "a copy was not made");
                Sent::Failed
            }
        }
    }

    async fn falls_silent(&self, node: NodeId) {
        let is_silent = |snapshot: &Snapshot| {
            let member = snapshot.view.member(node);
            member.is_none_or(|member| !member.hearing.may_answer())
        };
        self.parts.cluster.wait_until(is_silent).await;
    }

    fn metrics(&self) -> &RepairMetrics {
        &self.parts.metrics
    }
}

/// How long a copy may take.
fn copy_limit(stat: &Stat) -> Duration {
    COPY_GRACE + Duration::from_secs(stat.size_bytes / SLOWEST_BYTES)
}

/// What is done about a name whose copies are where `located` says, and should
/// be at `homes`.
fn choose(
    own: NodeId,
    subject: &Subject,
    located: &Located,
    homes: &[NodeId],
    shape: &Shape,
    takes_data: bool,
) -> Step {
    match plan(own, located, homes, &shape.policy) {
        Plan::Wait => Step::Wait,
        Plan::Forget { version } => Step::Forget(version),
        Plan::LetGo { version, rely_on } => Step::LetGo { version, rely_on },
        Plan::Collect { version } => Step::Collect(version),
        // First of all, what is here must be whole.
        Plan::Rest | Plan::Copy { .. } if subject.is_damaged => {
            mend(own, subject, located, takes_data)
        }
        Plan::Rest => Step::Rest,
        Plan::Copy { stat, from, to } => Step::Copy { stat, from, to },
    }
}

/// A damaged copy is taken anew from others that have the newest version.
fn mend(own: NodeId, subject: &Subject, located: &Located, takes_data: bool) -> Step {
    let Some(newest) = located.newest().filter(|newest| newest.stat.kind == Kind::Object) else {
        return Step::Rest;
    };
    let others = located.newest_holders().map(|replica| replica.node);
    let is_good = |node: &NodeId| *node != own && located.answered.contains(node);
    let from: Vec<NodeId> = others.filter(is_good).collect();
    if from.is_empty() {
        error!(key = %subject.name, "the only copy that is known is damaged");
        return Step::Rest;
    }
    if !takes_data || located.stamp(own).is_none() {
        return Step::Rest;
    }
    Step::Copy { stat: newest.stat.clone(), from, to: vec![own] }
}

/// Members that are not heard.
pub(super) fn away(view: &View) -> BTreeSet<NodeId> {
    let is_away = |member: &&Member| member.hearing != Hearing::Heard;
    view.roster_members().filter(is_away).map(|member| member.id).collect()
}

/// What `located` says of one name, before anything is done about it.
fn count(
    own: NodeId,
    subject: &Subject,
    located: &Located,
    homes: &[NodeId],
    shape: &Shape,
    away: &BTreeSet<NodeId>,
) -> Found {
    let mut found = Found { looked_at: 1, ..Found::default() };
    let Some(newest) = located.newest() else { return found };
    let holds = |node: NodeId| located.newest_holders().any(|replica| replica.node == node);
    let is_lost = subject.is_damaged && holds(own) && !shape.draining.contains_key(&own);
    // A copy that was known to be damaged when it was looked up is not counted.
    let is_counted = is_lost && located.answered.contains(&own);
    let copies = located.copies.saturating_sub(usize::from(is_counted));
    let votes = located.voters.as_ref().is_none_or(|voters| voters.contains(&own));
    let lasting = located.lasting.saturating_sub(usize::from(is_counted && votes));
    found.least_copies = u32::try_from(lasting).unwrap_or(u32::MAX);
    // Who is away may have it; when it is heard again, a lap begins.
    let is_settled = homes.iter().all(|home| holds(*home) || away.contains(home)) && !is_lost;
    found.unfinished = u64::from(!is_settled);
    if in_charge(located, homes) == Some(own) {
        if newest.stat.kind == Kind::Object {
            let by_copies = &mut found.redundancy.by_copies;
            let place = copies.min(by_copies.len() - 1);
            if let Some(count) = by_copies.get_mut(place) {
                *count = 1;
            }
        }
        found.redundancy.under_replicated = u64::from(copies < shape.policy.replicas());
    }
    found
}

#[cfg(test)]
#[path = "look_tests.rs"]
mod tests;
