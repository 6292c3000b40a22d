//! The disk below a volume: every call that blocks, with what must hold of all
//! of them: errors name their file, syncs are measured, a failed one poisons,
//! and the reserve stays free.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt;
use holdfast_runtime::{File, FileSystem, OpenMode, Runtime, Space};
use tokio::sync::oneshot;

use crate::{StoreError, StoreMetrics};

/// The file system as one volume uses it. All methods block but [`Self::run`].
#[derive(Debug)]
pub(crate) struct Disk {
    runtime: Runtime,
    files: Arc<dyn FileSystem>,
    root: PathBuf,
    reserve_bytes: u64,
    metrics: StoreMetrics,
    poison: OnceLock<String>,
    /// Free bytes when they were last looked at.
    last_free_bytes: AtomicU64,
}

impl Disk {
    pub(crate) fn new(runtime: Runtime, root: PathBuf, reserve_bytes: u64) -> Self {
        Self {
            files: runtime.files(),
            runtime,
            root,
            reserve_bytes,
            metrics: StoreMetrics::new(),
            poison: OnceLock::new(),
            last_free_bytes: AtomicU64::new(0),
        }
    }

    /// Runs `work` where it may block. Cancelling does not stop it.
    pub(crate) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let disk = Arc::clone(self);
        match self.runtime.blocking(move || work(&disk)).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::WorkLost),
        }
    }

    /// Begins `work` at once where it may block; its answer can be waited for
    /// later, or never. A channel that closes without one means that the work was
    /// lost.
    pub(crate) fn begin<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> Result<T, StoreError> + Send + 'static,
    ) -> oneshot::Receiver<Result<T, StoreError>> {
        let (sender, receiver) = oneshot::channel();
        let disk = Arc::clone(self);
        let begun = self.runtime.blocking(move || {
            // Nobody waits any more: the work was still done.
            let _ = sender.send(work(&disk));
        });
        // The first poll hands the work over, and dropping does not stop it.
        let _ = Box::pin(begun).as_mut().now_or_never();
        receiver
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(crate) fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path of the volume.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    pub(crate) fn files(&self) -> &dyn FileSystem {
        &*self.files
    }

    pub(crate) fn open(&self, path: &Path) -> Result<Box<dyn File>, StoreError> {
        self.files.open(path, OpenMode::Read).map_err(io_error("open", path))
    }

    pub(crate) fn create(&self, path: &Path) -> Result<Box<dyn File>, StoreError> {
        self.files.open(path, OpenMode::CreateNew).map_err(io_error("create", path))
    }

    /// As [`FileSystem::create_direct`]; `None` where there is no such thing.
    pub(crate) fn create_direct(&self, path: &Path) -> Result<Option<Box<dyn File>>, StoreError> {
        self.files.create_direct(path).map_err(io_error("create", path))
    }

    pub(crate) fn write(
        &self,
        file: &dyn File,
        path: &Path,
        bytes: &[u8],
        offset: u64,
    ) -> Result<(), StoreError> {
        match file.write_all_at(bytes, offset) {
            Ok(()) => {
                self.metrics.on_written(bytes.len());
                Ok(())
            }
            Err(error) if is_full(&error) => {
                let needed_bytes = bytes.len() as u64;
                let free_bytes = self.look_at_free_bytes().unwrap_or(0).min(needed_bytes);
                Err(StoreError::NoSpace { needed_bytes, free_bytes })
            }
            Err(error) => Err(io_error("write", path)(error)),
        }
    }

    pub(crate) fn list(&self, path: &Path) -> Result<Vec<PathBuf>, StoreError> {
        self.files.list(path).map_err(io_error("list", path))
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        self.files.rename(from, to).map_err(io_error("rename a file to", to))
    }

    pub(crate) fn remove(&self, path: &Path) -> Result<(), StoreError> {
        self.files.remove_file(path).map_err(io_error("remove", path))
    }

    pub(crate) fn space(&self) -> Result<Space, StoreError> {
        let space =
            self.files.space(&self.root).map_err(io_error("look for room on", &self.root))?;
        self.last_free_bytes.store(space.free_bytes, Ordering::Relaxed);
        Ok(space)
    }

    /// Free bytes when they were last looked at.
    pub(crate) fn last_free_bytes(&self) -> u64 {
        self.last_free_bytes.load(Ordering::Relaxed)
    }

    fn look_at_free_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.space()?.free_bytes.saturating_sub(self.reserve_bytes))
    }

    /// Refuses a write that would eat into the reserve.
    pub(crate) fn check_room(&self, needed_bytes: u64) -> Result<(), StoreError> {
        let free_bytes = self.look_at_free_bytes()?;
        if needed_bytes > free_bytes {
            return Err(StoreError::NoSpace { needed_bytes, free_bytes });
        }
        Ok(())
    }

    /// Whether there was room when last looked at. Does not block; only a
    /// "yes" is worth anything, and what is written is checked again.
    pub(crate) fn had_room(&self, needed_bytes: u64) -> bool {
        let free_bytes = self.last_free_bytes.load(Ordering::Relaxed);
        needed_bytes <= free_bytes.saturating_sub(self.reserve_bytes)
    }

    /// Makes a file durable.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] from now on: after a failed sync the kernel may
    /// take the lost bytes for written, so that a second one would succeed
    /// ([fsyncgate](https://wiki.postgresql.org/wiki/Fsync_Errors)).
    pub(crate) fn sync_file(&self, file: &dyn File, path: &Path) -> Result<(), StoreError> {
        self.sync("fdatasync", path, || file.sync_data())
    }

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// As [`Self::sync_file`].
    pub(crate) fn sync_directory(&self, path: &Path) -> Result<(), StoreError> {
        self.sync("sync of the directory", path, || self.files.sync_directory(path))
    }

    fn sync(
        &self,
        action: &'static str,
        path: &Path,
        sync: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), StoreError> {
        self.writable()?;
        let started = self.runtime.now();
        let result = sync();
        self.metrics.on_sync(self.runtime.now().saturating_sub(started));
        result.map_err(|error| self.poison_with(format!("{action} {}: {error}", path.display())))
    }

    /// Nothing more is written by this process.
    pub(crate) fn poison_with(&self, reason: String) -> StoreError {
        tracing::error!(%reason, "the volume takes no more writes");
        self.metrics.on_poisoned();
        let reason = self.poison.get_or_init(|| reason).clone();
        StoreError::Poisoned { reason }
    }

    pub(crate) fn poisoned(&self) -> Option<&str> {
        self.poison.get().map(String::as_str)
    }

    /// Refuses every write once a sync has failed.
    pub(crate) fn writable(&self) -> Result<(), StoreError> {
        match self.poisoned() {
            Some(reason) => Err(StoreError::Poisoned { reason: reason.to_owned() }),
            None => Ok(()),
        }
    }

    /// Removes a file that nobody waits for. What is left over, because the
    /// process ends first, is removed when the volume is opened.
    pub(crate) fn remove_in_background(self: &Arc<Self>, path: PathBuf) {
        if tokio::runtime::Handle::try_current().is_err() {
            return; // Dropped after the runtime: there is nobody to do it.
        }
        let disk = Arc::clone(self);
        self.runtime.spawn("remove a staged file", async move {
            let removed = disk.run(move |disk| disk.remove(&path)).await;
            if let Err(error) = removed {
                tracing::warn!(%error, "a staged file stays until the volume is opened again");
            }
        });
    }
}

/// Names the file an error is about, and gives a full disk its own error.
pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| {
        if is_full(&source) {
            return StoreError::NoSpace { needed_bytes: 0, free_bytes: 0 };
        }
        StoreError::Io { action, path, source }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
