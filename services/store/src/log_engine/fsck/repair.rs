//! Repairing a volume. The order is what makes it safe to be cut short: what is
//! overwritten has been copied, what the index alone remembers is in the log
//! before the index goes, and only then it is built anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_core::name::ObjectName;

use super::appender::Appender;
use super::check::{Checked, Known};
use super::entries::Records;
use super::files::Files;
use super::walk::{self, Listed};
use super::{Acceptance, Event, Finding, FindingKind, FsckReport, OnEvent, Opened, Volume, mend};
use crate::StoreError;
use crate::disk::Disk;
use crate::log_engine::index::{Content, DoubtfulRegion, Entry, Index, IndexError};
use crate::log_engine::ledger::{Draft as Books, Ledger};
use crate::log_engine::record::{Draft, RecordKind, encode_file, encode_metadata};
use crate::log_engine::recovery::sync_log;
use crate::log_engine::recovery::{INDEX_DIRECTORY, recover, settle_tail};
use crate::log_engine::replay::Replay;
use crate::log_engine::segment::SegmentId;
use crate::log_engine::shared::mark_for_rebuild;
use crc_fast::crc32_iscsi;

/// Checks a volume that nobody uses, and takes away what is wrong with it.
/// Blocks.
pub(super) fn repair(
    volume: &Volume<'_>,
    report: &mut FsckReport,
    on: &mut OnEvent<'_>,
) -> Result<(), StoreError> {
    let listed = walk::list(&volume.disk)?;
    if !listed.duplicates.is_empty() {
        // Which of them is the right one, only people can tell.
        return volume.check(report, on);
    }
    let mut counted = FsckReport::default();
    let (checked, opened) = {
        let mut on = |event: Event| {
            counted.count(&event);
            on(event);
        };
        let opened = bring_up_to_date(volume, &listed, &mut on)?;
        volume.check_log(&listed, opened, report, &mut on)?
    };
    settle_tail(&volume.disk, &listed.segments, checked.torn)?;
    let mends = Mends { volume, listed: &listed, checked: &checked };
    let (index, ledger) = match opened {
        Some(opened) if !needs_rebuild(&counted, &checked) => opened,
        opened => {
            mends.accept(&counted, opened.is_some(), on);
            mends.run(opened.as_ref(), on)?;
            drop(opened);
            report.is_rebuilt = true;
            let rebuilt = rebuild(volume, on)?;
            if checked.is_damaged() {
                mend::set_aside_payloads(&volume.disk, &*rebuilt.0)?;
            }
            rebuilt
        }
    };
    check_files(volume, &*index, ledger, report, on)
}

/// Damage that stays when the index is built anew calls for no rebuild.
fn needs_rebuild(counted: &FsckReport, checked: &Checked) -> bool {
    let is_known = |kind: &FindingKind| *kind == FindingKind::DamagedRecord;
    checked.unmarked_count > 0 || counted.damage.keys().any(|kind| !is_known(kind))
}

