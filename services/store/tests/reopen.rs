//! What a volume is when it is opened again, or was something else before.

#![allow(clippy::disallowed_methods, reason = "tests look behind the seam")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::fs;

use bytes::Bytes;
use common::{
    TempDir, name, object_files, open, open_with, payload, read, staged_files, stamp, stat, until,
};
use holdfast_core::object::Kind;
use holdfast_store::{ListRequest, PutOutcome, Store, StoreError};

const FORMAT: &str = r#"{"format":"holdfast-volume","engine":"file","version":1}"#;

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let directory = TempDir::new();
    let keys = ["a", "a/../b", "\0", "🦀", "large"];
    let content = |key: &str| payload(if key == "large" { 3_000_000 } else { key.len() * 100 });
    let store = open(directory.path()).await.unwrap();
    for key in keys {
        store.put(name(key), stamp(1), content(key)).await.unwrap();
    }
    store.put(name("gone"), stamp(1), content("x")).await.unwrap();
    store.delete(name("gone"), stamp(2)).await.unwrap();
    let usage = store.usage().await.unwrap();
    let request = ListRequest {
        bucket: name("a").bucket,
        prefix: String::new(),
        start_after: None,
        limit: 100,
    };
    let page = store.list(&request).await.unwrap();
    drop(store);

    let store = open(directory.path()).await.unwrap();
    for key in keys {
        assert!(read(&store, key).await.unwrap() == content(key), "{key:?}");
        assert_eq!(stat(&store, key).await.unwrap().unwrap().metadata, stamp(1).metadata);
    }
    assert_eq!(stat(&store, "gone").await.unwrap().unwrap().kind, Kind::Tombstone);
    assert_eq!(store.list(&request).await.unwrap(), page);
    let after = store.usage().await.unwrap();
    assert_eq!(after.object_count, usage.object_count);
    assert_eq!(after.tombstone_count, usage.tombstone_count);
    assert_eq!(after.live_bytes, usage.live_bytes);
    let late = store.put(name("gone"), stamp(1), content("x")).await.unwrap();
    assert!(matches!(late, PutOutcome::Superseded { .. }), "{late:?}");
    let again = store.put(name("a"), stamp(1), content("a")).await.unwrap();
    assert_eq!(again, PutOutcome::AlreadyStored);
}

#[tokio::test]
async fn opening_reads_trailers_and_not_payloads() {
    let directory = TempDir::new();
    let store = open(directory.path()).await.unwrap();
    store.put(name("large"), stamp(1), payload(4_000_000)).await.unwrap();
    drop(store);
    let files = common::faulty::FaultyFiles::new();
    let store = open_with(directory.path(), files.clone()).await;
    let read_bytes = files.take_read_bytes();
    assert!(read_bytes < 16 * 1024, "{read_bytes} bytes read to open");
    let request = Some(2_000_000..2_000_010);
    let part = store.read(&name("large"), None, request).await.unwrap();
    drop(part);
    let read_bytes = files.take_read_bytes();
    assert!(read_bytes < 256 * 1024, "{read_bytes} bytes read for a range of ten");
}

#[tokio::test]
async fn a_second_open_is_refused_while_the_first_lasts() {
    let directory = TempDir::new();
    let store = open(directory.path()).await.unwrap();
    let second = open(directory.path()).await;
    assert!(matches!(second, Err(StoreError::InUse { .. })), "{second:?}");
    drop(store);
    open(directory.path()).await.unwrap();
}

#[tokio::test]
async fn what_was_staged_and_never_committed_is_removed() {
    let directory = TempDir::new();
    drop(open(directory.path()).await.unwrap());
    for file in ["0123", "left-over"] {
        fs::write(directory.join("staging").join(file), b"half a payload").unwrap();
    }
    let store = open(directory.path()).await.unwrap();
    assert_eq!(staged_files(directory.path()), 0);
    assert_eq!(store.usage().await.unwrap().object_count, 0);
}

#[tokio::test]
async fn a_dropped_payload_is_removed_in_the_background() {
    let directory = TempDir::new();
    let store = open(directory.path()).await.unwrap();
    let mut unfinished = store.stage(None).await.unwrap();
    unfinished.write(payload(2_000_000)).await.unwrap();
    let mut finished = store.stage(None).await.unwrap();
    finished.write(payload(2_000_000)).await.unwrap();
    let finished = finished.finish().await.unwrap();
    assert_eq!(staged_files(directory.path()), 2);
    drop((unfinished, finished));
    store.put(name("newer"), stamp(2), payload(2_000_000)).await.unwrap();
    let late = store.put(name("newer"), stamp(1), payload(2_000_000)).await.unwrap();
    assert!(matches!(late, PutOutcome::Superseded { .. }));
    until("staged files are removed", || staged_files(directory.path()) == 0).await;
}

