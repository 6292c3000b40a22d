//! A volume in memory, for tests of what stands on a [`Store`].

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, checksum};
use futures_util::{StreamExt, stream};
use holdfast_core::name::ObjectName;
use holdfast_core::object::{Digest, Stat};
use holdfast_core::version::Version;
use holdfast_runtime::Space;

use crate::decide::{checked_range, object, readable, settled, tombstone};
use crate::index::Index;
use crate::payload_file::damage::Damage;
use crate::{
    ByteStream, Held, ListPage, ListRequest, Payload, PutOutcome, Staged, Staging, Stamp, Store,
    StoreError, Usage, WalkPage,
};

/// Chunk of a read: small, so that tests see payloads in several chunks.
const CHUNK_BYTES: usize = 64 * 1024;

/// Room of a [`MemoryStore::new`]: more than any test writes.
const DEFAULT_CAPACITY_BYTES: u64 = 1 << 40;

/// A [`Store`] that lives as long as the process: **for tests**, since nothing
/// of it survives anything. It passes the same conformance suite as the engines
/// on disk. Clones share their content.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Mutex<State>>,
    capacity_bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    index: Index,
    payloads: BTreeMap<ObjectName, Bytes>,
    poison: Option<String>,
}

impl MemoryStore {
    /// An empty volume with room for whatever a test writes.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(DEFAULT_CAPACITY_BYTES)
    }

    /// An empty volume that is full when it holds so many payload bytes.
    #[must_use]
    pub fn with_capacity(capacity_bytes: u64) -> Self {
        Self { shared: Arc::default(), capacity_bytes }
    }

    /// Makes the volume refuse every later write, as a failed sync does.
    pub fn poison(&self, reason: &str) {
        self.state().poison.get_or_insert_with(|| reason.to_owned());
    }

    /// Makes every read of what has this payload meet damage, until it is
    /// written again.
    pub fn damage(&self, payload: &Bytes) {
        self.state().payloads.retain(|_, kept| kept != payload);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is complete before anything can panic.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn space(&self, state: &State) -> Space {
        let free_bytes = self.capacity_bytes.saturating_sub(state.index.counts().live_bytes);
        Space { total_bytes: self.capacity_bytes, free_bytes }
    }

    fn check_room(&self, needed_bytes: u64) -> Result<(), StoreError> {
        let state = self.state();
        writable(&state)?;
        let free_bytes = self.space(&state).free_bytes;
        if needed_bytes > free_bytes {
            return Err(StoreError::NoSpace { needed_bytes, free_bytes });
        }
        Ok(())
    }

    fn store(
        &self,
        name: ObjectName,
        stat: Stat,
        payload: Bytes,
    ) -> Result<PutOutcome, StoreError> {
        let mut state = self.state();
        writable(&state)?;
        let outcome = settled(&name, state.index.get(&name), &stat)?;
        let is_damaged = state.is_damaged(&name);
        match outcome {
            Some(PutOutcome::AlreadyStored) if is_damaged => {}
            Some(outcome) => return Ok(outcome),
            None => {}
        }
        state.payloads.insert(name.clone(), payload);
        state.index.insert(name, stat);
        Ok(PutOutcome::Stored)
    }
}

impl State {
    fn is_damaged(&self, name: &ObjectName) -> bool {
        self.index.get(name).is_some() && !self.payloads.contains_key(name)
    }
}

fn writable(state: &State) -> Result<(), StoreError> {
    match &state.poison {
        Some(reason) => Err(StoreError::Poisoned { reason: reason.clone() }),
        None => Ok(()),
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

struct MemoryStaging {
    store: MemoryStore,
    bytes: BytesMut,
}

impl fmt::Debug for MemoryStaging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStaging").field("size_bytes", &self.bytes.len()).finish()
    }
}

#[async_trait]
impl Staging for MemoryStaging {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.store.check_room((self.bytes.len() + bytes.len()) as u64)?;
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Box<dyn Staged>, StoreError> {
        let bytes = self.bytes.freeze();
        let digest = Digest(checksum(CrcAlgorithm::Crc64Nvme, &bytes));
        Ok(Box::new(MemoryStaged { store: self.store, bytes, digest }))
    }
}

