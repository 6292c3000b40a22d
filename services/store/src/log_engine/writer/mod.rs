//! The writer: the one thread that decides what is written. Jobs are planned
//! into the next batch while the one before is on its way to the disk. What is
//! planned is offered to the thread that waits for the disk, which takes it as
//! soon as it is done with the one before; what was written goes into the index
//! and is answered meanwhile.
//!
//! There is no timer: a batch gathers while the one before is synced.
//!
//! | module | does |
//! |---|---|
//! | here | what becomes of a job, where a batch goes |
//! | `flight` | batches from the offer to the answer, and what is done when one fails |

mod flight;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use self::flight::Sent;
use super::backlog::Backlog;
use super::batch::{Batch, Known, Room, Target};
use super::handover::Handover;
use super::index::IndexError;
use super::ledger::Ledger;
use super::pressure::{DiskRoom, Pressure, Wanted, Written, choose_victim};
use super::queue::{Event, Job, Left, MAX_BATCH_RECORDS};
use super::segment::{SEGMENT_HEADER_BYTES, SegmentId};
use super::shared::{Shared, Survey};
use super::sync::Written as Synced;
use crate::StoreError;

/// Part of the reserve, as its divisor, that is to be free when a segment was written
/// again: with less, an index that met a full disk would not be opened again, and nothing
/// would be given back.
const BEGIN_DIVISOR: u64 = super::backlog::ROOM_DIVISOR;

/// The same for one that was begun with: what was written of it would lie there for
/// nothing if it were not brought to its end.
const MOVES_DIVISOR: u64 = 16;

/// About how much the index writes when a record is moved.
const INDEX_RECORD_BYTES: u64 = 256;

/// The thread that decides, and what it alone owns.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    /// After every batch that was sent off.
    ledger: Ledger,
    /// The segment that is written to, and where the next batch begins in it.
    active: Option<(SegmentId, u32)>,
    next_segment: u64,
    /// Segments of which the log says that they are of no more use, and whose files
    /// may be there still.
    removed: BTreeSet<u64>,
    /// The batch that is planned.
    open: Option<Batch>,
    /// How many bytes of it are offered to the disk, and may have been taken.
    offered: Option<usize>,
    /// The batch that was taken, as far as the writer knows: its bytes are on
    /// their way to the disk.
    sent: Option<Sent>,
    /// What the index could not take; nothing is planned while there is any.
    backlog: Option<Backlog>,
    /// When the last one was gone.
    caught_up: Option<Duration>,
    /// When to look whether the index failed by itself, on the clock of the runtime.
    next_look: Duration,
    /// Kept for their capacity.
    buffer: Vec<u8>,
    pressure: Pressure,
    /// What compaction could not take when it last found nothing to do, until
    /// it is woken.
    idle: Option<BTreeSet<u64>>,
    way: Way,
}

/// The way to the thread that waits for the disk, and back. That thread has ended
/// when this is dropped.
#[derive(Debug)]
pub(super) struct Way {
    handover: Arc<Handover>,
    done: Receiver<Synced>,
}

impl Way {
    pub(super) fn new(handover: Arc<Handover>, done: Receiver<Synced>) -> Self {
        Self { handover, done }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.handover.close();
        while self.done.recv().is_ok() {}
    }
}

/// Lets go of the volume when the writer has ended, in whatever way.
struct Release(Arc<Shared>);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Answers whoever waits when the writer ends, in whatever way, so that nobody
/// waits for ever.
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
    }
}

impl Writer {
    /// `next_segment` is above every number that was ever used.
    pub(super) fn new(shared: Arc<Shared>, ledger: Ledger, next_segment: u64, way: Way) -> Self {
        let pressure = Pressure::new(shared.options.segment_bytes.into());
        let mut writer = Self {
            shared,
            ledger,
            active: None,
            next_segment,
            removed: BTreeSet::new(),
            open: None,
            offered: None,
            sent: None,
            backlog: None,
            caught_up: None,
            next_look: Duration::ZERO,
            buffer: Vec::new(),
            pressure,
            idle: None,
            way,
        };
        writer.publish(Written::default());
        writer
    }

    /// Works until the queue is closed and empty, then seals the log and lets
    /// go of the volume.
    pub(super) fn run(self) {
        // In the order of their ends, the last first: nobody may have the volume
        // while the disk still has a batch.
        let _release = Release(Arc::clone(&self.shared));
        let mut writer = self;
        let mut ending = Ending { shared: Arc::clone(&writer.shared), is_orderly: false };
        writer.work();
        writer.drain();
        if let Err(error) = writer.seal() {
            tracing::warn!(%error, "the log has no seal; the next start reads its end again");
        }
        ending.is_orderly = true;
    }

