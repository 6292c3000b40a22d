//! Batches under way: offered to the disk, taken, durable, in the index,
//! answered; and what becomes of all of them when one fails.
//!
//! The writer knows of at most one batch that was taken and is not finished, and of
//! one that is offered; that one may have been taken since, and even be durable.

use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use super::Writer;
use crate::StoreError;
use crate::log_engine::backlog::{Attempt, Backlog};
use crate::log_engine::batch::{Batch, Replies, Target};
use crate::log_engine::handover::Write;
use crate::log_engine::index::{FileId, IndexBatch, IndexError};
use crate::log_engine::ledger::{Changes, Draft};
use crate::log_engine::pressure::Written;
use crate::log_engine::sync::Written as Synced;

/// How often is looked whether the index failed, on a disk that is nearly full.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What is done with a batch once it is durable.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) books: Draft,
    undo: Changes,
    replies: Replies,
    files: Vec<FileId>,
    written: Written,
    record_count: usize,
    pub(super) byte_count: usize,
}

impl Writer {
    /// Offers the planned batch to the disk, if it has anything to write. If it
    /// has not, it is finished as soon as nothing is on its way.
    pub(super) fn offer(&mut self) {
        if self.offered.is_some() {
            return;
        }
        let Some(mut open) = self.open.take().filter(|open| open.job_count > 0) else { return };
        if open.record_count == 0 {
            if self.sent.is_some() {
                self.open = Some(open);
                return;
            }
            self.buffer = std::mem::take(&mut open.bytes);
            let sent = self.close_books(open, 0);
            return self.conclude(sent, None);
        }
        open.books.covers(open.end());
        open.keep_files();
        let bytes = std::mem::take(&mut open.bytes);
        let Target { segment, start, .. } = open.target;
        let directories = open.directories.iter().copied().collect();
        let is_full = self.left(&open, bytes.len()).is_nothing();
        self.offered = Some(bytes.len());
        self.open = Some(open);
        self.way.handover.offer(Write { segment, start, bytes, directories, is_full });
    }

    /// Takes the bytes of the planned batch back, to add to it. If the disk has
    /// them, the batch before, if there was one, is finished.
    pub(super) fn take_back(&mut self) {
        let Some(byte_count) = self.offered.take() else { return };
        if let Some(write) = self.way.handover.take_back() {
            if let Some(open) = &mut self.open {
                open.bytes = write.bytes;
            }
            return;
        }
        self.offered = Some(byte_count);
        if self.sent.is_none() {
            return self.look();
        }
        // That of the batch before, which is told before the next one is taken.
        match self.way.done.recv() {
            Ok(done) => self.finish(done),
            Err(_) => self.on_thread_ended(),
        }
    }

    /// Looks whether the disk has the planned batch. There is none that was sent
    /// before.
    fn look(&mut self) {
        let is_taken = |_: &mut usize| self.way.handover.is_empty();
        let Some(byte_count) = self.offered.take_if(is_taken) else { return };
        let Some(open) = self.open.take() else { return };
        let length = u32::try_from(byte_count).unwrap_or(u32::MAX);
        self.active = Some((open.target.segment, open.target.start.saturating_add(length)));
        self.sent = Some(self.close_books(open, byte_count));
    }

    /// From here on nothing is added to a batch, and what is planned builds on it.
    fn close_books(&mut self, open: Batch, byte_count: usize) -> Sent {
        let Batch { books, replies, kept_files: files, written, record_count, .. } = open;
        let undo = self.ledger.absorb(books.changes());
        Sent { books, undo, replies, files, written, record_count, byte_count }
    }

    /// Finishes every batch that the disk is done with, and looks which one it
    /// has.
    pub(super) fn finish_all(&mut self) {
        loop {
            match self.way.done.try_recv() {
                Ok(done) => self.finish(done),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return self.on_thread_ended(),
            }
        }
        if self.sent.is_none() {
            self.look();
        }
    }

    /// If the disk is done with a batch while jobs are added to the next one, it
    /// gets what is planned so far, and who waits for the first is answered: a
    /// batch of many jobs takes as long to plan as a sync.
    pub(super) fn finish_meanwhile(&mut self) {
        if let Ok(done) = self.way.done.try_recv() {
            self.offer();
            self.finish(done);
        }
    }

    /// The oldest batch that was taken is durable, or is not.
    fn finish(&mut self, done: Synced) {
        let Synced { bytes, began, result } = done;
        self.buffer = bytes;
        if self.sent.is_none() {
            self.look();
        }
        if let Err(error) = result {
            return self.fail_all(&error);
        }
        let Some(sent) = self.sent.take() else { return };
        // What was planned since is the next.
        self.look();
        self.conclude(sent, Some(began));
    }

    /// Only a panic ends that thread before this one.
    fn on_thread_ended(&mut self) {
        let error = self.shared.disk.poison_with("the disk thread ended".to_owned());
        self.fail_all(&error);
    }

    /// Puts what is durable into the index, and answers.
    /// `began` is when the disk got it, on the clock of the runtime, if it did.
    fn conclude(&mut self, sent: Sent, began: Option<Duration>) {
        let Sent { books, replies, written, record_count, byte_count, .. } = sent;
        let batch = books.into_batch();
        let has_changes = record_count > 0 || !batch.is_empty();
        if has_changes && let Err(error) = self.index(batch, written) {
            // The records are durable: whether they count is not known yet.
            replies.fail(&error);
            return;
        }
        self.publish(written);
        replies.succeed();
        let log = self.shared.disk.metrics().log();
        log.set_queue_depth(self.shared.queue.depth());
        if let Some(began) = began {
            log.on_batch(record_count, byte_count);
            log.on_commit(self.shared.disk.runtime().now().saturating_sub(began));
        }
    }

