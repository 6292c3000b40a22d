//! Taking records of the log into the index: the rest that it lags behind at
//! each start, or all of them.
//!
//! Records are taken in the order in which they lie, and the last one of a name
//! is what there is of it: the one writer appends a record only when it is to
//! replace what was there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;

use holdfast_core::name::ObjectName;
use holdfast_runtime::File;
use serde::Serialize;

use super::index::{Content, DoubtfulRegion, Entry, IndexError, Intake, Place, Position};
use super::ledger::{Draft, Ledger};
use super::record::{Head, RecordKind, decode_segment};
use super::scan::{Found, Item, Payload, ScanRequest, SegmentScan, is_synced};
use super::segment::{HeaderCheck, SEGMENT_HEADER_BYTES, SegmentId};
use crate::StoreError;
use crate::disk::{Disk, io_error};

/// Entries that go into the index in one batch.
const ENTRIES_PER_BATCH: usize = 1024;

/// How far long work has come, in bytes of what it reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Read so far.
    pub done_bytes: u64,
    /// All that is to be read.
    pub total_bytes: u64,
}

/// The end of the log that an interrupted batch left behind; dropped, since
/// nobody was told that it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TornTail {
    /// The segment it was at the end of.
    pub segment: u64,
    /// Where it began.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
}

/// What a replay found.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    pub(super) torn: Option<TornTail>,
    /// Segments that are of no more use, though their files are there.
    pub(super) removed: BTreeSet<u64>,
    /// Records whose payload is damaged.
    pub(super) damaged_count: u64,
    /// Bytes of the log that were read.
    pub(super) read_bytes: u64,
    /// The segments that there should be, as the last census says.
    census: Option<BTreeSet<u64>>,
    /// The first write that is known to lie in each segment.
    first_origin: BTreeMap<u64, u64>,
    /// Regions whose bound is not known before a later write is met.
    unbounded: Vec<DoubtfulRegion>,
    doubt: Vec<DoubtfulRegion>,
}

/// Reads the log into an index.
pub(super) struct Replay<'a> {
    pub(super) disk: &'a Disk,
    pub(super) index: &'a mut dyn Intake,
    pub(super) segments: &'a BTreeMap<u64, SegmentId>,
    /// Segments that an index pointed to and that are not there.
    pub(super) missing: Vec<u64>,
    /// Whether what the disk does not give is mended afterwards: then it is damage,
    /// wherever it is.
    pub(super) mends: bool,
    pub(super) progress: &'a mut dyn FnMut(Progress),
}

/// A segment that is being read.
struct Reading {
    id: SegmentId,
    file: Box<dyn File>,
    length: u64,
    is_last: bool,
    /// Where it is in all that is to be read.
    before: Progress,
}