struct MemoryStaged {
    store: MemoryStore,
    bytes: Bytes,
    digest: Digest,
}

impl fmt::Debug for MemoryStaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStaged").field("digest", &self.digest).finish_non_exhaustive()
    }
}

#[async_trait]
impl Staged for MemoryStaged {
    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn digest(&self) -> Digest {
        self.digest
    }

    async fn read(&mut self) -> Result<ByteStream, StoreError> {
        let bytes = self.bytes.clone();
        Ok(stream::once(async move { Ok(bytes) }).boxed())
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn stage(&self, size_bytes: Option<u64>) -> Result<Box<dyn Staging>, StoreError> {
        self.check_room(size_bytes.unwrap_or(0))?;
        Ok(Box::new(MemoryStaging { store: self.clone(), bytes: BytesMut::new() }))
    }

    async fn commit(
        &self,
        name: ObjectName,
        stamp: Stamp,
        staged: Box<dyn Staged>,
    ) -> Result<PutOutcome, StoreError> {
        let staged = staged
            .into_any()
            .downcast::<MemoryStaged>()
            .ok()
            .filter(|staged| Arc::ptr_eq(&staged.store.shared, &self.shared))
            .ok_or_else(|| StoreError::foreign_staged("memory".into()))?;
        let stat = object(stamp, staged.bytes.len() as u64, staged.digest);
        self.store(name, stat, staged.bytes)
    }

    async fn delete(&self, name: ObjectName, stamp: Stamp) -> Result<PutOutcome, StoreError> {
        self.store(name, tombstone(stamp), Bytes::new())
    }

    async fn forget(&self, name: &ObjectName, version: Version) -> Result<bool, StoreError> {
        let mut state = self.state();
        writable(&state)?;
        let held = state.index.get(name).is_some_and(|stat| stat.version == version);
        if held {
            state.index.remove(name);
            state.payloads.remove(name);
        }
        Ok(held)
    }

    async fn stat(&self, names: &[ObjectName]) -> Vec<Result<Option<Stat>, StoreError>> {
        let state = self.state();
        names.iter().map(|name| Ok(state.index.get(name).cloned())).collect()
    }

    async fn inspect(&self, names: &[ObjectName]) -> Vec<Result<Option<Held>, StoreError>> {
        let state = self.state();
        let held = |name| {
            let stat = state.index.get(name).cloned()?;
            Some(Held { stat, is_damaged: state.is_damaged(name) })
        };
        names.iter().map(|name| Ok(held(name))).collect()
    }

    async fn read(
        &self,
        name: &ObjectName,
        version: Option<Version>,
        range: Option<Range<u64>>,
    ) -> Result<Payload, StoreError> {
        let state = self.state();
        let stat = readable(name, state.index.get(name), version)?;
        let range = checked_range(range, stat.size_bytes)?;
        let damaged =
            || Damage::new("the payload", "what was written", "nothing").at("memory".into());
        let payload = state.payloads.get(name).cloned().ok_or_else(damaged)?;
        let bytes = usize::try_from(range.start)
            .ok()
            .zip(usize::try_from(range.end).ok())
            .map_or_else(Bytes::new, |(start, end)| payload.slice(start..end));
        Ok(Payload { stat, bytes: stream::iter(chunks(bytes)).boxed() })
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, StoreError> {
        let state = self.state();
        Ok(state.index.page(request, |name| state.is_damaged(name)))
    }

    async fn walk(&self, after: Option<&ObjectName>, limit: usize) -> Result<WalkPage, StoreError> {
        let state = self.state();
        Ok(state.index.walk(after, limit, |name| state.is_damaged(name)))
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let state = self.state();
        let counts = state.index.counts();
        Ok(Usage {
            space: self.space(&state),
            object_count: counts.object_count,
            tombstone_count: counts.tombstone_count,
            live_bytes: counts.live_bytes,
        })
    }

    fn poisoned(&self) -> Option<String> {
        self.state().poison.clone()
    }
}

fn chunks(mut bytes: Bytes) -> Vec<Result<Bytes, StoreError>> {
    let mut chunks = Vec::new();
    while !bytes.is_empty() {
        chunks.push(Ok(bytes.split_to(bytes.len().min(CHUNK_BYTES))));
    }
    chunks
}
