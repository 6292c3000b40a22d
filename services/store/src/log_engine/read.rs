//! Payloads on their way out: from their record, or from a file of their own.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use holdfast_core::name::ObjectName;
use holdfast_core::object::Stat;
use holdfast_core::version::Version;

use super::index::{Content, Entry, FileId, Place};
use super::large;
use super::record::{Header, Seed};
use super::shared::Shared;
use crate::decide::{checked_range, readable};
use crate::disk::io_error;
use crate::payload_file::damage::Damage;
use crate::payload_file::object_file::Chunk;
use crate::payload_file::stream::{OnDamage, PayloadReader, read_twice};
use crate::{Payload, StoreError};

/// How often a read looks again, when what it looked up was moved or replaced
/// before it could be opened. Each time something else was written meanwhile.
const TRIES: usize = 16;

/// What was opened.
enum Opened {
    Inline { stat: Stat, bytes: Bytes },
    Large { stat: Stat, reader: PayloadReader, range: Range<u64>, first: Chunk },
}

/// See [`crate::Store::read`].
pub(super) async fn read(
    shared: &Arc<Shared>,
    name: &ObjectName,
    version: Option<Version>,
    range: Option<Range<u64>>,
) -> Result<Payload, StoreError> {
    let request = Request { shared: Arc::clone(shared), name: name.clone(), version, range };
    match shared.disk.run(move |_| request.open()).await? {
        Opened::Inline { stat, bytes } => {
            let chunk = (!bytes.is_empty()).then_some(Ok(bytes));
            Ok(Payload { stat, bytes: stream::iter(chunk).boxed() })
        }
        Opened::Large { stat, reader, range, first } => {
            Ok(Payload { stat, bytes: reader.stream(range, first) })
        }
    }
}

struct Request {
    shared: Arc<Shared>,
    name: ObjectName,
    version: Option<Version>,
    range: Option<Range<u64>>,
}

impl Request {
    /// Blocks.
    fn open(&self) -> Result<Opened, StoreError> {
        let mut last = None;
        for _ in 0..TRIES {
            let entry = self.shared.lookup(&self.name)?;
            let stat = readable(&self.name, entry.as_ref().map(|entry| &entry.stat), self.version)?;
            let range = checked_range(self.range.clone(), stat.size_bytes)?;
            let Some(entry) = entry else { break };
            let error = match self.open_entry(&entry, stat, range) {
                Ok(opened) => return Ok(opened),
                Err(error) => error,
            };
            // What failed is still what there is: it is not a passing state.
            let again = self.shared.lookup(&self.name)?;
            let is_same =
                |again: Entry| (again.place, again.content) == (entry.place, entry.content);
            if again.is_some_and(is_same) {
                self.shared.on_damage(&self.name, entry.stat.version, &error);
                return Err(error);
            }
            last = Some(error);
        }
        Err(last.unwrap_or_else(|| StoreError::NotFound { name: self.name.clone() }))
    }

    fn open_entry(
        &self,
        entry: &Entry,
        stat: Stat,
        range: Range<u64>,
    ) -> Result<Opened, StoreError> {
        match entry.content {
            Content::Nothing => Err(StoreError::NotFound { name: self.name.clone() }),
            Content::Lost => {
                let damage = Damage::new("the payload", "what was written", "only its record");
                Err(damage.at(self.shared.segment_path(entry.place.segment)))
            }
            Content::Inline => {
                let payload = read_twice(|| self.shared.read_inline(&self.name, entry))?;
                let within = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
                let bytes = within.map(|(start, end)| payload.slice(start..end));
                let bytes = bytes.unwrap_or_default();
                self.shared.disk.metrics().on_read(bytes.len());
                Ok(Opened::Inline { stat, bytes })
            }
            Content::File(file) => self.open_large(file, stat, range),
        }
    }

    fn open_large(
        &self,
        file: FileId,
        stat: Stat,
        range: Range<u64>,
    ) -> Result<Opened, StoreError> {
        let opened = read_twice(|| large::open(&self.shared.large, file, &self.name, &stat))?;
        let (shared, name, version) = (Arc::clone(&self.shared), self.name.clone(), stat.version);
        let on_damage: OnDamage = Arc::new(move |error| {
            if !shared.is_replaced(&name, file) {
                shared.on_damage(&name, version, error);
            }
        });
        let reader = PayloadReader::new(Arc::clone(&self.shared.disk), opened, on_damage);
        let first = reader.first_chunk(&range)?;
        Ok(Opened::Large { stat, reader, range, first })
    }
}

impl Shared {
    /// Whether a name is known to have another payload than this file by now, as
    /// when its version was written again while somebody still reads the damaged
    /// one. Does not block, and what is not known is not told.
    fn is_replaced(&self, name: &ObjectName, file: FileId) -> bool {
        let recent = self.lookup_recent(name).and_then(Result::ok).flatten();
        recent.is_some_and(|entry| entry.content != Content::File(file))
    }

    /// The payload of a record, verified whole. Blocks.
    pub(super) fn read_inline(
        &self,
        name: &ObjectName,
        entry: &Entry,
    ) -> Result<Bytes, StoreError> {
        let Place { segment, offset, length } = entry.place;
        let damaged = |what| {
            let damage = Damage::new(what, "what was written", "something else");
            damage.at(self.segment_path(segment))
        };
        let Some((id, file)) = self.segments.open(segment)? else {
            let damage = Damage::new("the segment", "a file", "none");
            return Err(damage.at(self.segment_path(segment)));
        };
        let mut record = vec![0; usize::try_from(length).unwrap_or(0)];
        let read = file.read_at(&mut record, offset.into());
        let read = read.map_err(io_error("read", &self.segments.path(id)))?;
        if read != record.len() {
            return Err(damaged("the length of a record"));
        }
        let header = Header::decode(&record).ok_or_else(|| damaged("the header of a record"))?;
        let seed = Seed { salt: id.salt, offset: offset.into() };
        let (start, record) = (header.head_bytes(), Bytes::from(record));
        let head = record.get(..start).and_then(|head| header.verify(head, seed));
        let head = head.ok_or_else(|| damaged("the head of a record"))?;
        if (head.name.as_ref(), header.version) != (Some(name), entry.stat.version) {
            return Err(damaged("the name in a record"));
        }
        let payload_bytes = usize::try_from(header.payload_bytes).unwrap_or(usize::MAX);
        let end = start.saturating_add(payload_bytes);
        if record.get(start..end).is_none_or(|payload| !head.is_payload_sound(payload))
            || u64::from(header.payload_bytes) != entry.stat.size_bytes
        {
            return Err(damaged("the payload of a record"));
        }
        Ok(record.slice(start..end))
    }
}
