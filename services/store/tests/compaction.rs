//! Compaction where something stands in its way: nothing that is needed goes, and
//! everything else does.

#![allow(clippy::disallowed_methods, reason = "tests look behind the seam")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::faulty::{self, FaultyFiles, Step};
use common::log::{Opener, read, stat};
use common::power::{Call, Fault, Matching, PowerDisk};
use common::{TempDir, copy_all, eventually, name, payload, stamp};
use futures_util::future::{BoxFuture, join_all};
use holdfast_runtime::{Clock, FileSystem, OpenMode, Runtime};
use holdfast_store::log_engine::index::MemoryIndexEngine;
use holdfast_store::log_engine::{FsckRequest, fsck};
use holdfast_store::{LogStore, LogStoreOptions, Store, StoreError};

const KIB: usize = 1024;
const SEGMENT_BYTES: u32 = 1024 * 1024;

/// Of a record, before the name.
const RECORD_HEADER_BYTES: usize = 80;

fn options() -> LogStoreOptions {
    LogStoreOptions { reserve_bytes: 0, segment_bytes: SEGMENT_BYTES, ..LogStoreOptions::default() }
}

async fn open(root: &Path) -> LogStore {
    LogStore::open(Runtime::real(), root.to_owned(), options()).await.unwrap()
}

