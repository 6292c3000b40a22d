//! Going through the segments of a volume, with what is known of each before
//! its records are looked at.

use std::collections::BTreeMap;

use holdfast_runtime::File;

use super::finding::{Finding, FindingKind};
use crate::StoreError;
use crate::disk::{Disk, io_error};
use crate::log_engine::replay::TornTail;
use crate::log_engine::scan::{Item, Payload, ScanRequest, SegmentScan, is_synced};
use crate::log_engine::segment::{HeaderCheck, SEGMENT_HEADER_BYTES, SegmentId};

/// The segments that there are; more than one file of a number is damage.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) segments: BTreeMap<u64, SegmentId>,
    pub(super) duplicates: Vec<SegmentId>,
}

/// Lists the log.
pub(super) fn list(disk: &Disk) -> Result<Listed, StoreError> {
    let mut listed = Listed::default();
    for id in disk.list(&disk.path("log"))?.iter().filter_map(|path| SegmentId::of_file(path)) {
        if let Some(other) = listed.segments.insert(id.number, id) {
            listed.duplicates.push(other);
        }
    }
    Ok(listed)
}

/// A segment that is being looked through.
pub(super) struct Segment<'a> {
    pub(super) id: SegmentId,
    file: Box<dyn File>,
    pub(super) length: u64,
    /// From where on an interrupted write may be at its end. What the index covers
    /// was synced, and may have been acknowledged.
    torn_from: Option<u64>,
    disk: &'a Disk,
}

impl<'a> Segment<'a> {
    /// Opens one; `None` when it is gone.
    pub(super) fn open(
        disk: &'a Disk,
        id: SegmentId,
        torn_from: Option<u64>,
    ) -> Result<Option<Self>, StoreError> {
        let path = disk.path(id.path());
        let file = match disk.open(&path) {
            Err(error) if error.is_no_such_file() => return Ok(None),
            opened => opened?,
        };
        let length = file.len().map_err(io_error("look at the length of", &path))?;
        Ok(Some(Self { id, file, length, torn_from, disk }))
    }

    /// What is wrong with its header. One that is all there is was never synced.
    pub(super) fn check_header(&self) -> Result<Option<Finding>, StoreError> {
        let path = self.disk.path(self.id.path());
        let check = self.id.read_header(&*self.file, &path)?;
        let is_begun = self.length > SEGMENT_HEADER_BYTES as u64;
        if check == HeaderCheck::Damaged && is_begun {
            let header = Finding::new(FindingKind::SegmentHeader, path);
            return Ok(Some(header.at(0, SEGMENT_HEADER_BYTES as u64)));
        }
        Ok(None)
    }

    /// Visits what is in it, up to the end of an interrupted write, which is
    /// given back.
    pub(super) fn visit(
        &self,
        visit: &mut dyn FnMut(Item) -> Result<(), StoreError>,
    ) -> Result<Option<TornTail>, StoreError> {
        let range = SEGMENT_HEADER_BYTES as u64..self.length;
        let request = ScanRequest { salt: self.id.salt, range, keeps_payloads: false };
        let mut scan = SegmentScan::new(&*self.file, request);
        while let Some(item) = scan.next() {
            let (start, is_damaged) = match &item {
                Item::Record(found) => (found.offset, found.payload == Payload::Damaged),
                Item::Unreadable(range) => (range.start, true),
            };
            // What the disk refuses to give is no interrupted write.
            let is_refused = is_damaged && scan.take_io_error().is_some();
            let may_be_torn = self.torn_from.is_some_and(|from| start >= from);
            if is_damaged && may_be_torn && !is_refused {
                let rest = start..self.length;
                // An error is no proof that nothing follows.
                if is_synced(&*self.file, self.id.salt, rest).is_ok_and(|is_synced| !is_synced) {
                    let bytes = self.length - start;
                    return Ok(Some(TornTail { segment: self.id.number, offset: start, bytes }));
                }
            }
            visit(item)?;
        }
        Ok(None)
    }
}