impl Replay<'_> {
    /// Takes in every record after what the ledger covers. Blocks.
    pub(super) fn run(&mut self, ledger: &mut Ledger) -> Result<Replayed, StoreError> {
        let covered = ledger.checkpoint.covered;
        let mut replayed = Replayed::default();
        let mut done_bytes = 0;
        let readings = self.readings(covered)?;
        let total_bytes = readings.iter().map(|(_, length)| length).sum();
        let last = self.segments.keys().next_back().copied();
        for (id, length) in readings {
            let path = self.disk.path(id.path());
            let file = self.disk.open(&path)?;
            let is_last = last == Some(id.number);
            let before = Progress { done_bytes, total_bytes };
            let reading = Reading { id, file, length, is_last, before };
            check_header(self.disk, &reading)?;
            let start = if id.number == covered.segment { covered.offset } else { 0 };
            let start = start.max(SEGMENT_HEADER_BYTES as u64);
            self.segment(ledger, &mut replayed, &reading, start)?;
            replayed.read_bytes += length.saturating_sub(start);
            done_bytes += length;
            (self.progress)(Progress { done_bytes, total_bytes });
        }
        self.conclude(ledger, &mut replayed, covered)?;
        Ok(replayed)
    }

    fn readings(&self, covered: Position) -> Result<Vec<(SegmentId, u64)>, StoreError> {
        let later = self.segments.range(covered.segment..);
        later
            .map(|(_, id)| {
                let path = self.disk.path(id.path());
                let file = self.disk.open(&path)?;
                let length = file.len().map_err(io_error("look at the length of", &path))?;
                Ok((*id, length))
            })
            .collect()
    }

    fn segment(
        &mut self,
        ledger: &mut Ledger,
        replayed: &mut Replayed,
        reading: &Reading,
        start: u64,
    ) -> Result<(), StoreError> {
        let request = ScanRequest {
            salt: reading.id.salt,
            range: start..reading.length,
            keeps_payloads: false,
        };
        let mut scan = SegmentScan::new(&*reading.file, request);
        let mut draft = Draft::new(ledger);
        draft.touch_segment(ledger, reading.id.number);
        let mut end = start;
        while let Some(item) = scan.next() {
            let (at, next) = match &item {
                Item::Record(found) => (found.offset, found.end()),
                Item::Unreadable(range) => (range.start, range.end),
            };
            let refused = if item.is_damaged() { scan.take_io_error() } else { None };
            if item.is_damaged() && !self.is_synced(reading, at, refused)? {
                let (segment, bytes) = (reading.id.number, reading.length - at);
                replayed.torn = Some(TornTail { segment, offset: at, bytes });
                break;
            }
            match item {
                Item::Record(found) => {
                    self.record(ledger, &mut draft, replayed, reading.id.number, found)?;
                }
                Item::Unreadable(range) => replayed.on_unreadable(reading.id.number, range),
            }
            end = next;
            if draft.entry_count() >= ENTRIES_PER_BATCH {
                draft.covers(Position { segment: reading.id.number, offset: end });
                self.apply(ledger, draft)?;
                draft = Draft::new(ledger);
                let Progress { done_bytes, total_bytes } = reading.before;
                (self.progress)(Progress { done_bytes: done_bytes + end, total_bytes });
            }
        }
        draft.covers(Position { segment: reading.id.number, offset: end });
        self.apply(ledger, draft)
    }

    /// Whether what lies at `offset` had been synced when the log ended: a later
    /// segment is there, or a later batch, each of which was begun after that. What the
    /// disk `refused` to give there is no interrupted write: nothing may be dropped.
    fn is_synced(
        &self,
        reading: &Reading,
        offset: u64,
        refused: Option<io::Error>,
    ) -> Result<bool, StoreError> {
        if !reading.is_last {
            return Ok(true);
        }
        let source = match is_synced(&*reading.file, reading.id.salt, offset..reading.length) {
            Ok(true) => return Ok(true),
            Ok(false) => refused,
            Err(source) => Some(source),
        };
        match source {
            None => Ok(false),
            Some(_) if self.mends => Ok(true),
            Some(source) => {
                let path = self.disk.path(reading.id.path());
                Err(StoreError::Io { action: "read", path, source })
            }
        }
    }

    fn apply(&mut self, ledger: &mut Ledger, draft: Draft) -> Result<(), StoreError> {
        let changes = draft.changes();
        self.index.apply(&draft.into_batch())?;
        ledger.absorb(changes);
        Ok(())
    }

    fn record(
        &self,
        ledger: &Ledger,
        draft: &mut Draft,
        replayed: &mut Replayed,
        segment: u64,
        found: Found,
    ) -> Result<(), StoreError> {
        let Found { head, offset, payload } = found;
        let header = head.header;
        draft.saw_sequence(header.sequence);
        replayed.on_sequence(segment, header.sequence, header.origin);
        let place = Place {
            segment,
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
            length: u32::try_from(header.record_bytes()).unwrap_or(u32::MAX),
        };
        match header.kind {
            RecordKind::Object | RecordKind::File | RecordKind::Tombstone | RecordKind::Lost => {
                self.version(ledger, draft, replayed, (place, head, &payload))?;
            }
            RecordKind::Forget => {
                let Some(name) = head.name else { return Ok(()) };
                let old = self.current(draft, &name)?;
                // Damaged, it is kept as if it were needed for ever.
                let origin = payload.bytes().and_then(|bytes| decode_segment(bytes));
                draft.forget(ledger, name, old.as_ref(), place, origin.unwrap_or(u64::MAX));
            }
            RecordKind::Census => {
                draft.add_record(ledger, place);
                replayed.on_census(segment, &payload);
            }
            RecordKind::Removed => {
                draft.add_record(ledger, place);
                if let Some(gone) = payload.bytes().and_then(|bytes| decode_segment(bytes)) {
                    let live_bytes = draft.usage(ledger, gone).map_or(0, |usage| usage.live_bytes);
                    if live_bytes == 0 {
                        replayed.removed.insert(gone);
                        // As long as its file is there, the index must know of it.
                        match self.segments.contains_key(&gone) {
                            true => draft.drop_forgets(ledger, gone),
                            false => draft.drop_segment(gone),
                        }
                    } else {
                        // It was given up because it was missing, and was put back.
                        tracing::warn!(
                            segment = gone,
                            live_bytes,
                            "a segment that was given up is there, and in use: it stays"
                        );
                    }
                }
            }
            RecordKind::Seal | RecordKind::Gap => draft.add_record(ledger, place),
        }
        Ok(())
    }

    fn version(
        &self,
        ledger: &Ledger,
        draft: &mut Draft,
        replayed: &mut Replayed,
        (place, head, payload): (Place, Head, &Payload),
    ) -> Result<(), StoreError> {
        let content = match payload {
            Payload::Sound(bytes) => head.content(bytes),
            Payload::Damaged => None,
        };
        let is_damaged = content.is_none();
        let (stat, origin) = (head.stat(), head.header.origin);
        // The head is sound, so a name and a stat are there unless a newer
        // release wrote them.
        let (Some(name), Some(stat)) = (head.name, stat) else {
            let range = u64::from(place.offset)..u64::from(place.offset) + u64::from(place.length);
            replayed.on_unreadable(place.segment, range);
            return Ok(());
        };
        if is_damaged {
            replayed.damaged_count += 1;
            tracing::error!(key = %name, segment = place.segment, offset = place.offset, "the payload of a record is damaged");
        }
        let content = content.unwrap_or(match head.header.kind {
            RecordKind::Object => Content::Inline,
            _ => Content::Lost,
        });
        let old = self.current(draft, &name)?;
        let entry = Entry { stat, content, place, origin, is_damaged };
        draft.put(ledger, name, old.as_ref(), entry);
        Ok(())
    }

    fn current(&self, draft: &Draft, name: &ObjectName) -> Result<Option<Entry>, IndexError> {
        match draft.entry(name) {
            Some(planned) => Ok(planned.cloned()),
            None => self.index.get(name),
        }
    }

    /// Adds what is in doubt to what was before, and the segments that are missing:
    /// of those that the index does not cover nothing else tells.
    fn conclude(
        &mut self,
        ledger: &mut Ledger,
        replayed: &mut Replayed,
        covered: Position,
    ) -> Result<(), StoreError> {
        let missing = std::mem::take(&mut self.missing);
        replayed.look_for_missing(self.segments, missing, covered);
        let mut draft = Draft::new(ledger);
        replayed.close_regions(draft.checkpoint.next_sequence);
        if replayed.doubt.is_empty() {
            return Ok(());
        }
        let known = std::mem::take(&mut draft.checkpoint.doubt);
        let new = std::mem::take(&mut replayed.doubt);
        let by_place: BTreeMap<_, _> = known
            .into_iter()
            .chain(new)
            .map(|region| ((region.segment, region.start), region))
            .collect();
        draft.checkpoint.doubt = by_place.into_values().collect();
        self.apply(ledger, draft)
    }
}

