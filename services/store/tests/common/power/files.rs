//! The disk as the file system that the runtime hands to a store.

use std::io;
use std::path::{Path, PathBuf};

use holdfast_runtime::{File, FileSystem, OpenMode, Space, VolumeLock};
use rustix::io::Errno;

use super::PowerDisk;
use super::image::{Ino, ROOT};

/// What offsets and lengths of `O_DIRECT` must be multiples of, in bytes.
pub const DIRECT_BYTES: u64 = 4096;

/// What buffers of `O_DIRECT` must be aligned to, in bytes.
const DIRECT_BUFFER_BYTES: usize = 512;

/// An open file. It reads what it had even when its name is gone.
#[derive(Debug)]
struct PowerFile {
    disk: PowerDisk,
    ino: Ino,
    is_writable: bool,
    is_direct: bool,
}

impl PowerFile {
    fn open(disk: &PowerDisk, ino: Ino, is_writable: bool, is_direct: bool) -> Box<dyn File> {
        disk.core().open(ino);
        Box::new(Self { disk: disk.clone(), ino, is_writable, is_direct })
    }

    fn check_alignment(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        let is_aligned = offset.is_multiple_of(DIRECT_BYTES)
            && (buffer.len() as u64).is_multiple_of(DIRECT_BYTES)
            && buffer.as_ptr().addr().is_multiple_of(DIRECT_BUFFER_BYTES);
        if self.is_direct && !is_aligned {
            return Err(Errno::INVAL.into());
        }
        Ok(())
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.is_writable { Ok(()) } else { Err(Errno::BADF.into()) }
    }
}

impl Drop for PowerFile {
    fn drop(&mut self) {
        self.disk.core().close(self.ino);
    }
}

impl File for PowerFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.check_alignment(buffer, offset)?;
        Ok(self.disk.core().read(self.ino, offset, buffer)?)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        self.check_alignment(bytes, offset)?;
        Ok(self.disk.core().write(self.ino, offset, bytes)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(self.disk.core().sync_data(self.ino)?)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.core().content(self.ino)?.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.check_writable()?;
        Ok(self.disk.core().set_len(self.ino, bytes)?)
    }
}

#[derive(Debug)]
struct PowerLock {
    disk: PowerDisk,
    ino: Ino,
}

impl VolumeLock for PowerLock {}

impl Drop for PowerLock {
    fn drop(&mut self) {
        self.disk.core().unlock(self.ino);
    }
}

impl PowerDisk {
    fn create(&self, path: &Path) -> io::Result<Ino> {
        let mut core = self.core();
        let at = core.entry(path)?;
        Ok(core.create(at)?)
    }

    fn existing(&self, path: &Path) -> io::Result<Ino> {
        let core = self.core();
        let ino = core.resolve(path)?;
        core.content(ino)?;
        Ok(ino)
    }
}

impl FileSystem for PowerDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let ino = match mode {
            OpenMode::Read | OpenMode::Write => self.existing(path)?,
            OpenMode::CreateNew => self.create(path)?,
        };
        Ok(PowerFile::open(self, ino, mode != OpenMode::Read, false))
    }

    fn create_direct(&self, path: &Path) -> io::Result<Option<Box<dyn File>>> {
        if !self.core().options.direct {
            return Ok(None);
        }
        let ino = self.create(path)?;
        Ok(Some(PowerFile::open(self, ino, true, true)))
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        let mut core = self.core();
        let at = core.entry(path)?;
        Ok(core.remove(at, true)?)
    }

    /// The tree below goes file by file, as on a disk.
    fn remove_directory_all(&self, path: &Path) -> io::Result<()> {
        let mut core = self.core();
        let names: Vec<PathBuf> = match core.resolve(path) {
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno.into()),
            Ok(ino) => core.directory(ino)?.keys().map(|name| path.join(&**name)).collect(),
        };
        drop(core);
        for name in names {
            match self.existing(&name) {
                Ok(_) => self.remove_file(&name)?,
                Err(_) => self.remove_directory_all(&name)?,
            }
        }
        core = self.core();
        let at = core.entry(path)?;
        Ok(core.remove(at, true)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut core = self.core();
        let (from, to) = (core.entry(from)?, core.entry(to)?);
        Ok(core.rename(from, to)?)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut core = self.core();
        let at = core.entry(path)?;
        Ok(core.remove(at, false)?)
    }

    fn create_directories(&self, path: &Path) -> io::Result<()> {
        let mut core = self.core();
        let mut directories: Vec<_> = path.ancestors().collect();
        while let Some(directory) = directories.pop() {
            match core.resolve(directory) {
                Ok(ino) => core.directory(ino).map(drop)?,
                Err(Errno::NOENT) => {
                    let at = core.entry(directory)?;
                    core.make_directory(at)?;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut core = self.core();
        let ino = core.resolve(path)?;
        Ok(core.sync_directory(ino)?)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let core = self.core();
        let names = core.directory(core.resolve(path)?)?.keys();
        Ok(names.map(|name| path.join(&**name)).collect())
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let core = self.core();
        core.resolve(path)?;
        let free_bytes = core.free_bytes();
        Ok(Space { total_bytes: core.options.capacity_bytes, free_bytes })
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn VolumeLock>>> {
        let mut core = self.core();
        let ino = match core.resolve(path) {
            Ok(ROOT) => return Err(Errno::ISDIR.into()),
            Ok(ino) => ino,
            Err(Errno::NOENT) => {
                let at = core.entry(path)?;
                core.create(at)?
            }
            Err(errno) => return Err(errno.into()),
        };
        if !core.lock(ino) {
            return Ok(None);
        }
        Ok(Some(Box::new(PowerLock { disk: self.clone(), ino })))
    }
}
