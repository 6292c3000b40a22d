//! An index in memory for tests of the engine: it can be set back to any
//! earlier batch, as after a crash, and marked torn.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_core::name::ObjectName;

use super::{
    Brief, Checkpoint, Entry, FileId, FileState, Index, IndexBatch, IndexEngine, IndexError,
    SegmentUsage,
};

/// Opens one index, whatever the directory; each open sees what the ones before
/// it applied.
#[derive(Debug, Clone, Default)]
pub struct MemoryIndexEngine {
    state: Arc<Mutex<State>>,
}

/// What [`MemoryIndexEngine`] opens.
#[derive(Debug)]
pub struct MemoryIndex {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    batches: Vec<IndexBatch>,
    content: Content,
    persists: u64,
    is_torn: bool,
}

/// What the batches add up to.
#[derive(Debug, Default)]
struct Content {
    entries: BTreeMap<ObjectName, Entry>,
    files: BTreeMap<FileId, FileState>,
    segments: BTreeMap<u64, SegmentUsage>,
    checkpoint: Option<Checkpoint>,
}

impl Content {
    fn apply(&mut self, batch: &IndexBatch) {
        set_all(&mut self.entries, &batch.entries);
        set_all(&mut self.files, &batch.files);
        set_all(&mut self.segments, &batch.segments);
        self.checkpoint = Some(batch.checkpoint.clone());
    }
}

fn set_all<K: Ord + Clone, V: Clone>(map: &mut BTreeMap<K, V>, changes: &[(K, Option<V>)]) {
    for (key, value) in changes {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}

/// A panic elsewhere leaves the state as it was between two changes, or is a
/// test that fails anyway.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryIndexEngine {
    /// An engine with an empty index.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many batches there are.
    #[must_use]
    pub fn batch_count(&self) -> usize {
        lock(&self.state).batches.len()
    }

    /// Sets the index back to what it was after the first `batch_count` batches,
    /// as a crash can. 0 makes it empty.
    pub fn set_back(&self, batch_count: usize) {
        let mut state = lock(&self.state);
        state.batches.truncate(batch_count);
        let mut content = Content::default();
        state.batches.iter().for_each(|batch| content.apply(batch));
        state.content = content;
    }

    /// Makes [`IndexEngine::open`] fail until the index is removed.
    pub fn tear(&self) {
        lock(&self.state).is_torn = true;
    }

    /// How often [`Index::persist`] was called.
    #[must_use]
    pub fn persist_count(&self) -> u64 {
        lock(&self.state).persists
    }
}

impl IndexEngine for MemoryIndexEngine {
    fn open(&self, _directory: &Path) -> Result<Box<dyn Index>, IndexError> {
        let state = lock(&self.state);
        if state.is_torn {
            return Err(IndexError::Damaged { reason: "it was torn on purpose".into() });
        }
        if let Some(checkpoint) = &state.content.checkpoint {
            checkpoint.check_version()?;
        }
        Ok(Box::new(MemoryIndex { state: Arc::clone(&self.state) }))
    }

    fn remove(&self, _directory: &Path) -> Result<(), IndexError> {
        let mut state = lock(&self.state);
        *state = State { persists: state.persists, ..State::default() };
        Ok(())
    }
}

impl Index for MemoryIndex {
    fn get(&self, name: &ObjectName) -> Result<Option<Entry>, IndexError> {
        Ok(lock(&self.state).content.entries.get(name).cloned())
    }

    fn scan(
        &self,
        from: Bound<&ObjectName>,
        visit: &mut dyn FnMut(ObjectName, Entry) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        // A copy, so that `visit` may use the index.
        let entries: Vec<_> = lock(&self.state)
            .content
            .entries
            .range((from, Bound::Unbounded))
            .map(|(name, entry)| (name.clone(), entry.clone()))
            .collect();
        let _ = entries.into_iter().try_for_each(|(name, entry)| visit(name, entry));
        Ok(())
    }

    fn list(
        &self,
        from: Bound<&ObjectName>,
        visit: &mut dyn FnMut(&str, &str, Brief<'_>) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        self.scan(from, &mut |name, entry| {
            visit(name.bucket.as_str(), name.key.as_str(), Brief::from(&entry))
        })
    }

    fn file(&self, file: FileId) -> Result<Option<FileState>, IndexError> {
        Ok(lock(&self.state).content.files.get(&file).copied())
    }

    fn doomed_files(&self, limit: usize) -> Result<Vec<FileId>, IndexError> {
        let state = lock(&self.state);
        let doomed = state.content.files.iter().filter(|(_, state)| **state == FileState::Doomed);
        Ok(doomed.map(|(file, _)| *file).take(limit).collect())
    }

    fn checkpoint(&self) -> Result<Option<Checkpoint>, IndexError> {
        Ok(lock(&self.state).content.checkpoint.clone())
    }

    fn segments(&self) -> Result<BTreeMap<u64, SegmentUsage>, IndexError> {
        Ok(lock(&self.state).content.segments.clone())
    }

    fn apply(&self, batch: &IndexBatch) -> Result<(), IndexError> {
        let mut state = lock(&self.state);
        state.content.apply(batch);
        state.batches.push(batch.clone());
        Ok(())
    }

    fn takes_batches(&self) -> Result<(), IndexError> {
        Ok(())
    }

    fn persist(&self) -> Result<(), IndexError> {
        lock(&self.state).persists += 1;
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}
