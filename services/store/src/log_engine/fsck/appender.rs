//! Writing records to the end of a log that nobody has open: into a segment of
//! their own, as one batch.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_runtime::File;

use crate::StoreError;
use crate::disk::Disk;
use crate::log_engine::record::{Draft, Numbers, RecordKind, Seed};
use crate::log_engine::segment::{SEGMENT_HEADER_BYTES, SegmentId};

/// What is gathered before it is written.
const BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Appends to the log. Cut short before [`Self::finish`], what it wrote is the
/// end of an interrupted write, of which any part may count.
pub(super) struct Appender {
    disk: Arc<Disk>,
    segment_bytes: u64,
    /// The segments that there are.
    numbers: BTreeSet<u64>,
    next_segment: u64,
    next_sequence: u64,
    open: Option<Open>,
}

struct Open {
    id: SegmentId,
    file: Box<dyn File>,
    /// Bytes that are written.
    end: u64,
    buffer: Vec<u8>,
}

impl Appender {
    /// `next_segment` and `next_sequence` are above all that were ever used.
    pub(super) fn new(
        disk: &Arc<Disk>,
        segment_bytes: u32,
        numbers: BTreeSet<u64>,
        next_segment: u64,
        next_sequence: u64,
    ) -> Self {
        let (disk, segment_bytes) = (Arc::clone(disk), segment_bytes.into());
        Self { disk, segment_bytes, numbers, next_segment, next_sequence, open: None }
    }

    /// The segment that the next record goes to.
    pub(super) fn segment(&self) -> u64 {
        self.open.as_ref().map_or(self.next_segment, |open| open.id.number)
    }

    /// Appends a record; a copy of an earlier one has the origin of that. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::NoSpace`], [`StoreError::Poisoned`].
    pub(super) fn append(
        &mut self,
        record: &Draft<'_>,
        origin: Option<u64>,
    ) -> Result<(), StoreError> {
        let length = record.length() as u64;
        let is_full = |open: &Open| open.place() + length > self.segment_bytes;
        if self.open.as_ref().is_some_and(is_full) {
            self.close()?;
        }
        if self.open.is_none() {
            self.begin()?;
        }
        self.write(record, origin)
    }

    /// Makes all of it durable. Blocks.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub(super) fn finish(mut self) -> Result<(), StoreError> {
        self.close()
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        let id = SegmentId { number: self.next_segment, salt: self.disk.runtime().random_u64() };
        let file = self.disk.create(&self.disk.path(id.path()))?;
        self.next_segment += 1;
        self.numbers.insert(id.number);
        self.open = Some(Open { id, file, end: 0, buffer: id.header().to_vec() });
        let census: Vec<(u64, u64)> =
            self.numbers.iter().map(|number| (*number, *number)).collect();
        let census = serde_json::to_vec(&census).unwrap_or_default();
        self.write(&Draft::of_log(RecordKind::Census, &census), None)
    }

    fn write(&mut self, record: &Draft<'_>, origin: Option<u64>) -> Result<(), StoreError> {
        let Some(open) = &mut self.open else { return Err(StoreError::WorkLost) };
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let batch_start = u32::try_from(SEGMENT_HEADER_BYTES).unwrap_or(u32::MAX);
        let origin = origin.unwrap_or(sequence);
        let seed = Seed { salt: open.id.salt, offset: open.place() };
        let numbers = Numbers { sequence, origin, batch_start };
        record.encode(&mut open.buffer, seed, numbers).ok_or(StoreError::MetadataTooLong)?;
        if open.buffer.len() >= BUFFER_BYTES { open.flush(&self.disk) } else { Ok(()) }
    }

    fn close(&mut self) -> Result<(), StoreError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        open.flush(&self.disk)?;
        self.disk.sync_file(&*open.file, &self.disk.path(open.id.path()))?;
        self.disk.sync_directory(&self.disk.path("log"))
    }
}

impl Open {
    /// Where the next record begins.
    fn place(&self) -> u64 {
        self.end + self.buffer.len() as u64
    }

    fn flush(&mut self, disk: &Disk) -> Result<(), StoreError> {
        disk.write(&*self.file, &disk.path(self.id.path()), &self.buffer, self.end)?;
        self.end = self.place();
        self.buffer.clear();
        Ok(())
    }
}
