//! Payloads in files of their own.
//!
//! ```text
//! <root>/large/<directory>/<number>
//!                 a payload and its trailer, each name 16 hexadecimal digits
//! ```
//!
//! A file never changes once it is complete, and no number comes twice, so
//! whoever knows a [`FileId`] knows one payload. A file is made durable first and
//! pointed to by the log later: what nothing points to when the volume is opened
//! was never committed.
//!
//! | module | does |
//! |---|---|
//! | `piece` | aligned memory that payloads are gathered in |
//! | `new_file` | a file that is being written |
//! | `pipeline` | writes one piece while the next is gathered |
//! | `staging` | the way in |
//! | `read` | the way out |
//!
//! In: `LargeStaging::write` → `Pipeline::write` → `NewFile::append`, then
//! `LargeStaged::complete` → `NewFile::complete` → `DurableFile::keep`.

mod new_file;
mod piece;
mod pipeline;
mod read;
mod staging;
#[cfg(test)]
mod tests;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_runtime::File;

pub(crate) use self::new_file::DurableFile;
pub(crate) use self::read::open;
pub(crate) use self::staging::{LargeStaged, LargeStaging};
use super::index::FileId;
use crate::StoreError;
use crate::disk::{Disk, io_error};

/// The directory of all payload files, relative to the volume.
pub(crate) const DIRECTORY: &str = "large";

/// Files of one directory: few enough to be listed at once when the volume is
/// opened, and many enough that making directories does not count.
pub(crate) const FILES_PER_DIRECTORY: u64 = 4096;

/// The payload files of a volume: their names, and which comes next.
#[derive(Debug)]
pub(crate) struct LargeFiles {
    disk: Arc<Disk>,
    naming: Mutex<Naming>,
    /// The first directory of this run: all before it are of earlier ones.
    first_directory: u64,
    /// Whether the file system has refused to make a file for direct writes.
    is_buffered: AtomicBool,
}

/// Which file comes next.
#[derive(Debug)]
struct Naming {
    /// The directory that is made next.
    next_directory: u64,
    /// The next file of the directory that was made last, if there is room.
    next_file: Option<FileId>,
}

/// A file that was just made.
#[derive(Debug)]
struct Created {
    id: FileId,
    path: PathBuf,
    file: Box<dyn File>,
    /// Whether it takes aligned writes only.
    is_direct: bool,
}

impl LargeFiles {
    /// `first_directory` and everything above was never used in this volume.
    pub(crate) fn new(disk: Arc<Disk>, first_directory: u64) -> Self {
        let naming = Naming { next_directory: first_directory, next_file: None };
        let is_buffered = AtomicBool::new(false);
        Self { disk, naming: Mutex::new(naming), first_directory, is_buffered }
    }

    /// Files in directories below this one are of earlier runs, so that none of
    /// them is being written.
    pub(crate) fn first_directory(&self) -> u64 {
        self.first_directory
    }

    /// Where a file lies.
    pub(crate) fn path(&self, id: FileId) -> PathBuf {
        file_path(&self.disk, id)
    }

    /// Makes the names in a directory durable. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`].
    pub(crate) fn sync_directory(&self, directory: u64) -> Result<(), StoreError> {
        self.disk.sync_directory(&directory_path(&self.disk, directory))
    }

    /// Removes a file that nothing points to; one that is gone already will do.
    /// Not durable before [`Self::sync_directory`]. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn remove(&self, id: FileId) -> Result<(), StoreError> {
        match self.disk.remove(&self.path(id)) {
            Err(error) if is_not_found(&error) => Ok(()),
            result => result,
        }
    }

    /// Removes a directory of an earlier run if nothing is left in it; no file
    /// comes into it any more. The newest of all stays, since its number says
    /// which comes next and no number may come twice. Not durable: one that a
    /// power cut brings back is found by the next sweep. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Poisoned`].
    pub(crate) fn remove_if_empty(&self, directory: u64) -> Result<(), StoreError> {
        let is_newest = self.list_directories()?.last() == Some(&directory);
        if directory >= self.first_directory || is_newest || !self.list(directory)?.is_empty() {
            return Ok(());
        }
        // The newest is durable before any that is older goes.
        self.disk.sync_directory(&self.disk.path(DIRECTORY))?;
        let path = directory_path(&self.disk, directory);
        match self.disk.files().remove_directory(&path) {
            // Something that is not the volume's lies in it.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
            result => result.map_err(io_error("remove the directory", &path)),
        }
    }

    /// The directories there are, in order. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn list_directories(&self) -> Result<Vec<u64>, StoreError> {
        self.list_numbers(&self.disk.path(DIRECTORY))
    }

    /// The files of a directory, in order, those that are being written too.
    /// Blocks.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn list(&self, directory: u64) -> Result<Vec<FileId>, StoreError> {
        let numbers = self.list_numbers(&directory_path(&self.disk, directory))?;
        Ok(numbers.into_iter().map(|number| FileId { directory, number }).collect())
    }

    fn list_numbers(&self, path: &Path) -> Result<Vec<u64>, StoreError> {
        let number = |path: PathBuf| {
            let number = number_of(&path);
            if number.is_none() {
                tracing::warn!(path = %path.display(), "this is not one of the volume's; it is left alone");
            }
            number
        };
        Ok(self.disk.list(path)?.into_iter().filter_map(number).collect())
    }

    /// Makes the next file. Blocks.
    fn create(&self) -> Result<Created, StoreError> {
        let id = self.next_id()?;
        let path = self.path(id);
        if !self.is_buffered.load(Ordering::Relaxed) {
            if let Some(file) = self.disk.create_direct(&path)? {
                return Ok(Created { id, path, file, is_direct: true });
            }
            self.is_buffered.store(true, Ordering::Relaxed);
            tracing::info!(
                "the file system has no direct writes; large payloads go through its cache"
            );
        }
        let file = self.disk.create(&path)?;
        Ok(Created { id, path, file, is_direct: false })
    }

    fn next_id(&self) -> Result<FileId, StoreError> {
        // A panic under the lock leaves at worst a number unused.
        let mut naming = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        let id = match naming.next_file {
            Some(id) => id,
            None => self.make_directory(&mut naming)?,
        };
        let number = id.number + 1;
        naming.next_file = (number < FILES_PER_DIRECTORY).then_some(FileId { number, ..id });
        Ok(id)
    }

    /// Under the lock, so that no file is in it before its own name is durable.
    fn make_directory(&self, naming: &mut Naming) -> Result<FileId, StoreError> {
        let directory = naming.next_directory;
        let path = directory_path(&self.disk, directory);
        self.disk
            .files()
            .create_directories(&path)
            .map_err(io_error("create the directory", &path))?;
        self.disk.sync_directory(&self.disk.path(DIRECTORY))?;
        naming.next_directory = directory.saturating_add(1);
        Ok(FileId { directory, number: 0 })
    }
}

fn directory_path(disk: &Disk, directory: u64) -> PathBuf {
    disk.path(DIRECTORY).join(format!("{directory:016x}"))
}

fn file_path(disk: &Disk, id: FileId) -> PathBuf {
    directory_path(disk, id.directory).join(format!("{:016x}", id.number))
}

/// The number that a name stands for; `None` for any other name.
fn number_of(path: &Path) -> Option<u64> {
    let text = path.file_name()?.to_str()?;
    let number = u64::from_str_radix(text, 16).ok()?;
    (format!("{number:016x}") == text).then_some(number)
}

fn is_not_found(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}
