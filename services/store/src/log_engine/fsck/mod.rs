//! Checking a volume, and accepting what is lost of it.
//!
//! | module | does |
//! |---|---|
//! | `finding` | what is found, in words |
//! | `walk`, `check` | the log, and the index against it |
//! | `entries` | entries of the index without a record |
//! | `files` | payload files |
//! | `repair` | the order in which damage is taken away |
//! | `appender`, `mend` | what is written to the log for that, at its end and in place |

mod appender;
mod check;
mod entries;
mod files;
mod finding;
mod mend;
mod repair;
mod walk;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use holdfast_runtime::Runtime;
use serde::Serialize;

use self::check::{Check, Checked, Known};
use self::entries::{Records, visit_entries};
use self::files::Files;
pub use self::finding::{Finding, FindingKind};
use self::walk::Listed;
use super::index::{Index, IndexError};
use super::ledger::Ledger;
use super::options::LogStoreOptions;
use super::recovery::{INDEX_DIRECTORY, Usable, index_engine, open_index};
use super::replay::Progress;
use super::shared::REBUILD_MARKER;
use crate::StoreError;
use crate::disk::Disk;
use crate::volume::open_existing;

/// How a volume is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FsckRequest {
    /// Leaves the payloads of payload files out; their ends are looked at.
    pub is_quick: bool,
    /// Takes damage away, and with it what is lost: whoever asks for it accepts
    /// that.
    pub is_repair: bool,
}

/// What is told on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// Something was found.
    Finding(Finding),
    /// A repair is about to accept a loss.
    Accepting(Acceptance),
    /// So much was read: first of the log, then of payload files, then, by a
    /// repair, once more.
    Progress(Progress),
}

/// What a repair gives up, and what it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Acceptance {
    /// Parts of the log that cannot be read.
    pub region_count: u64,
    /// Their length.
    pub region_bytes: u64,
    /// Segments that are missing.
    pub missing_segment_count: u64,
    /// Versions of which the index remembers something: a tombstone is kept
    /// whole, and so is a version whose payload has a file of its own; of
    /// others it stays known that they were there.
    pub remembered_count: u64,
    /// Whether an index was there that goes with the log. Without one, what lay
    /// only there is absent from then on, or there in an older version.
    pub had_index: bool,
}

/// What a check comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct FsckReport {
    /// Segments that were looked at, and their bytes.
    pub log_bytes: u64,
    /// Records that were found.
    pub record_count: u64,
    /// Entries of the index.
    pub entry_count: u64,
    /// Payload files that were looked at.
    pub file_count: u64,
    /// Findings that are damage, by kind.
    pub damage: BTreeMap<FindingKind, u64>,
    /// Findings that are not.
    pub note_count: u64,
    /// Whether the index was built anew.
    pub is_rebuilt: bool,
}

impl FsckReport {
    /// How many findings are damage.
    #[must_use]
    pub fn damage_count(&self) -> u64 {
        self.damage.values().sum()
    }

    /// Whether a repair left something as it is.
    #[must_use]
    pub fn is_repaired(&self) -> bool {
        let stays = [FindingKind::NotRepaired, FindingKind::DuplicateSegment];
        stays.iter().all(|kind| !self.damage.contains_key(kind))
    }

    fn count(&mut self, event: &Event) {
        match event {
            Event::Finding(finding) if finding.is_damage => {
                *self.damage.entry(finding.kind).or_default() += 1;
            }
            Event::Finding(_) => self.note_count += 1,
            Event::Accepting(_) | Event::Progress(_) => {}
        }
    }
}

/// Who is told.
type OnEvent<'a> = dyn FnMut(Event) + 'a;

/// Checks the volume in `root`, and repairs it if asked to. What is found is
/// told as it is found; memory does not grow with the volume.
///
/// On a volume that a process uses, only whole segments and payload files are
/// checked, and nothing is changed. On any other, nothing but the index is
/// written to without a repair, and to that only what opening it takes.
///
/// A repair cut short at any point can be done again. Blocks.
///
/// # Errors
/// [`StoreError::InUse`] for a repair, [`StoreError::Format`] when there is no
/// volume of this engine and release, [`StoreError::Index`] when the index
/// cannot be read for another reason than damage, [`StoreError::Poisoned`],
/// [`StoreError::NoSpace`], [`StoreError::Io`].
pub fn fsck(
    runtime: &Runtime,
    root: &Path,
    options: &LogStoreOptions,
    request: FsckRequest,
    on: &mut dyn FnMut(Event),
) -> Result<FsckReport, StoreError> {
    let disk = Arc::new(Disk::new(runtime.clone(), root.to_owned(), options.reserve_bytes));
    let lock = match open_existing(&disk, &super::volume::spec()) {
        Ok(lock) => Some(lock),
        Err(StoreError::InUse { .. }) if !request.is_repair => None,
        Err(error) => return Err(error),
    };
    let mut report = FsckReport::default();
    let mut counted = FsckReport::default();
    let mut on = |event: Event| {
        counted.count(&event);
        on(event);
    };
    let volume = Volume { disk, options, is_quick: request.is_quick };
    if lock.is_none() {
        volume.check_beside(&mut report, &mut on)?;
    } else if request.is_repair {
        repair::repair(&volume, &mut report, &mut on)?;
    } else {
        volume.check(&mut report, &mut on)?;
    }
    Ok(FsckReport { damage: counted.damage, note_count: counted.note_count, ..report })
}

