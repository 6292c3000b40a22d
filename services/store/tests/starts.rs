//! What a start does that meets an error which says nothing of what is on the disk.

#![allow(clippy::disallowed_methods, reason = "tests look behind the seam")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use common::faulty::{Fault, FaultyFiles};
use common::log::{read, segments, stat};
use common::{TempDir, name, payload, stamp};
use futures_util::future::join_all;
use holdfast_runtime::Runtime;
use holdfast_store::log_engine::index::{FjallIndexEngine, Index, IndexEngine, IndexError};
use holdfast_store::{LogStore, LogStoreOptions, Store};

const SEGMENT_BYTES: u32 = 1024 * 1024;
const OBJECTS: usize = 21;

/// About a segment of them.
fn body(number: usize) -> Bytes {
    payload(50 * 1024 + number)
}

fn options() -> LogStoreOptions {
    LogStoreOptions { reserve_bytes: 0, segment_bytes: SEGMENT_BYTES, ..LogStoreOptions::default() }
}

async fn open_with(runtime: Runtime, root: &Path) -> LogStore {
    LogStore::open(runtime, root.to_owned(), options()).await.unwrap()
}

async fn open(root: &Path) -> LogStore {
    open_with(Runtime::real(), root).await
}

async fn fill(store: &LogStore, prefix: &str) {
    for number in 0..OBJECTS {
        let name = name(&format!("{prefix}-{number}"));
        store.put(name, stamp(1), body(number)).await.unwrap();
    }
}

/// Forgets them: nothing is left of them but in the segment that held them.
async fn forget(store: &LogStore, prefix: &str) {
    let names: Vec<_> = (0..OBJECTS).map(|number| name(&format!("{prefix}-{number}"))).collect();
    let forgets = names.iter().map(|name| store.forget(name, stamp(1).version));
    join_all(forgets).await.into_iter().for_each(|forgotten| assert!(forgotten.unwrap()));
}

async fn assert_right(store: &LogStore) {
    for number in 0..OBJECTS {
        assert_eq!(read(store, &format!("kept-{number}")).await.unwrap(), body(number));
        assert_eq!(stat(store, &format!("gone-{number}")).await.unwrap(), None);
    }
}

/// A closed volume from which compaction removed a segment; its path and what it held.
async fn compacted() -> (TempDir, PathBuf, Vec<u8>) {
    let directory = TempDir::new();
    let store = open(directory.path()).await;
    fill(&store, "gone").await;
    let segment = segments(directory.path())[0].clone();
    fill(&store, "kept").await;
    let bytes = fs::read(&segment).unwrap();
    forget(&store, "gone").await;
    store.compact().await.unwrap();
    store.close().await;
    assert!(!segment.exists());
    (directory, segment, bytes)
}

fn lose_index(root: &Path) {
    fs::remove_dir_all(root.join("index")).unwrap();
}

#[tokio::test]
async fn a_segment_that_was_put_back_brings_nothing_back() {
    for is_index_lost in [false, true] {
        let (directory, segment, bytes) = compacted().await;
        fs::write(&segment, &bytes).unwrap();
        if is_index_lost {
            lose_index(directory.path());
        }
        let store = open(directory.path()).await;
        assert_right(&store).await;
        store.compact().await.unwrap();
        assert!(!segment.exists(), "index lost: {is_index_lost}");
        assert_right(&store).await;
        store.close().await;
        lose_index(directory.path());
        assert_right(&open(directory.path()).await).await;
    }
}

#[tokio::test]
async fn a_segment_that_cannot_be_removed_at_a_start_goes_later() {
    let (directory, segment, bytes) = compacted().await;
    fs::write(&segment, &bytes).unwrap();
    lose_index(directory.path());
    let files = FaultyFiles::new();
    files.fail_after(Fault::Remove, 0);
    let runtime = Runtime::real().with_files(Arc::clone(&files) as _);
    let store = open_with(runtime.clone(), directory.path()).await;
    assert!(segment.exists());
    assert_right(&store).await;
    store.close().await;

    // The index knows that it is there.
    let store = open_with(runtime, directory.path()).await;
    assert_eq!(store.report().rebuilt_because, None);
    assert_right(&store).await;
    files.heal();
    store.compact().await.unwrap();
    assert!(!segment.exists());
    assert_right(&store).await;
    store.close().await;
    let store = open(directory.path()).await;
    assert_eq!(store.report().rebuilt_because, None);
    assert_right(&store).await;
}

/// Cannot be opened so many times.
#[derive(Debug)]
struct Failing {
    inner: FjallIndexEngine,
    left: AtomicU64,
}

impl IndexEngine for Failing {
    fn open(&self, directory: &Path) -> Result<Box<dyn Index>, IndexError> {
        let failed =
            self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match failed {
            Ok(_) => Err(IndexError::Failed { reason: "on purpose".into() }),
            Err(_) => self.inner.open(directory),
        }
    }

    fn remove(&self, directory: &Path) -> Result<(), IndexError> {
        self.inner.remove(directory)
    }
}

#[tokio::test]
async fn an_index_that_cannot_be_opened_for_a_moment_is_not_given_up() {
    let (directory, _, _) = compacted().await;
    for failures in [1, 3, 4] {
        let inner = FjallIndexEngine::new(Runtime::real());
        let index = Failing { inner, left: AtomicU64::new(failures) };
        let options = LogStoreOptions { index: Some(Arc::new(index)), ..options() };
        let root = directory.path().to_owned();
        let store = LogStore::open(Runtime::real(), root, options).await.unwrap();
        assert_eq!(store.report().rebuilt_because.is_some(), failures > 3, "{failures}");
        assert_right(&store).await;
        store.close().await;
    }
}
