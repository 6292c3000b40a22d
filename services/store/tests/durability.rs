//! What is synced before a write is acknowledged, and what happens when the
//! disk fails or fills up.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::path::Path;
use std::time::Duration;

use common::faulty::{Fault, FaultyFiles, Step};
use common::{
    TempDir, name, object_files, open, open_with, payload, read, staged_files, stamp, stat, until,
};
use holdfast_core::name::ObjectName;
use holdfast_runtime::Runtime;
use holdfast_store::{FileStore, FileStoreOptions, PutOutcome, Store, StoreError};

fn is_rename(step: &Step) -> bool {
    matches!(step, Step::Rename(..))
}

fn position(steps: &[Step], what: &str, matches: impl Fn(&Step) -> bool) -> usize {
    steps.iter().position(matches).unwrap_or_else(|| panic!("no {what} in {steps:#?}"))
}

/// Proves that the steps made one write durable, in an order that leaves the
/// old or the new version behind wherever the power goes.
fn assert_durable(steps: &[Step]) {
    let renamed = position(steps, "rename", is_rename);
    let Step::Rename(from, to) = &steps[renamed] else { unreachable!("it was just matched") };
    assert!(from.parent().unwrap().ends_with("staging"), "{from:?}");
    let writes: Vec<usize> =
        (0..steps.len()).filter(|at| steps[*at] == Step::Write(from.clone())).collect();
    let last_write = *writes.last().expect("something was written");
    let synced = position(steps, "fdatasync", |step| *step == Step::SyncData(from.clone()));
    let directory = Step::SyncDirectory(to.parent().unwrap().to_owned());
    let directory_synced = position(steps, "sync of the directory", |step| *step == directory);
    assert!(last_write < synced, "written after the sync: {steps:#?}");
    assert!(synced < renamed, "renamed before the sync: {steps:#?}");
    assert!(renamed < directory_synced, "the name is not durable: {steps:#?}");
}

#[tokio::test]
async fn an_acknowledged_write_was_synced_in_order() {
    let directory = TempDir::new();
    let files = FaultyFiles::new();
    let store = open_with(directory.path(), files.clone()).await;
    for (clock, size_bytes) in (1..).zip([0, 5, 4_096, 1_048_576, 3_000_000]) {
        files.take_steps();
        let outcome = store.put(name("a"), stamp(clock), payload(size_bytes)).await.unwrap();
        // Taken when the answer is there: a sync that comes later is too late.
        let steps = files.take_steps();
        assert_eq!(outcome, PutOutcome::Stored);
        assert_durable(&steps);
    }
    store.delete(name("a"), stamp(99)).await.unwrap();
    assert_durable(&files.take_steps());
}

#[tokio::test]
async fn a_new_volume_is_durable_before_it_is_used() {
    let directory = TempDir::new();
    let files = FaultyFiles::new();
    let root = directory.join("deep/root");
    drop(open_with(&root, files.clone()).await);
    let steps = files.take_steps();
    let synced = |path: &Path| {
        position(&steps, "sync", |step| *step == Step::SyncDirectory(path.to_owned()))
    };
    let formatted = position(&steps, "format file", |step| {
        *step == Step::Rename(root.join("format.tmp"), root.join("format"))
    });
    assert!(synced(directory.path()) < formatted && synced(&directory.join("deep")) < formatted);
    assert!(synced(&root.join("objects")) < formatted && synced(&root) < formatted);
    assert_eq!(steps.last(), Some(&Step::SyncDirectory(root)));
}

#[tokio::test]
async fn what_a_killed_process_renamed_is_synced_before_it_is_answered() {
    let directory = TempDir::new();
    let store = open(directory.path()).await.unwrap();
    store.put(name("a"), stamp(1), payload(10)).await.unwrap();
    drop(store);
    let files = FaultyFiles::new();
    drop(open_with(directory.path(), files.clone()).await);
    let parent = object_files(directory.path()).remove(0).parent().unwrap().to_owned();
    assert!(files.take_steps().contains(&Step::SyncDirectory(parent)));
}

#[tokio::test]
async fn a_cancelled_write_is_not_overtaken_halfway() {
    let directory = TempDir::new();
    let files = FaultyFiles::new();
    let store = open_with(directory.path(), files.clone()).await;
    files.take_steps();
    files.slow_down_next_directory_sync(Duration::from_millis(300));
    let mut steps = Vec::new();
    let renamed = async {
        until("the rename", || {
            steps.extend(files.take_steps());
            steps.iter().any(is_rename)
        })
        .await;
    };
    tokio::select! {
        biased;
        () = renamed => {}
        put = store.put(name("a"), stamp(2), payload(10)) => panic!("it ends later: {put:?}"),
    }
    // Cancelled between its rename and its sync, the older write goes on alone.
    assert_eq!(store.put(name("a"), stamp(3), payload(20)).await.unwrap(), PutOutcome::Stored);
    let is_sync = |step: &&Step| matches!(step, Step::SyncDirectory(_));
    until("the older write ends", || {
        steps.extend(files.take_steps());
        steps.iter().filter(is_sync).count() == 2
    })
    .await;
    assert_eq!(stat(&store, "a").await.unwrap().unwrap().version, stamp(3).version);
    assert_eq!(read(&store, "a").await.unwrap(), payload(20));
}

