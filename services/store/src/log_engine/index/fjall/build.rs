//! An index that is built from nothing: sorted runs that go into tables at
//! once, past journal and memtable, which would take most of the time. One run
//! is written while the next one gathers. The checkpoint is written last, so
//! what is left of an index that was cut short has none, and is built anew.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use holdfast_core::name::ObjectName;
use holdfast_runtime::Runtime;

use super::super::{
    Checkpoint, Entry, Index, IndexBatch, IndexBuilder, IndexError, Intake, SegmentUsage, entry,
};
use super::failure::{guarded, io_error};
use super::run::Run;
use super::seen::Seen;
use super::{FjallIndex, encode_names};

/// See the module.
pub(super) struct Builder {
    runtime: Runtime,
    index: Arc<FjallIndex>,
    /// What goes into tables next: as much as a memtable, since fjall merges tables
    /// once for each that it gets.
    run: Run,
    max_run_bytes: usize,
    underway: Option<Underway>,
    seen: Seen,
    /// What the batches said of segments, and the last checkpoint.
    segments: BTreeMap<u64, Option<SegmentUsage>>,
    checkpoint: Option<Checkpoint>,
    /// Of the hashes of keys.
    seed: u64,
}

/// A run that a thread writes into tables.
struct Underway {
    run: Arc<Run>,
    written: Receiver<Result<(), IndexError>>,
}

impl Underway {
    fn wait(&self) -> Result<(), IndexError> {
        let lost = |_| IndexError::Failed { reason: "the writer of a run panicked".to_owned() };
        self.written.recv().map_err(lost)?
    }
}

impl Drop for Underway {
    /// As long as the thread lives it has the index open, and nobody else can.
    fn drop(&mut self) {
        let _ = self.written.recv();
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("run_bytes", &self.run.size()).finish_non_exhaustive()
    }
}

impl Builder {
    /// Fills an index that is empty.
    pub(super) fn new(runtime: Runtime, index: FjallIndex) -> Self {
        let max_run_bytes = index.memtable_bytes;
        // Names are chosen by clients, and must not be chosen so that they collide.
        let seed = runtime.random_u64();
        Self {
            index: Arc::new(index),
            run: Run::new(seed),
            max_run_bytes: usize::try_from(max_run_bytes).unwrap_or(usize::MAX),
            underway: None,
            seen: Seen::new(seed),
            segments: BTreeMap::new(),
            checkpoint: None,
            seed,
            runtime,
        }
    }

    fn set(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), IndexError> {
        self.seen.add(key);
        if self.run.size() < self.max_run_bytes && self.run.set(key, value) {
            return Ok(());
        }
        self.spill()?;
        self.run.set(key, value);
        Ok(())
    }

    /// Begins to write the run into tables, once the last one is written.
    fn spill(&mut self) -> Result<(), IndexError> {
        if self.run.is_empty() {
            return Ok(());
        }
        let emptied = self.settle()?;
        let run = Arc::new(std::mem::replace(&mut self.run, emptied));
        let (answer, written) = channel();
        let (index, content) = (Arc::clone(&self.index), Arc::clone(&run));
        let write = move || {
            let result = write(&index, &content);
            drop((index, content));
            // Nobody waits when the index is given up.
            let _ = answer.send(result);
        };
        self.runtime.thread("holdfast-index", write).map_err(|error| io_error(&error))?;
        self.underway = Some(Underway { run, written });
        Ok(())
    }

    /// Waits for the run that is underway; gives its memory for the next one.
    fn settle(&mut self) -> Result<Run, IndexError> {
        let Some(underway) = self.underway.take() else { return Ok(Run::new(self.seed)) };
        underway.wait()?;
        let run = Arc::clone(&underway.run);
        drop(underway);
        let mut run = Arc::into_inner(run).unwrap_or_else(|| Run::new(self.seed));
        run.clear();
        Ok(run)
    }
}

fn write(index: &FjallIndex, run: &Run) -> Result<(), IndexError> {
    index.make_room()?;
    guarded(|| {
        let mut ingestion = index.handles().keyspace.start_ingestion()?;
        for (key, value) in run.in_order() {
            match value {
                Some(value) => ingestion.write(key, value)?,
                None => ingestion.write_tombstone(key)?,
            }
        }
        ingestion.finish()
    })
}

impl Intake for Builder {
    fn get(&self, name: &ObjectName) -> Result<Option<Entry>, IndexError> {
        let key = entry::entry_key(name);
        if !self.seen.may_have(&key) {
            return Ok(None);
        }
        let underway = || self.underway.as_ref().and_then(|underway| underway.run.get(&key));
        match self.run.get(&key).or_else(underway) {
            Some(value) => value.map(|value| entry::decode_entry(&key, value)).transpose(),
            None => self.index.get(name),
        }
    }

    fn apply(&mut self, batch: &IndexBatch) -> Result<(), IndexError> {
        encode_names(batch, |key, value| self.set(key, value.as_deref()))?;
        self.segments.extend(batch.segments.iter().cloned());
        self.checkpoint = Some(batch.checkpoint.clone());
        Ok(())
    }
}

impl IndexBuilder for Builder {
    fn finish(mut self: Box<Self>) -> Result<Box<dyn Index>, IndexError> {
        self.spill()?;
        self.settle()?;
        let Self { index, segments, checkpoint, .. } = *self;
        let shared = || IndexError::Failed { reason: "a run is still being written".to_owned() };
        let index = Arc::into_inner(index).ok_or_else(shared)?;
        if let Some(checkpoint) = checkpoint {
            // The tables are durable by now: fjall syncs them.
            let segments = segments.into_iter().collect();
            index.apply(&IndexBatch { segments, checkpoint, ..IndexBatch::default() })?;
            index.persist()?;
        }
        Ok(Box::new(index))
    }
}
