//! An index that writes down what became of it and when, so that it can be set
//! to what a cut may have left.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow, RangeInclusive};
use std::path::Path;
use std::sync::{Arc, Mutex};

use holdfast_core::name::ObjectName;
use holdfast_store::log_engine::index::{
    Brief, Checkpoint, Entry, FileId, FileState, Index, IndexBatch, IndexEngine, IndexError,
    MemoryIndexEngine, SegmentUsage,
};

use crate::common::power::PowerDisk;

/// What happened to the index.
#[derive(Debug, Clone)]
enum Event {
    Applied(IndexBatch),
    Persisted,
    Removed,
}

/// All that happened to an index, with the number of operations of the disk
/// before each.
#[derive(Debug, Clone, Default)]
pub struct IndexHistory {
    events: Vec<(usize, Event)>,
}

/// An index as it may be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexState {
    /// There is none.
    Missing,
    /// It does not open.
    Torn,
    /// As it was after this many events.
    After(usize),
}

/// Everything that is in an index, as the one batch that makes it.
#[derive(Debug, Clone, Default)]
struct Content {
    entries: BTreeMap<ObjectName, Entry>,
    files: BTreeMap<FileId, FileState>,
    segments: BTreeMap<u64, SegmentUsage>,
    checkpoint: Option<Checkpoint>,
}

impl Content {
    fn apply(&mut self, batch: &IndexBatch) {
        set(&mut self.entries, &batch.entries);
        set(&mut self.files, &batch.files);
        set(&mut self.segments, &batch.segments);
        self.checkpoint = Some(batch.checkpoint.clone());
    }

    fn into_batch(self) -> Option<IndexBatch> {
        Some(IndexBatch {
            checkpoint: self.checkpoint?,
            entries: some(self.entries),
            files: some(self.files),
            segments: some(self.segments),
        })
    }
}

fn set<K: Ord + Clone, V: Clone>(map: &mut BTreeMap<K, V>, changes: &[(K, Option<V>)]) {
    for (key, value) in changes {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}

fn some<K, V>(map: BTreeMap<K, V>) -> Vec<(K, Option<V>)> {
    map.into_iter().map(|(key, value)| (key, Some(value))).collect()
}

impl IndexHistory {
    /// How many events there were when the disk had had `at` operations.
    pub fn events_before(&self, at: usize) -> usize {
        self.events.partition_point(|(before, _)| *before <= at)
    }

    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// The states a cut after `at` operations can leave: nothing that was not
    /// applied yet, and everything that was made durable.
    pub fn possible(&self, at: usize) -> RangeInclusive<usize> {
        let end = self.events_before(at);
        let is_kept = |(_, event): &(usize, Event)| !matches!(event, Event::Applied(_));
        let kept = self.events[..end].iter().rposition(is_kept);
        kept.map_or(0, |kept| kept + 1)..=end
    }

    /// What makes each of the states: one batch, or none for an index that is
    /// empty.
    pub fn contents(&self) -> Vec<Option<IndexBatch>> {
        let mut content = Content::default();
        let mut contents = vec![None];
        for (_, event) in &self.events {
            match event {
                Event::Applied(batch) => content.apply(batch),
                Event::Removed => content = Content::default(),
                Event::Persisted => {}
            }
            contents.push(content.clone().into_batch());
        }
        contents
    }
}

/// Opens a [`MemoryIndexEngine`] and notes what is done with it.
#[derive(Debug, Clone)]
pub struct RecordingEngine {
    inner: MemoryIndexEngine,
    recorder: Recorder,
}

#[derive(Debug, Clone)]
struct Recorder {
    disk: PowerDisk,
    history: Arc<Mutex<IndexHistory>>,
}

impl Recorder {
    fn record(&self, event: Event) {
        let at = self.disk.operation_count();
        self.history.lock().unwrap().events.push((at, event));
    }
}

impl RecordingEngine {
    pub fn new(disk: &PowerDisk) -> Self {
        let recorder = Recorder { disk: disk.clone(), history: Arc::default() };
        Self { inner: MemoryIndexEngine::new(), recorder }
    }

    /// An index that was found in a state; what it holds is its first event.
    pub fn found(disk: &PowerDisk, content: Option<&IndexBatch>, is_torn: bool) -> Self {
        let engine = Self::new(disk);
        if let Some(content) = content {
            let index = engine.inner.open(Path::new("")).expect("it is empty");
            index.apply(content).expect("it is in memory");
            engine.recorder.record(Event::Applied(content.clone()));
            engine.recorder.record(Event::Persisted);
        }
        if is_torn {
            engine.tear();
        }
        engine
    }

    pub fn tear(&self) {
        self.inner.tear();
    }

    pub fn history(&self) -> IndexHistory {
        self.recorder.history.lock().unwrap().clone()
    }
}

impl IndexEngine for RecordingEngine {
    fn open(&self, directory: &Path) -> Result<Box<dyn Index>, IndexError> {
        let inner = self.inner.open(directory)?;
        Ok(Box::new(RecordingIndex { inner, recorder: self.recorder.clone() }))
    }

    fn remove(&self, directory: &Path) -> Result<(), IndexError> {
        self.recorder.record(Event::Removed);
        self.inner.remove(directory)
    }
}

#[derive(Debug)]
struct RecordingIndex {
    inner: Box<dyn Index>,
    recorder: Recorder,
}

impl Index for RecordingIndex {
    fn get(&self, name: &ObjectName) -> Result<Option<Entry>, IndexError> {
        self.inner.get(name)
    }

    fn scan(
        &self,
        from: Bound<&ObjectName>,
        visit: &mut dyn FnMut(ObjectName, Entry) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        self.inner.scan(from, visit)
    }

    fn list(
        &self,
        from: Bound<&ObjectName>,
        visit: &mut dyn FnMut(&str, &str, Brief<'_>) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        self.inner.list(from, visit)
    }

    fn file(&self, file: FileId) -> Result<Option<FileState>, IndexError> {
        self.inner.file(file)
    }

    fn doomed_files(&self, limit: usize) -> Result<Vec<FileId>, IndexError> {
        self.inner.doomed_files(limit)
    }

    fn checkpoint(&self) -> Result<Option<Checkpoint>, IndexError> {
        self.inner.checkpoint()
    }

    fn segments(&self) -> Result<BTreeMap<u64, SegmentUsage>, IndexError> {
        self.inner.segments()
    }

    fn apply(&self, batch: &IndexBatch) -> Result<(), IndexError> {
        self.recorder.record(Event::Applied(batch.clone()));
        self.inner.apply(batch)
    }

    fn takes_batches(&self) -> Result<(), IndexError> {
        self.inner.takes_batches()
    }

    fn tidy(&self) -> Result<(), IndexError> {
        self.inner.tidy()
    }

    fn persist(&self) -> Result<(), IndexError> {
        self.recorder.record(Event::Persisted);
        self.inner.persist()
    }

    fn disk_bytes(&self) -> u64 {
        self.inner.disk_bytes()
    }
}
