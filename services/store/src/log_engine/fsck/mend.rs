//! Taking unreadable bytes out of the log: a copy goes into quarantine, and
//! where they lay a record says that they were given up.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_runtime::{File, OpenMode};

use crate::StoreError;
use crate::disk::{Disk, io_error};
use crate::log_engine::index::{DoubtfulRegion, Index};
use crate::log_engine::large::LargeFiles;
use crate::log_engine::record::{ALIGNMENT, HEADER_BYTES, Seed, encode_gap};
use crate::log_engine::scan::read_by_sector;
use crate::log_engine::segment::SegmentId;
use crate::payload_file::object_file::{ObjectFile, SCAN_TAIL_BYTES};

/// Copies of what was taken out, relative to the volume.
const QUARANTINE: &str = "quarantine";

/// What is copied at once: a page. Where the disk gives nothing, so much is left
/// out.
const PIECE_BYTES: usize = 4096;

/// How often the disk is asked for a page before it is written anew.
const READS: usize = 3;

/// Copies unreadable parts of the log to `quarantine/log-<segment>-<offset>`,
/// durably. A copy that an earlier repair made stays. Blocks.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::NoSpace`], [`StoreError::Poisoned`].
pub(super) fn quarantine(
    disk: &Arc<Disk>,
    regions: &[(SegmentId, DoubtfulRegion)],
) -> Result<(), StoreError> {
    if regions.is_empty() {
        return Ok(());
    }
    let directory = disk.path(QUARANTINE);
    make_quarantine(disk)?;
    for (id, region) in regions {
        let name = format!("log-{:016x}-{:016x}", region.segment, region.start);
        copy(disk, *id, region, &directory.join(name))?;
    }
    disk.sync_directory(&directory)
}

/// Moves whole payload files that nothing points to into quarantine: the records
/// that did may be among what was given up, and each file tells whose it is.
/// What an interrupted write left is among them, too. Blocks.
///
/// # Errors
/// As [`quarantine`].
pub(super) fn set_aside_payloads(disk: &Arc<Disk>, index: &dyn Index) -> Result<(), StoreError> {
    let large = LargeFiles::new(Arc::clone(disk), 0);
    let directory = disk.path(QUARANTINE);
    for number in large.list_directories()? {
        let mut is_changed = false;
        for file in large.list(number)? {
            let path = large.path(file);
            let is_whole = || ObjectFile::open(disk, path.clone(), SCAN_TAIL_BYTES).is_ok();
            if index.file(file)?.is_none() && is_whole() {
                make_quarantine(disk)?;
                let name = format!("large-{:016x}-{:016x}", file.directory, file.number);
                disk.rename(&path, &directory.join(name))?;
                is_changed = true;
            }
        }
        if is_changed {
            disk.sync_directory(&directory)?;
            large.sync_directory(number)?;
        }
    }
    Ok(())
}

fn make_quarantine(disk: &Disk) -> Result<(), StoreError> {
    let directory = disk.path(QUARANTINE);
    disk.files()
        .create_directories(&directory)
        .map_err(io_error("create the directory", &directory))?;
    disk.sync_directory(disk.root())
}

fn copy(disk: &Disk, id: SegmentId, region: &DoubtfulRegion, to: &Path) -> Result<(), StoreError> {
    let bytes = region.end - region.start;
    if is_copied(disk, to, bytes)? {
        return Ok(());
    }
    let from = disk.open(&disk.path(id.path()))?;
    let file = disk.create(to)?;
    let mut at = 0;
    let mut piece = vec![0; PIECE_BYTES];
    while at < bytes {
        let wanted = usize::try_from(bytes - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let piece = piece.get_mut(..wanted).unwrap_or_default();
        // What the disk does not give is zeros in the copy.
        if from.read_at(piece, region.start + at).is_err() {
            let _ = read_by_sector(&*from, piece, region.start + at);
        }
        disk.write(&*file, to, piece, at)?;
        at += wanted as u64;
    }
    disk.sync_file(&*file, to)
}

/// Whether a copy is there; one that was cut short is removed.
fn is_copied(disk: &Disk, to: &Path, bytes: u64) -> Result<bool, StoreError> {
    let directory = to.parent().map(Path::to_owned).unwrap_or_default();
    if !disk.list(&directory)?.contains(&to.to_owned()) {
        return Ok(false);
    }
    let length = disk.open(to)?.len().map_err(io_error("look at the length of", to))?;
    if length < bytes {
        disk.remove(to)?;
    }
    Ok(length >= bytes)
}

/// A segment that is changed in place.
struct Mended<'a> {
    disk: &'a Disk,
    path: PathBuf,
    file: Box<dyn File>,
}

