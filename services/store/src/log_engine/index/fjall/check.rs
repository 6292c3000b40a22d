//! Looks at the files of an index before fjall does, because fjall 3.1 takes
//! some damage for granted. What it does and does not check, as its source has
//! it (fjall 3.1.13, lsm-tree 3.1.10, sfa 1.0.0):
//!
//! - Every block of a table - data, index, filter, meta - is read through
//!   `Block::from_file` or `Block::from_reader`, which verify a 128-bit xxh3 of
//!   its content and a checksum of its header, whether it goes to the cache or
//!   is pinned at open. So a flipped bit in a bloom filter is an error and never
//!   makes a key absent, and filters are on.
//! - The file `v<n>` that lists the tables of a tree is not verified on open,
//!   though `current` has its checksum: a flipped bit in one of its counts drops
//!   tables, which are then deleted as orphans, and one in `global_seqno` puts
//!   old values before new ones. [`super::tables`] verifies it.
//! - The table of contents of a file is verified, but only after memory for as
//!   many entries as it claims was asked for: a flipped bit aborts the process.
//!   [`super::tables`] verifies it first.
//! - The checksum of a batch in a journal leaves out its sequence number, by
//!   which it is skipped or put in order, and a journal that breaks off in the
//!   middle is cut there even if others follow. [`super::journal`] verifies both.
//! - A directory below `keyspaces` that is no number makes it panic while it
//!   holds a lock that its clean-up needs: a second panic, which aborts.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use holdfast_runtime::{File, FileSystem};

use super::super::IndexError;
use super::failure::{damaged, io_error};
use super::{journal, tables};

const VERSION_FILE: &str = "version";
const LOCK_FILE: &str = "lock";
/// Directory of the trees, one for each keyspace.
pub(super) const KEYSPACES: &str = "keyspaces";
/// What [`super::room`] writes and removes, among the trees.
pub(super) const PROBE_FILE: &str = "probe";

/// What is in a directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing that fjall would read.
    Empty,
    /// An index whose files are sound.
    Index {
        /// Number of the newest batch in its journals, if there is any.
        newest_in_journal: Option<u64>,
    },
}

/// Checks all of the files, and cuts what a power cut left behind the last
/// whole batch. Reads the journals whole and of each table its end.
///
/// # Errors
/// [`IndexError::Damaged`]; [`IndexError::Failed`] also while another process
/// has the index open.
pub(super) fn check(files: &dyn FileSystem, directory: &Path) -> Result<Found, IndexError> {
    let names = names_in(files, directory)?;
    if !names.iter().any(|path| has_name(path, VERSION_FILE)) {
        return match names.iter().all(|path| has_name(path, LOCK_FILE)) {
            true => Ok(Found::Empty),
            false => Err(damaged("it was not made whole")),
        };
    }
    let lock = files.try_lock(&directory.join(LOCK_FILE)).map_err(|error| io_error(&error))?;
    let _lock = lock.ok_or_else(|| IndexError::Failed { reason: "it is in use".into() })?;
    let newest_in_journal = journal::check(files, &names)?;
    let trees = names_in(files, &directory.join(KEYSPACES))?;
    let (probes, trees): (Vec<_>, Vec<_>) =
        trees.into_iter().partition(|path| has_name(path, PROBE_FILE));
    for probe in probes {
        files.remove_file(&probe).map_err(|error| io_error(&error))?;
    }
    for tree in trees {
        number_of(&tree, "").ok_or_else(|| strange(&tree))?;
        tables::check(files, &tree)?;
    }
    Ok(Found::Index { newest_in_journal })
}

pub(super) fn names_in(
    files: &dyn FileSystem,
    directory: &Path,
) -> Result<Vec<PathBuf>, IndexError> {
    files.list(directory).map_err(|error| io_error(&error))
}

pub(super) fn has_name(path: &Path, name: &str) -> bool {
    path.file_name() == Some(OsStr::new(name))
}

/// The number that a file is named by, before `suffix`.
pub(super) fn number_of(path: &Path, suffix: &str) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(suffix)?.parse().ok()
}

pub(super) fn strange(path: &Path) -> IndexError {
    damaged(format!("{} is none of its files", path.display()))
}

/// Reads `buffer` full.
pub(super) fn read_exact(
    file: &dyn File,
    buffer: &mut [u8],
    offset: u64,
) -> Result<(), IndexError> {
    match file.read_at(buffer, offset) {
        Ok(read) if read == buffer.len() => Ok(()),
        Ok(_) => Err(damaged("a file became shorter")),
        Err(error) => Err(io_error(&error)),
    }
}
