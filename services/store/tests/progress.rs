//! How far long work on a stopped volume has come: it is told within a segment too.

#![allow(clippy::disallowed_methods, reason = "tests look behind the seam")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::fs;

use common::{TempDir, name, payload, stamp};
use holdfast_runtime::Runtime;
use holdfast_store::Store;
use holdfast_store::log_engine::{
    Event, FsckRequest, LogStore, LogStoreOptions, Progress, fsck, rebuild_index,
};

fn options() -> LogStoreOptions {
    LogStoreOptions { segment_bytes: 1 << 20, reserve_bytes: 0, ..LogStoreOptions::default() }
}

/// It never goes back, says more than the ends, and reaches the end.
fn assert_steady(progress: &[Progress]) {
    assert!(progress.is_sorted_by_key(|one| one.done_bytes), "{progress:?}");
    let total_bytes = progress[0].total_bytes;
    assert!(progress.iter().all(|one| one.total_bytes == total_bytes), "{progress:?}");
    let is_between = |one: &&Progress| (1..total_bytes).contains(&one.done_bytes);
    assert!(progress.iter().filter(is_between).count() >= 2, "{progress:?}");
    assert_eq!(progress.last().unwrap().done_bytes, total_bytes, "{progress:?}");
}

#[tokio::test]
async fn long_work_says_how_far_it_has_come() {
    let directory = TempDir::new();
    let root = directory.path();
    let store = LogStore::open(Runtime::real(), root.to_owned(), options()).await.unwrap();
    let puts = (0..4_000).map(|number| store.put(name(&number.to_string()), stamp(1), payload(9)));
    for put in futures_util::future::join_all(puts).await {
        put.unwrap();
    }
    store.put(name("large"), stamp(1), payload(3_000_000)).await.unwrap();
    store.close().await;
    assert_eq!(fs::read_dir(root.join("log")).unwrap().count(), 1, "one segment says it all");
    let mut read = Vec::new();
    rebuild_index(&Runtime::real(), root, &options(), &mut |one| read.push(one)).unwrap();
    assert_steady(&read);

    let mut events = Vec::new();
    let request = FsckRequest { is_quick: false, is_repair: false };
    fsck(&Runtime::real(), root, &options(), request, &mut |event| events.push(event)).unwrap();
    let progress = events.iter().filter_map(|event| match event {
        Event::Progress(progress) => Some(*progress),
        _ => None,
    });
    let log_bytes = read[0].total_bytes;
    let (log, files): (Vec<_>, Vec<_>) = progress.partition(|one| one.total_bytes == log_bytes);
    assert_steady(&log);
    assert!(files.is_sorted_by_key(|one| one.done_bytes), "{files:?}");
    let last = files.last().unwrap();
    assert_eq!(last.done_bytes, 3_000_000);
    assert!(last.total_bytes >= last.done_bytes && files[0].done_bytes < 3_000_000, "{files:?}");
}
