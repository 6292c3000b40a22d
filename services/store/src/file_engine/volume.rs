//! The directory a volume lives in: whose it is, and that it is used once.
//!
//! ```text
//! <root>/
//!   format        {"format":"holdfast-volume","engine":"file","version":1}
//!   lock          locked while a process uses the volume
//!   staging/      payloads on their way in; emptied when the volume is opened
//!   objects/00/ … objects/ff/
//!                 one file for each name: the newest version of it
//!   quarantine/   damaged files that were put aside, when there are any
//! ```
//!
//! `format` is written last: with it, everything else must be there, and a
//! directory that is missing is an error and not an empty one.

use std::io;
use std::path::Path;

use holdfast_runtime::{OpenMode, VolumeLock};
use serde::{Deserialize, Serialize};

use super::disk::{Disk, io_error};
use super::name_hash::fan_out_directory;
use crate::StoreError;

/// What may lie in the root of a volume that has no format file yet: what ext4
/// makes, what the data server keeps beside the volume, and what a first open
/// that was cut short leaves behind.
const ALLOWED_BEFORE_FORMAT: [&str; 9] = [
    "lost+found",
    "node.json",
    "node.json.tmp",
    "roster.json",
    "roster.json.tmp",
    "lock",
    "format.tmp",
    "staging",
    "objects",
];

/// More than any format file has.
const MAX_FORMAT_BYTES: usize = 4096;

const FORMAT: &str = "holdfast-volume";
const ENGINE: &str = "file";
const VERSION: u32 = 1;

/// The content of the format file.
#[derive(Debug, Serialize, Deserialize)]
struct Format {
    format: String,
    engine: String,
    version: u32,
}

/// Makes the directory a volume of this engine, or checks that it is one; then
/// empties the staging area. Blocks.
pub(super) fn prepare(disk: &Disk) -> Result<Box<dyn VolumeLock>, StoreError> {
    ensure_root(disk)?;
    // Before the lock file is made: a directory of someone else stays as it is.
    let formatted = is_formatted(disk)?;
    let lock = lock(disk)?;
    // Again under the lock: another process may have been at it meanwhile.
    if formatted || is_formatted(disk)? {
        check_format(disk)?;
    } else {
        format(disk)?;
    }
    empty_staging(disk)?;
    Ok(lock)
}

fn ensure_root(disk: &Disk) -> Result<(), StoreError> {
    let missing: Vec<&Path> =
        disk.root().ancestors().take_while(|path| is_missing(disk, path)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    create_directories(disk, disk.root())?;
    missing.iter().filter_map(|path| path.parent()).try_for_each(|parent| {
        let here = parent.as_os_str().is_empty();
        disk.sync_directory(if here { Path::new(".") } else { parent })
    })
}

fn is_missing(disk: &Disk, path: &Path) -> bool {
    let listed = disk.files().list(path);
    !path.as_os_str().is_empty()
        && listed.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn create_directories(disk: &Disk, path: &Path) -> Result<(), StoreError> {
    disk.files().create_directories(path).map_err(io_error("create the directory", path))
}

fn lock(disk: &Disk) -> Result<Box<dyn VolumeLock>, StoreError> {
    let path = disk.path("lock");
    let lock = disk.files().try_lock(&path).map_err(io_error("lock", &path))?;
    lock.ok_or(StoreError::InUse { path })
}

/// Whether there is a format file. Refuses a directory that has none but holds
/// something else.
fn is_formatted(disk: &Disk) -> Result<bool, StoreError> {
    let entries = disk.list(disk.root())?;
    let is = |path: &Path, name: &str| path.file_name().is_some_and(|file| file == name);
    if entries.iter().any(|path| is(path, "format")) {
        return Ok(true);
    }
    let foreign =
        entries.iter().find(|path| !ALLOWED_BEFORE_FORMAT.iter().any(|name| is(path, name)));
    match foreign {
        None => Ok(false),
        Some(foreign) => Err(refused(
            disk,
            format!(
                "the directory is no Holdfast volume and is not empty (it holds {}); \
                 give an empty directory",
                foreign.display()
            ),
        )),
    }
}

fn refused(disk: &Disk, reason: String) -> StoreError {
    StoreError::Format { path: disk.path("format"), reason }
}

/// Makes an empty volume. Cut short at any point, it can be done again.
fn format(disk: &Disk) -> Result<(), StoreError> {
    create_directories(disk, &disk.path("staging"))?;
    for first_byte in 0..=u8::MAX {
        let directory = disk.path(fan_out_directory(first_byte));
        create_directories(disk, &directory)?;
        if !disk.list(&directory)?.is_empty() {
            let reason = "there are objects, but the format file is gone; put it back, or empty \
                          the directory if the objects are not wanted";
            return Err(refused(disk, reason.to_owned()));
        }
    }
    disk.sync_directory(&disk.path("objects"))?;
    disk.sync_directory(disk.root())?;
    write_format(disk)
}

fn write_format(disk: &Disk) -> Result<(), StoreError> {
    let format = Format { format: FORMAT.into(), engine: ENGINE.into(), version: VERSION };
    let bytes = serde_json::to_vec(&format).map_err(|error| refused(disk, error.to_string()))?;
    let path = disk.path("format.tmp");
    if disk.list(disk.root())?.contains(&path) {
        disk.remove(&path)?;
    }
    let file = disk.create(&path)?;
    disk.write(&*file, &path, &bytes, 0)?;
    disk.sync_file(&*file, &path)?;
    disk.rename(&path, &disk.path("format"))?;
    disk.sync_directory(disk.root())
}

fn check_format(disk: &Disk) -> Result<(), StoreError> {
    let path = disk.path("format");
    let file = disk.files().open(&path, OpenMode::Read).map_err(io_error("open", &path))?;
    let mut bytes = vec![0; MAX_FORMAT_BYTES];
    let read = file.read_at(&mut bytes, 0).map_err(io_error("read", &path))?;
    bytes.truncate(read);
    let format: Format = serde_json::from_slice(&bytes)
        .map_err(|error| refused(disk, format!("the format file is damaged: {error}")))?;
    check_fields(disk, &format)
}

fn check_fields(disk: &Disk, format: &Format) -> Result<(), StoreError> {
    let Format { format, engine, version } = format;
    let reason = if format != FORMAT {
        format!("the directory holds {format:?}, not a Holdfast volume; give an empty directory")
    } else if engine != ENGINE {
        format!(
            "the volume was made by the engine {engine:?} and this is {ENGINE:?}; choose that \
             engine, or give an empty directory"
        )
    } else if *version != VERSION {
        format!(
            "the volume has format version {version} and this release reads {VERSION}; run the \
             release that wrote it, or a newer one"
        )
    } else {
        return Ok(());
    };
    Err(refused(disk, reason))
}

fn empty_staging(disk: &Disk) -> Result<(), StoreError> {
    let leftover = disk.list(&disk.path("staging"))?;
    if !leftover.is_empty() {
        tracing::info!(file_count = leftover.len(), "removing payloads that were never committed");
    }
    leftover.iter().try_for_each(|path| disk.remove(path))
}
