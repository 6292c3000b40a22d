//! Opening a volume: the index is taken as far as it goes, the log tells the
//! rest, and what an interrupted run left behind is put in order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holdfast_runtime::{File, OpenMode};

use super::doubt::Doubt;
use super::index::{FjallIndexEngine, Index, IndexEngine, IndexError, Position, SegmentUsage};
use super::ledger::{Draft, Ledger};
use super::options::LogStoreOptions;
use super::replay::{Progress, Replay, Replayed, TornTail};
use super::scan::SECTOR_BYTES;
use super::segment::SegmentId;
use super::shared::REBUILD_MARKER;
use crate::StoreError;
use crate::disk::{Disk, io_error};

/// What is written at once of what is written again.
const PIECE_BYTES: usize = 1024 * 1024;

/// Directory of the index, below the volume.
pub(super) const INDEX_DIRECTORY: &str = "index";

/// What was found when a volume was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Why the index was built anew, if it was.
    pub rebuilt_because: Option<String>,
    /// Bytes of the log that were read.
    pub replayed_bytes: u64,
    /// An interrupted batch that was dropped.
    pub torn: Option<TornTail>,
    /// Records that were read whose payload is damaged.
    pub damaged_count: u64,
    /// Parts of the log of which no name can be read.
    pub doubtful_count: u64,
}

/// A log and an index that agree.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) index: Box<dyn Index>,
    pub(super) ledger: Ledger,
    pub(super) segments: BTreeMap<u64, SegmentId>,
    pub(super) next_segment: u64,
    pub(super) doubt: Doubt,
    pub(super) report: OpenReport,
}

/// Which segments the volume has.
///
/// # Errors
/// [`StoreError::Io`], and [`StoreError::Format`] when two have one number.
pub(super) fn list_segments(disk: &Disk) -> Result<BTreeMap<u64, SegmentId>, StoreError> {
    let mut segments = BTreeMap::new();
    for path in disk.list(&disk.path("log"))? {
        let Some(id) = SegmentId::of_file(&path) else {
            tracing::warn!(path = %path.display(), "this file is not one of the volume's; it is left alone");
            continue;
        };
        if id.number == u64::MAX {
            // The next one would have no number.
            let reason = "no volume comes to this number of a segment; move it away";
            return Err(StoreError::Format { path, reason: reason.to_owned() });
        }
        if segments.insert(id.number, id).is_some() {
            let reason = "two segments have one number; move the one that does not belong here \
                          away";
            return Err(StoreError::Format { path, reason: reason.to_owned() });
        }
    }
    Ok(segments)
}

/// Whether the index goes with the log, or why it is built anew.
pub(super) enum Usable {
    Yes(Box<dyn Index>, Ledger),
    No(Unfit),
}

impl Usable {
    /// Everything before this is in it.
    fn covered(&self) -> Position {
        match self {
            Self::Yes(_, ledger) => ledger.checkpoint.covered,
            Self::No(_) => Position::default(),
        }
    }
}

/// Why an index is dropped.
#[derive(Debug, Default)]
pub(super) struct Unfit {
    pub(super) reason: String,
    /// Whether another release wrote it: nothing else was looked at then.
    pub(super) is_of_other_version: bool,
    /// Segments that it points to and that are not there.
    missing: Vec<u64>,
}

impl From<String> for Unfit {
    fn from(reason: String) -> Self {
        Self { reason, ..Self::default() }
    }
}

/// The engine the index is kept in.
pub(super) fn index_engine(disk: &Disk, options: &LogStoreOptions) -> Arc<dyn IndexEngine> {
    let fjall = || Arc::new(FjallIndexEngine::new(disk.runtime().clone())) as Arc<dyn IndexEngine>;
    options.index.clone().unwrap_or_else(fjall)
}

/// How long to wait each time before an index that failed is opened once more; after
/// that it is built anew.
const OPEN_INDEX_AGAIN: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_millis(2_000)];

