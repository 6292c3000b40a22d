//! The directory a volume lives in: whose it is, and that it is used once.
//!
//! ```text
//! <root>/
//!   format        {"format":"holdfast-volume","engine":"<engine>","version":<version>}
//!   lock          locked while a process uses the volume
//!   …             what the engine keeps, see its [`VolumeSpec`]
//! ```
//!
//! `format` is written last: with it, everything else must be there, and a
//! directory that is missing is an error and not an empty one.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use holdfast_runtime::{OpenMode, VolumeLock};
use serde::{Deserialize, Serialize};

use crate::StoreError;
use crate::disk::{Disk, io_error};

/// What may lie in the root of a volume that has no format file yet, beside the
/// directories of the engine: what ext4 makes, what the data server keeps beside
/// the volume, and what a first open that was cut short leaves behind.
const ALLOWED_BEFORE_FORMAT: [&str; 9] = [
    "lost+found",
    "node.json",
    "node.json.tmp",
    "roster.json",
    "roster.json.tmp",
    "floor.json",
    "floor.json.tmp",
    "lock",
    "format.tmp",
];

/// Directories with what a member held that was given up, which the data server
/// keeps beside the volume of the new member.
const SET_ASIDE_PREFIX: &str = "retired-";

/// More than any format file has.
const MAX_FORMAT_BYTES: usize = 4096;

const FORMAT: &str = "holdfast-volume";

/// What one engine keeps in a volume.
#[derive(Debug, Clone)]
pub(crate) struct VolumeSpec {
    /// Name of the engine in the format file.
    pub(crate) engine: &'static str,
    /// Version of its layout on disk.
    pub(crate) version: u32,
    /// Directories that are made with the volume, relative to it. Before there is
    /// a format file they must be empty.
    pub(crate) directories: Vec<PathBuf>,
    /// A directory for what is not committed yet: made with the volume, and
    /// emptied whenever it is opened.
    pub(crate) staging: Option<&'static str>,
    /// What to do with the volume of another engine: its name, and a sentence
    /// about it that says so.
    pub(crate) advice: &'static [(&'static str, &'static str)],
}

impl VolumeSpec {
    /// Names in the root that are the engine's.
    fn allows(&self, entry: &Path) -> bool {
        let own = self.directories.iter().filter_map(|path| path.iter().next());
        let staging = self.staging.iter().map(AsRef::as_ref);
        let mut names = ALLOWED_BEFORE_FORMAT.iter().map(AsRef::as_ref).chain(staging).chain(own);
        let is_set_aside = |file: &std::ffi::OsStr| {
            file.to_str().is_some_and(|file| file.starts_with(SET_ASIDE_PREFIX))
        };
        entry.file_name().is_some_and(|file| is_set_aside(file) || names.any(|name| name == file))
    }

    fn about_engine(&self, other: &str) -> String {
        let advice = self.advice.iter().find(|(engine, _)| *engine == other);
        let advice =
            advice.map_or("choose that engine, or give an empty directory", |(_, advice)| advice);
        format!(
            "the volume was made by the engine {other:?} and this is {:?}; {advice}",
            self.engine
        )
    }
}

/// The content of the format file.
#[derive(Debug, Serialize, Deserialize)]
struct Format {
    format: String,
    engine: String,
    version: u32,
}

/// Makes the directory a volume of this engine, or checks that it is one; then
/// empties the staging area. Blocks.
///
/// # Errors
/// [`StoreError::InUse`], [`StoreError::Format`] when the directory holds
/// something else, [`StoreError::Poisoned`], [`StoreError::Io`].
pub(crate) fn prepare(disk: &Disk, spec: &VolumeSpec) -> Result<Box<dyn VolumeLock>, StoreError> {
    ensure_root(disk)?;
    // Before the lock file is made: a directory of someone else stays as it is.
    let formatted = is_formatted(disk, spec)?;
    let lock = lock(disk)?;
    // Again under the lock: another process may have been at it meanwhile.
    if formatted || is_formatted(disk, spec)? {
        check_format(disk, spec)?;
    } else {
        format(disk, spec)?;
    }
    spec.staging.map_or(Ok(()), |staging| empty_staging(disk, &disk.path(staging)))?;
    Ok(lock)
}