    /// Makes a batch visible, or keeps it until the index can take it.
    fn index(&mut self, batch: IndexBatch, written: Written) -> Result<(), StoreError> {
        if let Some(backlog) = &mut self.backlog {
            backlog.push(&self.shared, (batch, written));
            return Err(IndexError::NoSpace.into());
        }
        let Err(error) = self.shared.apply(&batch) else { return Ok(()) };
        let refused = error.again();
        match Backlog::begin(&self.shared, error, self.caught_up) {
            Ok(mut backlog) => {
                backlog.push(&self.shared, (batch, written));
                self.backlog = Some(backlog);
                // It rests on what is not in the index. If the disk has it, it
                // is one more that waits.
                self.take_back();
                self.fail_open(&StoreError::NoSpace { needed_bytes: 0, free_bytes: 0 });
                Err(refused)
            }
            // Only a new start brings the records in.
            Err(error) => Err(self.poison(&error)),
        }
    }

    /// Brings the index up to date, if it lags behind and can be written again.
    pub(super) fn catch_up(&mut self) {
        if self.backlog.is_none() {
            self.look_after_index();
        }
        let Some(backlog) = &mut self.backlog else { return };
        if !backlog.is_due(&self.shared) || self.shared.disk.poisoned().is_some() {
            return;
        }
        match backlog.catch_up(&self.shared) {
            Ok(Attempt::Waits) => {}
            Ok(Attempt::Done(written)) => {
                self.backlog = None;
                self.caught_up = Some(self.shared.disk.runtime().now());
                written.into_iter().for_each(|written| self.publish(written));
            }
            Err(error) => drop(self.poison(&error)),
        }
    }

    /// On a disk that is nearly full the index may have failed on a thread of its
    /// own, without a batch that could tell: they are refused before they get to it.
    /// What it left of its tables goes when it is opened again, and may be what the
    /// batches lack; so may be tables that were merged into others.
    fn look_after_index(&mut self) {
        let shared = &self.shared;
        let now = shared.disk.runtime().now();
        let is_short = shared.disk.last_free_bytes() < shared.options.reserve_bytes;
        if !is_short || now < self.next_look {
            return;
        }
        self.next_look = now.saturating_add(LOOK_INTERVAL);
        match shared.takes_batches() {
            Ok(()) => shared.tidy_index(),
            // It is given up, if it is, with the next batch that it refuses.
            Err(error) => self.backlog = Backlog::begin(shared, error, self.caught_up).ok(),
        }
    }

    fn poison(&mut self, error: &StoreError) -> StoreError {
        let error = match error {
            StoreError::Index { source: IndexError::Damaged { reason } } => {
                self.shared.on_damaged_index(reason);
                self.shared.disk.poison_with(reason.clone())
            }
            error => self.shared.disk.poison_with(error.to_string()),
        };
        self.fail_all(&error);
        error
    }

    /// What was sent first was not written, or all is in doubt; what came after
    /// it rests on it.
    fn fail_all(&mut self, error: &StoreError) {
        if let Some(sent) = self.sent.take() {
            self.ledger.take_back(sent.undo);
            if matches!(error, StoreError::NoSpace { .. }) {
                self.remove_files(&sent.files);
            }
            sent.replies.fail(error);
        }
        self.removed.clear();
        self.fail_open(error);
        // The next batch begins a segment of its own.
        self.active = None;
        self.way.handover.go_on();
    }

    /// What is planned is not written, unless the disk has it already.
    fn fail_open(&mut self, error: &StoreError) {
        let Some(open) = self.open.take() else { return };
        self.ledger.checkpoint.next_sequence = open.books.checkpoint.next_sequence;
        let is_taken = self.offered.take().is_some() && self.way.handover.take_back().is_none();
        if !is_taken {
            self.remove_files(&open.kept_files);
        }
        open.replies.fail(error);
        // What it says of segments may not have been written.
        self.removed.clear();
    }

    /// Nothing of their batch was written. A file that stays is found by the
    /// next start.
    fn remove_files(&self, files: &[FileId]) {
        for file in files {
            if let Err(error) = self.shared.large.remove(*file) {
                tracing::warn!(%error, "a payload file stays until the volume is opened again");
            }
        }
    }

    /// Tells others what the books say now.
    pub(super) fn publish(&mut self, written: Written) {
        let metrics = self.shared.disk.metrics().log();
        metrics.on_moved(written.moved_bytes);
        if written.freed_bytes > 0 {
            metrics.on_compacted(written.freed_bytes);
        }
        self.pressure.on_batch(&self.ledger, written);
        self.shared.publish(&self.ledger, self.pressure.thousandths());
        self.wake_compaction();
    }

    /// Finishes whatever was begun.
    pub(super) fn drain(&mut self) {
        loop {
            self.offer();
            if self.sent.is_none() && self.offered.is_none() {
                break;
            }
            match self.way.done.recv() {
                Ok(done) => self.finish(done),
                Err(_) => self.on_thread_ended(),
            }
        }
    }
}
