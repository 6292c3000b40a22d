//! Reading a segment from front to back, past whatever is damaged in it.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use holdfast_runtime::File;

use super::record::{ALIGNMENT, HEADER_BYTES, Head, Header, RecordKind, Seed};

/// What is read at once.
const WINDOW_BYTES: usize = 1024 * 1024;

/// Unit of a disk that fails to read: what else was asked for is read all the
/// same.
pub(super) const SECTOR_BYTES: usize = 4096;

/// What lies at a place of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// A record whose head is sound.
    Record(Found),
    /// Bytes without any record that could be read, up to the next one or the
    /// end.
    Unreadable(Range<u64>),
}

/// A record and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) head: Head,
    pub(super) offset: u64,
    pub(super) payload: Payload,
}

impl Found {
    /// Where the next record may begin.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.head.header.record_bytes()
    }
}

/// The payload of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Payload {
    /// It is what was written. Empty for an object, unless payloads are kept.
    Sound(Bytes),
    /// It is not.
    Damaged,
}

impl Payload {
    /// The payload, if it is sound and was kept.
    pub(super) fn bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Sound(bytes) => Some(bytes),
            Self::Damaged => None,
        }
    }
}

/// What a scan looks at.
#[derive(Debug, Clone)]
pub(super) struct ScanRequest {
    /// Of the segment.
    pub(super) salt: u64,
    /// Begins at a record, or where one should be.
    pub(super) range: Range<u64>,
    /// Whether payloads of objects are given to the caller; they are verified
    /// in any case.
    pub(super) keeps_payloads: bool,
}

/// Goes through the records of a segment. Blocks.
#[derive(Debug)]
pub(super) struct SegmentScan<'a> {
    window: Window<'a>,
    salt: u64,
    at: u64,
    /// Of the record before; there may be a record 0.
    last_sequence: Option<u64>,
    keeps_payloads: bool,
}

impl<'a> SegmentScan<'a> {
    pub(super) fn new(file: &'a dyn File, request: ScanRequest) -> Self {
        let ScanRequest { salt, range, keeps_payloads } = request;
        let window = Window { file, end: range.end, start: 0, bytes: Vec::new(), broken: None };
        Self { window, salt, at: range.start, last_sequence: None, keeps_payloads }
    }

    /// What lies next; `None` at the end.
    pub(super) fn next(&mut self) -> Option<Item> {
        let start = self.at;
        while self.at < self.window.end {
            let Some(found) = self.record_at(self.at) else {
                self.at = (self.at + ALIGNMENT as u64).min(self.window.end);
                continue;
            };
            if self.at > start {
                // It is found again by the next call.
                return Some(Item::Unreadable(start..self.at));
            }
            self.at = found.end();
            if found.head.header.kind != RecordKind::Gap {
                self.last_sequence = Some(found.head.header.sequence);
            }
            return Some(Item::Record(found));
        }
        (self.at > start).then_some(Item::Unreadable(start..self.at))
    }

    /// The last refusal of the disk, if it refused to read any of it. What it
    /// did not give counts as unreadable.
    pub(super) fn take_io_error(&mut self) -> Option<io::Error> {
        self.window.broken.take()
    }

    fn record_at(&mut self, offset: u64) -> Option<Found> {
        let seed = Seed { salt: self.salt, offset };
        let header = Header::decode(self.window.get(offset, HEADER_BYTES)?)?;
        // A gap was written where it lies long after what follows it.
        let is_stale = header.kind != RecordKind::Gap
            && self.last_sequence.is_some_and(|last| header.sequence <= last);
        let end = offset.checked_add(header.record_bytes())?;
        if is_stale || end > self.window.end {
            return None;
        }
        let head = header.verify(self.window.get(offset, header.head_bytes())?, seed)?;
        let payload = self.payload_of(&head, offset)?;
        Some(Found { head, offset, payload })
    }

    fn payload_of(&mut self, head: &Head, offset: u64) -> Option<Payload> {
        let Header { kind, payload_bytes, .. } = head.header;
        if kind == RecordKind::Gap {
            return Some(Payload::Sound(Bytes::new()));
        }
        let start = offset.checked_add(head.header.head_bytes() as u64)?;
        let payload = self.window.get(start, usize::try_from(payload_bytes).ok()?)?;
        if !head.is_payload_sound(payload) {
            return Some(Payload::Damaged);
        }
        let is_kept = self.keeps_payloads || kind != RecordKind::Object;
        let kept = if is_kept { Bytes::copy_from_slice(payload) } else { Bytes::new() };
        Some(Payload::Sound(kept))
    }
}

/// Whether what lies at the start of `range` had been synced when the segment
/// with this salt ended with `range`: a later batch is there, which was begun
/// after that. Blocks.
///
/// # Errors
/// When no such batch was found, and the disk refused to read where it may be.
pub(super) fn is_synced(file: &dyn File, salt: u64, range: Range<u64>) -> io::Result<bool> {
    let start = range.start;
    let mut rest = SegmentScan::new(file, ScanRequest { salt, range, keeps_payloads: false });
    while let Some(item) = rest.next() {
        if let Item::Record(found) = item
            && u64::from(found.head.header.batch_start) > start
        {
            return Ok(true);
        }
    }
    rest.take_io_error().map_or(Ok(false), Err)
}

/// Reads sector by sector, and leaves zeros where the disk gives nothing: the last
/// reason is returned. The pieces are the disk's own, so that nothing beside a bad
/// sector is lost with it. Blocks.
pub(super) fn read_by_sector(file: &dyn File, bytes: &mut [u8], start: u64) -> Option<io::Error> {
    let mut broken = None;
    let (mut at, mut rest) = (start, bytes);
    while !rest.is_empty() {
        let within = usize::try_from(at % SECTOR_BYTES as u64).unwrap_or(0);
        let (sector, behind) = rest.split_at_mut((SECTOR_BYTES - within).min(rest.len()));
        if let Err(error) = file.read_at(sector, at) {
            sector.fill(0);
            broken = Some(error);
        }
        at += sector.len() as u64;
        rest = behind;
    }
    broken
}

/// The part of a file that is in memory.
#[derive(Debug)]
struct Window<'a> {
    file: &'a dyn File,
    end: u64,
    start: u64,
    bytes: Vec<u8>,
    broken: Option<io::Error>,
}

impl Window<'_> {
    /// Bytes of the file; `None` past its end.
    fn get(&mut self, offset: u64, length: usize) -> Option<&[u8]> {
        let end = offset.checked_add(length as u64)?;
        if end > self.end {
            return None;
        }
        let held = self.start..self.start + self.bytes.len() as u64;
        if offset < held.start || end > held.end {
            self.load(offset, length);
        }
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(from..from.checked_add(length)?)
    }

    fn load(&mut self, offset: u64, length: usize) {
        let left = usize::try_from(self.end - offset).unwrap_or(usize::MAX);
        let wanted = length.max(WINDOW_BYTES).min(left);
        self.start = offset;
        self.bytes.clear();
        self.bytes.resize(wanted, 0);
        match self.file.read_at(&mut self.bytes, offset) {
            Ok(read) => self.bytes.truncate(read),
            Err(_) => self.load_by_sector(),
        }
    }

    /// Leaves zeros where the disk gives nothing.
    fn load_by_sector(&mut self) {
        if let Some(error) = read_by_sector(self.file, &mut self.bytes, self.start) {
            self.broken = Some(error);
        }
    }
}