/// Locks a volume of this engine that is there already. Blocks.
///
/// # Errors
/// As [`prepare`]; [`StoreError::Format`] when there is none.
pub(crate) fn open_existing(
    disk: &Disk,
    spec: &VolumeSpec,
) -> Result<Box<dyn VolumeLock>, StoreError> {
    if !disk.list(disk.root())?.contains(&disk.path("format")) {
        return Err(refused(disk, "there is no volume in this directory".to_owned()));
    }
    check_format(disk, spec)?;
    lock(disk)
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
fn is_formatted(disk: &Disk, spec: &VolumeSpec) -> Result<bool, StoreError> {
    let entries = disk.list(disk.root())?;
    if entries.contains(&disk.path("format")) {
        return Ok(true);
    }
    let foreign = entries.iter().find(|path| !spec.allows(path));
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
fn format(disk: &Disk, spec: &VolumeSpec) -> Result<(), StoreError> {
    spec.staging.map_or(Ok(()), |staging| create_directories(disk, &disk.path(staging)))?;
    for directory in spec.directories.iter().map(|directory| disk.path(directory)) {
        create_directories(disk, &directory)?;
        if !disk.list(&directory)?.is_empty() {
            let reason = "there are objects, but the format file is gone; put it back, or empty \
                          the directory if the objects are not wanted";
            return Err(refused(disk, reason.to_owned()));
        }
    }
    let parents: BTreeSet<&Path> =
        spec.directories.iter().filter_map(|directory| directory.parent()).collect();
    // The root last, which sorts first: it has the names of the others.
    parents
        .into_iter()
        .rev()
        .filter(|parent| !parent.as_os_str().is_empty())
        .try_for_each(|parent| disk.sync_directory(&disk.path(parent)))?;
    disk.sync_directory(disk.root())?;
    write_format(disk, spec)
}

fn write_format(disk: &Disk, spec: &VolumeSpec) -> Result<(), StoreError> {
    let (engine, version) = (spec.engine.to_owned(), spec.version);
    let format = Format { format: FORMAT.into(), engine, version };
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

fn check_format(disk: &Disk, spec: &VolumeSpec) -> Result<(), StoreError> {
    let path = disk.path("format");
    let file = disk.files().open(&path, OpenMode::Read).map_err(io_error("open", &path))?;
    let mut bytes = vec![0; MAX_FORMAT_BYTES];
    let read = file.read_at(&mut bytes, 0).map_err(io_error("read", &path))?;
    bytes.truncate(read);
    let format: Format = serde_json::from_slice(&bytes)
        .map_err(|error| refused(disk, format!("the format file is damaged: {error}")))?;
    check_fields(disk, spec, &format)
}

fn check_fields(disk: &Disk, spec: &VolumeSpec, format: &Format) -> Result<(), StoreError> {
    let Format { format, engine, version } = format;
    let reason = if format != FORMAT {
        format!("the directory holds {format:?}, not a Holdfast volume; give an empty directory")
    } else if engine != spec.engine {
        spec.about_engine(engine)
    } else if *version != spec.version {
        format!(
            "the volume has format version {version} and this release reads {}; run the release \
             that wrote it, or a newer one",
            spec.version
        )
    } else {
        return Ok(());
    };
    Err(refused(disk, reason))
}

fn empty_staging(disk: &Disk, staging: &Path) -> Result<(), StoreError> {
    let leftover = disk.list(staging)?;
    if !leftover.is_empty() {
        tracing::info!(file_count = leftover.len(), "removing payloads that were never committed");
    }
    leftover.iter().try_for_each(|path| disk.remove(path))
}
