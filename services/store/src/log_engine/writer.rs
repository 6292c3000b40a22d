//! The writer: the one thread that decides what is written. Jobs are planned
//! into the next batch while the one before is on its way to the disk; when that
//! is durable, the next one is sent off, and what was written goes into the
//! index and is answered.
//!
//! There is no timer: a batch gathers while the one before is synced.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use super::backlog::{Attempt, Backlog};
use super::batch::{Batch, Known, Replies, Room, Target};
use super::index::{FileId, IndexBatch, IndexError};
use super::ledger::{Changes, Draft, Ledger};
use super::pressure::{DiskRoom, Pressure, Written, choose_victim};
use super::queue::{Event, Job, MAX_BATCH_RECORDS};
use super::segment::{SEGMENT_HEADER_BYTES, SegmentId};
use super::shared::{Shared, Survey};
use super::sync::{Write, Written as Synced};
use crate::StoreError;

/// The thread that decides, and what it alone owns.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    /// After every batch that was sent off.
    ledger: Ledger,
    /// The segment that is written to, and where the next batch begins in it.
    active: Option<(SegmentId, u32)>,
    next_segment: u64,
    /// The batch that is planned.
    open: Option<Batch>,
    /// The batch that is on its way to the disk.
    sent: Option<Sent>,
    /// What the index could not take; nothing is planned while there is any.
    backlog: Option<Backlog>,
    /// When the last one was gone.
    caught_up: Option<Duration>,
    /// Kept for their capacity.
    buffer: Vec<u8>,
    pressure: Pressure,
    /// What compaction could not take when it last found nothing to do, until
    /// it is woken.
    idle: Option<BTreeSet<u64>>,
    syncer: Channel,
}

/// The way to the thread that waits for the disk, and back.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) writes: Sender<Write>,
    pub(super) done: Receiver<Synced>,
}

/// What is done with a batch once it is durable.
#[derive(Debug)]
struct Sent {
    books: Draft,
    undo: Changes,
    replies: Replies,
    files: Vec<FileId>,
    written: Written,
    record_count: usize,
    byte_count: usize,
    began: Duration,
}

/// Lets go of the volume when the writer ends, in whatever way, so that nobody
/// waits for it for ever.
struct Ending {
    shared: Arc<Shared>,
    is_orderly: bool,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.is_orderly {
            let _ = self.shared.disk.poison_with("the log thread panicked".to_owned());
        }
        self.shared.queue.abandon();
        self.shared.release();
    }
}

impl Writer {
    /// `next_segment` is above every number that was ever used.
    pub(super) fn new(
        shared: Arc<Shared>,
        ledger: Ledger,
        next_segment: u64,
        syncer: Channel,
    ) -> Self {
        let pressure = Pressure::new(shared.options.segment_bytes.into());
        let mut writer = Self {
            shared,
            ledger,
            active: None,
            next_segment,
            open: None,
            sent: None,
            backlog: None,
            caught_up: None,
            buffer: Vec::new(),
            pressure,
            idle: None,
            syncer,
        };
        writer.publish(Written::default());
        writer
    }

    /// Works until the queue is closed and empty, then seals the log and lets
    /// go of the volume.
    pub(super) fn run(mut self) {
        let mut ending = Ending { shared: Arc::clone(&self.shared), is_orderly: false };
        loop {
            let has_room = self.open.as_ref().is_none_or(|open| !self.is_full(open));
            match self.shared.queue.next(self.pressure.allowance(), has_room) {
                Event::Jobs(jobs) => jobs.into_iter().for_each(|job| self.add(job)),
                Event::Synced => self.finish_sent(),
                Event::Closed => break,
            }
            if self.sent.is_none() {
                self.send_open();
            }
        }
        self.drain();
        if let Err(error) = self.seal() {
            tracing::warn!(%error, "the log has no seal; the next start reads its end again");
        }
        ending.is_orderly = true;
    }

    fn is_full(&self, open: &Batch) -> bool {
        open.record_count >= MAX_BATCH_RECORDS
            || open.job_count >= 2 * MAX_BATCH_RECORDS
            || open.bytes.len() >= self.shared.queue.max_batch_bytes()
    }

