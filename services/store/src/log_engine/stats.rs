//! Sizes and counts of a volume.

use std::path::Path;
use std::sync::Arc;

use holdfast_core::object::Kind;
use holdfast_runtime::{OpenMode, Runtime};
use serde::Serialize;

use super::index::{Content, Index};
use super::large::LargeFiles;
use super::ledger::Ledger;
use super::options::LogStoreOptions;
use super::recovery::{INDEX_DIRECTORY, Usable, index_engine, list_segments, open_index};
use crate::StoreError;
use crate::disk::Disk;
use crate::volume::open_existing;

/// How much there is in a volume.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Stats {
    /// Whether a process uses the volume. Then, and when there is no index that
    /// goes with the log, [`Self::contents`] is not known.
    pub is_in_use: bool,
    /// Free bytes on the disk.
    pub free_bytes: u64,
    /// Files of the log.
    pub segment_count: u64,
    /// Their bytes.
    pub log_bytes: u64,
    /// Numbers of the oldest and of the newest of them.
    pub oldest_segment: Option<u64>,
    /// See [`Self::oldest_segment`].
    pub newest_segment: Option<u64>,
    /// Payload files.
    pub file_count: u64,
    /// Their bytes.
    pub file_bytes: u64,
    /// Bytes of the index.
    pub index_bytes: u64,
    /// What the index says.
    pub contents: Option<Contents>,
}

/// What the index of a volume says. It may lag behind the log after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Contents {
    /// Newest versions that are objects.
    pub object_count: u64,
    /// Newest versions that are tombstones.
    pub tombstone_count: u64,
    /// Payload bytes of the newest versions.
    pub live_bytes: u64,
    /// Versions whose payload is known to be damaged.
    pub damaged_count: u64,
    /// Parts of the log of which no name can be read.
    pub doubtful_count: u64,
    /// Bytes of records that are in use.
    pub used_log_bytes: u64,
    /// Bytes of all other records.
    pub garbage_bytes: u64,
    /// Bytes of the log that compaction could give back now: those of segments
    /// of which less than half is in use.
    pub compactable_bytes: u64,
    /// Payload files that an entry points to.
    pub used_file_count: u64,
}

/// Takes stock of the volume in `root`. Blocks; looks at every file, and at
/// every entry of the index.
///
/// # Errors
/// [`StoreError::Format`] when there is no volume of this engine and release,
/// [`StoreError::Index`], [`StoreError::Io`].
pub fn stats(
    runtime: &Runtime,
    root: &Path,
    options: &LogStoreOptions,
) -> Result<Stats, StoreError> {
    let disk = Arc::new(Disk::new(runtime.clone(), root.to_owned(), options.reserve_bytes));
    let lock = match open_existing(&disk, &super::volume::spec()) {
        Ok(lock) => Some(lock),
        Err(StoreError::InUse { .. }) => None,
        Err(error) => return Err(error),
    };
    let segments = list_segments(&disk)?;
    let mut stats = Stats {
        is_in_use: lock.is_none(),
        free_bytes: disk.space()?.free_bytes,
        segment_count: segments.len() as u64,
        oldest_segment: segments.keys().next().copied(),
        newest_segment: segments.keys().next_back().copied(),
        index_bytes: bytes_below(&disk, &disk.path(INDEX_DIRECTORY)),
        ..Stats::default()
    };
    for id in segments.values() {
        stats.log_bytes += length(&disk, &disk.path(id.path())).unwrap_or(0);
    }
    stats.count_files(&disk)?;
    let is_indexed = lock.is_some() && stats.index_bytes > 0;
    if is_indexed
        && let Usable::Yes(index, ledger) =
            open_index(&disk, &*index_engine(&disk, options), &segments)?
    {
        stats.contents = Some(Contents::of(&*index, &ledger)?);
    }
    Ok(stats)
}

impl Stats {
    /// A file that vanishes meanwhile counts or not.
    fn count_files(&mut self, disk: &Arc<Disk>) -> Result<(), StoreError> {
        let large = LargeFiles::new(Arc::clone(disk), 0);
        for directory in large.list_directories()? {
            for file in large.list(directory)? {
                self.file_count += 1;
                self.file_bytes += length(disk, &large.path(file)).unwrap_or(0);
            }
        }
        Ok(())
    }
}

impl Contents {
    fn of(index: &dyn Index, ledger: &Ledger) -> Result<Self, StoreError> {
        let oldest = ledger.oldest_segment();
        let (total_bytes, used_log_bytes) = ledger.log_bytes();
        let garbage = ledger.segments().values().map(|usage| {
            let used = usage.used_bytes(oldest);
            let is_worth = used.saturating_mul(2) < usage.total_bytes;
            if is_worth { usage.total_bytes - used } else { 0 }
        });
        let mut contents = Self {
            doubtful_count: ledger.checkpoint.doubt.len() as u64,
            used_log_bytes,
            garbage_bytes: total_bytes.saturating_sub(used_log_bytes),
            compactable_bytes: garbage.sum(),
            ..Self::default()
        };
        index.scan(std::ops::Bound::Unbounded, &mut |_, entry| {
            let is_object = u64::from(entry.stat.kind == Kind::Object);
            contents.object_count += is_object;
            contents.tombstone_count += 1 - is_object;
            contents.live_bytes += entry.stat.size_bytes;
            contents.damaged_count += u64::from(entry.is_unreadable());
            contents.used_file_count += u64::from(matches!(entry.content, Content::File(_)));
            std::ops::ControlFlow::Continue(())
        })?;
        Ok(contents)
    }
}

/// `None` when there is no such file.
fn length(disk: &Disk, path: &Path) -> Option<u64> {
    disk.files().open(path, OpenMode::Read).and_then(|file| file.len()).ok()
}

/// The bytes of all files below a directory; one that vanishes has none.
fn bytes_below(disk: &Disk, directory: &Path) -> u64 {
    let paths = disk.files().list(directory).unwrap_or_default();
    let bytes = |path: &std::path::PathBuf| match disk.files().list(path) {
        Ok(_) => bytes_below(disk, path),
        Err(_) => length(disk, path).unwrap_or(0),
    };
    paths.iter().map(bytes).sum()
}