/// Brings index and log together. Blocks; the volume is locked.
pub(super) fn recover(
    disk: &Disk,
    options: &LogStoreOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Recovered, StoreError> {
    let engine = index_engine(disk, options);
    let mut segments = list_segments(disk)?;
    let mut report = OpenReport::default();
    let usable = match open_index_patiently(disk, &*engine, &segments) {
        Ok(usable) => usable,
        // It may be sound, and to build another one needs room, too.
        Err(error @ IndexError::NoSpace) => return Err(error.into()),
        Err(error) => Usable::No(error.to_string().into()),
    };
    sync_log(disk, &segments, usable.covered())?;
    let first = match usable {
        Usable::Yes(index, ledger) => replay(disk, index, ledger, &segments, progress)?,
        Usable::No(unfit) => Tried::Unfit(unfit),
    };
    let (index, ledger, replayed) = match first {
        Tried::Fit(index, ledger, replayed) => (index, ledger, replayed),
        Tried::Unfit(Unfit { reason, missing, .. }) => {
            if !segments.is_empty() {
                tracing::warn!(%reason, "the index is built anew from the log");
                report.rebuilt_because = Some(reason);
            }
            rebuild(disk, &*engine, &segments, missing, progress)?
        }
    };
    remove_marker(disk)?;
    report.torn = replayed.torn;
    report.damaged_count = replayed.damaged_count;
    settle_tail(disk, &segments, replayed.torn)?;
    let mut ledger = ledger;
    remove_segments(disk, &replayed, &mut segments)?;
    settle_books(&*index, &mut ledger, &segments)?;
    let checkpoint = &ledger.checkpoint;
    let highest = segments.keys().next_back().copied().unwrap_or(0);
    let next_segment = highest.max(checkpoint.covered.segment) + 1;
    let doubt = Doubt::new(checkpoint.doubt.clone());
    report.doubtful_count = doubt.regions().len() as u64;
    report.replayed_bytes = replayed.read_bytes;
    Ok(Recovered { index, ledger, segments, next_segment, doubt, report })
}

/// What a replay into an existing index came to.
#[expect(clippy::large_enum_variant, reason = "there is one at each start")]
enum Tried {
    Fit(Box<dyn Index>, Ledger, Replayed),
    Unfit(Unfit),
}

fn replay(
    disk: &Disk,
    mut index: Box<dyn Index>,
    mut ledger: Ledger,
    segments: &BTreeMap<u64, SegmentId>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Tried, StoreError> {
    let replayed =
        Replay { disk, index: &mut index, segments, missing: Vec::new(), mends: false, progress }
            .run(&mut ledger);
    match replayed {
        Ok(replayed) => {
            let missing = missing_segments(&ledger, segments);
            if missing.is_empty() {
                return Ok(Tried::Fit(index, ledger, replayed));
            }
            let reason = format!("it points to segments that are not there: {missing:?}");
            Ok(Tried::Unfit(Unfit { reason, missing, ..Unfit::default() }))
        }
        Err(StoreError::Index { source: IndexError::Damaged { reason } }) => {
            Ok(Tried::Unfit(format!("it is damaged: {reason}").into()))
        }
        Err(error) => Err(error),
    }
}

fn rebuild(
    disk: &Disk,
    engine: &dyn IndexEngine,
    segments: &BTreeMap<u64, SegmentId>,
    missing: Vec<u64>,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Box<dyn Index>, Ledger, Replayed), StoreError> {
    let directory = disk.path(INDEX_DIRECTORY);
    engine.remove(&directory)?;
    let mut index = engine.build(&directory)?;
    let mut ledger = Ledger::default();
    let mut replay = Replay { disk, index: &mut *index, segments, missing, mends: false, progress };
    let replayed = replay.run(&mut ledger)?;
    Ok((index.finish()?, ledger, replayed))
}

/// As [`open_index`]. That it failed says nothing of the index, which may know what the
/// log does not tell any more: it is not given up for what may pass, as when the
/// process has no memory or descriptor left.
fn open_index_patiently(
    disk: &Disk,
    engine: &dyn IndexEngine,
    segments: &BTreeMap<u64, SegmentId>,
) -> Result<Usable, IndexError> {
    for pause in OPEN_INDEX_AGAIN {
        match open_index(disk, engine, segments) {
            Err(error @ IndexError::Failed { .. }) => {
                tracing::warn!(%error, "the index could not be opened; it is tried once more");
                // What may pass does so in real time.
                std::thread::park_timeout(pause);
            }
            opened => return opened,
        }
    }
    open_index(disk, engine, segments)
}

/// Opens the index, if there is one that goes with the log. Blocks.
///
/// # Errors
/// [`IndexError::NoSpace`] and [`IndexError::Failed`], which say nothing about what
/// is on the disk.
pub(super) fn open_index(
    disk: &Disk,
    engine: &dyn IndexEngine,
    segments: &BTreeMap<u64, SegmentId>,
) -> Result<Usable, IndexError> {
    let marker = disk.path(REBUILD_MARKER);
    if disk.list(disk.root()).is_ok_and(|paths| paths.contains(&marker)) {
        return Ok(Usable::No("an earlier run found it damaged".to_owned().into()));
    }
    match read_index(disk, engine) {
        Ok(Some((index, ledger))) => Ok(match mismatch(&ledger, segments) {
            None => Usable::Yes(index, ledger),
            Some(reason) => Usable::No(reason.into()),
        }),
        Ok(None) => Ok(Usable::No("there is none".to_owned().into())),
        Err(error @ (IndexError::Damaged { .. } | IndexError::OtherVersion { .. })) => {
            let is_of_other_version = matches!(error, IndexError::OtherVersion { .. });
            let reason = error.to_string();
            Ok(Usable::No(Unfit { reason, is_of_other_version, ..Unfit::default() }))
        }
        Err(error) => Err(error),
    }
}

/// An index, and what it says of the log.
type Read = (Box<dyn Index>, Ledger);

fn read_index(disk: &Disk, engine: &dyn IndexEngine) -> Result<Option<Read>, IndexError> {
    let index = engine.open(&disk.path(INDEX_DIRECTORY))?;
    let Some(checkpoint) = index.checkpoint()? else { return Ok(None) };
    checkpoint.check_version()?;
    let segments = index.segments()?;
    Ok(Some((index, Ledger::new(checkpoint, segments))))
}

/// Why an index does not go with the log.
fn mismatch(ledger: &Ledger, segments: &BTreeMap<u64, SegmentId>) -> Option<String> {
    let covered = ledger.checkpoint.covered.segment;
    let unknown = segments
        .keys()
        .find(|number| **number < covered && !ledger.segments().contains_key(number));
    if let Some(number) = unknown {
        return Some(format!("it does not know segment {number}"));
    }
    None
}

/// An entry that points to a segment that is not there means that the index
/// cannot be trusted, and never that a name is absent.
pub(super) fn missing_segments(ledger: &Ledger, segments: &BTreeMap<u64, SegmentId>) -> Vec<u64> {
    // Without its forgets, a name might be back when the index is built anew.
    let is_in_use = |usage: &SegmentUsage| usage.live_bytes > 0 || !usage.forget_bytes.is_empty();
    let in_use = ledger.segments().iter().filter(|(_, usage)| is_in_use(usage));
    in_use.map(|(number, _)| *number).filter(|number| !segments.contains_key(number)).collect()
}

/// Makes durable what can be read, before any of it is taken into the index: what is
/// there must survive a power cut, or the index would lead the log.
///
/// The process before this one may have been killed before its sync, or may have
/// ended because its sync failed. Then the kernel may take what it did not write for
/// written, and a sync alone would do nothing: so the end of the log is written once
/// more, with what it holds. That can only be the last batch, in the last segment,
/// and what the index covers was synced before.
pub(super) fn sync_log(
    disk: &Disk,
    segments: &BTreeMap<u64, SegmentId>,
    covered: Position,
) -> Result<(), StoreError> {
    let Some((number, last)) = segments.last_key_value() else { return Ok(()) };
    let path = disk.path(last.path());
    let file = disk.files().open(&path, OpenMode::Write).map_err(io_error("open", &path))?;
    let start = if covered.segment == *number { covered.offset } else { 0 };
    write_again(disk, &*file, &path, start)?;
    disk.sync_file(&*file, &path)?;
    disk.sync_directory(&disk.path("log"))
}

/// Writes a file from `start` on with what it holds.
fn write_again(disk: &Disk, file: &dyn File, path: &Path, start: u64) -> Result<(), StoreError> {
    let from = disk.open(path)?;
    let length = from.len().map_err(io_error("look at the length of", path))?;
    let mut buffer = vec![0; PIECE_BYTES];
    let mut again = |range: Range<u64>| {
        let wanted = usize::try_from(range.end - range.start).unwrap_or(PIECE_BYTES);
        let piece = buffer.get_mut(..wanted).unwrap_or_default();
        if !from.read_at(piece, range.start).is_ok_and(|read| read == wanted) {
            return Ok(false);
        }
        disk.write(file, path, piece, range.start).map(|()| true)
    };
    for piece in pieces(start..length, PIECE_BYTES as u64) {
        if !again(piece.clone())? {
            // What cannot be read is on the disk alone, and stays as it is.
            for sector in pieces(piece, SECTOR_BYTES as u64) {
                again(sector)?;
            }
        }
    }
    Ok(())
}

/// Parts of a range that end where the disk's own parts of this size do.
fn pieces(range: Range<u64>, size: u64) -> impl Iterator<Item = Range<u64>> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let start = at;
        at = (start + size - start % size).min(range.end);
        (start < range.end).then_some(start..at)
    })
}