impl<'a> Mended<'a> {
    fn open(disk: &'a Disk, id: SegmentId) -> Result<Self, StoreError> {
        let path = disk.path(id.path());
        let file = disk.files().open(&path, OpenMode::Write).map_err(io_error("open", &path))?;
        Ok(Self { disk, path, file })
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<(), StoreError> {
        self.disk.write(&*self.file, &self.path, bytes, offset)
    }

    /// Writes anew which pages of `range` the disk cannot read, with `bytes` at
    /// `offset`. What it does give of such a page is kept, and the rest is zeros.
    /// No part of it could be written alone: its other parts would be read first.
    fn renew(&self, range: Range<u64>, bytes: &[u8], offset: u64) -> Result<(), StoreError> {
        let from = self.disk.open(&self.path)?;
        let length = from.len().map_err(io_error("look at the length of", &self.path))?;
        let size = PIECE_BYTES as u64;
        let mut start = range.start - range.start % size;
        while start < range.end {
            let mut page = [0; PIECE_BYTES];
            let wanted = usize::try_from(length.saturating_sub(start)).unwrap_or(PIECE_BYTES);
            let there = page.get_mut(..wanted.min(PIECE_BYTES)).unwrap_or_default();
            if self.is_unreadable(&*from, there, start)? {
                let _ = read_by_sector(&*from, there, start);
                overlay(&mut page, start, bytes, offset);
                self.write(&page, start)?;
                if start + size > length {
                    self.set_len(length)?;
                }
            }
            start += size;
        }
        Ok(())
    }

    /// Whether the disk does not give a page. Sound records may lie on it: an error
    /// that passes, or that says nothing of the disk, does not count.
    fn is_unreadable(
        &self,
        file: &dyn File,
        page: &mut [u8],
        start: u64,
    ) -> Result<bool, StoreError> {
        for _ in 0..READS {
            match file.read_at(page, start).map_err(io_error("read", &self.path)) {
                Ok(_) => return Ok(false),
                Err(error) if error.is_of_the_medium() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn set_len(&self, bytes: u64) -> Result<(), StoreError> {
        self.file.set_len(bytes).map_err(io_error("change the length of", &self.path))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.disk.sync_file(&*self.file, &self.path)
    }
}

/// Puts `bytes`, whose place is `offset`, into what of it lies in the page that
/// begins at `start`.
fn overlay(page: &mut [u8], start: u64, bytes: &[u8], offset: u64) {
    for (place, byte) in (offset..).zip(bytes) {
        let within = place.checked_sub(start).and_then(|within| usize::try_from(within).ok());
        if let Some(slot) = within.and_then(|within| page.get_mut(within)) {
            *slot = *byte;
        }
    }
}

/// Writes a record over an unreadable part of the log that takes its place.
/// Touches nothing else that can be read, and is durable when it returns. `false`
/// when that cannot be done. Blocks.
///
/// # Errors
/// As [`quarantine`].
pub(super) fn give_up(
    disk: &Disk,
    id: SegmentId,
    region: &DoubtfulRegion,
) -> Result<bool, StoreError> {
    let segment = Mended::open(disk, id)?;
    let path = &segment.path;
    let length = segment.file.len().map_err(io_error("look at the length of", path))?;
    let is_at_end = region.end >= length;
    let bytes = region.end - region.start;
    if bytes < HEADER_BYTES as u64 {
        // No record is so short: it is the front of one whose rest was cut off.
        if !is_at_end {
            return Ok(false);
        }
        segment.renew(region.start..region.end, &[], 0)?;
        segment.set_len(region.start)?;
        segment.sync()?;
        return Ok(true);
    }
    // Records end at such a place, but a file may have been cut anywhere.
    let whole = bytes.next_multiple_of(ALIGNMENT as u64);
    if whole > bytes && !is_at_end {
        return Ok(false);
    }
    let seed = Seed { salt: id.salt, offset: region.start };
    let Some(gap) = encode_gap(seed, whole) else { return Ok(false) };
    // Only where the record lies: what it spans is not read any more.
    segment.renew(region.start..region.start + gap.len() as u64, &gap, region.start)?;
    if whole > bytes {
        segment.set_len(region.start + whole)?;
    }
    segment.write(&gap, region.start)?;
    segment.sync()?;
    Ok(true)
}

/// Writes the header of a segment again. Blocks.
///
/// # Errors
/// As [`quarantine`].
pub(super) fn write_header(disk: &Disk, id: SegmentId) -> Result<(), StoreError> {
    let segment = Mended::open(disk, id)?;
    let header = id.header();
    segment.renew(0..header.len() as u64, &header, 0)?;
    segment.write(&header, 0)?;
    segment.sync()
}
