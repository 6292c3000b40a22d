//! A disk that refuses to give a payload: the copy counts as damaged, so that
//! another one takes its place, and is never taken for absent or for something
//! older.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use common::log::Opener;
use common::power::{Call, Fault, Matching, Options, PowerDisk};
use common::{name, payload, stamp};
use futures_util::StreamExt;
use holdfast_core::object::Stat;
use holdfast_runtime::Runtime;
use holdfast_store::log_engine::index::MemoryIndexEngine;
use holdfast_store::{
    FileStore, FileStoreOptions, Held, ListRequest, LogStore, PutOutcome, Store, StoreError,
    StoreMetrics,
};
use rustix::io::Errno;

/// In a record of the log, and in a file of its own whose chunks are three.
const SIZES: [usize; 2] = [500, 2_500_000];

/// What a disk says when it cannot give the bytes, and what a file system says
/// that finds wrong ones.
const OF_THE_MEDIUM: [Errno; 5] =
    [Errno::IO, Errno::NODATA, Errno::BADMSG, Errno::ILSEQ, Errno::UCLEAN];

/// What keeps a process from reading and says nothing about the bytes.
const OF_THE_MOMENT: [Errno; 7] = [
    Errno::MFILE,
    Errno::NFILE,
    Errno::NOMEM,
    Errno::INTR,
    Errno::AGAIN,
    Errno::ACCESS,
    Errno::TIMEDOUT,
];

fn new_disk() -> PowerDisk {
    PowerDisk::with(Options { keeps_history: false, ..Options::default() })
}

async fn open_log(disk: &PowerDisk) -> LogStore {
    Opener::in_memory(disk, &MemoryIndexEngine::new(), 8 << 20).open().await.unwrap()
}

async fn open_files(disk: &PowerDisk) -> FileStore {
    let runtime = Runtime::real().with_files(Arc::new(disk.clone()));
    let options = FileStoreOptions { reserve_bytes: 0 };
    FileStore::open(runtime, "/volume".into(), options).await.unwrap()
}

async fn put(store: &dyn Store, clock: u64, bytes: &Bytes) -> PutOutcome {
    store.put(name("a"), stamp(clock), bytes.clone()).await.unwrap()
}

/// What a reader is given, and how it ended.
async fn read(store: &dyn Store) -> (Bytes, Result<(), StoreError>) {
    let mut all = BytesMut::new();
    let mut payload = match store.read(&name("a"), None, None).await {
        Ok(payload) => payload,
        Err(error) => return (Bytes::new(), Err(error)),
    };
    while let Some(chunk) = payload.bytes.next().await {
        match chunk {
            Ok(chunk) => all.extend_from_slice(&chunk),
            Err(error) => return (all.freeze(), Err(error)),
        }
    }
    (all.freeze(), Ok(()))
}

async fn assert_refused(store: &dyn Store, what: &str) {
    let (given, end) = read(store).await;
    assert!(matches!(end, Err(StoreError::Io { .. })), "{what}: {end:?}");
    assert_eq!(given.len(), 0, "{what}");
}

/// What is known of the name after all that was told to the store before: marks
/// are set in the order of writes.
async fn held(store: &dyn Store) -> Held {
    store.put(name("behind"), stamp(1), Bytes::new()).await.unwrap();
    store.inspect(&[name("a")]).await.remove(0).unwrap().expect("its version is known")
}

/// Says the same whether the payload can be read or not.
async fn assert_known(store: &dyn Store, stat: &Stat, is_damaged: bool, what: &str) {
    let known = held(store).await;
    assert_eq!(&known.stat, stat, "{what}");
    assert_eq!(known.is_damaged, is_damaged, "{what}");
    let answer = store.stat(&[name("a")]).await.remove(0).unwrap();
    assert_eq!(answer.as_ref(), Some(stat), "{what}");
    let request = ListRequest {
        bucket: name("a").bucket,
        prefix: "a".to_owned(),
        start_after: None,
        limit: 10,
    };
    let page = store.list(&request).await.unwrap();
    let listed: Vec<_> =
        page.entries.iter().map(|entry| (entry.version, entry.is_damaged)).collect();
    assert_eq!(listed, [(stat.version, is_damaged)], "{what}");
    assert_eq!(page.unreadable_count, 0, "{what}");
}