/// Cuts off what an interrupted batch left.
pub(super) fn settle_tail(
    disk: &Disk,
    segments: &BTreeMap<u64, SegmentId>,
    torn: Option<TornTail>,
) -> Result<(), StoreError> {
    let Some((torn, (_, last))) = torn.zip(segments.last_key_value()) else { return Ok(()) };
    tracing::warn!(
        segment = torn.segment,
        offset = torn.offset,
        bytes = torn.bytes,
        "dropped the end of the log, which an interrupted write left behind"
    );
    let path = disk.path(last.path());
    let file = disk.files().open(&path, OpenMode::Write).map_err(io_error("open", &path))?;
    file.set_len(torn.offset).map_err(io_error("cut", &path))?;
    disk.sync_file(&*file, &path)
}

/// Ends what compaction had begun: what it moved away is removed. What cannot be
/// stays, and compaction tries it again.
fn remove_segments(
    disk: &Disk,
    replayed: &Replayed,
    segments: &mut BTreeMap<u64, SegmentId>,
) -> Result<(), StoreError> {
    let mut is_changed = false;
    for number in &replayed.removed {
        let Some(id) = segments.get(number) else { continue };
        match disk.remove(&disk.path(id.path())) {
            Err(error) if !error.is_no_such_file() => {
                tracing::warn!(%error, segment = number, "a segment of no more use stays");
            }
            _ => {
                segments.remove(number);
                is_changed = true;
            }
        }
    }
    if is_changed {
        disk.sync_directory(&disk.path("log"))?;
    }
    Ok(())
}

/// Takes segments out of the books whose files are gone, and into them those that
/// are still there.
fn settle_books(
    index: &dyn Index,
    ledger: &mut Ledger,
    segments: &BTreeMap<u64, SegmentId>,
) -> Result<(), StoreError> {
    let mut draft = Draft::new(ledger);
    ledger
        .segments()
        .keys()
        .filter(|number| !segments.contains_key(number))
        .for_each(|number| draft.drop_segment(*number));
    let is_unknown = |number: &&u64| !ledger.segments().contains_key(number);
    for number in segments.keys().filter(is_unknown) {
        draft.touch_segment(ledger, *number);
    }
    let changes = draft.changes();
    let batch = draft.into_batch();
    if !batch.is_empty() {
        index.apply(&batch)?;
        ledger.absorb(changes);
    }
    Ok(())
}

fn remove_marker(disk: &Disk) -> Result<(), StoreError> {
    let marker = disk.path(REBUILD_MARKER);
    if disk.list(disk.root())?.contains(&marker) {
        disk.remove(&marker)?;
        disk.sync_directory(disk.root())?;
    }
    Ok(())
}
