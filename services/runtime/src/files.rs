//! Files. Every call blocks; callers run them through
//! [`crate::Runtime::blocking`] or on threads of their own.

#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "this is the seam itself")]

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

/// What [`FileSystem::create_direct`] asks of every read and write: the largest
/// block that Linux file systems ask for on common disks.
pub const DIRECT_ALIGNMENT_BYTES: usize = 4096;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must not exist.
    CreateNew,
    /// For reading and writing; it must exist.
    Write,
}

/// Room on the disk below a directory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Size of the file system.
    pub total_bytes: u64,
    /// What this process may still write.
    pub free_bytes: u64,
}

/// An open file. Offsets are given with each call, so that many threads can use
/// one file.
pub trait File: Send + Sync + fmt::Debug {
    /// Reads until `buffer` is full or the file ends; returns how much.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// As the operating system gives them; part may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes what was written, and the length, survive a power cut (fdatasync).
    ///
    /// # Errors
    /// After one the file must be considered lost: never call it again.
    fn sync_data(&self) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn len(&self) -> io::Result<u64>;

    /// Whether the length is 0.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts or extends the file.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
}

/// Held while a process uses a volume; released when dropped or when the
/// process ends in whatever way.
pub trait VolumeLock: Send + Sync + fmt::Debug {}

/// The file system as the store sees it.
pub trait FileSystem: Send + Sync + fmt::Debug {
    /// Opens a file.
    ///
    /// # Errors
    /// `NotFound` or `AlreadyExists` as the mode says, and the system's others.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>>;

    /// Creates a file for reading and writing past the page cache (O_DIRECT),
    /// for large payloads that would only push other things out of it. It must
    /// not exist. `None`, and no file, where the file system has no such thing.
    ///
    /// Of every read and write the address of the buffer, the length and the
    /// offset must be multiples of [`DIRECT_ALIGNMENT_BYTES`];
    /// [`File::set_len`] takes any length.
    ///
    /// # Errors
    /// `AlreadyExists`, and the system's others.
    fn create_direct(&self, path: &Path) -> io::Result<Option<Box<dyn File>>> {
        let _ = path;
        Ok(None)
    }

    /// Gives a file another name, atomically replacing what had that name. Not
    /// durable before [`Self::sync_directory`].
    ///
    /// # Errors
    /// As the operating system gives them.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Not durable before [`Self::sync_directory`].
    ///
    /// # Errors
    /// As the operating system gives them.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Creates a directory and those above it that are missing; not durable
    /// before the directory above each is synced.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn create_directories(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory that is empty. Not durable before the directory above
    /// is synced.
    ///
    /// # Errors
    /// `DirectoryNotEmpty` when something is in it, `NotFound`, and the system's
    /// others.
    fn remove_directory(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with all that is in it; done already if it is
    /// missing. Not durable before the directory above is synced, and after a
    /// crash part of it may be left.
    ///
    /// # Errors
    /// As the operating system gives them; part may have been removed.
    fn remove_directory_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory survive a power cut.
    ///
    /// # Errors
    /// As the operating system gives them; see [`File::sync_data`].
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, in order.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;

    /// Room on the disk.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn space(&self, path: &Path) -> io::Result<Space>;

    /// Locks a file, which is created if it is missing, against every other
    /// process; `None` if another one holds it.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn VolumeLock>>>;
}

#[derive(Debug)]
pub(crate) struct RealFileSystem;

impl File for fs::File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match FileExt::read_at(self, rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        Self::set_len(self, bytes)
    }
}

#[derive(Debug)]
struct RealLock {
    file: fs::File,
}

impl VolumeLock for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        // Closing would not do: a child process that is just being started holds
        // the file as well until it runs its program, and the lock with it.
        let _ = self.file.unlock();
    }
}