#[tokio::test]
async fn a_small_payload_makes_no_file_before_it_is_committed() {
    let directory = TempDir::new();
    let store = open(directory.path()).await.unwrap();
    let mut staging = store.stage(Some(5)).await.unwrap();
    staging.write(Bytes::from_static(b"hello")).await.unwrap();
    let staged = staging.finish().await.unwrap();
    assert_eq!(staged_files(directory.path()), 0);
    store.commit(name("a"), stamp(1), staged).await.unwrap();
    assert_eq!(read(&store, "a").await.unwrap(), "hello");
}

#[tokio::test]
async fn a_fresh_disk_and_the_data_servers_own_files_are_no_obstacle() {
    let directory = TempDir::new();
    fs::create_dir(directory.join("lost+found")).unwrap();
    for own in ["node.json", "roster.json", "floor.json"] {
        fs::write(directory.join(own), b"{}").unwrap();
        fs::write(directory.join(&format!("{own}.tmp")), b"{}").unwrap();
    }
    drop(open(directory.path()).await.unwrap());
    open(directory.path()).await.unwrap();
    assert_eq!(fs::read(directory.join("node.json")).unwrap(), b"{}");
    assert_eq!(fs::read_to_string(directory.join("format")).unwrap(), FORMAT);
}

#[tokio::test]
async fn a_root_that_is_not_there_is_made() {
    let directory = TempDir::new();
    open(&directory.join("some/where/deep")).await.unwrap();
}

#[tokio::test]
async fn a_first_open_that_was_cut_short_is_taken_up() {
    let directory = TempDir::new();
    fs::create_dir_all(directory.join("objects/00")).unwrap();
    fs::create_dir(directory.join("staging")).unwrap();
    fs::write(directory.join("format.tmp"), b"{").unwrap();
    let store = open(directory.path()).await.unwrap();
    store.put(name("a"), stamp(1), payload(10)).await.unwrap();
}

#[tokio::test]
async fn a_directory_of_someone_else_is_left_alone() {
    let directory = TempDir::new();
    fs::write(directory.join("thesis.tex"), b"years of work").unwrap();
    let reason = refusal(&directory).await;
    assert!(reason.contains("thesis.tex") && reason.contains("empty directory"), "{reason}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing was added");
}

#[tokio::test]
async fn objects_without_a_format_file_are_not_taken_for_nothing() {
    let directory = TempDir::new();
    let store = open(directory.path()).await.unwrap();
    store.put(name("a"), stamp(1), payload(10)).await.unwrap();
    drop(store);
    fs::remove_file(directory.join("format")).unwrap();
    let reason = refusal(&directory).await;
    assert!(reason.contains("format file is gone"), "{reason}");
    fs::write(directory.join("format"), FORMAT).unwrap();
    open(directory.path()).await.unwrap();
}

#[tokio::test]
async fn a_directory_that_is_gone_is_not_an_empty_one() {
    let directory = TempDir::new();
    drop(open(directory.path()).await.unwrap());
    fs::remove_dir(directory.join("objects/7f")).unwrap();
    let opened = open(directory.path()).await;
    assert!(matches!(opened, Err(StoreError::Io { .. })), "{opened:?}");
}

#[tokio::test]
async fn another_engine_and_a_newer_release_are_refused() {
    let directory = TempDir::new();
    drop(open(directory.path()).await.unwrap());
    for (format, hint) in [
        (r#"{"format":"holdfast-volume","engine":"log","version":1}"#, "choose that engine"),
        (r#"{"format":"holdfast-volume","engine":"file","version":2}"#, "newer one"),
        (r#"{"format":"raid","engine":"file","version":1}"#, "not a Holdfast volume"),
        ("{\"format\":\"holdfast-vol", "damaged"),
        ("", "damaged"),
    ] {
        fs::write(directory.join("format"), format).unwrap();
        let reason = refusal(&directory).await;
        assert!(reason.contains(hint), "{format}: {reason}");
    }
}

async fn refusal(directory: &TempDir) -> String {
    match open(directory.path()).await {
        Err(StoreError::Format { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn files_that_are_not_objects_are_ignored_and_kept() {
    let directory = TempDir::new();
    let store = open(directory.path()).await.unwrap();
    store.put(name("a"), stamp(1), payload(10)).await.unwrap();
    drop(store);
    fs::write(directory.join("objects/00/README"), b"hello").unwrap();
    let file = object_files(directory.path()).into_iter().find(|path| !path.ends_with("README"));
    let astray = directory.join("objects/00").join(format!("ff{:062}", 0));
    fs::copy(file.unwrap(), &astray).unwrap();
    let store = open(directory.path()).await.unwrap();
    assert_eq!(store.usage().await.unwrap().object_count, 1);
    assert!(astray.exists());
}