#[tokio::test]
async fn a_reader_between_rename_and_sync_waits_for_what_is_durable() {
    let directory = TempDir::new();
    let files = FaultyFiles::new();
    let store = open_with(directory.path(), files.clone()).await;
    store.put(name("a"), stamp(1), payload(10)).await.unwrap();
    files.take_steps();
    files.slow_down_next_directory_sync(Duration::from_millis(100));
    let reading = async {
        until("the rename", || files.take_steps().iter().any(is_rename)).await;
        let bytes = read(&store, "a").await.unwrap();
        (bytes, files.take_steps())
    };
    let (put, (bytes, steps)) =
        futures_util::future::join(store.put(name("a"), stamp(2), payload(20)), reading).await;
    put.unwrap();
    assert_eq!(bytes, payload(20));
    assert!(matches!(steps.as_slice(), [Step::SyncDirectory(_)]), "{steps:?}");
}

async fn assert_poisoned(store: &FileStore, other: ObjectName) {
    assert!(store.poisoned().is_some());
    let put = store.put(other.clone(), stamp(9), payload(10)).await;
    assert!(matches!(put, Err(StoreError::Poisoned { .. })), "{put:?}");
    let delete = store.delete(other, stamp(9)).await;
    assert!(matches!(delete, Err(StoreError::Poisoned { .. })), "{delete:?}");
    let stage = store.stage(None).await;
    assert!(matches!(stage, Err(StoreError::Poisoned { .. })), "{stage:?}");
    assert_eq!(read(store, "old").await.unwrap(), payload(100), "reads go on");
}

#[tokio::test]
async fn a_failed_sync_of_a_file_poisons() {
    let directory = TempDir::new();
    let files = FaultyFiles::new();
    let store = open_with(directory.path(), files.clone()).await;
    store.put(name("old"), stamp(1), payload(100)).await.unwrap();
    let mut begun = store.stage(None).await.unwrap();
    files.fail_after(Fault::SyncData, 0);
    let put = store.put(name("a"), stamp(1), payload(10)).await;
    assert!(matches!(put, Err(StoreError::Poisoned { .. })), "{put:?}");
    assert_eq!(stat(&store, "a").await.unwrap(), None, "it never got its name");
    // The disk seems well again: what was lost is lost all the same.
    files.heal();
    files.take_steps();
    assert_poisoned(&store, name("b")).await;
    let written = begun.write(payload(2_000_000)).await;
    assert!(matches!(written, Err(StoreError::Poisoned { .. })), "{written:?}");
    let tried = files.take_steps();
    assert!(tried.iter().all(|step| matches!(step, Step::Remove(_))), "{tried:?}");
    drop((store, begun));
    let store = open(directory.path()).await.unwrap();
    assert_eq!(stat(&store, "a").await.unwrap(), None);
    assert_eq!(read(&store, "old").await.unwrap(), payload(100));
}

#[tokio::test]
async fn a_failed_sync_of_a_directory_poisons_and_answers_neither_version() {
    let directory = TempDir::new();
    let files = FaultyFiles::new();
    let store = open_with(directory.path(), files.clone()).await;
    store.put(name("old"), stamp(1), payload(100)).await.unwrap();
    store.put(name("a"), stamp(1), payload(10)).await.unwrap();
    files.fail_after(Fault::SyncDirectory, 0);
    let put = store.put(name("a"), stamp(2), payload(20)).await;
    assert!(matches!(put, Err(StoreError::Poisoned { .. })), "{put:?}");
    files.heal();
    assert_poisoned(&store, name("b")).await;
    let doubt = stat(&store, "a").await;
    assert!(matches!(doubt, Err(StoreError::Poisoned { .. })), "{doubt:?}");
    assert!(read(&store, "a").await.is_err());
    drop(store);
    let store = open(directory.path()).await.unwrap();
    assert_eq!(read(&store, "a").await.unwrap(), payload(20), "here it did survive");
}