impl Item {
    fn is_damaged(&self) -> bool {
        match self {
            Self::Record(found) => found.payload == Payload::Damaged,
            Self::Unreadable(_) => true,
        }
    }
}

impl Replayed {
    fn on_sequence(&mut self, segment: u64, sequence: u64, origin: u64) {
        if sequence != origin {
            return;
        }
        self.first_origin.entry(segment).or_insert(origin);
        self.close_regions(origin);
    }

    /// What was unreadable up to here is older than the write `bound`.
    fn close_regions(&mut self, bound: u64) {
        let closed = self.unbounded.drain(..).map(|region| DoubtfulRegion { bound, ..region });
        self.doubt.extend(closed);
    }

    fn on_unreadable(&mut self, segment: u64, range: Range<u64>) {
        tracing::error!(
            segment,
            start = range.start,
            end = range.end,
            "part of the log cannot be read"
        );
        let Range { start, end } = range;
        self.unbounded.push(DoubtfulRegion { segment, start, end, bound: u64::MAX });
    }

    /// One that is damaged leaves the one before in force.
    fn on_census(&mut self, segment: u64, payload: &Payload) {
        let ranges = payload.bytes().and_then(|bytes| serde_json::from_slice(bytes).ok());
        let Some(ranges): Option<Vec<(u64, u64)>> = ranges else {
            tracing::error!(segment, "the list of segments at the front of a segment is damaged");
            return;
        };
        // Bounded: the numbers are those of files, and so is their count.
        let listed = ranges.into_iter().flat_map(|(first, last)| first..=last.min(segment));
        self.census = Some(listed.collect());
    }

    fn look_for_missing(
        &mut self,
        present: &BTreeMap<u64, SegmentId>,
        pointed_to: Vec<u64>,
        covered: Position,
    ) {
        let mut expected = self.census.take().unwrap_or_default();
        // What became of all before, the index knows, and what of it is missing.
        expected.retain(|number| *number >= covered.segment);
        expected.extend(pointed_to);
        let is_missing =
            |number: &u64| !present.contains_key(number) && !self.removed.contains(number);
        let missing: Vec<u64> = expected.into_iter().filter(is_missing).collect();
        for segment in missing {
            tracing::error!(segment, "a segment of the log is missing");
            let later = self.first_origin.range(segment..).next().map(|(_, origin)| *origin);
            let region = DoubtfulRegion { segment, start: 0, end: u64::MAX, bound: u64::MAX };
            match later {
                Some(bound) => self.doubt.push(DoubtfulRegion { bound, ..region }),
                None => self.unbounded.push(region),
            }
        }
    }
}

/// Refuses a segment that a newer release wrote.
fn check_header(disk: &Disk, reading: &Reading) -> Result<(), StoreError> {
    let path = disk.path(reading.id.path());
    let check = reading.id.read_header(&*reading.file, &path)?;
    let is_begun = reading.length > SEGMENT_HEADER_BYTES as u64;
    if check == HeaderCheck::Damaged && is_begun {
        tracing::error!(path = %path.display(), "the header of a segment is damaged; its records are read all the same");
    }
    Ok(())
}
