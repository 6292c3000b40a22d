//! Planning one batch: what each job becomes, decided in order, before anything
//! is written.

use std::collections::BTreeSet;

use bytes::Bytes;
use crc_fast::crc32_iscsi;
use holdfast_core::name::ObjectName;
use holdfast_core::object::{Kind, Stat};
use holdfast_core::version::Version;
use tokio::sync::oneshot;

use super::doubt::Doubt;
use super::entry_cache::{EntryCache, Looked};
use super::index::{Content, Entry, FileId, Index, IndexError, Place, Position};
use super::large::DurableFile;
use super::ledger::{Draft as Books, Ledger};
use super::pressure::Written;
use super::queue::{Body, Job, Moving};
use super::record::{Draft as Record, Head, Numbers, RecordKind, Seed, encode_file};
use super::segment::SegmentId;
use crate::decide::settled;
use crate::metrics::{Corruption, StoreMetrics};
use crate::{PutOutcome, StoreError};

/// What a job is decided with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    /// The books after every batch before this one.
    pub(super) ledger: &'a Ledger,
    pub(super) index: &'a dyn Index,
    /// What was looked up lately.
    pub(super) recent: &'a EntryCache,
    /// The batch that is being written and is not in the index yet.
    pub(super) written: Option<&'a Books>,
    pub(super) doubt: &'a Doubt,
    pub(super) metrics: &'a StoreMetrics,
}

impl Known<'_> {
    /// What the index has of a name. For the writer: nobody else changes it, so
    /// that what was looked up lately is what there is.
    fn look(&self, name: &ObjectName) -> Result<Option<Entry>, IndexError> {
        match self.recent.look(name) {
            Looked::Known(entry) => Ok(entry),
            Looked::Unknown(_) => self.index.get(name),
        }
    }
}

/// Where a batch goes.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) segment: SegmentId,
    /// Where in the segment it begins.
    pub(super) start: u32,
    /// The first record of a new segment.
    pub(super) census: Option<Vec<u8>>,
}

/// What a batch may use of the disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// For payloads: what is free above the reserve.
    pub(super) payload_bytes: u64,
    /// For tombstones and the like: they may use part of the reserve.
    pub(super) any_bytes: u64,
    /// For what compaction moves, which brings room: more of the reserve, but not
    /// what the index needs.
    pub(super) moved_bytes: u64,
}

impl Room {
    fn take(left: &mut u64, needed_bytes: u64) -> Result<(), StoreError> {
        let free_bytes = *left;
        *left = free_bytes
            .checked_sub(needed_bytes)
            .ok_or(StoreError::NoSpace { needed_bytes, free_bytes })?;
        Ok(())
    }
}

/// An answer that is given once the batch is durable.
#[derive(Debug)]
enum Reply {
    Put(oneshot::Sender<Result<PutOutcome, StoreError>>, Result<PutOutcome, StoreError>),
    Forget(oneshot::Sender<Result<bool, StoreError>>, Result<bool, StoreError>),
    Done(oneshot::Sender<Result<(), StoreError>>, Result<(), StoreError>),
}

/// Answers that wait.
#[derive(Debug, Default)]
pub(super) struct Replies {
    replies: Vec<Reply>,
}

impl Replies {
    /// The batch is durable and in the index. Whoever stopped waiting is not
    /// missed.
    pub(super) fn succeed(self) {
        for reply in self.replies {
            match reply {
                Reply::Put(answer, outcome) => drop(answer.send(outcome)),
                Reply::Forget(answer, outcome) => drop(answer.send(outcome)),
                Reply::Done(answer, outcome) => drop(answer.send(outcome)),
            }
        }
    }

    /// The batch was not made durable, or is not in the index: nobody's write is
    /// known to have happened, and what was read while planning may rest on a write
    /// that did not.
    pub(super) fn fail(self, error: &StoreError) {
        for reply in self.replies {
            match reply {
                Reply::Put(answer, outcome) => drop(answer.send(outcome.and(Err(error.again())))),
                Reply::Forget(answer, outcome) => {
                    drop(answer.send(outcome.and(Err(error.again()))));
                }
                Reply::Done(answer, outcome) => drop(answer.send(outcome.and(Err(error.again())))),
            }
        }
    }
}