    fn add(&mut self, job: Job) {
        if job.is_clients() {
            self.pressure.on_taken(job.log_bytes() as u64);
        }
        self.catch_up();
        let job = match job {
            // Whoever asked may have ended.
            Job::Survey { stuck, room, answer } => {
                return drop(answer.send(Ok(self.survey(stuck, room))));
            }
            Job::GaveUp => {
                self.idle = None;
                return self.pressure.set_reclaiming(false);
            }
            job => job,
        };
        if let Err(error) = self.shared.disk.writable() {
            return job.fail(&error);
        }
        if self.backlog.is_some() {
            let needed_bytes = job.log_bytes() as u64;
            return job.fail(&StoreError::NoSpace { needed_bytes, free_bytes: 0 });
        }
        let mut open = match self.take_open() {
            Ok(open) => open,
            Err(error) => return job.fail(&error),
        };
        let written = self.sent.as_ref().map(|sent| &sent.books);
        let (shared, ledger) = (&self.shared, &self.ledger);
        let planned = shared.with_index(job, |index, job| {
            let (doubt, metrics) = (&shared.doubt, shared.disk.metrics());
            open.add(Known { ledger, index, written, doubt, metrics }, job);
        });
        if let Err((error, job)) = planned {
            job.fail(&error);
        }
        if open.index_is_damaged {
            self.shared.on_damaged_index("an entry could not be read");
            open.index_is_damaged = false;
        }
        self.open = Some(open);
    }

    fn survey(&mut self, stuck: BTreeSet<u64>, room: Option<DiskRoom>) -> Survey {
        let victim = self.victim(&stuck, room);
        self.pressure.set_reclaiming(victim.is_some());
        self.idle = victim.is_none().then_some(stuck);
        Survey { victim, pressure: self.pressure.thousandths() }
    }

    fn victim(&self, stuck: &BTreeSet<u64>, room: Option<DiskRoom>) -> Option<u64> {
        // What is not known for certain must not be made to look so.
        let is_certain = self.shared.doubt.is_none() && self.backlog.is_none();
        if !is_certain || self.shared.disk.writable().is_err() {
            return None;
        }
        let active = self.active.map(|(id, _)| id.number);
        let segment_bytes = u64::from(self.shared.options.segment_bytes);
        let free_bytes = self.shared.disk.last_free_bytes();
        let free_bytes = free_bytes.saturating_sub(self.shared.options.reserve_bytes);
        let room = room.unwrap_or_else(|| DiskRoom::of(free_bytes, &self.ledger, segment_bytes));
        choose_victim(&self.ledger, active, stuck, segment_bytes, room)
    }

    /// Wakes compaction as soon as garbage begins to hold writes back: until it
    /// looks by itself, many segments may have been written.
    fn wake_compaction(&mut self) {
        if self.pressure.thousandths() == 0 {
            return;
        }
        if let Some(stuck) = self.idle.take() {
            match self.victim(&stuck, None) {
                Some(_) => {
                    self.pressure.set_reclaiming(true);
                    self.shared.garbage.notify_one();
                }
                None => self.idle = Some(stuck),
            }
        }
    }

    /// The batch that is planned, or a new one.
    fn take_open(&mut self) -> Result<Batch, StoreError> {
        if let Some(open) = self.open.take() {
            return Ok(open);
        }
        let room = self.room()?;
        let target = self.target();
        let buffer = std::mem::take(&mut self.buffer);
        Ok(Batch::new(&self.ledger, target, room, buffer))
    }

    /// Where the next batch goes. The file of a new segment is made with its
    /// first batch, when all before it is durable.
    fn target(&mut self) -> Target {
        let limit = self.shared.options.segment_bytes;
        let first = u32::try_from(SEGMENT_HEADER_BYTES).unwrap_or(u32::MAX);
        let (segment, start) = match self.active {
            Some((id, end)) if end < limit => (id, end),
            _ => {
                let salt = self.shared.disk.runtime().random_u64();
                let id = SegmentId { number: self.next_segment, salt };
                self.next_segment += 1;
                self.active = Some((id, first));
                (id, first)
            }
        };
        let census = (start == first).then(|| self.census());
        Target { segment, start, census }
    }

    /// What is free, without the batch that is on its way.
    fn room(&self) -> Result<Room, StoreError> {
        let sent_bytes = self.sent.as_ref().map_or(0, |sent| sent.byte_count as u64);
        let free_bytes = self.shared.disk.space()?.free_bytes.saturating_sub(sent_bytes);
        let reserve_bytes = self.shared.options.reserve_bytes;
        Ok(Room {
            payload_bytes: free_bytes.saturating_sub(reserve_bytes),
            any_bytes: free_bytes.saturating_sub(reserve_bytes / 2),
        })
    }

