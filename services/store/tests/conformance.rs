//! Every engine keeps the guarantees of the trait.

mod common;

use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_runtime::Runtime;
use holdfast_store::conformance::check_store;
use holdfast_store::{LogStore, LogStoreOptions, MemoryStore};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_file_engine_keeps_every_guarantee() {
    let directory = common::TempDir::new();
    let count = AtomicU64::new(0);
    check_store(async || {
        let root = directory.join(&count.fetch_add(1, Ordering::Relaxed).to_string());
        common::open(&root).await.expect("the directory is new")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_log_engine_keeps_every_guarantee() {
    let directory = common::TempDir::new();
    let count = AtomicU64::new(0);
    check_store(async || {
        let root = directory.join(&count.fetch_add(1, Ordering::Relaxed).to_string());
        LogStore::open(Runtime::real(), root, LogStoreOptions::default())
            .await
            .expect("the directory is new")
    })
    .await;
}

#[tokio::test]
async fn the_memory_engine_keeps_every_guarantee() {
    check_store(async || MemoryStore::new()).await;
}