/// Opens the index and takes in what it lags behind, so that what it remembers
/// is the newest.
fn bring_up_to_date(
    volume: &Volume<'_>,
    listed: &Listed,
    on: &mut OnEvent<'_>,
) -> Result<Option<Opened>, StoreError> {
    let Some((mut index, mut ledger)) = volume.open_index(listed, on)? else { return Ok(None) };
    sync_log(&volume.disk, &listed.segments, ledger.checkpoint.covered)?;
    let replayed = Replay {
        disk: &volume.disk,
        index: &mut index,
        segments: &listed.segments,
        missing: Vec::new(),
        mends: true,
        progress: &mut |_| {},
    }
    .run(&mut ledger);
    match replayed {
        Ok(_) => Ok(Some((index, ledger))),
        Err(StoreError::Index { source: IndexError::Damaged { reason } }) => {
            let path = volume.disk.path(INDEX_DIRECTORY);
            let finding = Finding::new(FindingKind::IndexUnusable, path);
            on(Event::Finding(finding.because(reason)));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What is done about the damage that was found.
struct Mends<'a> {
    volume: &'a Volume<'a>,
    listed: &'a Listed,
    checked: &'a Checked,
}

impl Mends<'_> {
    fn disk(&self) -> &Arc<Disk> {
        &self.volume.disk
    }

    fn accept(&self, counted: &FsckReport, had_index: bool, on: &mut OnEvent<'_>) {
        let unreadable = &self.checked.unreadable;
        let remembered = counted.damage.get(&FindingKind::EntryWithoutRecord);
        let acceptance = Acceptance {
            region_count: unreadable.len() as u64,
            region_bytes: unreadable.iter().map(|region| region.end - region.start).sum(),
            missing_segment_count: self.checked.missing.len() as u64,
            remembered_count: remembered.copied().unwrap_or(0),
            had_index,
        };
        if self.checked.is_damaged() {
            on(Event::Accepting(acceptance));
        }
    }

    fn run(&self, opened: Option<&Opened>, on: &mut OnEvent<'_>) -> Result<(), StoreError> {
        let disk = self.disk();
        let regions = self.regions();
        mend::quarantine(disk, &regions)?;
        self.write_down(opened)?;
        for (id, region) in &regions {
            if !mend::give_up(disk, *id, region)? {
                let finding = Finding::new(FindingKind::NotRepaired, disk.path(id.path()));
                on(Event::Finding(finding.at(region.start, region.end - region.start)));
            }
        }
        let headers = self.checked.bad_headers.iter();
        headers
            .filter_map(|number| self.listed.segments.get(number))
            .try_for_each(|id| mend::write_header(disk, *id))
    }

    fn regions(&self) -> Vec<(SegmentId, DoubtfulRegion)> {
        let with_id = |region: &DoubtfulRegion| {
            self.listed.segments.get(&region.segment).map(|id| (*id, *region))
        };
        self.checked.unreadable.iter().filter_map(with_id).collect()
    }

    /// Writes what only the index knows to the log, and that segments are gone
    /// for good.
    fn write_down(&self, opened: Option<&Opened>) -> Result<(), StoreError> {
        let mut appender = self.appender(opened);
        if let Some((index, ledger)) = opened {
            let known = Known { index: &**index, ledger };
            self.write_down_entries(known, &mut appender)?;
            if self.checked.is_damaged() {
                self.write_down_forgotten(known, &mut appender)?;
            }
        }
        for number in &self.checked.missing {
            let number = number.to_le_bytes();
            appender.append(&Draft::of_log(RecordKind::Removed, &number), None)?;
        }
        if opened.is_some() {
            // All that the index covers was synced, also what nothing that was written
            // later tells of: the index that is built anew must not take damage at the
            // end of the log for an interrupted write.
            appender.append(&Draft::of_log(RecordKind::Seal, &[]), None)?;
        }
        appender.finish()
    }

    fn appender(&self, opened: Option<&Opened>) -> Appender {
        let numbers: BTreeSet<u64> = self.listed.segments.keys().copied().collect();
        let checkpoint = opened.map(|(_, ledger)| &ledger.checkpoint);
        let covered = checkpoint.map_or(0, |checkpoint| checkpoint.covered.segment);
        let last = [numbers.last(), self.checked.missing.last()].into_iter().flatten().max();
        let next_segment = last.copied().unwrap_or(0).max(covered) + 1;
        let next_sequence = checkpoint.map_or(0, |checkpoint| checkpoint.next_sequence);
        let next_sequence = next_sequence.max(self.checked.max_sequence.saturating_add(1));
        let segment_bytes = self.volume.options.segment_bytes;
        Appender::new(self.disk(), segment_bytes, numbers, next_segment, next_sequence)
    }

    /// Entries whose record is gone.
    fn write_down_entries(
        &self,
        known: Known<'_>,
        appender: &mut Appender,
    ) -> Result<(), StoreError> {
        let records = Records::new(self.disk(), self.listed.segments.clone());
        records.visit_lost(known.index, &mut |name, entry| {
            let is_file = matches!(entry.content, Content::File(_));
            // Of a damaged record only the reference to its file can be saved.
            let record = records.read(entry.place)?;
            let is_cut =
                is_file && record.is_some_and(|(head, _)| head.name.as_ref() == Some(name));
            match self.checked.is_lost(entry.place) || is_cut {
                true => write_down(appender, name, entry),
                false => Ok(()),
            }
        })
    }

    /// Names of which the log has records and the index has nothing: what
    /// forgot them was lost, and must not be lost with the index.
    fn write_down_forgotten(
        &self,
        known: Known<'_>,
        appender: &mut Appender,
    ) -> Result<(), StoreError> {
        let records = Records::new(self.disk(), self.listed.segments.clone());
        for place in self.checked.pending.values() {
            let Some((head, _)) = records.read(*place)? else { continue };
            let Some(name) = head.name.filter(|_| head.header.kind != RecordKind::Forget) else {
                continue;
            };
            if known.index.get(&name)?.is_none() {
                let segment = appender.segment().to_le_bytes();
                let record = Draft::of_log(RecordKind::Forget, &segment);
                let version = head.header.version;
                appender.append(&Draft { name: Some(&name), version, ..record }, None)?;
            }
        }
        Ok(())
    }
}

/// Writes an entry to the log as far as it can be without its record.
fn write_down(appender: &mut Appender, name: &ObjectName, entry: &Entry) -> Result<(), StoreError> {
    let metadata =
        encode_metadata(&entry.stat.metadata).map_err(|_| StoreError::MetadataTooLong)?;
    let (kind, payload) = match entry.content {
        Content::Nothing => (RecordKind::Tombstone, Vec::new()),
        Content::File(file) => (RecordKind::File, encode_file(file).to_vec()),
        Content::Inline | Content::Lost => (RecordKind::Lost, Vec::new()),
    };
    let body: (&[u8], u32) = (&payload, crc32_iscsi(&payload));
    let record = Draft::of_stat(kind, name, &entry.stat, &metadata, body);
    appender.append(&record, Some(entry.origin))
}

/// Builds the index anew; cut short, the next start does it.
fn rebuild(
    volume: &Volume<'_>,
    on: &mut OnEvent<'_>,
) -> Result<(Box<dyn Index>, Ledger), StoreError> {
    let disk = &volume.disk;
    mark_for_rebuild(disk)?;
    let recovered = recover(disk, volume.options, &mut |_| {})?;
    if recovered.report.doubtful_count > 0 {
        on(Event::Finding(Finding::new(FindingKind::NotRepaired, disk.path("log"))));
    }
    Ok((recovered.index, recovered.ledger))
}

/// Marks versions whose payload file is damaged, so that another copy of them
/// is taken.
fn check_files(
    volume: &Volume<'_>,
    index: &dyn Index,
    mut ledger: Ledger,
    report: &mut FsckReport,
    on: &mut OnEvent<'_>,
) -> Result<(), StoreError> {
    let mut files = Files::new(&volume.disk, volume.is_quick, on);
    report.file_count = files.check(index, &mut |name, entry| {
        if entry.is_damaged {
            return Ok(());
        }
        let mut books = Books::new(&ledger);
        books.revise(name.clone(), Entry { is_damaged: true, ..entry.clone() });
        let changes = books.changes();
        index.apply(&books.into_batch())?;
        ledger.absorb(changes);
        Ok(())
    })?;
    Ok(index.persist()?)
}
