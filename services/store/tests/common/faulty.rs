//! A file system that records what is done and fails where it is told to.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use holdfast_runtime::{File, FileSystem, OpenMode, Runtime, Space, VolumeLock};

/// One step that changes a disk or makes a change durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Create(PathBuf),
    Write(PathBuf),
    SyncData(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncDirectory(PathBuf),
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    SyncData,
    SyncDirectory,
    Rename,
    /// Files are not removed.
    Remove,
    /// Writes say that the disk is full.
    WriteFull,
    /// Reads say that the disk is broken.
    Read,
}

/// What a file system reads and writes at once, in bytes.
pub const PAGE_BYTES: u64 = 4096;

/// The real file system with faults and a record.
#[derive(Debug)]
pub struct FaultyFiles {
    real: Arc<dyn FileSystem>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    steps: Mutex<Vec<Step>>,
    fault: Mutex<Option<(Fault, u64)>>,
    free_bytes: AtomicU64,
    reads: AtomicU64,
    bad_pages: Mutex<BTreeSet<(PathBuf, u64)>>,
    is_buffered: AtomicBool,
    directory_sync_delay: Mutex<Option<Duration>>,
    held: (Mutex<Held>, Condvar),
}

impl FaultyFiles {
    pub fn new() -> Arc<Self> {
        Self::over(Runtime::real().files())
    }

    /// The same over another file system.
    pub fn over(real: Arc<dyn FileSystem>) -> Arc<Self> {
        let shared = Shared {
            steps: Mutex::default(),
            fault: Mutex::default(),
            free_bytes: AtomicU64::new(u64::MAX),
            reads: AtomicU64::new(0),
            bad_pages: Mutex::default(),
            is_buffered: AtomicBool::new(false),
            directory_sync_delay: Mutex::default(),
            held: Default::default(),
        };
        Arc::new(Self { real, shared: Arc::new(shared) })
    }

    /// Fails every step of a kind after the next `spared` ones.
    pub fn fail_after(&self, fault: Fault, spared: u64) {
        *self.shared.fault.lock().unwrap() = Some((fault, spared));
    }

    pub fn heal(&self) {
        *self.shared.fault.lock().unwrap() = None;
    }

    /// Makes a page of a file one that the disk cannot read. Part of it cannot be
    /// written either, since the rest of it would have to be read first; all of it
    /// can, and then it is a good one.
    pub fn break_page(&self, path: &Path, page: u64) {
        self.shared.bad_pages.lock().unwrap().insert((path.to_owned(), page));
    }

    pub fn set_free_bytes(&self, free_bytes: u64) {
        self.shared.free_bytes.store(free_bytes, Ordering::SeqCst);
    }

    /// Makes it a file system without direct writes.
    pub fn refuse_direct(&self) {
        self.shared.is_buffered.store(true, Ordering::SeqCst);
    }

    /// Makes the next sync of a directory take so long.
    pub fn slow_down_next_directory_sync(&self, delay: Duration) {
        *self.shared.directory_sync_delay.lock().unwrap() = Some(delay);
    }

    /// Lets writes and syncs of the files below a directory wait as long as what
    /// this returns is there.
    pub fn hold(&self, directory: PathBuf) -> Hold {
        self.shared.held.0.lock().unwrap().directory = Some(directory);
        Hold(Arc::clone(&self.shared))
    }

    /// What was done since this was asked last.
    pub fn take_steps(&self) -> Vec<Step> {
        std::mem::take(&mut *self.shared.steps.lock().unwrap())
    }

    /// Bytes read since this was asked last.
    pub fn take_read_bytes(&self) -> u64 {
        self.shared.reads.swap(0, Ordering::SeqCst)
    }
}

impl Shared {
    fn done(&self, step: Step) {
        self.steps.lock().unwrap().push(step);
    }

    fn wait_while_held(&self, path: &Path) {
        let (held, changed) = &self.held;
        let mut held = held.lock().unwrap();
        while held.directory.as_ref().is_some_and(|directory| path.starts_with(directory)) {
            held.waiting += 1;
            held = changed.wait(held).unwrap();
            held.waiting -= 1;
        }
    }

    /// Those pages of a part of a file that are bad.
    fn bad_pages(&self, path: &Path, offset: u64, length: usize) -> Vec<u64> {
        let bad = self.bad_pages.lock().unwrap();
        let last = (offset + length as u64).div_ceil(PAGE_BYTES);
        let pages = offset / PAGE_BYTES..last;
        let is_bad = |page: &u64| !bad.is_empty() && bad.contains(&(path.to_owned(), *page));
        pages.filter(is_bad).collect()
    }

