//! Removing payload files: those that a newer version took the place of, and
//! those that were never pointed to.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::StoreError;
use crate::log_engine::index::{Entry, FileId};
use crate::log_engine::shared::Shared;
use crate::payload_file::object_file::{ObjectFile, SCAN_TAIL_BYTES};

/// What became of files that were to be removed.
#[derive(Debug, Default)]
pub(super) struct Removal {
    /// They are gone for good.
    pub(super) gone: Vec<FileId>,
    /// They may be there still.
    pub(super) kept: Vec<FileId>,
    /// Why some are kept.
    pub(super) error: Option<StoreError>,
}

/// How far a sweep came.
#[derive(Debug)]
pub(super) struct Swept {
    /// All directories below this were swept; `None` when none was.
    pub(super) below: Option<u64>,
    /// Those that are to be swept again.
    pub(super) unswept: BTreeSet<u64>,
}

/// Removes payload files, and their directories if nothing is left in them.
/// What the operating system refuses stays. Blocks.
///
/// # Errors
/// [`StoreError::Poisoned`].
pub(super) fn remove_files(shared: &Shared, files: Vec<FileId>) -> Result<Removal, StoreError> {
    let mut removal = Removal::default();
    for file in files {
        match refused(shared.large.remove(file))? {
            None => removal.gone.push(file),
            Some(error) => {
                removal.kept.push(file);
                removal.error = Some(error);
            }
        }
    }
    let directories = removal.gone.iter().map(|file| file.directory).collect();
    if let Some(error) = refused(settle_directories(shared, directories))? {
        removal.kept.append(&mut removal.gone);
        removal.error = Some(error);
    }
    Ok(removal)
}

fn settle_directories(shared: &Shared, mut directories: BTreeSet<u64>) -> Result<(), StoreError> {
    if directories.is_empty() {
        return Ok(());
    }
    // A directory that is gone went after what was in it.
    let present = shared.large.list_directories()?;
    directories.retain(|directory| present.contains(directory));
    // Durable before the books forget them, else they might come back and stay.
    directories.iter().try_for_each(|directory| shared.large.sync_directory(*directory))?;
    for directory in directories {
        // An empty one that stays is of no harm.
        if let Some(error) = refused(shared.large.remove_if_empty(directory))? {
            tracing::warn!(%error, "an empty directory of payload files stays");
        }
    }
    Ok(())
}

/// Looks for files that nothing points to, in these directories of earlier runs or
/// in all that were not swept before. One that cannot be swept keeps no other from
/// it. Blocks.
///
/// # Errors
/// [`StoreError::Io`] when the directories cannot be listed,
/// [`StoreError::Poisoned`], [`StoreError::Index`], [`StoreError::WorkLost`].
pub(super) fn sweep(
    shared: &Arc<Shared>,
    directories: Option<BTreeSet<u64>>,
) -> Result<Swept, StoreError> {
    let mut unswept = BTreeSet::new();
    if !shared.doubt.is_none() {
        // A record that cannot be read may point to any file. The next start
        // knows more.
        return Ok(Swept { below: None, unswept });
    }
    let end = shared.large.first_directory();
    let directories = match directories {
        Some(directories) => directories,
        None => {
            let earlier = shared.books().swept_below..end;
            let present = shared.large.list_directories()?;
            present.into_iter().filter(|directory| earlier.contains(directory)).collect()
        }
    };
    for directory in directories {
        match sweep_directory(shared, directory) {
            Ok(Left::Nothing) => {}
            Ok(Left::Wanted) => drop(unswept.insert(directory)),
            Err(error @ StoreError::Io { .. }) => {
                tracing::warn!(
                    %error,
                    directory,
                    "a directory of payload files cannot be swept; it is tried again later"
                );
                unswept.insert(directory);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Swept { below: Some(unswept.first().copied().unwrap_or(end)), unswept })
}

/// What is left in a directory that nobody knows for certain.
enum Left {
    Nothing,
    /// A file that may be all that is left of something, as long as that is damaged.
    Wanted,
}

fn sweep_directory(shared: &Arc<Shared>, directory: u64) -> Result<Left, StoreError> {
    let files = shared.large.list(directory)?;
    if files.is_empty() {
        shared.while_open(|| shared.large.remove_if_empty(directory))?;
        return Ok(Left::Nothing);
    }
    let (mut orphans, mut refusal, mut left) = (Vec::new(), None, Left::Nothing);
    for file in files {
        let known = shared.with_index((), |index, ()| index.file(file));
        if shared.checked(known.map_err(|(error, ())| error)?)?.is_some() {
            continue;
        }
        match is_wanted(shared, file) {
            Ok(true) => left = Left::Wanted,
            Ok(false) => orphans.push(file),
            // Until it can be read, it may be all that is left of something.
            Err(error) => refusal = refused(Err(error))?,
        }
    }
    if !orphans.is_empty() {
        tracing::info!(
            directory,
            count = orphans.len(),
            "removing payloads that were never committed"
        );
        refusal = shared.while_open(|| remove_files(shared, orphans))?.error.or(refusal);
    }
    refusal.map_or(Ok(left), Err)
}

/// Whether a file that nothing points to is all that is left of a version whose
/// record is damaged. Only what the file itself says makes it a "no".
fn is_wanted(shared: &Shared, file: FileId) -> Result<bool, StoreError> {
    let path = shared.large.path(file);
    let payload = match ObjectFile::open(&shared.disk, path, SCAN_TAIL_BYTES) {
        Err(StoreError::Corrupt { .. }) => return Ok(false),
        payload => payload?,
    };
    let entry = shared.lookup(payload.name())?;
    let is_its =
        |entry: Entry| entry.is_unreadable() && entry.stat.version == payload.stat().version;
    Ok(entry.is_some_and(is_its))
}

/// What the operating system refused: it is about one file or directory, and
/// others may do.
fn refused(result: Result<(), StoreError>) -> Result<Option<StoreError>, StoreError> {
    match result {
        Ok(()) => Ok(None),
        Err(error @ StoreError::Io { .. }) => Ok(Some(error)),
        Err(error) => Err(error),
    }
}
