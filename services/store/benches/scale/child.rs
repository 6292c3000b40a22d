//! The processes that use the volume.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_core::name::{Bucket, ObjectName};
use holdfast_store::{ListRequest, Store};

use crate::common::accounting::memory_bytes;
use crate::common::engines::{Engine, close};
use crate::common::names::{Objects, mixed};
use crate::report::{Memory, Message, Order, Read, Task, Written};

pub(crate) const METADATA_BYTES: usize = 300;
/// Enough that every group commit is full.
const WRITERS: usize = 2048;
const REPORT_INTERVAL: Duration = Duration::from_millis(20);

const STATS: u32 = 100_000;
/// Names of one locate batch.
const BATCH: usize = 64;
const LISTS: u32 = 100;
const PAGE: usize = 1_000;

/// Does what it is told and says what it took.
pub(crate) fn run(order: &str) {
    let order: Order = serde_json::from_str(order).expect("the parent wrote it");
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().expect("threads to run on");
    runtime.block_on(async {
        match order.task {
            Task::Write { first, end } => say(Message::Written(write(&order, first, end).await)),
            Task::Read { count } => say(Message::Read(read(&order, count).await)),
        }
    });
}

fn say(message: Message) {
    println!("{}", serde_json::to_string(&message).expect("numbers are always JSON"));
}

fn objects(order: &Order) -> Objects {
    Objects { seed: order.seed, metadata_bytes: METADATA_BYTES }
}

fn memory() -> Memory {
    Memory { peak_bytes: memory_bytes("VmHWM:"), resident_bytes: memory_bytes("VmRSS:") }
}

/// How far the writers are.
struct Progress {
    next: AtomicU64,
    acknowledged: AtomicU64,
}

async fn write(order: &Order, first: u64, end: u64) -> Written {
    let store = Engine::Log.open(&order.root).await;
    let progress = Progress { next: AtomicU64::new(first), acknowledged: AtomicU64::new(0) };
    let (progress, objects) = (Arc::new(progress), objects(order));
    let began = Instant::now();
    let reporter = tokio::spawn(report(Arc::clone(&progress)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| tokio::spawn(put_all(Arc::clone(&store), objects, Arc::clone(&progress), end)))
        .collect();
    for writer in writers {
        writer.await.expect("a writer panicked");
    }
    let spent = began.elapsed().as_secs_f64();
    reporter.abort();
    let memory = memory();
    let began = Instant::now();
    close(store).await;
    let close_seconds = began.elapsed().as_secs_f64();
    Written { objects_per_second: (end - first) as f64 / spent, close_seconds, memory }
}

async fn put_all(store: Arc<dyn Store>, objects: Objects, progress: Arc<Progress>, end: u64) {
    loop {
        let number = progress.next.fetch_add(1, Ordering::Relaxed);
        if number >= end {
            return;
        }
        let put = store.put(objects.name(number), objects.stamp(number), Bytes::new());
        put.await.expect("the disk works");
        progress.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

async fn report(progress: Arc<Progress>) {
    loop {
        say(Message::Acknowledged { count: progress.acknowledged.load(Ordering::Relaxed) });
        tokio::time::sleep(REPORT_INTERVAL).await;
    }
}

async fn read(order: &Order, count: u64) -> Read {
    let began = Instant::now();
    let store = Engine::Log.open(&order.root).await;
    let open_seconds = began.elapsed().as_secs_f64();
    let opened = memory();
    let object_count = store.usage().await.expect("the disk works").object_count;
    let objects = objects(order);
    let stat_seconds = stat_all(&*store, objects, count).await;
    let list_seconds = list_all(&*store, objects, count).await;
    let asked = memory();
    close(store).await;
    Read { open_seconds, object_count, opened, asked, stat_seconds, list_seconds }
}

/// One of the names below `count`, another one for most `at`.
fn random_name(objects: Objects, count: u64, at: u32) -> ObjectName {
    objects.name(mixed(objects.seed.wrapping_add(at.into())) % count)
}

async fn stat_all(store: &dyn Store, objects: Objects, count: u64) -> f64 {
    let mut names = (0..STATS).map(|at| random_name(objects, count, at));
    let mut spent = Duration::ZERO;
    loop {
        let batch: Vec<_> = names.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            return spent.as_secs_f64() / f64::from(STATS);
        }
        let began = Instant::now();
        let answers = store.stat(&batch).await;
        spent += began.elapsed();
        let found = answers.iter().filter(|answer| matches!(answer, Ok(Some(_)))).count();
        assert_eq!(found, batch.len(), "what was acknowledged is there");
    }
}

async fn list_all(store: &dyn Store, objects: Objects, count: u64) -> f64 {
    let mut spent = Duration::ZERO;
    for after in (0..LISTS).map(|at| random_name(objects, count, at)) {
        let request = ListRequest {
            bucket: Bucket::seed(),
            prefix: "bench/".to_owned(),
            start_after: Some(after.key),
            limit: PAGE,
        };
        let began = Instant::now();
        let page = store.list(&request).await.expect("the disk works");
        spent += began.elapsed();
        assert!(page.entries.len() == PAGE || !page.more, "a page is full or the last one");
    }
    spent.as_secs_f64() / f64::from(LISTS)
}
