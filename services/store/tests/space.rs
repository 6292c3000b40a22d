//! What a volume of the log engine takes of the disk, however often it is
//! overwritten: less than 2.5 times what is in use, and two segments.

#![allow(clippy::disallowed_methods, reason = "tests look behind the seam")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]
#![allow(clippy::print_stdout, reason = "what was measured")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::index::Numbers;
use common::{TempDir, eventually, name, stamp};
use futures_util::TryStreamExt;
use futures_util::future::{join, join_all};
use holdfast_runtime::Runtime;
use holdfast_store::{LogStore, LogStoreOptions, Store, StoreError};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const SEGMENT_BYTES: u64 = MIB;

/// See `docs/on-disk-format.md`.
const SEGMENT_HEADER_BYTES: usize = 64;

/// Two journals of fjall and its tables of so few names.
const MAX_INDEX_BYTES: u64 = 192 * MIB;

/// A lone write takes a sync; one that waits for compaction takes a few more.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

async fn open(root: &Path) -> LogStore {
    let options = LogStoreOptions {
        reserve_bytes: 0,
        segment_bytes: u32::try_from(SEGMENT_BYTES).unwrap(),
        ..LogStoreOptions::default()
    };
    LogStore::open(Runtime::real(), root.to_owned(), options).await.unwrap()
}

/// Bytes that the files below a directory take of the disk. What goes away
/// meanwhile does not count.
fn disk_bytes(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    entries.map(|entry| entry_bytes(&entry.unwrap().path())).sum()
}

fn entry_bytes(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => disk_bytes(path),
        Ok(metadata) => metadata.blocks() * 512,
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        Err(error) => panic!("{error}"),
    }
}

fn segments(root: &Path) -> usize {
    fs::read_dir(root.join("log")).unwrap().count()
}