#[tokio::test]
async fn a_failed_rename_changes_nothing_and_poisons_nothing() {
    let directory = TempDir::new();
    let files = FaultyFiles::new();
    let store = open_with(directory.path(), files.clone()).await;
    store.put(name("a"), stamp(1), payload(10)).await.unwrap();
    files.fail_after(Fault::Rename, 0);
    let put = store.put(name("a"), stamp(2), payload(20)).await;
    assert!(matches!(put, Err(StoreError::Io { .. })), "{put:?}");
    assert_eq!(read(&store, "a").await.unwrap(), payload(10));
    files.heal();
    store.put(name("a"), stamp(2), payload(20)).await.unwrap();
    assert_eq!(read(&store, "a").await.unwrap(), payload(20));
}

#[tokio::test]
async fn a_full_disk_is_told_and_nothing_else_breaks() {
    let directory = TempDir::new();
    let files = FaultyFiles::new();
    let store = open_with(directory.path(), files.clone()).await;
    store.put(name("a"), stamp(1), payload(10)).await.unwrap();
    for spared in 0..3 {
        files.fail_after(Fault::WriteFull, spared);
        let put = store.put(name("a"), stamp(2), payload(2_500_000)).await;
        assert!(matches!(put, Err(StoreError::NoSpace { .. })), "{put:?}");
        assert_eq!(read(&store, "a").await.unwrap(), payload(10));
    }
    assert_eq!(store.poisoned(), None);
    files.heal();
    store.put(name("a"), stamp(2), payload(2_500_000)).await.unwrap();
    until("the room is given back", || staged_files(directory.path()) == 0).await;
}

const MIB: u64 = 1024 * 1024;

#[tokio::test]
async fn the_reserve_is_kept_for_deletes() {
    let directory = TempDir::new();
    let files = FaultyFiles::new();
    let store = open_with(directory.path(), files.clone()).await;
    store.put(name("a"), stamp(1), payload(10)).await.unwrap();
    files.set_free_bytes(64 * MIB + 1_000);
    let put = store.put(name("b"), stamp(1), payload(2_000)).await;
    let Err(StoreError::NoSpace { needed_bytes, free_bytes: 1_000 }) = put else {
        panic!("{put:?}")
    };
    assert!(needed_bytes > 2_000, "{needed_bytes}");
    let stage = store.stage(Some(1_001)).await;
    assert!(matches!(stage, Err(StoreError::NoSpace { .. })), "{stage:?}");
    files.set_free_bytes(MIB);
    assert_eq!(store.delete(name("a"), stamp(2)).await.unwrap(), PutOutcome::Stored);
    files.set_free_bytes(65 * MIB);
    store.put(name("b"), stamp(1), payload(2_000)).await.unwrap();
}

#[tokio::test]
async fn a_disk_that_fills_up_under_a_large_payload_is_noticed() {
    let directory = TempDir::new();
    let files = FaultyFiles::new();
    let store = open_with(directory.path(), files.clone()).await;
    let mut staging = store.stage(None).await.unwrap();
    staging.write(payload(2_000_000)).await.unwrap();
    files.set_free_bytes(64 * MIB);
    let piece = payload(2_000_000);
    let mut written_bytes = 0;
    let error = loop {
        match staging.write(piece.clone()).await {
            Ok(()) => written_bytes += piece.len() as u64,
            Err(error) => break error,
        }
        assert!(written_bytes < 20 * MIB, "nobody looks at the room");
    };
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error:?}");
}

#[tokio::test]
async fn a_reserve_of_its_own_can_be_set() {
    let directory = TempDir::new();
    let options = FileStoreOptions { reserve_bytes: u64::MAX };
    let store =
        FileStore::open(Runtime::real(), directory.path().to_owned(), options).await.unwrap();
    let put = store.put(name("a"), stamp(1), payload(1)).await;
    assert!(matches!(put, Err(StoreError::NoSpace { free_bytes: 0, .. })), "{put:?}");
    store.delete(name("a"), stamp(1)).await.unwrap();
}

#[tokio::test]
async fn a_disk_that_cannot_be_read_is_not_an_empty_one() {
    let directory = TempDir::new();
    let files = FaultyFiles::new();
    let store = open_with(directory.path(), files.clone()).await;
    store.put(name("a"), stamp(1), payload(10)).await.unwrap();
    files.fail_after(Fault::Read, 0);
    let failed = read(&store, "a").await;
    assert!(matches!(failed, Err(StoreError::Io { .. })), "{failed:?}");
    files.heal();
    assert_eq!(read(&store, "a").await.unwrap(), payload(10), "an error may pass");
    drop(store);
    // The first read is that of the format file.
    files.fail_after(Fault::Read, 1);
    let store = open_with(directory.path(), files.clone()).await;
    let failed = stat(&store, "a").await;
    assert!(matches!(failed, Err(StoreError::Io { .. })), "{failed:?}");
}
