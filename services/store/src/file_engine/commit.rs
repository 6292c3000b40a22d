//! Giving a file its name, if it is newer than what has that name.
//!
//! The order is what makes a write durable: content, fdatasync, then under the
//! lock of the name: decide, rename, sync of the directory, and only then the
//! catalogue. So whatever the catalogue answers survives a power cut.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_core::object::Stat;
use holdfast_core::version::Version;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::Shared;
use super::catalog::Target;
use super::name_hash::NameHash;
use super::staging::{Content, StagedFile};
use crate::{PutOutcome, StoreError};

/// Locks that names share; so many that 64 writers of different names seldom
/// meet.
const STRIPE_COUNT: usize = 1024;

/// One lock for each name, of which some share one.
#[derive(Debug)]
pub(super) struct NameLocks(Vec<Arc<Mutex<()>>>);

impl NameLocks {
    pub(super) fn new() -> Self {
        Self((0..STRIPE_COUNT).map(|_| Arc::default()).collect())
    }

    /// Waits for the lock of a name. The guard must move into the blocking work
    /// that it guards, which goes on when its caller is cancelled.
    pub(super) async fn lock(&self, hash: NameHash) -> OwnedMutexGuard<()> {
        let stripe = self.0.get(hash.stripe(STRIPE_COUNT)).cloned();
        // There are STRIPE_COUNT locks and a stripe is less than that.
        stripe.unwrap_or_default().lock_owned().await
    }
}

/// Writes what is left of a payload and makes it the content of a name.
pub(super) async fn commit(
    shared: &Arc<Shared>,
    target: Target,
    stat: Stat,
    content: Content,
    rest: Bytes,
) -> Result<PutOutcome, StoreError> {
    shared.disk.writable()?;
    // Looked at once more under the lock; this saves the sync of what is old.
    if let Some(outcome) = shared.catalog.settled(&target, &stat)? {
        return Ok(outcome);
    }
    let hash = target.hash;
    let completed = shared.disk.run(move |_| {
        let file = content.complete(&rest, &target.name, &stat)?;
        Ok((file, target, stat))
    });
    let (file, target, stat) = completed.await?;
    let guard = shared.locks.lock(hash).await;
    let volume = Arc::clone(shared);
    let published = shared.disk.run(move |_| {
        let _guard = guard;
        volume.publish(target, stat, file)
    });
    published.await
}

/// Removes the file of a name if it still is exactly this version.
pub(super) async fn forget(
    shared: &Arc<Shared>,
    target: Target,
    version: Version,
) -> Result<bool, StoreError> {
    shared.disk.writable()?;
    let guard = shared.locks.lock(target.hash).await;
    let volume = Arc::clone(shared);
    let removed = shared.disk.run(move |_| {
        let _guard = guard;
        volume.unpublish(&target, version)
    });
    removed.await
}

impl Shared {
    /// Blocks; the caller holds the lock of the name.
    fn unpublish(&self, target: &Target, version: Version) -> Result<bool, StoreError> {
        self.disk.writable()?;
        if self.catalog.lookup(&target.name)?.is_none_or(|stat| stat.version != version) {
            return Ok(false);
        }
        self.disk.remove(&self.disk.path(target.hash.path()))?;
        // Not durable yet: after a power cut the old version may be back, which
        // is why nobody is told before the sync.
        self.catalog.remove(target);
        self.disk.sync_directory(&self.disk.path(target.hash.directory()))?;
        Ok(true)
    }

    /// Blocks; the caller holds the lock of the name.
    fn publish(
        &self,
        target: Target,
        stat: Stat,
        mut file: StagedFile,
    ) -> Result<PutOutcome, StoreError> {
        self.disk.writable()?;
        if let Some(outcome) = self.catalog.settled(&target, &stat)? {
            return Ok(outcome);
        }
        file.rename(&self.disk.path(target.hash.path()))?;
        let synced = self.disk.sync_directory(&self.disk.path(target.hash.directory()));
        if let Err(error) = synced {
            self.catalog.mark_in_doubt(&target, &error);
            return Err(error);
        }
        self.catalog.apply([(target, stat)]);
        Ok(PutOutcome::Stored)
    }
}
