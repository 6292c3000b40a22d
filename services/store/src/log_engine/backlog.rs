//! What is durable in the log and not yet in the index, because the index could
//! not be written: the disk has no room for it, or its engine gave up.
//!
//! The index is a cache, so nothing is lost by that, and nothing needs a new
//! start: what it held stays readable, writes are refused, and once there is
//! room it is opened again and told what it missed. Of the names that wait it is
//! said that they are unknown: what the index has of them is old.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use holdfast_core::name::ObjectName;
use holdfast_runtime::Space;

use super::index::{Checkpoint, IndexBatch, IndexError};
use super::pressure::Written;
use super::shared::Shared;
use crate::StoreError;

/// How long to wait before the next attempt.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait before an index that failed is opened once more though there is
/// no room: at first, twice as long each time, and at most. Whoever reads waits while
/// it is opened.
const FIRST_REOPEN_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_REOPEN_PAUSE: Duration = Duration::from_secs(32);

/// An index that fails again so soon after it was opened again, and not for want
/// of room, is not opened once more.
const SOUND_AFTER: Duration = Duration::from_secs(60);

/// How long it may go on that the index cannot be opened, for a reason that says
/// nothing about what is in it: no memory, no descriptor.
const MOST_UNOPENED: Duration = Duration::from_secs(60);

/// Part of the reserve, as its divisor, that must be free. Tombstones leave half
/// of it, and compaction this much: a disk that is filled by this very volume has it.
pub(super) const ROOM_DIVISOR: u64 = 4;

/// Names whose newest version is durable and not in the index.
#[derive(Debug, Default)]
pub(super) struct Unindexed {
    is_any: AtomicBool,
    names: RwLock<BTreeSet<ObjectName>>,
}

impl Unindexed {
    /// Whether the index lags behind what is durable.
    pub(super) fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Acquire)
    }

    /// Refuses to say anything of a name that waits.
    pub(super) fn check(&self, name: &ObjectName) -> Result<(), StoreError> {
        let waits = || self.names.read().unwrap_or_else(PoisonError::into_inner).contains(name);
        if self.is_any() && waits() { Err(IndexError::NoSpace.into()) } else { Ok(()) }
    }

    fn add(&self, batch: &IndexBatch) {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        names.extend(batch.entries.iter().map(|(name, _)| name.clone()));
        self.is_any.store(true, Ordering::Release);
    }

    fn clear(&self) {
        self.names.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.is_any.store(false, Ordering::Release);
    }
}

/// Batches that wait for the index, oldest first: the one it refused, and the one
/// that was on its way to the disk meanwhile.
#[derive(Debug)]
pub(super) struct Backlog {
    /// The newest batch that is in the index.
    indexed: Option<Checkpoint>,
    waiting: Vec<(IndexBatch, Written)>,
    /// Whether the index was opened again since it was last written to. Its engine
    /// takes nothing more once a write has failed.
    is_reopened: bool,
    /// Whether there is an index that can be read.
    is_open: bool,
    /// Since when it cannot be opened, on the clock of the runtime.
    unopened_since: Option<Duration>,
    /// When to try again, on the clock of the runtime.
    next_try: Duration,
    /// When to open an index that failed though there is no room, and how long to
    /// wait after that.
    next_reopen: Duration,
    reopen_pause: Duration,
}

/// How an attempt to catch up ended.
#[derive(Debug)]
pub(super) enum Attempt {
    /// All of it is in the index; what the batches wrote.
    Done(Vec<Written>),
    /// Not now.
    Waits,
}

impl Backlog {
    /// Begins one, without a batch yet, since the index takes none for `error`. What
    /// an index that is damaged holds cannot be built upon, and one that fails again
    /// and again is given up; `last` is when the one before caught up.
    ///
    /// # Errors
    /// `error`, or what reading the index came to.
    pub(super) fn begin(
        shared: &Shared,
        error: StoreError,
        last: Option<Duration>,
    ) -> Result<Self, StoreError> {
        let now = shared.disk.runtime().now();
        let is_sound = last.is_none_or(|last| now.saturating_sub(last) >= SOUND_AFTER);
        match error {
            StoreError::Index { source: IndexError::NoSpace } => {}
            StoreError::Index { source: IndexError::Failed { .. } }
                if is_sound || !has_room(shared) => {}
            error => return Err(error),
        }
        let indexed = shared.with_index((), |index, ()| index.checkpoint());
        let indexed = indexed.map_err(|(error, ())| error)??;
        tracing::warn!(%error, "the index cannot be written; writes are refused until it can");
        Ok(Self::new(indexed, now))
    }

    fn new(indexed: Option<Checkpoint>, now: Duration) -> Self {
        Self {
            indexed,
            waiting: Vec::new(),
            is_reopened: false,
            is_open: true,
            unopened_since: None,
            next_try: now,
            next_reopen: now,
            reopen_pause: FIRST_REOPEN_PAUSE,
        }
    }

    /// One more batch that is durable.
    pub(super) fn push(&mut self, shared: &Shared, batch: (IndexBatch, Written)) {
        shared.unindexed.add(&batch.0);
        self.waiting.push(batch);
        shared.disk.metrics().log().set_index_backlog(self.waiting.len());
    }

    /// Whether enough time has passed since the last attempt.
    pub(super) fn is_due(&self, shared: &Shared) -> bool {
        shared.disk.runtime().now() >= self.next_try
    }