/// A batch that is being planned.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) target: Target,
    room: Room,
    pub(super) books: Books,
    /// What is to be written, from the start of the batch.
    pub(super) bytes: Vec<u8>,
    pub(super) replies: Replies,
    /// Payload files that go when they are dropped.
    new_files: Vec<DurableFile>,
    /// Payload files that stay, unless the writer removes them because the batch
    /// is certainly not written.
    pub(super) kept_files: Vec<FileId>,
    /// Directories whose new files must be durable before the records are.
    pub(super) directories: BTreeSet<u64>,
    /// Jobs that were added.
    pub(super) job_count: usize,
    /// Records, the census not counted.
    pub(super) record_count: usize,
    pub(super) written: Written,
    /// Segments that its records say are of no more use.
    pub(super) removed: Vec<u64>,
    /// Whether the index gave something that was never put into it.
    pub(super) index_is_damaged: bool,
}

impl Batch {
    /// An empty batch that is written into `bytes`, whose capacity is kept from
    /// batch to batch.
    pub(super) fn new(ledger: &Ledger, target: Target, room: Room, mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        Self {
            target,
            room,
            books: Books::new(ledger),
            bytes,
            replies: Replies::default(),
            new_files: Vec::new(),
            kept_files: Vec::new(),
            directories: BTreeSet::new(),
            job_count: 0,
            record_count: 0,
            written: Written::default(),
            removed: Vec::new(),
            index_is_damaged: false,
        }
    }

    /// Decides what becomes of a job, after all that were added before.
    pub(super) fn add(&mut self, known: Known<'_>, job: Job) {
        self.job_count += 1;
        match job {
            Job::Put { name, stat, metadata, body, answer } => {
                let outcome = self.put(known, name, stat, &metadata, body);
                self.replies.replies.push(Reply::Put(answer, outcome));
            }
            Job::Forget { name, version, answer } => {
                let outcome = self.forget(known, name, version);
                self.replies.replies.push(Reply::Forget(answer, outcome));
            }
            Job::Move { records, answer } => {
                let moved =
                    records.into_iter().try_for_each(|record| self.move_record(known, record));
                self.replies.replies.push(Reply::Done(answer, moved));
            }
            Job::Remove { segment, answer } => {
                let written = self.remove(known, segment);
                self.replies.replies.push(Reply::Done(answer, written));
            }
            Job::Removed { segment, answer } => {
                let usage = self.books.usage(known.ledger, segment);
                self.written.freed_bytes += usage.map_or(0, |usage| usage.total_bytes);
                self.books.drop_segment(segment);
                self.replies.replies.push(Reply::Done(answer, Ok(())));
            }
            Job::FilesRemoved { files, answer } => {
                self.books.drop_files(files);
                self.replies.replies.push(Reply::Done(answer, Ok(())));
            }
            Job::Damaged { name, version } => self.mark_damaged(known, name, version),
            Job::Swept { below } => {
                let swept = &mut self.books.checkpoint.swept_below;
                *swept = below.max(*swept);
            }
            Job::Seal => {
                if let Err(error) = self.append_about_log(known, RecordKind::Seal, &[]) {
                    tracing::warn!(%error, "the log has no seal");
                }
            }
            // Answered before any batch is planned.
            Job::Survey { .. } | Job::GaveUp => {}
        }
    }

    /// Lets its payload files stay. To be called before the batch is offered to
    /// the disk: a file too many is removed or swept later, one too few is a lost
    /// payload.
    pub(super) fn keep_files(&mut self) {
        self.kept_files.extend(self.new_files.drain(..).map(DurableFile::keep));
    }

    /// Where the batch ends.
    pub(super) fn end(&self) -> Position {
        let offset = u64::from(self.target.start) + self.bytes.len() as u64;
        Position { segment: self.target.segment.number, offset }
    }