    fn check_pages_read(&self, path: &Path, offset: u64, length: usize) -> io::Result<()> {
        match self.bad_pages(path, offset, length).is_empty() {
            true => Ok(()),
            false => Err(rustix::io::Errno::IO.into()),
        }
    }

    fn check_pages_written(&self, path: &Path, offset: u64, length: usize) -> io::Result<()> {
        let end = offset + length as u64;
        for page in self.bad_pages(path, offset, length) {
            let is_whole = offset <= page * PAGE_BYTES && (page + 1) * PAGE_BYTES <= end;
            if !is_whole {
                return Err(rustix::io::Errno::IO.into());
            }
            self.bad_pages.lock().unwrap().remove(&(path.to_owned(), page));
        }
        Ok(())
    }

    fn check(&self, kind: Fault, error: io::ErrorKind) -> io::Result<()> {
        match &mut *self.fault.lock().unwrap() {
            Some((fault, 0)) if *fault == kind => Err(io::Error::new(error, "a fault on purpose")),
            Some((fault, spared)) if *fault == kind => {
                *spared -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[derive(Debug, Default)]
struct Held {
    directory: Option<PathBuf>,
    waiting: usize,
}

/// Lets go when it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Hold(Arc<Shared>);

impl Hold {
    /// Whether a call waits.
    pub fn has_caught(&self) -> bool {
        self.0.held.0.lock().unwrap().waiting > 0
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let (held, changed) = &self.0.held;
        held.lock().unwrap().directory = None;
        changed.notify_all();
    }
}

#[derive(Debug)]
struct FaultyFile {
    real: Box<dyn File>,
    path: PathBuf,
    shared: Arc<Shared>,
}

impl File for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.shared.check(Fault::Read, io::ErrorKind::Other)?;
        self.shared.check_pages_read(&self.path, offset, buffer.len())?;
        self.shared.reads.fetch_add(buffer.len() as u64, Ordering::SeqCst);
        self.real.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.shared.wait_while_held(&self.path);
        self.shared.check(Fault::WriteFull, io::ErrorKind::StorageFull)?;
        self.shared.check_pages_written(&self.path, offset, bytes.len())?;
        self.real.write_all_at(bytes, offset)?;
        self.shared.done(Step::Write(self.path.clone()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.shared.wait_while_held(&self.path);
        self.shared.check(Fault::SyncData, io::ErrorKind::Other)?;
        self.real.sync_data()?;
        self.shared.done(Step::SyncData(self.path.clone()));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.real.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.real.set_len(bytes)
    }
}

impl FileSystem for FaultyFiles {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let real = self.real.open(path, mode)?;
        if mode == OpenMode::CreateNew {
            self.shared.done(Step::Create(path.to_owned()));
        }
        let shared = Arc::clone(&self.shared);
        Ok(Box::new(FaultyFile { real, path: path.to_owned(), shared }))
    }

    fn create_direct(&self, path: &Path) -> io::Result<Option<Box<dyn File>>> {
        if self.shared.is_buffered.load(Ordering::SeqCst) {
            return Ok(None);
        }
        let Some(real) = self.real.create_direct(path)? else { return Ok(None) };
        self.shared.done(Step::Create(path.to_owned()));
        let shared = Arc::clone(&self.shared);
        Ok(Some(Box::new(FaultyFile { real, path: path.to_owned(), shared })))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.shared.check(Fault::Rename, io::ErrorKind::Other)?;
        self.real.rename(from, to)?;
        self.shared.done(Step::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.shared.check(Fault::Remove, io::ErrorKind::PermissionDenied)?;
        self.real.remove_file(path)?;
        self.shared.done(Step::Remove(path.to_owned()));
        Ok(())
    }

    fn create_directories(&self, path: &Path) -> io::Result<()> {
        self.real.create_directories(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.real.remove_directory(path)?;
        self.shared.done(Step::Remove(path.to_owned()));
        Ok(())
    }

    fn remove_directory_all(&self, path: &Path) -> io::Result<()> {
        self.real.remove_directory_all(path)?;
        self.shared.done(Step::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.shared.check(Fault::SyncDirectory, io::ErrorKind::Other)?;
        let delay = self.shared.directory_sync_delay.lock().unwrap().take();
        std::thread::sleep(delay.unwrap_or_default());
        self.real.sync_directory(path)?;
        self.shared.done(Step::SyncDirectory(path.to_owned()));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.real.list(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let space = self.real.space(path)?;
        let free_bytes = space.free_bytes.min(self.shared.free_bytes.load(Ordering::SeqCst));
        Ok(Space { free_bytes, ..space })
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn VolumeLock>>> {
        self.real.try_lock(path)
    }
}
