//! A store in use, every answer of which is kept.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use holdfast_store::log_engine::index::IndexEngine;
use holdfast_store::{LogStore, LogStoreOptions, PutOutcome, Store, StoreError};

use crate::common::power::{Call, Fault, Matching, Options, PowerDisk};
use crate::common::stamp;
use crate::engine::{IndexHistory, RecordingEngine};
use crate::gate::{Gate, GatedDisk};
use crate::machine;
use crate::model::{Change, INLINE_LIMIT_BYTES, Model, payload};

/// Where the volume is.
pub const ROOT: &str = "/volume";

/// Small, so that there are many.
const SEGMENT_BYTES: u32 = 16 * 1024;

/// What a session left behind.
#[derive(Debug)]
pub struct Recording {
    pub disk: PowerDisk,
    pub model: Model,
    pub index: IndexHistory,
}

pub fn options(index: Arc<dyn IndexEngine>) -> LogStoreOptions {
    LogStoreOptions {
        reserve_bytes: 0,
        inline_limit_bytes: u32::try_from(INLINE_LIMIT_BYTES).expect("it is small"),
        segment_bytes: SEGMENT_BYTES,
        index: Some(index),
        ..LogStoreOptions::default()
    }
}

pub fn key_name(key: usize) -> holdfast_core::name::ObjectName {
    crate::common::name(&format!("key/{key:03}"))
}

/// Whether the write changed something.
type Outcome = Result<bool, StoreError>;

type Answer = Pin<Box<dyn Future<Output = Outcome>>>;

/// Asks a store for a write.
pub async fn ask(store: LogStore, key: usize, change: Change) -> Outcome {
    let name = key_name(key);
    let outcome = match change {
        Change::Forget { clock } => return store.forget(&name, stamp(clock).version).await,
        Change::Delete { clock } => store.delete(name, stamp(clock)).await,
        Change::Put { clock, payload } => store.put(name, stamp(clock), payload).await,
    };
    outcome.map(|outcome| outcome == PutOutcome::Stored)
}

impl Drop for Session {
    fn drop(&mut self) {
        // A step that failed must not leave the writer waiting.
        self.gate.open();
    }
}

/// One volume from its making on. A step that does not go as it should panics.
pub struct Session {
    disk: PowerDisk,
    gate: Gate,
    engine: RecordingEngine,
    model: Model,
    store: LogStore,
    clock: u64,
    opened: u64,
}

impl Session {
    pub async fn new(options: Options) -> Self {
        let disk = PowerDisk::with(options);
        let (gate, engine) = (Gate::default(), RecordingEngine::new(&disk));
        let store = open(&disk, &gate, &engine, 0).await;
        Self { disk, gate, engine, model: Model::default(), store, clock: 100, opened: 0 }
    }

    pub async fn finish(self) -> Recording {
        self.store.close().await;
        Recording {
            disk: self.disk.clone(),
            model: self.model.clone(),
            index: self.engine.history(),
        }
    }

    /// A payload that was never written before.
    pub fn put(&mut self, size_bytes: usize) -> Change {
        self.clock += 1;
        Change::Put { clock: self.clock, payload: payload(self.clock, size_bytes) }
    }

    pub fn delete(&mut self) -> Change {
        self.clock += 1;
        Change::Delete { clock: self.clock }
    }

    /// Forgets what is promised of a key.
    pub fn forget(&self, key: usize) -> Change {
        Change::Forget { clock: self.model.promised(key).map_or(0, |found| found.clock) }
    }

    pub fn promised_clock(&self, key: usize) -> Option<u64> {
        self.model.promised(key).map(|found| found.clock)
    }

    /// A write, alone.
    pub async fn write(&mut self, key: usize, change: Change) {
        let (number, answer) = self.begin(key, change);
        self.promise(number, answer.await);
    }

    pub async fn put_new(&mut self, key: usize, size_bytes: usize) {
        let change = self.put(size_bytes);
        self.write(key, change).await;
    }

    pub async fn delete_new(&mut self, key: usize) {
        let change = self.delete();
        self.write(key, change).await;
    }

    pub async fn forget_promised(&mut self, key: usize) {
        let change = self.forget(key);
        self.write(key, change).await;
    }