    /// The segments there are, as the first record of a new one says it:
    /// `[[first,last],…]`.
    fn census(&self) -> Vec<u8> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        // One that is missing stays listed, or a rebuilt index would not know.
        let doubtful = self.shared.doubt.regions().iter().map(|region| region.segment);
        let numbers: BTreeSet<u64> =
            self.shared.segments.numbers().into_iter().chain(doubtful).collect();
        for number in numbers {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => ranges.push((number, number)),
            }
        }
        serde_json::to_vec(&ranges).unwrap_or_default()
    }

    /// Sends the planned batch to the disk, if it has anything to write, and
    /// finishes it at once if it has not. Nothing else is on its way.
    fn send_open(&mut self) {
        let Some(mut open) = self.open.take().filter(|open| open.job_count > 0) else { return };
        if open.record_count > 0 {
            open.books.covers(open.end());
        }
        let undo = self.ledger.absorb(open.books.changes());
        let Batch { target, books, bytes, mut replies, directories, .. } = open;
        let sent = Sent {
            books,
            undo,
            files: replies.keep_files(),
            replies,
            written: open.written,
            record_count: open.record_count,
            byte_count: bytes.len(),
            began: self.shared.disk.runtime().now(),
        };
        if sent.record_count == 0 {
            self.buffer = bytes;
            return self.conclude(sent);
        }
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.active = Some((target.segment, target.start.saturating_add(length)));
        let directories = directories.into_iter().collect();
        let Target { segment, start, .. } = target;
        self.sent = Some(sent);
        if self.syncer.writes.send(Write { segment, start, bytes, directories }).is_err() {
            // Only a panic ends that thread before this one.
            let error = self.shared.disk.poison_with("the disk thread ended".to_owned());
            self.fail_all(&error);
        }
    }

    /// The batch that was on its way is durable, or is not. The next one is sent
    /// first: the disk waits for nobody.
    fn finish_sent(&mut self) {
        let Ok(Synced { bytes, result }) = self.syncer.done.recv() else {
            let error = self.shared.disk.poison_with("the disk thread ended".to_owned());
            return self.fail_all(&error);
        };
        self.buffer = bytes;
        if let Err(error) = result {
            return self.fail_all(&error);
        }
        let Some(sent) = self.sent.take() else { return };
        if self.open.as_ref().is_some_and(|open| open.record_count > 0) {
            self.send_open();
        }
        self.conclude(sent);
    }

    /// Puts what is durable into the index, and answers.
    fn conclude(&mut self, sent: Sent) {
        let Sent { books, replies, written, record_count, byte_count, began, .. } = sent;
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
        if record_count > 0 {
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
        match Backlog::begin(&self.shared, error, (batch, written), self.caught_up) {
            Ok(backlog) => {
                self.backlog = Some(backlog);
                // It rests on what is not in the index.
                self.fail_open(&StoreError::NoSpace { needed_bytes: 0, free_bytes: 0 });
                Err(refused)
            }
            // Only a new start brings the records in.
            Err(error) => Err(self.poison(&error)),
        }
    }

    /// Brings the index up to date, if it lags behind and can be written again.
    fn catch_up(&mut self) {
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

    /// What is on its way was not written, and what is planned rests on it.
    fn fail_all(&mut self, error: &StoreError) {
        if let Some(sent) = self.sent.take() {
            self.ledger.take_back(sent.undo);
            if matches!(error, StoreError::NoSpace { .. }) {
                self.remove_files(&sent.files);
            }
            sent.replies.fail(error);
        }
        self.fail_open(error);
        // Whether the file of the segment was made is not asked: it is left.
        self.active = None;
    }

    /// What is planned is not written.
    fn fail_open(&mut self, error: &StoreError) {
        let Some(open) = self.open.take() else { return };
        self.ledger.checkpoint.next_sequence = open.books.checkpoint.next_sequence;
        open.replies.fail(error);
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
    fn publish(&mut self, written: Written) {
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
    fn drain(&mut self) {
        while self.sent.is_some() || self.open.is_some() {
            match self.sent {
                Some(_) => self.finish_sent(),
                None => self.send_open(),
            }
        }
    }

    /// Says in the log that everything before was synced, and makes the index
    /// durable, so that the next start has nothing to read again.
    fn seal(&mut self) -> Result<(), StoreError> {
        self.catch_up();
        self.shared.disk.writable()?;
        if self.backlog.is_some() {
            return Err(IndexError::NoSpace.into());
        }
        if self.active.is_some() {
            self.add(Job::Seal);
            self.drain();
        }
        let persisted = self.shared.with_index((), |index, ()| index.persist());
        persisted.map_err(|(error, ())| error)?.map_err(StoreError::from)
    }
}
