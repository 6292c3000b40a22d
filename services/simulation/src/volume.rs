//! A volume in memory that takes its time, as a disk does: a process may die
//! before a write has happened, and after it, before anybody hears of it.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_core::name::ObjectName;
use holdfast_core::object::Stat;
use holdfast_core::version::Version;
use holdfast_runtime::{FileSystem, OpenMode, Runtime};
use holdfast_store::{
    Held, ListPage, ListRequest, MemoryStore, Payload, PutOutcome, Staged, Staging, Stamp, Store,
    StoreError, Usage, WalkPage,
};

use crate::files::MemoryFiles;

/// Says that the store belongs to these files: it is set aside with them.
const MARKER: &str = "objects";

/// What a data server keeps, and what outlives it. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct SimVolume {
    /// Its small files.
    pub files: MemoryFiles,
    store: Arc<Mutex<MemoryStore>>,
    is_full: Arc<AtomicBool>,
}

impl SimVolume {
    /// Loses everything. Nobody may have it open.
    pub fn clear(&self) {
        self.files.clear();
    }

    /// There is no room for payloads any more, or there is again. What is there
    /// stays, and can be deleted.
    pub fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::SeqCst);
    }

    /// Opens what is there, or a new store where there is none.
    ///
    /// # Errors
    /// Never in practice.
    pub fn open(&self, runtime: &Runtime, root: &Path) -> Result<Arc<dyn Store>, StoreError> {
        let marker: PathBuf = root.join(MARKER);
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.files.contains(&marker) {
            *store = MemoryStore::new();
            let made = self.files.open(&marker, OpenMode::CreateNew);
            made.map_err(|source| StoreError::Io { action: "create", path: marker, source })?;
        }
        let is_full = Arc::clone(&self.is_full);
        Ok(Arc::new(SlowStore { runtime: runtime.clone(), store: store.clone(), is_full }))
    }
}

#[derive(Debug)]
struct SlowStore {
    runtime: Runtime,
    store: MemoryStore,
    is_full: Arc<AtomicBool>,
}

impl SlowStore {
    /// Whether payloads find room.
    fn check_room(&self, needed_bytes: u64) -> Result<(), StoreError> {
        match self.is_full.load(Ordering::SeqCst) {
            true => Err(StoreError::NoSpace { needed_bytes, free_bytes: 0 }),
            false => Ok(()),
        }
    }

    /// Mostly a few milliseconds, now and then long.
    async fn wait(&self) {
        let dice = self.runtime.random_u64();
        let most = match dice % 200 {
            0 => 400_000,
            1..10 => 30_000,
            _ => 1_500,
        };
        self.runtime.sleep(Duration::from_micros((dice >> 8) % most)).await;
    }

    async fn glance(&self) {
        let dice = self.runtime.random_u64();
        if dice.is_multiple_of(4) {
            self.runtime.sleep(Duration::from_micros((dice >> 8) % 500)).await;
        }
    }
}

#[async_trait]
impl Store for SlowStore {
    async fn stage(&self, size_bytes: Option<u64>) -> Result<Box<dyn Staging>, StoreError> {
        self.check_room(size_bytes.unwrap_or(1))?;
        self.store.stage(size_bytes).await
    }

    async fn commit(
        &self,
        name: ObjectName,
        stamp: Stamp,
        staged: Box<dyn Staged>,
    ) -> Result<PutOutcome, StoreError> {
        self.wait().await;
        self.check_room(1)?;
        let outcome = self.store.commit(name, stamp, staged).await;
        self.wait().await;
        outcome
    }

    async fn delete(&self, name: ObjectName, stamp: Stamp) -> Result<PutOutcome, StoreError> {
        self.wait().await;
        let outcome = self.store.delete(name, stamp).await;
        self.wait().await;
        outcome
    }

    async fn forget(&self, name: &ObjectName, version: Version) -> Result<bool, StoreError> {
        self.wait().await;
        let outcome = self.store.forget(name, version).await;
        self.wait().await;
        outcome
    }

    async fn stat(&self, names: &[ObjectName]) -> Vec<Result<Option<Stat>, StoreError>> {
        self.glance().await;
        let stats = self.store.stat(names).await;
        self.glance().await;
        stats
    }

    async fn inspect(&self, names: &[ObjectName]) -> Vec<Result<Option<Held>, StoreError>> {
        self.glance().await;
        let held = self.store.inspect(names).await;
        self.glance().await;
        held
    }

    async fn read(
        &self,
        name: &ObjectName,
        version: Option<Version>,
        range: Option<Range<u64>>,
    ) -> Result<Payload, StoreError> {
        self.glance().await;
        self.store.read(name, version, range).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, StoreError> {
        self.store.list(request).await
    }

    async fn walk(&self, after: Option<&ObjectName>, limit: usize) -> Result<WalkPage, StoreError> {
        self.glance().await;
        self.store.walk(after, limit).await
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let mut usage = self.store.usage().await?;
        if self.check_room(1).is_err() {
            usage.space.free_bytes = 0;
        }
        Ok(usage)
    }

    fn poisoned(&self) -> Option<String> {
        self.store.poisoned()
    }

    async fn put(
        &self,
        name: ObjectName,
        stamp: Stamp,
        payload: Bytes,
    ) -> Result<PutOutcome, StoreError> {
        self.wait().await;
        self.check_room(payload.len() as u64)?;
        let outcome = self.store.put(name, stamp, payload).await;
        self.wait().await;
        outcome
    }
}
