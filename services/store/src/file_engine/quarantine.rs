//! Putting files aside that cannot be read.

use std::sync::Arc;

use super::Shared;
use super::catalog::Target;
use crate::StoreError;
use crate::disk::io_error;

/// See [`super::FileStore::quarantine`].
pub(super) async fn quarantine(shared: &Arc<Shared>, target: Target) -> Result<bool, StoreError> {
    let guard = shared.locks.lock(target.hash).await;
    let volume = Arc::clone(shared);
    let moved = shared.disk.run(move |_| {
        let _guard = guard;
        volume.put_aside(&target)
    });
    moved.await
}

impl Shared {
    /// Blocks; the caller holds the lock of the name. Nothing is forgotten
    /// before it is durable that the file is gone from its place.
    fn put_aside(&self, target: &Target) -> Result<bool, StoreError> {
        self.disk.writable()?;
        if !self.catalog.is_unreadable(target.hash) {
            return Ok(false);
        }
        let directory = self.disk.path("quarantine");
        self.disk
            .files()
            .create_directories(&directory)
            .map_err(io_error("create the directory", &directory))?;
        self.disk.sync_directory(self.disk.root())?;
        let from = self.disk.path(target.hash.path());
        self.disk.rename(&from, &directory.join(target.hash.to_string()))?;
        self.disk.sync_directory(&directory)?;
        self.disk.sync_directory(&self.disk.path(target.hash.directory()))?;
        Ok(self.catalog.forget_unreadable(target.hash))
    }
}