fn segments(root: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(root.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.collect();
    paths.sort_unstable();
    paths
}

fn lose_index(root: &Path) {
    fs::remove_dir_all(root.join("index")).unwrap();
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Where the last record of a key begins.
fn record_of(path: &Path, key: &str) -> usize {
    let bytes = fs::read(path).unwrap();
    let found = bytes.windows(key.len()).rposition(|window| window == key.as_bytes());
    found.unwrap() - name(key).bucket.as_str().len() - RECORD_HEADER_BYTES
}

async fn put(store: &LogStore, key: &str, clock: u64, payload: Bytes) {
    store.put(name(key), stamp(clock), payload).await.unwrap();
}

/// About a segment of objects.
async fn fill(store: &LogStore, prefix: &str) {
    for number in 0..21 {
        put(store, &format!("{prefix}-{number:02}"), 1, payload(50 * KIB)).await;
    }
}

/// Makes nearly all of what [`fill`] wrote garbage.
async fn empty(store: &LogStore, prefix: &str) {
    let keys = (0..21).map(|number| format!("{prefix}-{number:02}"));
    let deletes = keys.map(|key| store.delete(name(&key), stamp(2)));
    join_all(deletes).await.into_iter().for_each(|deleted| drop(deleted.unwrap()));
}

/// Three segments: one with an object, and much that stays; one in which the object
/// is forgotten, with much that will be garbage; one of the same kind without.
async fn write_with_a_forget(store: &LogStore) {
    put(store, "forgotten", 1, payload(9)).await;
    fill(store, "kept").await;
    assert!(store.forget(&name("forgotten"), stamp(1).version).await.unwrap());
    fill(store, "garbage").await;
    fill(store, "more").await;
}

/// Such a volume, closed; gives the segment with the forget.
async fn volume_with_a_forget() -> (TempDir, PathBuf) {
    let directory = TempDir::new();
    let store = open(directory.path()).await;
    write_with_a_forget(&store).await;
    store.close().await;
    let segment = segments(directory.path())[1].clone();
    assert!(record_of(&segment, "forgotten") < 1000, "it is the first in its segment");
    (directory, segment)
}

async fn compact_all(store: &LogStore) {
    empty(store, "garbage").await;
    empty(store, "more").await;
    store.compact().await.unwrap();
}

/// An answer may be missing, and may not be wrong.
async fn assert_not_back(store: &LogStore) {
    let found = stat(store, "forgotten").await;
    assert!(!matches!(found, Ok(Some(_))), "it is back: {found:?}");
    assert!(read(store, "forgotten").await.is_err());
    for number in 0..21 {
        let kept = read(store, &format!("kept-{number:02}")).await;
        let is_right = kept.as_ref().is_ok_and(|kept| *kept == payload(50 * KIB));
        assert!(is_right || matches!(kept, Err(StoreError::Doubtful { .. })), "{kept:?}");
    }
}

#[tokio::test]
async fn a_forget_whose_payload_is_damaged_is_kept() {
    let (directory, segment) = volume_with_a_forget().await;
    let record = record_of(&segment, "forgotten");
    let end = record + RECORD_HEADER_BYTES + "objects".len() + "forgotten".len();
    for at in [end, end + 7] {
        flip(&segment, at);
    }
    let store = open(directory.path()).await;
    compact_all(&store).await;
    store.close().await;
    assert!(!segment.exists(), "all that is needed of it was written again");
    lose_index(directory.path());
    let store = open(directory.path()).await;
    assert_not_back(&store).await;
    assert_eq!(stat(&store, "forgotten").await.unwrap(), None);
    // What is written again is needed no longer than what it forgets is there.
    empty(&store, "kept").await;
    store.compact().await.unwrap();
    assert_eq!(stat(&store, "forgotten").await.unwrap(), None);
}

/// Also when the index is built anew.
async fn assert_stays_forgotten(root: &Path) -> LogStore {
    lose_index(root);
    let store = open(root).await;
    assert_eq!(stat(&store, "forgotten").await.unwrap(), None);
    store
}

#[tokio::test]
async fn a_segment_with_a_forget_that_cannot_be_read_is_kept_until_it_is_mended() {
    let (directory, segment) = volume_with_a_forget().await;
    let others = segments(directory.path()).split_off(2);
    flip(&segment, record_of(&segment, "forgotten") + 30);
    let store = open(directory.path()).await;
    compact_all(&store).await;
    store.close().await;
    assert!(segment.exists());
    assert!(!others[0].exists(), "the others are given back all the same");
    let copy = TempDir::new();
    common::copy_all(directory.path(), copy.path());
    lose_index(copy.path());
    let store = open(copy.path()).await;
    assert_not_back(&store).await;
    store.close().await;

    let repair = FsckRequest { is_quick: false, is_repair: true };
    fsck(&Runtime::real(), directory.path(), &options(), repair, &mut |_| {}).unwrap();
    let store = open(directory.path()).await;
    store.compact().await.unwrap();
    store.close().await;
    assert!(!segment.exists());
    assert_stays_forgotten(directory.path()).await;
}

#[tokio::test]
async fn who_ends_right_after_a_segment_is_gone_keeps_the_index() {
    let (base, _) = volume_with_a_forget().await;
    let mut ended_there = 0;
    for spared in 0.. {
        let directory = TempDir::new();
        copy_all(base.path(), directory.path());
        let files = FaultyFiles::new();
        let runtime = Runtime::real().with_files(Arc::clone(&files) as _);
        let store = LogStore::open(runtime, directory.path().to_owned(), options()).await.unwrap();
        // One sync of a directory fails, which ends the process: in some of these runs
        // the one after the file of a segment was removed.
        files.take_steps();
        files.fail_after(faulty::Fault::SyncDirectory, spared);
        for key in ["garbage", "more"] {
            let keys = (0..21).map(|number| format!("{key}-{number:02}"));
            let deletes = keys.map(|key| store.delete(name(&key), stamp(2)));
            join_all(deletes).await;
        }
        let _ = store.compact().await;
        let is_poisoned = store.poisoned().is_some();
        store.close().await;
        let steps = files.take_steps();
        let log = directory.path().join("log");
        let is_removal = |step: &Step| matches!(step, Step::Remove(path) if path.starts_with(&log));
        let last = |is_it: &dyn Fn(&Step) -> bool| steps.iter().rposition(is_it);
        ended_there += usize::from(
            is_poisoned
                && last(&is_removal) > last(&|step| *step == Step::SyncDirectory(log.clone())),
        );
        let store = open(directory.path()).await;
        assert_eq!(store.report().rebuilt_because, None, "after {spared} syncs: {steps:#?}");
        assert_not_back(&store).await;
        store.close().await;
        if !is_poisoned {
            break;
        }
    }
    assert!(ended_there > 0, "none of them ended there");
}

#[tokio::test]
async fn damage_in_garbage_keeps_no_segment() {
    let (directory, segment) = volume_with_a_forget().await;
    flip(&segment, record_of(&segment, "garbage-05") + 30);
    let store = open(directory.path()).await;
    compact_all(&store).await;
    store.close().await;
    assert!(!segment.exists());
    let store = assert_stays_forgotten(directory.path()).await;
    assert_not_back(&store).await;
}

#[tokio::test]
async fn the_oldest_segment_needs_no_forget() {
    let directory = TempDir::new();
    let store = open(directory.path()).await;
    put(&store, "forgotten", 1, payload(9)).await;
    assert!(store.forget(&name("forgotten"), stamp(1).version).await.unwrap());
    fill(&store, "garbage").await;
    store.close().await;
    let segment = segments(directory.path())[0].clone();
    flip(&segment, record_of(&segment, "forgotten") + 30);
    let store = open(directory.path()).await;
    empty(&store, "garbage").await;
    store.compact().await.unwrap();
    store.close().await;
    assert!(!segment.exists());
    assert_stays_forgotten(directory.path()).await;
}

fn in_memory(disk: &PowerDisk, index: &MemoryIndexEngine) -> Opener {
    Opener::in_memory(disk, index, SEGMENT_BYTES)
}

fn files_below(disk: &PowerDisk, directory: &str) -> Vec<PathBuf> {
    disk.files().into_iter().filter(|path| path.starts_with(directory)).collect()
}

fn reads_fail(disk: &PowerDisk, path: &Path) {
    let path = path.to_owned();
    let below = Matching::new(move |read: &Path| read.starts_with(&path));
    disk.fail(Fault::next(Call::Read).lasting().on(below));
}

/// Small objects only: longer ones would not lie in the log.
async fn fill_small(store: &LogStore, prefix: &str, clock: u64) {
    let names = (0..1100).map(|number| name(&format!("{prefix}-{number:04}")));
    let puts = names.map(|name| store.put(name, stamp(clock), payload(900)));
    join_all(puts).await.into_iter().for_each(|put| drop(put.unwrap()));
}

#[tokio::test]
async fn a_segment_that_the_disk_does_not_give_is_kept() {
    let (disk, index) = (PowerDisk::new(), MemoryIndexEngine::new());
    let store = in_memory(&disk, &index).open().await.unwrap();
    put(&store, "forgotten", 1, payload(9)).await;
    fill_small(&store, "kept", 1).await;
    assert!(store.forget(&name("forgotten"), stamp(1).version).await.unwrap());
    fill_small(&store, "garbage", 1).await;
    fill_small(&store, "more", 1).await;
    store.close().await;
    let before = files_below(&disk, "/volume/log");
    let store = in_memory(&disk, &index).open().await.unwrap();
    reads_fail(&disk, &before[1]);
    fill_small(&store, "garbage", 2).await;
    fill_small(&store, "more", 2).await;
    store.compact().await.unwrap();
    let after = files_below(&disk, "/volume/log");
    assert!(after.contains(&before[1]));
    assert!(!after.contains(&before[2]), "the others are given back all the same");
    disk.heal();
    store.compact().await.unwrap();
    assert!(!files_below(&disk, "/volume/log").contains(&before[1]));
    store.close().await;
    let store = in_memory(&disk, &MemoryIndexEngine::new()).open().await.unwrap();
    assert_eq!(stat(&store, "forgotten").await.unwrap(), None);
}

#[tokio::test]
async fn a_segment_that_cannot_be_opened_keeps_no_other_from_going() {
    let (directory, segment) = volume_with_a_forget().await;
    let others = segments(directory.path()).split_off(2);
    let store = open(directory.path()).await;
    let aside = directory.join("aside");
    fs::rename(&segment, &aside).unwrap();
    compact_all(&store).await;
    assert!(!others[0].exists());
    fs::rename(&aside, &segment).unwrap();
    store.compact().await.unwrap();
    assert!(!segment.exists());
}

/// Real time, and what is added to it.
#[derive(Debug, Default)]
struct Ahead(AtomicU64);

impl Clock for Ahead {
    fn now(&self) -> Duration {
        Runtime::real().now() + Duration::from_secs(self.0.load(Ordering::SeqCst))
    }

    fn unix_millis(&self) -> u64 {
        Runtime::real().unix_millis()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Runtime::real().sleep(duration)
    }
}

#[tokio::test]
async fn a_segment_whose_damage_was_mended_goes_after_a_while() {
    let directory = TempDir::new();
    let store = open(directory.path()).await;
    put(&store, "damaged", 1, payload(900)).await;
    fill(&store, "garbage").await;
    fill(&store, "more").await;
    store.close().await;
    let before = segments(directory.path());
    let record = record_of(&before[0], "damaged");
    flip(&before[0], record + 500);
    let clock = Arc::new(Ahead::default());
    let runtime = Runtime::real().with_clock(Arc::clone(&clock) as _);
    let store = LogStore::open(runtime, directory.path().to_owned(), options()).await.unwrap();
    empty(&store, "garbage").await;
    empty(&store, "more").await;
    eventually("the sound one is gone", || !before[1].exists()).await;
    // By then it met the other one too, which is as empty.
    Runtime::real().sleep(Duration::from_secs(1)).await;
    assert!(before[0].exists());
    put(&store, "damaged", 1, payload(900)).await;
    clock.0.store(11 * 60, Ordering::SeqCst);
    eventually("the mended one is gone", || !before[0].exists()).await;
    assert_eq!(read(&store, "damaged").await.unwrap(), payload(900));
}

#[tokio::test]
async fn what_is_not_the_volumes_among_payload_files_does_not_stop_compaction() {
    let directory = TempDir::new();
    for clock in 1..=2 {
        let store = open(directory.path()).await;
        put(&store, "large", clock, payload(300 * KIB)).await;
        store.close().await;
    }
    // No directory, and no file: neither can be swept.
    fs::write(directory.join("large/0000000000000000"), "").unwrap_err();
    let first = fs::read_dir(directory.join("large")).unwrap().count();
    assert_eq!(first, 2);
    fs::write(directory.join("large/00000000000000aa"), "").unwrap();
    fs::create_dir(directory.join("large/0000000000000000/0000000000000bad")).unwrap();
    let orphan = directory.join("large/0000000000000001/0000000000000bad");
    fs::write(&orphan, "cut short").unwrap();
    let store = open(directory.path()).await;
    fill(&store, "garbage").await;
    fill(&store, "more").await;
    let before = segments(directory.path());
    compact_all(&store).await;
    assert!(before[..2].iter().all(|segment| !segment.exists()));
    assert!(!orphan.exists(), "the other directories are swept all the same");
    assert_eq!(read(&store, "large").await.unwrap(), payload(300 * KIB));
}

#[tokio::test]
async fn a_payload_file_that_cannot_be_removed_keeps_no_other_from_going() {
    let directory = TempDir::new();
    let store = open(directory.path()).await;
    for key in ["bad", "good"] {
        put(&store, key, 1, payload(300 * KIB)).await;
    }
    let [bad, good] = ["0", "1"]
        .map(|number| directory.join("large/0000000000000000").join(format!("{number:0>16}")));
    assert!(good.is_file());
    fs::remove_file(&bad).unwrap();
    fs::create_dir(&bad).unwrap();
    for key in ["bad", "good"] {
        store.delete(name(key), stamp(2)).await.unwrap();
    }
    fill(&store, "garbage").await;
    fill(&store, "more").await;
    let before = segments(directory.path());
    compact_all(&store).await;
    assert!(bad.exists() && !good.exists());
    assert!(!before[0].exists());
    fs::remove_dir(&bad).unwrap();
    fs::write(&bad, "").unwrap();
    store.compact().await.unwrap();
    assert!(!bad.exists());
}

/// The file alone knows what the damaged record pointed to.
#[tokio::test]
async fn a_payload_file_that_cannot_be_read_now_is_kept() {
    let (disk, index) = (PowerDisk::new(), MemoryIndexEngine::new());
    let store = in_memory(&disk, &index).open().await.unwrap();
    put(&store, "large", 1, payload(2000)).await;
    put(&store, "small", 1, payload(9)).await;
    store.close().await;
    let segment = files_below(&disk, "/volume/log").remove(0);
    let payload_file = files_below(&disk, "/volume/large").remove(0);
    let orphan = payload_file.with_file_name("0000000000000bad");
    let file = disk.open(&orphan, OpenMode::CreateNew).unwrap();
    file.write_all_at(b"cut short", 0).unwrap();
    drop(file);
    let metadata = br#"{"content_type""#;
    let record = disk.contents(&segment).unwrap();
    let found = record.windows(metadata.len()).position(|window| window == metadata).unwrap();
    let end = found + record[found..].iter().position(|byte| *byte == b'}').unwrap() + 1;
    disk.flip_bit(&segment, end as u64, 0);
    reads_fail(&disk, Path::new("/volume/large"));
    let store = in_memory(&disk, &MemoryIndexEngine::new()).open().await.unwrap();
    assert_eq!(store.report().damaged_count, 1);
    store.compact().await.unwrap();
    assert_eq!(files_below(&disk, "/volume/large"), [payload_file.clone(), orphan]);
    disk.heal();
    store.compact().await.unwrap();
    assert_eq!(files_below(&disk, "/volume/large"), [payload_file]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payload_files_go_while_a_segment_is_read() {
    let directory = TempDir::new();
    // A stride takes two seconds, and the segment eight strides.
    let options = LogStoreOptions {
        segment_bytes: 8 * SEGMENT_BYTES,
        compaction_rate_bytes: 512 * 1024,
        ..options()
    };
    let root = directory.path().to_owned();
    let store = LogStore::open(Runtime::real(), root, options).await.unwrap();
    for number in 0..170 {
        put(&store, &format!("garbage-{number}"), 1, payload(50 * KIB)).await;
    }
    let victim = segments(directory.path())[0].clone();
    for number in 0..170 {
        put(&store, &format!("kept-{number}"), 1, payload(50 * KIB)).await;
    }
    // Nothing at all in use need not be read.
    for number in 1..170 {
        store.delete(name(&format!("garbage-{number}")), stamp(2)).await.unwrap();
    }
    Runtime::real().sleep(Duration::from_secs(1)).await;
    for clock in 1..=20 {
        put(&store, "large", clock, payload(300 * KIB)).await;
    }
    let files = || fs::read_dir(directory.join("large/0000000000000000")).unwrap().count();
    assert!(files() >= 10, "the segment is read by now");
    eventually("only the newest is left", || files() == 1).await;
    assert!(victim.exists(), "it takes much longer");
}
