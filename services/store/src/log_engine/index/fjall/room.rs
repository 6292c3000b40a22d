//! Whether the disk has room for the next table.
//!
//! The worker of fjall writes the tables, and when it cannot, all that is told is
//! that the database takes no more.

use std::path::Path;

use holdfast_runtime::{FileSystem, OpenMode, Runtime};

use super::super::IndexError;
use super::check::{KEYSPACES, PROBE_FILE};
use super::failure::io_error;

const PIECE_BYTES: usize = 1024 * 1024;

/// Writes as many bytes as a table has, syncs and removes them.
///
/// # Errors
/// [`IndexError::NoSpace`], and what else went wrong.
pub(super) fn try_out(runtime: &Runtime, directory: &Path, bytes: u64) -> Result<(), IndexError> {
    let files = runtime.files();
    let path = directory.join(KEYSPACES).join(PROBE_FILE);
    // One that a process left that was killed.
    let _ = files.remove_file(&path);
    // A file system that compresses does not shorten them.
    let words = std::iter::repeat_with(|| runtime.random_u64().to_le_bytes());
    let piece: Vec<u8> = words.take(PIECE_BYTES / 8).flatten().collect();
    let written = write(&*files, &path, bytes, &piece);
    let removed = files.remove_file(&path).map_err(|error| io_error(&error));
    written.and(removed)
}

fn write(files: &dyn FileSystem, path: &Path, bytes: u64, piece: &[u8]) -> Result<(), IndexError> {
    let file = files.open(path, OpenMode::CreateNew).map_err(|error| io_error(&error))?;
    let mut offset = 0;
    while offset < bytes {
        let left = usize::try_from(bytes - offset).unwrap_or(piece.len());
        let piece = piece.get(..left).unwrap_or(piece);
        file.write_all_at(piece, offset).map_err(|error| io_error(&error))?;
        offset = offset.saturating_add(piece.len() as u64);
    }
    file.sync_data().map_err(|error| io_error(&error))
}
