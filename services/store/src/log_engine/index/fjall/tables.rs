//! The files of one tree: `current` names the list of tables and its checksum,
//! `v<n>` is the list, `tables/<n>` are the tables.

use std::path::Path;

use holdfast_runtime::{File, FileSystem, OpenMode};
use xxhash_rust::xxh3::Xxh3Default;

use super::super::IndexError;
use super::check::{has_name, names_in, read_exact};
use super::failure::{damaged, io_error};

/// Number of the list, its xxh3-128, 0 for the kind of checksum.
const CURRENT_BYTES: usize = 8 + 16 + 1;

/// `SFA!`, version, kind of checksum, xxh3-128 of the table of contents, where
/// that begins, its length.
const TRAILER_BYTES: usize = 4 + 1 + 1 + 16 + 8 + 8;

const CHUNK_BYTES: usize = 64 * 1024;

/// Checks the list of tables, and of each table the table of contents.
pub(super) fn check(files: &dyn FileSystem, tree: &Path) -> Result<(), IndexError> {
    let names = names_in(files, tree)?;
    // fjall takes it for a tree that was never used, and what comes after the
    // check of the journals notices if it was.
    let Some(current) = names.iter().find(|path| has_name(path, "current")) else { return Ok(()) };
    check_list(files, tree, current)?;
    if let Some(tables) = names.iter().find(|path| has_name(path, "tables")) {
        for table in names_in(files, tables)? {
            check_contents(&*open(files, &table)?)?;
        }
    }
    Ok(())
}

fn open(files: &dyn FileSystem, path: &Path) -> Result<Box<dyn File>, IndexError> {
    files.open(path, OpenMode::Read).map_err(|error| io_error(&error))
}

fn len(file: &dyn File) -> Result<u64, IndexError> {
    file.len().map_err(|error| io_error(&error))
}

fn check_list(files: &dyn FileSystem, tree: &Path, current: &Path) -> Result<(), IndexError> {
    let mut bytes = [0; CURRENT_BYTES];
    read_exact(&*open(files, current)?, &mut bytes, 0)?;
    let (number, checksum) = bytes.split_first_chunk().expect("it is longer than a number");
    let list = open(files, &tree.join(format!("v{}", u64::from_le_bytes(*number))))?;
    let hash = hash_of(&*list, 0, len(&*list)?)?.to_le_bytes();
    // Behind the hash is its kind: 0 for xxh3.
    if checksum.split_last() != Some((&0, &hash)) {
        return Err(damaged("the list of tables does not match its checksum"));
    }
    Ok(())
}

/// What has no trailer is left to fjall: it refuses such a table, or removes it
/// if it is one that was never finished.
fn check_contents(file: &dyn File) -> Result<(), IndexError> {
    let Some(end) = len(file)?.checked_sub(TRAILER_BYTES as u64) else { return Ok(()) };
    let mut trailer = [0; TRAILER_BYTES];
    read_exact(file, &mut trailer, end)?;
    let Some(rest) = trailer.strip_prefix(b"SFA!\x01\x00") else { return Ok(()) };
    let (checksum, rest) = rest.split_first_chunk().expect("a trailer has a checksum");
    let (start, _) = rest.split_first_chunk().expect("a trailer has a position");
    let start = u64::from_le_bytes(*start);
    if start > end || hash_of(file, start, end)? != u128::from_le_bytes(*checksum) {
        return Err(damaged("the contents of a table do not match their checksum"));
    }
    Ok(())
}

fn hash_of(file: &dyn File, start: u64, end: u64) -> Result<u128, IndexError> {
    let mut hash = Xxh3Default::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = start;
    while at < end {
        chunk.truncate(usize::try_from(end - at).unwrap_or(CHUNK_BYTES));
        read_exact(file, &mut chunk, at)?;
        hash.update(&chunk);
        at = at.saturating_add(chunk.len() as u64);
    }
    Ok(hash.digest128())
}
