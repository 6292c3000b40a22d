//! Letting go: a copy that belongs elsewhere is dropped once every member that
//! should hold it has pinned its own, twice, a window apart.
//!
//! Between the two rounds everybody who asked this member may still act on what
//! it answered; after the second, the pins hold for longer than dropping takes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use holdfast_core::name::ObjectName;
use holdfast_core::node::{Generation, NodeId};
use holdfast_core::version::Version;
use holdfast_core::wire::transfer::PinRequest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::debug;

use super::RepairParts;
use super::metrics::Kind;
use crate::gate::DropEnd;

/// Batches that are let go of at once; each lasts for a window.
const MOST_BATCHES: usize = 128;

/// A copy that may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Release {
    pub(super) name: ObjectName,
    pub(super) version: Version,
    /// Who should have it, and does.
    pub(super) rely_on: Vec<NodeId>,
}

/// Lets go of copies in the background. Cheap to clone.
#[derive(Clone)]
pub(super) struct LetGo {
    parts: RepairParts,
    batches: Arc<Semaphore>,
    under_way: Arc<Mutex<BTreeSet<ObjectName>>>,
    /// Whether something could not be let go of: it is to be tried again.
    is_unfinished: Arc<AtomicBool>,
    dropped: Arc<AtomicU64>,
}

impl LetGo {
    pub(super) fn new(parts: &RepairParts) -> Self {
        Self {
            parts: parts.clone(),
            batches: Arc::new(Semaphore::new(MOST_BATCHES)),
            under_way: Arc::default(),
            is_unfinished: Arc::default(),
            dropped: Arc::default(),
        }
    }

    pub(super) fn is_unfinished(&self) -> bool {
        self.is_unfinished.load(Ordering::SeqCst)
    }

    pub(super) fn take_unfinished(&self) -> bool {
        self.is_unfinished.swap(false, Ordering::SeqCst)
    }

    pub(super) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::SeqCst)
    }

    pub(super) fn set_unfinished(&self) {
        self.is_unfinished.store(true, Ordering::SeqCst);
    }

    /// Begins to let go of copies, at most a page of them; gives how many there
    /// was no room for.
    pub(super) fn begin(&self, releases: Vec<Release>) -> u64 {
        let asked = releases.len() as u64;
        let fresh: Vec<Release> = {
            let mut under_way = self.under_way();
            releases.into_iter().filter(|one| under_way.insert(one.name.clone())).collect()
        };
        if fresh.is_empty() {
            return 0;
        }
        match Arc::clone(&self.batches).try_acquire_owned() {
            Ok(permit) => {
                let batch = self.clone();
                self.parts.runtime.spawn("let-go", batch.run(fresh, permit));
                0
            }
            Err(_) => {
                self.end(&fresh);
                asked
            }
        }
    }

    async fn run(self, batch: Vec<Release>, _permit: OwnedSemaphorePermit) {
        let mut kept = Vec::new();
        let (begun, refused): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|one| self.begins(one));
        kept.extend(refused);
        let dropped = self.drop_batch(begun, &mut kept).await;
        if !kept.is_empty() {
            self.set_unfinished();
        }
        for _ in &kept {
            self.parts.metrics.on_work(Kind::Drop, false);
        }
        self.end(&kept);
        self.end(&dropped);
    }

    fn begins(&self, release: &Release) -> bool {
        let begun = self.parts.gate.begin_let_go(&release.name);
        if let Err(error) = &begun {
            debug!(key = %release.name, %error, "a copy stays for now");
        }
        begun.is_ok()
    }

    /// Gives those that are gone; the others go to `kept`, and stay.
    async fn drop_batch(&self, batch: Vec<Release>, kept: &mut Vec<Release>) -> Vec<Release> {
        let (gate, runtime) = (&self.parts.gate, &self.parts.runtime);
        let keep = |stay: Vec<Release>, kept: &mut Vec<Release>| {
            stay.iter().for_each(|one| gate.keep(&one.name));
            kept.extend(stay);
        };
        if batch.is_empty() {
            return batch;
        }
        let first = self.ask(&batch).await;
        let (batch, stay): (Vec<_>, _) = batch.into_iter().partition(|one| first.hold(one));
        keep(stay, kept);
        if batch.is_empty() {
            return batch;
        }
        runtime.sleep(gate.window()).await;
        let confirmed_at = runtime.now();
        let second = self.ask(&batch).await;
        let is_same = |one: &Release| {
            second.hold(one) && one.rely_on.iter().all(|node| first.is_same_run(&second, *node))
        };
        let (batch, stay): (Vec<_>, _) =
            batch.into_iter().partition(|one| is_same(one) && self.may_rely_on(one));
        keep(stay, kept);
        let mut gone = Vec::new();
        for release in batch {
            let Release { name, version, .. } = &release;
            // One after the other takes a while, in which what is relied on may have
            // begun to drain, and a look from then on has counted this copy.
            if !self.may_rely_on(&release) {
                keep(vec![release], kept);
                continue;
            }
            match gate.drop_if(name.clone(), *version, confirmed_at).await {
                Ok(DropEnd::Dropped) => {
                    self.parts.metrics.on_work(Kind::Drop, true);
                    self.dropped.fetch_add(1, Ordering::SeqCst);
                    gone.push(release);
                }
                // It was overwritten meanwhile, which is no failure: the next pass
                // looks at what is there now.
                Ok(DropEnd::NotHere) => {
                    self.parts.metrics.on_work(Kind::Drop, false);
                    gone.push(release);
                }
                Ok(DropEnd::TooLate) => {
                    debug!(key = %name, %version, "a copy was not dropped: its time is over");
                    kept.push(release);
                }
                Err(error) => {
                    debug!(key = %name, %version, %error, "a copy was not dropped");
                    kept.push(release);
                }
            }
        }
        gone
    }

    /// Whether the copies that are relied on last, as the roster says now, are as
    /// many as there should be, and enough of them count.
    fn may_rely_on(&self, release: &Release) -> bool {
        let (nodes, view) = (&release.rely_on, &self.parts.cluster.snapshot().view);
        let counts = view.counting(&release.name);
        nodes.len() >= view.policy.replicas()
            && nodes.iter().all(|node| view.counts(*node))
            && nodes.iter().filter(|node| counts(**node)).count() >= view.policy.write_quorum()
    }

    /// Asks every member that is relied on for its pins.
    async fn ask(&self, batch: &[Release]) -> Pinned {
        let mut questions: BTreeMap<NodeId, Vec<(ObjectName, Version)>> = BTreeMap::new();
        for release in batch {
            for node in &release.rely_on {
                let copies = questions.entry(*node).or_default();
                copies.push((release.name.clone(), release.version));
            }
        }
        let answers = questions.into_iter().map(|(node, copies)| self.ask_one(node, copies));
        Pinned { by_node: join_all(answers).await.into_iter().flatten().collect() }
    }

    async fn ask_one(
        &self,
        node: NodeId,
        copies: Vec<(ObjectName, Version)>,
    ) -> Option<(NodeId, (Generation, BTreeSet<ObjectName>))> {
        let parts = &self.parts;
        let address = parts.cluster.snapshot().view.member(node)?.address.clone();
        let own = parts.reporter.own();
        let request = PinRequest { node: own.node, generation: own.generation, copies };
        let limit = parts.gate.window() / 3;
        let answer = match parts.data_servers.pin(&address, node, &request, limit).await {
            Ok(answer) => answer,
            Err(error) => {
                debug!(%node, %error, "a data server gave no pins");
                return None;
            }
        };
        // What it knows of the roster decides whether its copies last.
        if !parts.cluster.include(node, address, answer.roster_digest).await {
            return None;
        }
        let names = answer.pinned.iter().filter_map(|index| {
            let (name, _) = request.copies.get(usize::try_from(*index).ok()?)?;
            Some(name.clone())
        });
        Some((node, (answer.generation, names.collect())))
    }

    fn end(&self, releases: &[Release]) {
        let mut under_way = self.under_way();
        for release in releases {
            under_way.remove(&release.name);
        }
    }

    fn under_way(&self) -> MutexGuard<'_, BTreeSet<ObjectName>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who has pinned what, and in which run.
