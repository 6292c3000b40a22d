//! Entries of the index whose record cannot be read: what is known of them is
//! all that is left.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use holdfast_core::name::ObjectName;

use crate::StoreError;
use crate::disk::Disk;
use crate::log_engine::index::{Entry, Index, Place};
use crate::log_engine::record::{Head, RecordKind};
use crate::log_engine::scan::{Item, Payload, ScanRequest, SegmentScan};
use crate::log_engine::segment::SegmentId;
use crate::log_engine::segments::Segments;

/// Reads records at given places.
pub(super) struct Records {
    segments: Segments,
}

impl Records {
    pub(super) fn new(disk: &Arc<Disk>, known: BTreeMap<u64, SegmentId>) -> Self {
        Self { segments: Segments::new(Arc::clone(disk), known) }
    }

    /// The head of the record at a place, and whether its payload is sound;
    /// `None` when no record can be read there. Blocks.
    pub(super) fn read(&self, place: Place) -> Result<Option<(Head, bool)>, StoreError> {
        let Some((id, file)) = self.segments.open(place.segment)? else { return Ok(None) };
        let start = u64::from(place.offset);
        let range = start..start + u64::from(place.length);
        let request = ScanRequest { salt: id.salt, range, keeps_payloads: false };
        match SegmentScan::new(&*file, request).next() {
            Some(Item::Record(found)) if found.offset == start => {
                Ok(Some((found.head, found.payload != Payload::Damaged)))
            }
            _ => Ok(None),
        }
    }

    /// Whether the log alone would bring this entry back: what is known of its
    /// version, and where its payload is.
    fn has(&self, name: &ObjectName, entry: &Entry) -> Result<bool, StoreError> {
        let Some((head, is_sound)) = self.read(entry.place)? else { return Ok(false) };
        let is_this = head.name.as_ref() == Some(name) && head.header.version == entry.stat.version;
        Ok(is_this && (is_sound || head.header.kind != RecordKind::File))
    }

    /// Visits every entry whose record is not there. Blocks; reads a record for
    /// each entry.
    pub(super) fn visit_lost(
        &self,
        index: &dyn Index,
        visit: &mut dyn FnMut(&ObjectName, &Entry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        visit_entries(index, &mut |name, entry| {
            if self.has(name, entry)? { Ok(()) } else { visit(name, entry) }
        })
    }
}

/// Visits every entry of an index, in order. Blocks.
pub(super) fn visit_entries(
    index: &dyn Index,
    visit: &mut dyn FnMut(&ObjectName, &Entry) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut result = Ok(());
    index.scan(Bound::Unbounded, &mut |name, entry| {
        result = visit(&name, &entry);
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result
}