fn payload_directories(root: &Path) -> Vec<PathBuf> {
    fs::read_dir(root.join("large")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn payload_files(root: &Path) -> usize {
    payload_directories(root).iter().map(|path| fs::read_dir(path).unwrap().count()).sum()
}

/// Bytes that only this version of this name has.
fn content(key: u64, clock: u64, length: u64) -> Bytes {
    let mut numbers = Numbers(key << 40 ^ clock);
    let block: Vec<u8> = (0..64).flat_map(|_| numbers.below(u64::MAX).to_le_bytes()).collect();
    block.into_iter().cycle().take(usize::try_from(length).unwrap()).collect()
}

async fn read(store: &LogStore, key: u64) -> Result<(u64, Bytes), StoreError> {
    let payload = store.read(&name(&key.to_string()), None, None).await?;
    let clock = payload.stat.version.clock();
    let joined = payload.bytes.try_fold(BytesMut::new(), async |mut all, chunk| {
        all.extend_from_slice(&chunk);
        Ok(all)
    });
    Ok((clock, joined.await?.freeze()))
}

async fn put(store: &LogStore, key: u64, clock: u64, length: u64) {
    let payload = content(key, clock, length);
    store.put(name(&key.to_string()), stamp(clock), payload).await.unwrap();
}

/// The length of an object, which does not change from version to version: one
/// in five is large for the log.
fn length(key: u64) -> u64 {
    if key.is_multiple_of(5) { 60 * KIB } else { 4 * KIB }
}

/// The most that was seen on the disk.
#[derive(Debug, Default)]
struct Seen {
    data_bytes: AtomicU64,
    index_bytes: AtomicU64,
    longest_wait: Mutex<Duration>,
}

impl Seen {
    fn look(&self, root: &Path) {
        let data_bytes = disk_bytes(&root.join("log")) + disk_bytes(&root.join("large"));
        self.data_bytes.fetch_max(data_bytes, Ordering::Relaxed);
        self.index_bytes.fetch_max(disk_bytes(&root.join("index")), Ordering::Relaxed);
    }

    fn check(&self, what: &str, live_bytes: u64) {
        let (data, index) = (self.data_bytes.load(Ordering::Relaxed), &self.index_bytes);
        let (index, wait) = (index.load(Ordering::Relaxed), *self.longest_wait.lock().unwrap());
        println!("{what}: {live_bytes} bytes live, {data} on disk, {index} of index, {wait:?}");
        assert!(data < live_bytes * 5 / 2 + 2 * SEGMENT_BYTES, "{data} bytes for {live_bytes}");
        assert!(index < MAX_INDEX_BYTES, "{index} bytes of index");
        assert!(wait < LONGEST_WAIT, "a put took {wait:?}");
    }
}

/// Overwrites objects at random from many sides.
async fn overwrite(store: &LogStore, root: &Path, keys: u64, count: u64, seen: &Arc<Seen>) {
    let done = Arc::new(AtomicU64::new(0));
    let writers = (0..64_u64).map(|writer| {
        let (store, done, seen) = (store.clone(), Arc::clone(&done), Arc::clone(seen));
        let root = root.to_owned();
        async move {
            let (mut numbers, runtime) = (Numbers(writer), Runtime::real());
            loop {
                let clock = 2 + done.fetch_add(1, Ordering::Relaxed);
                if clock >= 2 + count {
                    break;
                }
                let (key, started) = (numbers.below(keys), runtime.now());
                put(&store, key, clock, length(key)).await;
                let took = runtime.now() - started;
                let mut longest = seen.longest_wait.lock().unwrap();
                *longest = took.max(*longest);
                drop(longest);
                if clock.is_multiple_of(200) {
                    seen.look(&root);
                }
            }
        }
    });
    join_all(writers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overwriting_for_ever_takes_bounded_room() {
    const KEYS: u64 = 1_350;
    let directory = TempDir::new();
    let (store, seen) = (open(directory.path()).await, Arc::new(Seen::default()));
    join_all((0..KEYS).map(|key| put(&store, key, 1, length(key)))).await;
    let live_bytes = store.usage().await.unwrap().live_bytes;
    assert!((19 * MIB..22 * MIB).contains(&live_bytes));
    overwrite(&store, directory.path(), KEYS, 20 * KEYS, &seen).await;
    seen.check("overwritten 20 times", live_bytes);
    for key in 0..KEYS {
        let (clock, bytes) = read(&store, key).await.unwrap();
        assert!(bytes == content(key, clock, length(key)), "{key}");
    }
    let deletes = (0..KEYS).map(|key| store.delete(name(&key.to_string()), stamp(u64::MAX / 2)));
    join_all(deletes).await.into_iter().for_each(|deleted| drop(deleted.unwrap()));
    eventually("the log has shrunk", || segments(directory.path()) <= 2).await;
    assert!(disk_bytes(&directory.join("log")) < 3 * SEGMENT_BYTES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgets_do_not_pile_up() {
    const KEYS: u64 = 1_000;
    const ROUNDS: u64 = 60;
    let directory = TempDir::new();
    let store = open(directory.path()).await;
    // What stays, in the oldest segment, must not keep every forget alive.
    let kept = KEYS..KEYS + 19;
    join_all(kept.clone().map(|key| put(&store, key, 1, 50 * KIB))).await;
    let mut most = 0;
    for round in 1..=ROUNDS {
        join_all((0..KEYS).map(|key| put(&store, key, round, 100))).await;
        let names: Vec<_> = (0..KEYS).map(|key| name(&key.to_string())).collect();
        let forgets = names.iter().map(|name| store.forget(name, stamp(round).version));
        assert!(join_all(forgets).await.into_iter().all(|forgotten| forgotten.unwrap()));
        most = most.max(disk_bytes(&directory.join("log")));
    }
    let live_bytes = store.usage().await.unwrap().live_bytes;
    println!("forgets: {live_bytes} bytes live, at most {most} in the log");
    assert!(most < 3 * live_bytes + 4 * SEGMENT_BYTES, "{most} bytes of log");
    store.compact().await.unwrap();
    let rest = disk_bytes(&directory.join("log"));
    println!("forgets: {rest} bytes of log in the end");
    assert!(rest < live_bytes * 5 / 2 + 2 * SEGMENT_BYTES, "{rest} bytes of log");
    store.close().await;
    // A forget that went too early would bring something back.
    fs::remove_dir_all(directory.join("index")).unwrap();
    let store = open(directory.path()).await;
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.object_count, usage.tombstone_count), (19, 0));
    for key in kept {
        assert!(read(&store, key).await.unwrap().1 == content(key, 1, 50 * KIB));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_of_many_short_runs_are_put_together() {
    let directory = TempDir::new();
    for clock in 1..=40 {
        let store = open(directory.path()).await;
        put(&store, clock % 3, clock, 100).await;
        put(&store, 1_000 + clock, clock, 200 * KIB).await;
        put(&store, 2_000, clock, 200 * KIB).await;
        store.close().await;
    }
    let store = open(directory.path()).await;
    eventually("few segments are left", || segments(directory.path()) <= 9).await;
    eventually("41 payload files are left", || payload_files(directory.path()) == 41).await;
    let names: Vec<_> = (1..=40).map(|clock| name(&(1_000 + clock).to_string())).collect();
    let deletes = names.into_iter().map(|name| store.delete(name, stamp(99)));
    join_all(deletes).await.into_iter().for_each(|deleted| drop(deleted.unwrap()));
    // One is in use.
    eventually("empty directories are gone", || payload_directories(directory.path()).len() == 1)
        .await;
    assert_eq!(payload_files(directory.path()), 1);
    assert!(read(&store, 2_000).await.unwrap().1 == content(2_000, 40, 200 * KIB));
    for key in 0..3 {
        let (clock, bytes) = read(&store, key).await.unwrap();
        assert!(clock > 37 && bytes == content(key, clock, 100));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_a_crash_left_without_a_record_is_removed() {
    let directory = TempDir::new();
    for key in 1..=2 {
        let store = open(directory.path()).await;
        put(&store, key, 1, 100).await;
        store.close().await;
    }
    // As if the second run had ended before its first batch was on the disk.
    let paths = fs::read_dir(directory.path().join("log")).unwrap();
    let last = paths.map(|entry| entry.unwrap().path()).max().unwrap();
    let header = fs::read(&last).unwrap()[..SEGMENT_HEADER_BYTES].to_vec();
    fs::write(&last, header).unwrap();
    fs::remove_dir_all(directory.path().join("index")).unwrap();
    let store = open(directory.path()).await;
    put(&store, 3, 1, 100).await;
    eventually("the empty segment is gone", || segments(directory.path()) == 2).await;
    for key in [1, 3] {
        assert!(read(&store, key).await.unwrap() == (1, content(key, 1, 100)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overwritten_payload_files_are_removed() {
    let directory = TempDir::new();
    let store = open(directory.path()).await;
    for clock in 1..=30 {
        join_all((0..8).map(|key| put(&store, key, clock, 300 * KIB))).await;
    }
    eventually("a file for each object is left", || payload_files(directory.path()) == 8).await;
    for key in 0..8 {
        assert!(read(&store, key).await.unwrap() == (30, content(key, 30, 300 * KIB)));
    }
    store.close().await;
    let store = open(directory.path()).await;
    join_all((0..8).map(|key| put(&store, key, 31, 300 * KIB))).await;
    // The earlier run's directory goes with the last of its files.
    eventually("one directory is left", || payload_directories(directory.path()).len() == 1).await;
    assert_eq!(payload_files(directory.path()), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_leaves_readers_undisturbed() {
    const KEYS: u64 = 300;
    let length = |key: u64| if key.is_multiple_of(30) { 150 * KIB } else { 8 * KIB };
    let directory = TempDir::new();
    let store = open(directory.path()).await;
    join_all((0..KEYS).map(|key| put(&store, key, 1, length(key)))).await;
    let (is_done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let writing = async {
        for clock in 2..=6 {
            let every_third = (0..KEYS).filter(|key| (key + clock) % 3 > 0);
            join_all(every_third.map(|key| put(&store, key, clock, length(key)))).await;
            store.compact().await.unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
    };
    let readers = (0..8_u64).map(async |reader| {
        let (mut numbers, mut newest) = (Numbers(reader), BTreeMap::new());
        while !is_done.load(Ordering::Relaxed) {
            let key = numbers.below(KEYS);
            let (clock, bytes) = read(&store, key).await.unwrap();
            assert!(bytes == content(key, clock, length(key)), "{key} in version {clock}");
            let before = newest.insert(key, clock).unwrap_or(0);
            assert!(before <= clock, "{key} went back from {before} to {clock}");
            reads.fetch_add(1, Ordering::Relaxed);
        }
    });
    join(writing, join_all(readers)).await;
    assert!(reads.load(Ordering::Relaxed) > 100, "hardly anything was read");
}
