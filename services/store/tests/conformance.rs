//! Every engine keeps the guarantees of the trait.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests look behind the seam"
)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use holdfast_runtime::Runtime;
use holdfast_store::conformance::{check_mending, check_store};
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

/// Flips a bit of a payload in whichever file below `root` it lies.
fn spoil(root: &Path, payload: &Bytes) {
    let beginning = payload.get(..64).expect("long enough to be found");
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let mut bytes = fs::read(&path).expect("a file");
            let found = bytes.windows(beginning.len()).position(|window| window == beginning);
            if let Some(byte) = found.and_then(|at| bytes.get_mut(at)) {
                *byte ^= 1;
                // In place: the volume has the file open.
                let file = fs::OpenOptions::new().write(true).open(&path).expect("writable");
                std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).expect("written");
                return;
            }
        }
    }
    panic!("the payload is nowhere below {}", root.display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_file_engine_mends_what_is_damaged() {
    let directory = common::TempDir::new();
    let store = common::open(directory.path()).await.expect("the directory is new");
    check_mending(&store, |payload| spoil(directory.path(), payload)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_log_engine_mends_what_is_damaged() {
    let directory = common::TempDir::new();
    let (runtime, root) = (Runtime::real(), directory.path().to_owned());
    let store = LogStore::open(runtime, root, LogStoreOptions::default()).await;
    let store = store.expect("the directory is new");
    check_mending(&store, |payload| spoil(directory.path(), payload)).await;
}

#[tokio::test]
async fn the_memory_engine_mends_what_is_damaged() {
    let store = MemoryStore::new();
    check_mending(&store, |payload| store.damage(payload)).await;
}
