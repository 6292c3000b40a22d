//! The few files of one volume, in memory: they outlive the process that writes
//! them, and are durable at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_runtime::{File, FileSystem, OpenMode, Space, VolumeLock};

/// More than any test writes.
const TOTAL_BYTES: u64 = 1 << 40;

/// A file system. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct MemoryFiles {
    tree: Arc<Mutex<Tree>>,
}

#[derive(Debug, Default)]
struct Tree {
    files: BTreeMap<PathBuf, MemoryFile>,
    directories: BTreeSet<PathBuf>,
}

#[derive(Debug, Clone, Default)]
struct MemoryFile {
    bytes: Arc<Mutex<Vec<u8>>>,
}

#[derive(Debug)]
struct Lock;

impl VolumeLock for Lock {}

impl MemoryFiles {
    /// Loses everything.
    pub fn clear(&self) {
        *self.tree() = Tree::default();
    }

    /// Whether this file is there.
    #[must_use]
    pub fn contains(&self, path: &Path) -> bool {
        self.tree().files.contains_key(path)
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryFile {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn offset_of(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl File for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let (bytes, offset) = (self.bytes(), offset_of(offset)?);
        let rest = bytes.get(offset..).unwrap_or_default();
        let read = buffer.len().min(rest.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(read)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (mut all, offset) = (self.bytes(), offset_of(offset)?);
        let end = offset + bytes.len();
        if all.len() < end {
            all.resize(end, 0);
        }
        all.splice(offset..end, bytes.iter().copied());
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.bytes().resize(offset_of(bytes)?, 0);
        Ok(())
    }
}

impl FileSystem for MemoryFiles {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let mut tree = self.tree();
        match (tree.files.get(path), mode) {
            (Some(_), OpenMode::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(file), _) => Ok(Box::new(file.clone())),
            (None, OpenMode::CreateNew) => {
                let file = MemoryFile::default();
                tree.files.insert(path.to_owned(), file.clone());
                Ok(Box::new(file))
            }
            (None, _) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut tree = self.tree();
        let file = tree.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        tree.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.tree().files.remove(path).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn create_directories(&self, path: &Path) -> io::Result<()> {
        self.tree().directories.insert(path.to_owned());
        Ok(())
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        let removed = self.tree().directories.remove(path);
        removed.then_some(()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn remove_directory_all(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.tree();
        tree.files.retain(|file, _| !file.starts_with(path));
        tree.directories.retain(|directory| !directory.starts_with(path));
        Ok(())
    }

    fn sync_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let tree = self.tree();
        let all = tree.files.keys().chain(&tree.directories);
        let below: BTreeSet<&PathBuf> = all.filter(|one| one.parent() == Some(path)).collect();
        Ok(below.into_iter().cloned().collect())
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        Ok(Space { total_bytes: TOTAL_BYTES, free_bytes: TOTAL_BYTES })
    }

    fn try_lock(&self, _path: &Path) -> io::Result<Option<Box<dyn VolumeLock>>> {
        Ok(Some(Box::new(Lock)))
    }
}