/// How often damage has had this end.
fn damage_count(metrics: &StoreMetrics, result: &str) -> u64 {
    let registry = prometheus::Registry::new();
    metrics.register(&registry).unwrap();
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let series = format!("holdfast_corruptions_total{{result=\"{result}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
}

fn payload_files(disk: &PowerDisk, below: &str) -> Vec<PathBuf> {
    disk.files().into_iter().filter(|path| path.starts_with(below)).collect()
}

/// The whole of it: the disk refuses what lies below the directory, for good, until
/// the payload is written once more.
async fn check(
    disk: &PowerDisk,
    (store, metrics): (&dyn Store, &StoreMetrics),
    size_bytes: usize,
    errno: Errno,
) {
    let what = format!("{size_bytes} bytes, {errno:?}");
    put(store, 1, &payload(size_bytes - 1)).await;
    let content = payload(size_bytes);
    put(store, 2, &content).await;
    let stat = store.stat(&[name("a")]).await.remove(0).unwrap().unwrap();
    disk.fail(Fault::next(Call::Read).lasting().errno(errno).on(Matching::below("/volume")));
    assert_refused(store, &what).await;
    assert_known(store, &stat, true, &what).await;
    assert_eq!(damage_count(metrics, "refused"), 1, "{what}");
    assert_refused(store, &what).await;
    let older = put(store, 1, &payload(size_bytes - 1)).await;
    assert!(matches!(older, PutOutcome::Superseded { newest } if newest == stat), "{what}");

    // As repair does with what another member has.
    disk.heal();
    assert_eq!(put(store, 2, &content).await, PutOutcome::Stored, "{what}");
    assert_known(store, &stat, false, &what).await;
    assert_eq!(damage_count(metrics, "replaced"), 1, "{what}");
    let (given, end) = read(store).await;
    assert!(end.is_ok() && given == content, "{what}: {end:?}");
    assert_eq!(put(store, 2, &content).await, PutOutcome::AlreadyStored, "{what}");
}

#[tokio::test]
async fn the_log_engine_has_what_the_disk_refuses_replaced() {
    for (size_bytes, errno) in SIZES.into_iter().flat_map(|size| OF_THE_MEDIUM.map(|it| (size, it)))
    {
        let disk = new_disk();
        let store = open_log(&disk).await;
        check(&disk, (&store, store.metrics()), size_bytes, errno).await;
        store.close().await;
    }
}

#[tokio::test]
async fn the_file_engine_has_what_the_disk_refuses_replaced() {
    for (size_bytes, errno) in SIZES.into_iter().flat_map(|size| OF_THE_MEDIUM.map(|it| (size, it)))
    {
        let disk = new_disk();
        let store = open_files(&disk).await;
        check(&disk, (&store, store.metrics()), size_bytes, errno).await;
    }
}

/// Reads one chunk after another fails, and tells how many were given before.
async fn check_the_middle(disk: &PowerDisk, store: &dyn Store, below: &'static str) {
    let content = payload(SIZES[1]);
    put(store, 2, &content).await;
    let stat = store.stat(&[name("a")]).await.remove(0).unwrap().unwrap();
    let bad = payload_files(disk, below).pop().unwrap();
    let is_bad = Matching::new(move |path: &Path| path == bad);
    // The end of the file, the first chunk, and its entries of the table are read
    // before, and what is read of the end has the table in it.
    disk.fail(Fault::next(Call::Read).after(2).lasting().on(is_bad));
    let (given, end) = read(store).await;
    assert!(matches!(end, Err(StoreError::Io { .. })), "{end:?}");
    assert!(given.len() > 1_000_000 && given.len() < content.len(), "{}", given.len());
    assert_eq!(given, content[..given.len()]);
    assert_known(store, &stat, true, "in the middle").await;
}

#[tokio::test]
async fn a_refusal_in_the_middle_of_a_payload_is_damage_of_that_copy() {
    let disk = new_disk();
    let store = open_log(&disk).await;
    check_the_middle(&disk, &store, "/volume/large").await;
    // Written anew it is another file: the sector may stay as bad as it is.
    let content = payload(SIZES[1]);
    assert_eq!(put(&store, 2, &content).await, PutOutcome::Stored);
    let (given, end) = read(&store).await;
    assert!(end.is_ok() && given == content, "{end:?}");
    store.close().await;

    let disk = new_disk();
    check_the_middle(&disk, &open_files(&disk).await, "/volume/objects").await;
}

#[tokio::test]
async fn a_reader_of_the_old_file_does_not_spoil_the_copy_that_has_replaced_it() {
    let disk = new_disk();
    let store = open_log(&disk).await;
    let content = payload(SIZES[1]);
    put(&store, 2, &content).await;
    let bad = payload_files(&disk, "/volume/large").pop().unwrap();
    let mut late = store.read(&name("a"), None, None).await.unwrap().bytes;
    late.next().await.unwrap().unwrap();
    let is_bad = Matching::new(move |path: &Path| path == bad);
    disk.fail(Fault::next(Call::Read).lasting().on(is_bad));
    assert_refused(&store, "another reader").await;
    assert!(held(&store).await.is_damaged);
    assert_eq!(put(&store, 2, &content).await, PutOutcome::Stored);
    assert!(!held(&store).await.is_damaged);
    assert!(late.any(async |chunk| chunk.is_err()).await, "it goes on with the old file");
    assert!(!held(&store).await.is_damaged);
    store.close().await;
}

/// For operators, when a disk gives again what it has refused everywhere.
#[tokio::test]
async fn the_mark_goes_when_the_index_is_built_anew() {
    for size_bytes in SIZES {
        let disk = new_disk();
        let store = open_log(&disk).await;
        let content = payload(size_bytes);
        put(&store, 2, &content).await;
        disk.fail(Fault::next(Call::Read).lasting());
        assert_refused(&store, "before").await;
        assert!(held(&store).await.is_damaged);
        disk.heal();
        store.close().await;
        drop(store);
        let store = open_log(&disk).await;
        assert!(!held(&store).await.is_damaged, "{size_bytes} bytes");
        let (given, end) = read(&store).await;
        assert!(end.is_ok() && given == content, "{end:?}");
        store.close().await;
    }
}

async fn check_that_nothing_is_marked(
    disk: &PowerDisk,
    (store, metrics): (&dyn Store, &StoreMetrics),
    size_bytes: usize,
) {
    let content = payload(size_bytes);
    put(store, 2, &content).await;
    let stat = store.stat(&[name("a")]).await.remove(0).unwrap().unwrap();
    disk.fail(Fault::next(Call::Read));
    let (given, end) = read(store).await;
    assert!(end.is_ok() && given == content, "{size_bytes} bytes: {end:?}");
    for errno in OF_THE_MOMENT {
        let what = format!("{size_bytes} bytes, {errno:?}");
        disk.fail(Fault::next(Call::Read).lasting().errno(errno));
        assert_refused(store, &what).await;
        disk.heal();
        assert_known(store, &stat, false, &what).await;
        assert_eq!(put(store, 2, &content).await, PutOutcome::AlreadyStored, "{what}");
    }
    assert_eq!(damage_count(metrics, "refused"), 0, "{size_bytes} bytes");
}

#[tokio::test]
async fn what_passes_and_what_says_nothing_about_the_bytes_costs_no_copy() {
    for size_bytes in SIZES {
        let disk = new_disk();
        let store = open_log(&disk).await;
        check_that_nothing_is_marked(&disk, (&store, store.metrics()), size_bytes).await;
        store.close().await;
        let disk = new_disk();
        let store = open_files(&disk).await;
        check_that_nothing_is_marked(&disk, (&store, store.metrics()), size_bytes).await;
    }
}