    /// Opens the index again and, if there is room, brings it up to date. Blocks.
    ///
    /// # Errors
    /// [`StoreError`] when waiting is of no use: the index is damaged, or fails
    /// though there is room.
    pub(super) fn catch_up(&mut self, shared: &Shared) -> Result<Attempt, StoreError> {
        let now = shared.disk.runtime().now();
        self.next_try = now.saturating_add(RETRY_INTERVAL);
        self.is_reopened &= shared.takes_batches().is_ok();
        // What is left of tables that could not be finished is removed by opening,
        // and may be all that the disk lacks. So this does not wait for room.
        let is_due = || now >= self.next_reopen || !self.is_open || has_room(shared);
        if !self.is_reopened && is_due() {
            self.next_reopen = now.saturating_add(self.reopen_pause);
            self.reopen_pause = self.reopen_pause.saturating_mul(2).min(LONGEST_REOPEN_PAUSE);
            self.reopen(shared, now)?;
        }
        if !self.is_reopened || !has_room(shared) {
            return Ok(Attempt::Waits);
        }
        match self.write(shared) {
            Ok(()) => {
                tracing::info!("the index can be written again");
                shared.unindexed.clear();
                shared.disk.metrics().log().set_index_backlog(0);
                Ok(Attempt::Done(self.waiting.iter().map(|(_, written)| *written).collect()))
            }
            Err(StoreError::Index { source: IndexError::NoSpace }) => Ok(Attempt::Waits),
            Err(error) => Err(error),
        }
    }

    fn reopen(&mut self, shared: &Shared, now: Duration) -> Result<(), StoreError> {
        let reopened = shared.reopen_index();
        self.is_open = reopened.is_ok();
        self.is_reopened = self.is_open;
        match reopened {
            Ok(()) => {
                self.unopened_since = None;
                Ok(())
            }
            Err(StoreError::Index { source: IndexError::NoSpace }) => Ok(()),
            Err(error @ StoreError::Index { source: IndexError::Failed { .. } }) => {
                let since = *self.unopened_since.get_or_insert(now);
                if now.saturating_sub(since) >= MOST_UNOPENED {
                    return Err(error);
                }
                tracing::warn!(%error, "the index cannot be opened again; it is tried once more");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn write(&mut self, shared: &Shared) -> Result<(), StoreError> {
        let newest = shared.with_index((), |index, ()| index.checkpoint());
        let newest = newest.map_err(|(error, ())| error)??;
        let missing = self.missing(newest.as_ref())?;
        self.is_reopened = false;
        for index in missing..self.waiting.len() {
            let Some((batch, _)) = self.waiting.get(index) else { break };
            shared.apply(batch)?;
            self.indexed = Some(batch.checkpoint.clone());
        }
        Ok(())
    }

    /// Which batch comes next in an index whose newest one is `reopened`.
    fn missing(&self, reopened: Option<&Checkpoint>) -> Result<usize, StoreError> {
        // A write that failed may be there nonetheless, whole. It is written once
        // more, which changes nothing: one without records has the checkpoint of
        // the one before it.
        let is_newest = |(batch, _): &(IndexBatch, _)| Some(&batch.checkpoint) == reopened;
        if let Some(newest) = self.waiting.iter().position(is_newest) {
            return Ok(newest);
        }
        if reopened == self.indexed.as_ref() {
            return Ok(0);
        }
        let reason = "it is older than it was before it was opened again".to_owned();
        Err(IndexError::Damaged { reason }.into())
    }
}

fn has_room(shared: &Shared) -> bool {
    shared.tidy_index();
    let needed_bytes = shared.options.reserve_bytes / ROOM_DIVISOR;
    let has_room = |space: Space| space.free_bytes > needed_bytes;
    shared.disk.space().is_ok_and(has_room) && !is_out_of_room(shared)
}

/// What else goes wrong shows when the index is written.
fn is_out_of_room(shared: &Shared) -> bool {
    matches!(shared.try_index_room(), Err(IndexError::NoSpace))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(next_sequence: u64) -> Checkpoint {
        Checkpoint { next_sequence, ..Checkpoint::default() }
    }

    /// With these batches waiting, after the one with the first number.
    fn backlog(indexed: u64, waiting: &[u64]) -> Backlog {
        let batch = |next| IndexBatch { checkpoint: checkpoint(next), ..IndexBatch::default() };
        let waiting = waiting.iter().map(|next| (batch(*next), Written::default()));
        let backlog = Backlog::new(Some(checkpoint(indexed)), Duration::ZERO);
        Backlog { waiting: waiting.collect(), ..backlog }
    }

    #[test]
    fn no_batch_is_left_out_and_an_older_index_is_refused() {
        let next = |backlog: Backlog, found| backlog.missing(Some(&checkpoint(found))).ok();
        assert_eq!(next(backlog(1, &[2, 3]), 1), Some(0));
        assert_eq!(next(backlog(1, &[2, 3]), 3), Some(1), "what is there is written again");
        // One without records has the checkpoint of the one before it.
        assert_eq!(next(backlog(1, &[1]), 1), Some(0));
        assert_eq!(next(backlog(1, &[2, 2]), 2), Some(0));
        assert_eq!(next(backlog(2, &[3]), 1), None);
    }
}