    /// What there is of a name, with all that was planned before. An answer that
    /// damage keeps from being certain is none.
    fn current(
        &mut self,
        known: Known<'_>,
        name: &ObjectName,
    ) -> Result<Option<Entry>, StoreError> {
        let written = || known.written.and_then(|written| written.entry(name));
        let entry = match self.books.entry(name).or_else(written) {
            Some(planned) => planned.cloned(),
            None => match known.look(name) {
                Ok(entry) => entry,
                Err(error) => {
                    self.index_is_damaged |= matches!(error, IndexError::Damaged { .. });
                    return Err(error.into());
                }
            },
        };
        match known.doubt.clouding(entry.as_ref()) {
            None => Ok(entry),
            Some(region) => {
                Err(StoreError::Doubtful { name: name.clone(), segment: region.segment })
            }
        }
    }

    fn put(
        &mut self,
        known: Known<'_>,
        name: ObjectName,
        stat: Stat,
        metadata: &[u8],
        body: Body,
    ) -> Result<PutOutcome, StoreError> {
        let old = self.current(known, &name)?;
        let outcome = settled(&name, old.as_ref().map(|old| &old.stat), &stat)?;
        let replaces_damage = old.as_ref().is_some_and(Entry::is_unreadable);
        match outcome {
            Some(PutOutcome::AlreadyStored) if replaces_damage => {}
            Some(outcome) => return Ok(outcome),
            None => {}
        }
        let (file, payload, crc) = match body {
            Body::Nothing => (None, Bytes::new(), 0),
            Body::Inline { bytes, crc } => (None, bytes, crc),
            Body::File(file) => {
                let reference = Bytes::copy_from_slice(&encode_file(file.id()));
                let crc = crc32_iscsi(&reference);
                (Some(file), reference, crc)
            }
        };
        let (kind, content) = match (stat.kind, &file) {
            (Kind::Tombstone, _) => (RecordKind::Tombstone, Content::Nothing),
            (Kind::Object, None) => (RecordKind::Object, Content::Inline),
            (Kind::Object, Some(file)) => (RecordKind::File, Content::File(file.id())),
        };
        let record = Record::of_stat(kind, &name, &stat, metadata, (&payload, crc));
        self.check_room(kind, record.length() as u64)?;
        let (place, origin) = self.append(known, &record, None)?;
        self.books.put(
            known.ledger,
            name,
            old.as_ref(),
            Entry { stat, content, place, origin, is_damaged: false },
        );
        if let Some(file) = file {
            self.directories.insert(file.id().directory);
            self.new_files.push(file);
        }
        if replaces_damage {
            known.metrics.on_corruption(Corruption::Replaced);
        }
        Ok(PutOutcome::Stored)
    }

    fn forget(
        &mut self,
        known: Known<'_>,
        name: ObjectName,
        version: Version,
    ) -> Result<bool, StoreError> {
        let old = match self.current(known, &name) {
            Ok(Some(old)) if old.stat.version == version => old,
            Ok(_) => return Ok(false),
            Err(error) => return Err(error),
        };
        let segment = self.target.segment.number;
        let payload = segment.to_le_bytes();
        let (place, _) = self.append_forget(known, &name, version, &payload, None)?;
        self.books.forget(known.ledger, name, Some(&old), place, segment);
        Ok(true)
    }

    fn append_forget(
        &mut self,
        known: Known<'_>,
        name: &ObjectName,
        version: Version,
        payload: &[u8],
        origin: Option<u64>,
    ) -> Result<(Place, u64), StoreError> {
        let record =
            Record { name: Some(name), version, ..Record::of_log(RecordKind::Forget, payload) };
        match origin {
            None => self.check_room(RecordKind::Forget, record.length() as u64)?,
            Some(_) => Room::take(&mut self.room.moved_bytes, record.length() as u64)?,
        }
        self.append(known, &record, origin)
    }

