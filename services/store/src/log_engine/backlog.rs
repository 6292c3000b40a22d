//! What is durable in the log and not yet in the index, because the index could
//! not be written: the disk has no room for it, or its engine gave up.
//!
//! The index is a cache, so nothing is lost by that, and nothing needs a new
//! start: what it held stays readable, writes are refused, and once there is
//! room it is opened again and told what it missed.

use std::time::Duration;

use holdfast_runtime::Space;

use super::index::{Checkpoint, IndexBatch, IndexError};
use super::pressure::Written;
use super::shared::Shared;
use crate::StoreError;

/// How long to wait before the index is opened once more.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Batches that wait for the index, oldest first: the one it refused, and the one
/// that was on its way to the disk meanwhile.
#[derive(Debug)]
pub(super) struct Backlog {
    /// The newest batch that is in the index.
    indexed: Option<Checkpoint>,
    waiting: Vec<(IndexBatch, Written)>,
    /// When to try again, on the clock of the runtime.
    next_try: Duration,
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
    /// Begins one with the batch that the index refused with `error`. What an
    /// index that is damaged holds cannot be built upon.
    ///
    /// # Errors
    /// `error`, or what reading the index came to.
    pub(super) fn begin(
        shared: &Shared,
        error: StoreError,
        refused: (IndexBatch, Written),
    ) -> Result<Self, StoreError> {
        let StoreError::Index { source: IndexError::NoSpace | IndexError::Failed { .. } } = error
        else {
            return Err(error);
        };
        let indexed = shared.with_index((), |index, ()| index.checkpoint());
        let indexed = indexed.map_err(|(error, ())| error)??;
        tracing::warn!(%error, "the index cannot be written; writes are refused until it can");
        shared.disk.metrics().log().set_index_backlog(1);
        Ok(Self { indexed, waiting: vec![refused], next_try: shared.disk.runtime().now() })
    }

    /// One more batch that is durable.
    pub(super) fn push(&mut self, shared: &Shared, batch: (IndexBatch, Written)) {
        self.waiting.push(batch);
        shared.disk.metrics().log().set_index_backlog(self.waiting.len());
    }

    /// Whether enough time has passed since the last attempt.
    pub(super) fn is_due(&self, shared: &Shared) -> bool {
        shared.disk.runtime().now() >= self.next_try
    }

    /// Opens the index again, if there is room, and brings it up to date. Blocks.
    ///
    /// # Errors
    /// [`StoreError`] when waiting is of no use: the index is damaged, or fails
    /// though there is room.
    pub(super) fn catch_up(&mut self, shared: &Shared) -> Result<Attempt, StoreError> {
        self.next_try = shared.disk.runtime().now().saturating_add(RETRY_INTERVAL);
        let has_room = |space: Space| space.free_bytes > shared.options.reserve_bytes;
        if !shared.disk.space().is_ok_and(has_room) {
            return Ok(Attempt::Waits);
        }
        match self.write(shared) {
            Ok(()) => {
                tracing::info!("the index can be written again");
                shared.disk.metrics().log().set_index_backlog(0);
                Ok(Attempt::Done(self.waiting.iter().map(|(_, written)| *written).collect()))
            }
            Err(StoreError::Index { source: IndexError::NoSpace }) => Ok(Attempt::Waits),
            Err(error) => Err(error),
        }
    }

    fn write(&mut self, shared: &Shared) -> Result<(), StoreError> {
        // Its engine takes nothing more once a write has failed.
        let reopened = shared.reopen_index()?;
        let missing = self.missing(reopened.as_ref())?;
        for index in missing..self.waiting.len() {
            let Some((batch, _)) = self.waiting.get(index) else { break };
            shared.apply(batch)?;
            self.indexed = Some(batch.checkpoint.clone());
        }
        Ok(())
    }

    /// Which batch comes next in an index whose newest one is `reopened`.
    fn missing(&self, reopened: Option<&Checkpoint>) -> Result<usize, StoreError> {
        // A write that failed may be there nonetheless, whole.
        let is_newest = |(batch, _): &(IndexBatch, _)| Some(&batch.checkpoint) == reopened;
        if let Some(newest) = self.waiting.iter().rposition(is_newest) {
            return Ok(newest + 1);
        }
        if reopened == self.indexed.as_ref() {
            return Ok(0);
        }
        let reason = "it is older than it was before it was opened again".to_owned();
        Err(IndexError::Damaged { reason }.into())
    }
}
