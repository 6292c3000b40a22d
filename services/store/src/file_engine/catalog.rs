//! What the volume holds, in memory: a cache of what the files say of
//! themselves, rebuilt whenever the volume is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use holdfast_core::name::ObjectName;
use holdfast_core::object::Stat;

use super::name_hash::NameHash;
use crate::decide::settled;
use crate::index::{Counts, Index};
use crate::metrics::{Corruption, StoreMetrics};
use crate::{Held, ListPage, ListRequest, PutOutcome, StoreError, WalkPage};

/// Names that are looked up under one hold of the lock.
const NAMES_PER_HOLD: usize = 256;

/// A name and the file it has.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) name: ObjectName,
    pub(super) hash: NameHash,
}

impl Target {
    pub(super) fn new(name: ObjectName) -> Self {
        Self { hash: NameHash::of(&name), name }
    }
}

/// The newest durable version of each name, and the names nothing is known of.
#[derive(Debug)]
pub(super) struct Catalog {
    state: RwLock<State>,
    metrics: StoreMetrics,
}

#[derive(Debug, Default)]
struct State {
    index: Index,
    /// Files whose content cannot be told, and why. Their names are unknown but
    /// for the hash, so an absent name is looked for here too.
    unreadable: BTreeMap<NameHash, StoreError>,
    /// Files that refused a read while their version is known: the same version
    /// may be written again.
    suspects: BTreeSet<NameHash>,
}

impl State {
    fn lookup(&self, name: &ObjectName) -> Result<Option<&Stat>, StoreError> {
        if !self.unreadable.is_empty()
            && let Some(error) = self.unreadable.get(&NameHash::of(name))
        {
            return Err(again(error));
        }
        Ok(self.index.get(name))
    }

    fn is_suspect(&self, name: &ObjectName) -> bool {
        !self.suspects.is_empty() && self.suspects.contains(&NameHash::of(name))
    }
}

impl Catalog {
    pub(super) fn new(metrics: StoreMetrics) -> Self {
        Self { state: RwLock::default(), metrics }
    }

    // A panic under the lock, of which there should be none, leaves at worst a
    // wrong count: reading on is better than to stop.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lookup(&self, name: &ObjectName) -> Result<Option<Stat>, StoreError> {
        self.read().lookup(name).map(|stat| stat.cloned())
    }

    pub(super) fn lookup_all(&self, names: &[ObjectName]) -> Vec<Result<Option<Stat>, StoreError>> {
        let mut answers = Vec::with_capacity(names.len());
        for names in names.chunks(NAMES_PER_HOLD) {
            let state = self.read();
            answers.extend(names.iter().map(|name| state.lookup(name).map(|stat| stat.cloned())));
        }
        answers
    }

    pub(super) fn inspect(&self, name: &ObjectName) -> Result<Option<Held>, StoreError> {
        let state = self.read();
        let Some(stat) = state.lookup(name)?.cloned() else { return Ok(None) };
        let is_damaged = state.suspects.contains(&NameHash::of(name));
        Ok(Some(Held { stat, is_damaged }))
    }

    /// Whether what is there already answers a write, as
    /// [`settled`] says; a copy that refused a read does not.
    pub(super) fn settled(
        &self,
        target: &Target,
        offered: &Stat,
    ) -> Result<Option<PutOutcome>, StoreError> {
        let state = self.read();
        let outcome = settled(&target.name, state.lookup(&target.name)?, offered)?;
        let suspect = state.suspects.contains(&target.hash);
        Ok(outcome.filter(|outcome| !(suspect && *outcome == PutOutcome::AlreadyStored)))
    }

    /// Takes note of versions that are durable.
    pub(super) fn apply(&self, entries: impl IntoIterator<Item = (Target, Stat)>) {
        let mut state = self.write();
        for (target, stat) in entries {
            if state.suspects.remove(&target.hash) {
                self.metrics.on_corruption(Corruption::Replaced);
            }
            state.index.insert(target.name, stat);
        }
    }

    /// The file of `target` is gone.
    pub(super) fn remove(&self, target: &Target) {
        let mut state = self.write();
        state.suspects.remove(&target.hash);
        state.index.remove(&target.name);
    }

    /// From now on the file with this hash answers with `error`.
    pub(super) fn mark_unreadable(&self, hash: NameHash, error: StoreError) {
        self.write().unreadable.insert(hash, error);
    }

    /// The newest version of `target` may or may not survive a power cut, so
    /// that neither it nor the one before can be answered.
    pub(super) fn mark_in_doubt(&self, target: &Target, error: &StoreError) {
        // In this order: in between, the name must not be absent.
        self.mark_unreadable(target.hash, again(error));
        self.write().index.remove(&target.name);
    }

    /// The file of a known version refused a read.
    pub(super) fn mark_suspect(&self, hash: NameHash) {
        self.metrics.on_corruption(Corruption::Refused);
        self.write().suspects.insert(hash);
    }

    /// Forgets an unreadable file; `false` if there is none with this hash.
    pub(super) fn forget_unreadable(&self, hash: NameHash) -> bool {
        self.write().unreadable.remove(&hash).is_some()
    }

    pub(super) fn is_unreadable(&self, hash: NameHash) -> bool {
        self.read().unreadable.contains_key(&hash)
    }

    pub(super) fn page(&self, request: &ListRequest) -> ListPage {
        let state = self.read();
        let page = state.index.page(request, |name| state.is_suspect(name));
        ListPage { unreadable_count: state.unreadable.len() as u64, ..page }
    }

    pub(super) fn walk(&self, after: Option<&ObjectName>, limit: usize) -> WalkPage {
        let state = self.read();
        let page = state.index.walk(after, limit, |name| state.is_suspect(name));
        WalkPage { unreadable_count: state.unreadable.len() as u64, ..page }
    }

    pub(super) fn counts(&self) -> Counts {
        self.read().index.counts()
    }
}

/// The same error for one more caller; an I/O error cannot be cloned.
fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::Corrupt { path, what, expected, actual } => StoreError::Corrupt {
            path: path.clone(),
            what,
            expected: expected.clone(),
            actual: actual.clone(),
        },
        StoreError::Poisoned { reason } => StoreError::Poisoned { reason: reason.clone() },
        StoreError::Io { action, path, source } => StoreError::Io {
            action,
            path: path.clone(),
            source: std::io::Error::new(source.kind(), source.to_string()),
        },
        // Nothing else is ever kept here.
        _ => StoreError::WorkLost,
    }
}