/// Whether the alignment that we keep is enough; a kernel that cannot tell is
/// taken at the word of its open(2).
fn suits_direct(file: &OwnedFd) -> bool {
    match rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) {
        Ok(stat) if stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0 => {
            [stat.stx_dio_mem_align, stat.stx_dio_offset_align].into_iter().all(|bytes| {
                usize::try_from(bytes)
                    .is_ok_and(|bytes| (1..=DIRECT_ALIGNMENT_BYTES).contains(&bytes))
            })
        }
        _ => true,
    }
}

impl FileSystem for RealFileSystem {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let mut options = fs::OpenOptions::new();
        match mode {
            OpenMode::Read => options.read(true),
            OpenMode::CreateNew => options.read(true).write(true).create_new(true),
            OpenMode::Write => options.read(true).write(true),
        };
        Ok(Box::new(options.open(path)?))
    }

    fn create_direct(&self, path: &Path) -> io::Result<Option<Box<dyn File>>> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o666);
        match rustix::io::retry_on_intr(|| rustix::fs::open(path, flags, mode)) {
            Ok(file) if suits_direct(&file) => return Ok(Some(Box::new(fs::File::from(file)))),
            Ok(_) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
        // Linux looks at the flag only after it has made the file.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(None),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_directories(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn remove_directory_all(&self, path: &Path) -> io::Result<()> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        open_patiently(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut names =
            fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        Ok(names)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space {
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn VolumeLock>>> {
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(RealLock { file }))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

/// How often, and how long after each other, a directory is opened that is to be
/// synced, while the process has no file descriptor left.
const OPENS: usize = 100;
const OPEN_AGAIN: Duration = Duration::from_millis(50);

/// Opens what is to be synced. A process that has run out of descriptors for a moment
/// must not be taken for a disk that cannot be synced: nothing was tried yet.
fn open_patiently(path: &Path) -> io::Result<fs::File> {
    for _ in 1..OPENS {
        match fs::File::open(path) {
            Err(error) if is_out_of_descriptors(&error) => std::thread::sleep(OPEN_AGAIN),
            opened => return opened,
        }
    }
    fs::File::open(path)
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the temporary directory and removed in the end.
    struct TempFile(PathBuf);

    impl TempFile {
        fn new() -> Self {
            let unique = crate::Runtime::real().random_u128();
            Self(std::env::temp_dir().join(format!("holdfast-runtime-{unique:032x}")))
        }
    }

    impl Drop for TempFile {
        fn drop(&mut self) {
            // What stays is in the temporary directory, where nobody minds.
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_lock_is_given_back_though_a_child_still_holds_its_file() {
        let temp = TempFile::new();
        let file = fs::File::create(&temp.0).expect("the temporary directory is writable");
        file.try_lock().expect("nobody else knows it");
        // What a fork leaves in the child.
        let inherited = file.try_clone().expect("a descriptor");
        let lock = RealLock { file };
        assert!(RealFileSystem.try_lock(&temp.0).expect("it is ours").is_none());
        drop(lock);
        assert!(RealFileSystem.try_lock(&temp.0).expect("it is ours").is_some());
        drop(inherited);
    }

    #[test]
    fn a_direct_file_takes_aligned_writes_and_any_length_or_is_not_there() {
        let path = TempFile::new();
        let Some(file) = RealFileSystem.create_direct(&path.0).unwrap() else {
            assert!(!path.0.exists(), "a file system without O_DIRECT is left as it was");
            return;
        };
        let storage = vec![7; 3 * DIRECT_ALIGNMENT_BYTES];
        let start = storage.as_ptr().align_offset(DIRECT_ALIGNMENT_BYTES);
        let bytes = &storage[start..start + 2 * DIRECT_ALIGNMENT_BYTES];
        file.write_all_at(bytes, 0).unwrap();
        file.set_len(5000).unwrap();
        file.sync_data().unwrap();
        assert_eq!(fs::read(&path.0).unwrap(), [7; 5000]);
    }

    #[test]
    fn a_direct_file_never_replaces_another() {
        let path = TempFile::new();
        fs::write(&path.0, "kept").unwrap();
        let error = RealFileSystem.create_direct(&path.0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path.0).unwrap(), b"kept");
    }
}