    /// Writes that share a batch. The clients of the last `abandoned` have gone
    /// before it is written.
    pub async fn batch(&mut self, writes: Vec<(usize, Change)>, abandoned: usize) {
        let waiting = self.gather(writes).await;
        let kept = waiting.len() - abandoned;
        let answers: Vec<_> = waiting.into_iter().take(kept).collect();
        self.gate.open();
        for (number, answer) in answers {
            self.promise(number, answer.await);
        }
    }

    /// Writes that share a batch for which there is no room.
    pub async fn refused_batch(&mut self, writes: Vec<(usize, Change)>) {
        let waiting = self.gather(writes).await;
        let is_segment = |path: &std::path::Path| path.starts_with("/volume/log");
        let fault = Fault::next(Call::Write).errno(rustix::io::Errno::NOSPC);
        self.disk.fail(fault.on(Matching::new(is_segment)));
        self.gate.open();
        for (number, answer) in waiting {
            let refused = answer.await;
            assert!(matches!(refused, Err(StoreError::NoSpace { .. })), "{refused:?}");
            self.model.refuse(number, self.disk.operation_count());
        }
        self.disk.heal();
    }

    /// Payloads that are never committed.
    pub async fn drop_staged(&mut self, size_bytes: usize) {
        let bytes = Bytes::from(vec![7; size_bytes]);
        let mut staging = self.store.stage(None).await.unwrap();
        staging.write(bytes.clone()).await.unwrap();
        drop(staging);
        let mut staging = self.store.stage(None).await.unwrap();
        staging.write(bytes).await.unwrap();
        drop(staging.finish().await.unwrap());
    }

    pub async fn compact(&mut self) {
        self.store.compact().await.unwrap();
    }

    pub async fn reopen(&mut self) {
        self.store.close().await;
        self.opened += 1;
        self.store = open(&self.disk, &self.gate, &self.engine, self.opened).await;
    }

    /// Opens the volume again without its index.
    pub async fn lose_index(&mut self) {
        self.engine.tear();
        self.reopen().await;
        let report = self.store.report();
        assert!(report.rebuilt_because.is_some());
        assert_eq!(report.doubtful_count, 0, "{report:?}, {:?}", self.disk.files());
    }

    /// How many segments there are.
    pub fn segment_count(&self) -> usize {
        let files = self.disk.files();
        files.iter().filter(|path| path.starts_with("/volume/log")).count()
    }

    fn begin(&mut self, key: usize, change: Change) -> (usize, Answer) {
        let number = self.model.begin(key, change.clone(), self.disk.operation_count());
        (number, Box::pin(ask(self.store.clone(), key, change)))
    }

    fn promise(&mut self, number: usize, outcome: Outcome) {
        let changes = outcome.unwrap_or_else(|error| panic!("write {number}: {error}"));
        self.disk.mark(number);
        assert_eq!(self.model.promise(number), changes, "write {number}");
    }

    /// Holds the log until all of these wait for the same batch.
    async fn gather(&mut self, writes: Vec<(usize, Change)>) -> Vec<(usize, Answer)> {
        self.gate.close();
        let first = self.put(10);
        let (first, mut first_answer) = self.begin(0, first);
        assert!((&mut first_answer).now_or_never().is_none(), "the gate is closed");
        self.gate.until_it_waits();
        let mut waiting = Vec::new();
        for (key, change) in writes {
            let (number, mut answer) = self.begin(key, change);
            assert!((&mut answer).now_or_never().is_none(), "the gate is closed");
            waiting.push((number, answer));
        }
        self.gate.pass_one_batch();
        self.promise(first, first_answer.await);
        self.gate.until_it_waits();
        waiting
    }
}

async fn open(disk: &PowerDisk, gate: &Gate, engine: &RecordingEngine, seed: u64) -> LogStore {
    let files = GatedDisk { disk: disk.clone(), gate: gate.clone() };
    let runtime = machine::runtime(Arc::new(files), seed);
    let opened = LogStore::open(runtime, ROOT.into(), options(Arc::new(engine.clone()))).await;
    opened.expect("the volume is sound")
}