/// A volume that is being checked.
struct Volume<'a> {
    disk: Arc<Disk>,
    options: &'a LogStoreOptions,
    is_quick: bool,
}

/// An index that goes with the log, and its books.
type Opened = (Box<dyn Index>, Ledger);

impl Volume<'_> {
    fn check_beside(
        &self,
        report: &mut FsckReport,
        on: &mut OnEvent<'_>,
    ) -> Result<(), StoreError> {
        let path = self.disk.root().to_owned();
        on(Event::Finding(Finding::new(FindingKind::InUse, path)));
        let listed = walk::list(&self.disk)?;
        let check = Check { disk: &self.disk, listed: &listed, known: None, is_in_use: true, on };
        report.take(&{ check }.run()?);
        report.file_count = Files::new(&self.disk, self.is_quick, on).check_all()?;
        Ok(())
    }

    fn check(&self, report: &mut FsckReport, on: &mut OnEvent<'_>) -> Result<(), StoreError> {
        let listed = walk::list(&self.disk)?;
        let opened = self.open_index(&listed, on)?;
        let (_, opened) = self.check_log(&listed, opened, report, on)?;
        report.file_count = match &opened {
            Some((index, _)) => {
                let mut files = Files::new(&self.disk, self.is_quick, on);
                files.check(&**index, &mut |_, _| Ok(()))?
            }
            None => Files::new(&self.disk, self.is_quick, on).check_all()?,
        };
        Ok(())
    }

    /// The index, if there is one that goes with the log.
    fn open_index(
        &self,
        listed: &Listed,
        on: &mut OnEvent<'_>,
    ) -> Result<Option<Opened>, StoreError> {
        let directory = self.disk.path(INDEX_DIRECTORY);
        let is_marked = self.disk.list(self.disk.root())?.contains(&self.disk.path(REBUILD_MARKER));
        let is_there = self.disk.list(&directory).is_ok_and(|files| !files.is_empty());
        if is_marked || !is_there {
            on(Event::Finding(Finding::new(FindingKind::NoIndex, directory)));
            return Ok(None);
        }
        let engine = index_engine(&self.disk, self.options);
        match open_index(&self.disk, &*engine, &listed.segments)? {
            Usable::Yes(index, ledger) => Ok(Some((index, ledger))),
            Usable::No(unfit) => {
                let kind = if unfit.is_of_other_version {
                    FindingKind::IndexOutdated
                } else {
                    FindingKind::IndexUnusable
                };
                let finding = Finding::new(kind, directory);
                on(Event::Finding(finding.because(unfit.reason)));
                Ok(None)
            }
        }
    }

    /// Checks the log against the index, which comes back unless it turned out
    /// to be damaged.
    fn check_log(
        &self,
        listed: &Listed,
        opened: Option<Opened>,
        report: &mut FsckReport,
        on: &mut OnEvent<'_>,
    ) -> Result<(Checked, Option<Opened>), StoreError> {
        match self.check_log_with(listed, opened.as_ref(), report, on) {
            Err(StoreError::Index { source: IndexError::Damaged { reason } }) => {
                let path = self.disk.path(INDEX_DIRECTORY);
                let finding = Finding::new(FindingKind::IndexUnusable, path);
                on(Event::Finding(finding.because(reason)));
                drop(opened);
                Ok((self.check_log_with(listed, None, report, on)?, None))
            }
            checked => Ok((checked?, opened)),
        }
    }

    fn check_log_with(
        &self,
        listed: &Listed,
        opened: Option<&Opened>,
        report: &mut FsckReport,
        on: &mut OnEvent<'_>,
    ) -> Result<Checked, StoreError> {
        let known = opened.map(|(index, ledger)| Known { index: &**index, ledger });
        let check = Check { disk: &self.disk, listed, known, is_in_use: false, on };
        let checked = { check }.run()?;
        report.take(&checked);
        let Some(known) = known else { return Ok(checked) };
        report.entry_count = 0;
        visit_entries(known.index, &mut |_, _| {
            report.entry_count += 1;
            Ok(())
        })?;
        if report.entry_count != checked.matched_count || checked.lost_reference_count > 0 {
            self.tell_lost(listed, known, on)?;
        }
        Ok(checked)
    }

    fn tell_lost(
        &self,
        listed: &Listed,
        known: Known<'_>,
        on: &mut OnEvent<'_>,
    ) -> Result<(), StoreError> {
        let records = Records::new(&self.disk, listed.segments.clone());
        records.visit_lost(known.index, &mut |name, entry| {
            let place = entry.place;
            let path = match listed.segments.get(&place.segment) {
                Some(id) => self.disk.path(id.path()),
                None => self.disk.path("log"),
            };
            let finding = Finding::new(FindingKind::EntryWithoutRecord, path)
                .at(place.offset.into(), place.length.into())
                .of(name, entry.stat.version);
            on(Event::Finding(finding));
            Ok(())
        })
    }
}

impl FsckReport {
    fn take(&mut self, checked: &Checked) {
        self.log_bytes = checked.log_bytes;
        self.record_count = checked.record_count;
    }
}