    fn work(&mut self) {
        loop {
            let left = match &self.open {
                Some(open) => self.left(open, self.offered.unwrap_or(open.bytes.len())),
                None => Left { records: MAX_BATCH_RECORDS, bytes: self.max_batch_bytes() },
            };
            match self.shared.queue.next(self.pressure.allowance(), left) {
                Event::Jobs(jobs) => jobs.into_iter().for_each(|job| {
                    self.add(job);
                    self.finish_meanwhile();
                }),
                Event::Synced => self.finish_all(),
                Event::Closed => return,
            }
            self.offer();
        }
    }

    /// What a batch of so many bytes has room for.
    fn left(&self, open: &Batch, byte_count: usize) -> Left {
        // Jobs that need no record must not pile up either.
        let taken = open.record_count.max(open.job_count / 2);
        Left {
            records: MAX_BATCH_RECORDS.saturating_sub(taken),
            bytes: self.max_batch_bytes().saturating_sub(byte_count),
        }
    }

    fn max_batch_bytes(&self) -> usize {
        self.shared.queue.max_batch_bytes()
    }

    fn add(&mut self, job: Job) {
        if job.is_clients() {
            self.pressure.on_taken(job.log_bytes() as u64);
        }
        // First: to learn that a batch was taken is to finish the one before.
        self.take_back();
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
        if let Job::Removed { segment, .. } = &job {
            self.removed.remove(segment);
        }
        let mut open = match self.take_open() {
            Ok(open) => open,
            Err(error) => return job.fail(&error),
        };
        let written = self.sent.as_ref().map(|sent| &sent.books);
        let (shared, ledger) = (&self.shared, &self.ledger);
        let planned = shared.with_index(job, |index, job| {
            let (doubt, metrics) = (&shared.doubt, shared.disk.metrics());
            let recent = &shared.recent;
            open.add(Known { ledger, index, recent, written, doubt, metrics }, job);
        });
        if let Err((error, job)) = planned {
            job.fail(&error);
        }
        self.removed.extend(open.removed.drain(..));
        if open.index_is_damaged {
            self.shared.on_damaged_index("an entry could not be read");
            open.index_is_damaged = false;
        }
        self.open = Some(open);
    }

    fn survey(&mut self, stuck: BTreeSet<u64>, room: Option<DiskRoom>) -> Survey {
        let victim = self.victim(&stuck, room);
        self.pressure.set_reclaiming(victim.is_some());
        self.pressure.set_stuck_bytes(self.ledger.garbage_bytes(&stuck));
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
        let reserve_bytes = self.shared.options.reserve_bytes;
        let free_bytes = match self.shared.disk.space() {
            Ok(space) => space.free_bytes,
            Err(_) => self.shared.disk.last_free_bytes(),
        };
        let above_bytes = free_bytes.saturating_sub(reserve_bytes);
        let room = room.unwrap_or_else(|| DiskRoom::of(above_bytes, &self.ledger, segment_bytes));
        let most_bytes = free_bytes.saturating_sub(reserve_bytes / BEGIN_DIVISOR);
        let most_bytes = self.without_index(most_bytes);
        let wanted = Wanted { active, stuck, segment_bytes, room, most_bytes };
        choose_victim(&self.ledger, wanted)
    }

    /// How much of the log can be written again in so much room: the index takes its
    /// part of it, which is the larger the smaller the records are.
    fn without_index(&self, room_bytes: u64) -> u64 {
        let counts = self.ledger.checkpoint.counts;
        let (_, used_bytes) = self.ledger.log_bytes();
        let index_bytes = (counts.object_count + counts.tombstone_count) * INDEX_RECORD_BYTES;
        let share = u128::from(room_bytes) * u128::from(used_bytes.max(1));
        let log_bytes = share / u128::from(used_bytes.max(1) + index_bytes);
        u64::try_from(log_bytes).unwrap_or(room_bytes)
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
            moved_bytes: free_bytes.saturating_sub(reserve_bytes / MOVES_DIVISOR),
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
        // The record that says so may be gone before this one is.
        for number in numbers.difference(&self.removed).copied() {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => ranges.push((number, number)),
            }
        }
        serde_json::to_vec(&ranges).unwrap_or_default()
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