    /// Writes a record again at the end of the log, if it still is what there is
    /// of its name.
    fn move_record(&mut self, known: Known<'_>, moving: Moving) -> Result<(), StoreError> {
        let Moving { from, head, payload } = moving;
        let Head { header, name: Some(name), metadata } = head else { return Ok(()) };
        let current = self.current(known, &name)?;
        let origin = Some(header.origin);
        if header.kind == RecordKind::Forget {
            // Something newer is a better reason than this for what was before.
            let Some(segment) = super::record::decode_segment(&payload) else { return Ok(()) };
            if current.is_none() {
                let (place, _) =
                    self.append_forget(known, &name, header.version, &payload, origin)?;
                self.books.forget(known.ledger, name, None, place, segment);
            }
            return Ok(());
        }
        let Some(current) = current.filter(|current| current.place == from) else { return Ok(()) };
        let body: (&[u8], u32) = (&payload, header.payload_crc);
        let record = Record::of_stat(header.kind, &name, &current.stat, &metadata, body);
        Room::take(&mut self.room.moved_bytes, record.length() as u64)?;
        let (place, origin) = self.append(known, &record, origin)?;
        self.written.moved_bytes += u64::from(place.length);
        let moved = Entry { place, origin, ..current.clone() };
        self.books.put(known.ledger, name, Some(&current), moved);
        Ok(())
    }

    fn mark_damaged(&mut self, known: Known<'_>, name: ObjectName, version: Version) {
        // What cannot be looked up now will be met again by the next read.
        if let Ok(Some(entry)) = self.current(known, &name)
            && entry.stat.version == version
            && !entry.is_damaged
        {
            self.books.revise(name, Entry { is_damaged: true, ..entry });
        }
    }

    fn check_room(&mut self, kind: RecordKind, needed_bytes: u64) -> Result<(), StoreError> {
        let room = &mut self.room;
        match kind {
            RecordKind::Object | RecordKind::File | RecordKind::Lost => {
                Room::take(&mut room.payload_bytes, needed_bytes)?;
                room.any_bytes = room.any_bytes.saturating_sub(needed_bytes);
                Ok(())
            }
            _ => Room::take(&mut room.any_bytes, needed_bytes),
        }
    }

    /// Says in the log that a segment is of no more use. Refused while an entry
    /// points into it.
    fn remove(&mut self, known: Known<'_>, segment: u64) -> Result<(), StoreError> {
        let usage = self.books.usage(known.ledger, segment);
        let live_bytes = usage.map_or(0, |usage| usage.live_bytes);
        if live_bytes > 0 {
            return Err(StoreError::SegmentInUse { segment, live_bytes });
        }
        self.append_about_log(known, RecordKind::Removed, &segment.to_le_bytes())?;
        // From now on its file may go at any moment, and is not missed then.
        self.books.drop_forgets(known.ledger, segment);
        self.removed.push(segment);
        Ok(())
    }

    /// Appends a record about the log itself, which needs no room of its own:
    /// it is what gives room.
    fn append_about_log(
        &mut self,
        known: Known<'_>,
        kind: RecordKind,
        payload: &[u8],
    ) -> Result<(), StoreError> {
        let (place, _) = self.append(known, &Record::of_log(kind, payload), None)?;
        self.books.add_record(known.ledger, place);
        Ok(())
    }

    /// Gives a record its numbers and its place.
    fn append(
        &mut self,
        known: Known<'_>,
        record: &Record<'_>,
        origin: Option<u64>,
    ) -> Result<(Place, u64), StoreError> {
        if let Some(census) = self.target.census.take() {
            self.append_about_log(known, RecordKind::Census, &census)?;
        }
        let sequence = self.books.next_sequence();
        let origin = origin.unwrap_or(sequence);
        let numbers = Numbers { sequence, origin, batch_start: self.target.start };
        let offset = u64::from(self.target.start) + self.bytes.len() as u64;
        let seed = Seed { salt: self.target.segment.salt, offset };
        let header = record.encode(&mut self.bytes, seed, numbers).ok_or_else(too_long)?;
        let whole = u32::try_from(header.record_bytes()).ok();
        let (offset, length) = u32::try_from(offset).ok().zip(whole).ok_or_else(too_long)?;
        self.record_count += usize::from(record.kind != RecordKind::Census);
        Ok((Place { segment: self.target.segment.number, offset, length }, origin))
    }
}

fn too_long() -> StoreError {
    StoreError::MetadataTooLong
}