#[derive(Debug, Default)]
struct Pinned {
    by_node: BTreeMap<NodeId, (Generation, BTreeSet<ObjectName>)>,
}

impl Pinned {
    /// Whether everybody that is relied on has pinned this copy.
    fn hold(&self, release: &Release) -> bool {
        let holds = |node: &NodeId| {
            self.by_node.get(node).is_some_and(|(_, names)| names.contains(&release.name))
        };
        !release.rely_on.is_empty() && release.rely_on.iter().all(holds)
    }

    fn is_same_run(&self, other: &Self, node: NodeId) -> bool {
        let run = |pinned: &Self| pinned.by_node.get(&node).map(|(generation, _)| *generation);
        run(self).is_some() && run(self) == run(other)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_core::name::Key;

    use super::*;

    fn id(bits: u128) -> NodeId {
        NodeId::from_bits(bits)
    }

    fn pinned(answers: &[(u128, u64, &[&str])]) -> Pinned {
        let name = |key: &&str| ObjectName::seed(Key::new(*key).expect("short"));
        let by_node = answers.iter().map(|(node, generation, names)| {
            (id(*node), (Generation(*generation), names.iter().map(name).collect()))
        });
        Pinned { by_node: by_node.collect() }
    }

    #[test]
    fn everybody_must_pin_twice_in_one_run() {
        let name = ObjectName::seed(Key::new("a").expect("short"));
        let version = Version::from_parts(1, 1);
        let release = Release { name, version, rely_on: vec![id(1), id(2)] };
        let both = pinned(&[(1, 3, &["a", "b"]), (2, 5, &["a"])]);
        assert!(both.hold(&release));
        assert!(!pinned(&[(1, 3, &["a"])]).hold(&release), "one did not answer");
        assert!(!pinned(&[(1, 3, &["a"]), (2, 5, &["b"])]).hold(&release), "one refused");
        assert!(!both.hold(&Release { rely_on: Vec::new(), ..release }));
        assert!(both.is_same_run(&both, id(1)));
        let restarted = pinned(&[(1, 4, &["a"]), (2, 5, &["a"])]);
        assert!(!both.is_same_run(&restarted, id(1)));
        assert!(both.is_same_run(&restarted, id(2)));
        assert!(!both.is_same_run(&both, id(9)), "one that never answered");
    }
}
