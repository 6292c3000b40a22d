//! The log engine with its real index on a disk that fills up: it says so, goes
//! on answering, and takes writes again once there is room.

#![allow(clippy::disallowed_methods, reason = "tests look behind the seam")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]
#![allow(clippy::print_stdout, reason = "what was seen")]

#[path = "../common/mod.rs"]
mod common;
mod index;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::forgetful::ForgetfulMount;
use common::power::{Choice, Options};
use common::{name, payload, stamp};
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use holdfast_runtime::Runtime;
use holdfast_store::log_engine::index::IndexError;
use holdfast_store::{ListRequest, LogStore, LogStoreOptions, PutOutcome, Store, StoreError};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const RESERVE_BYTES: u64 = 8 * MIB;

/// Far more than any answer takes; a write that waits longer waits for ever.
const PATIENCE: Duration = Duration::from_secs(20);

async fn open(root: &Path) -> LogStore {
    let options = LogStoreOptions {
        reserve_bytes: RESERVE_BYTES,
        segment_bytes: 2 * 1024 * 1024,
        ..LogStoreOptions::default()
    };
    LogStore::open(Runtime::real(), root.join("volume"), options).await.unwrap()
}

fn mount(capacity_bytes: u64) -> Option<ForgetfulMount> {
    ForgetfulMount::new(Options { capacity_bytes, ..Options::default() })
}

/// What was acknowledged: the clock of each name, and none for a tombstone.
type Known = BTreeMap<u64, Option<u64>>;

fn key(number: u64) -> String {
    format!("{number:05}")
}

fn content(number: u64, clock: u64, length: u64) -> Bytes {
    static BLOCK: OnceLock<Bytes> = OnceLock::new();
    let block = BLOCK.get_or_init(|| payload(1 << 20));
    let mut bytes = BytesMut::from(&block[..usize::try_from(length).unwrap()]);
    bytes[..8].copy_from_slice(&(number << 20 | clock).to_le_bytes());
    bytes.freeze()
}

async fn patiently<T>(what: &str, work: impl Future<Output = T>) -> T {
    Runtime::real().timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what} hangs"))
}

async fn put(store: &LogStore, number: u64, clock: u64, length: u64) -> Result<(), StoreError> {
    let payload = content(number, clock, length);
    let put = patiently("a put", store.put(name(&key(number)), stamp(clock), payload)).await?;
    assert_eq!(put, PutOutcome::Stored);
    Ok(())
}

async fn delete(store: &LogStore, number: u64, clock: u64) -> Result<(), StoreError> {
    let outcome = patiently("a delete", store.delete(name(&key(number)), stamp(clock))).await?;
    assert_eq!(outcome, PutOutcome::Stored);
    Ok(())
}

/// Puts new names until the disk is full, and a few more.
async fn fill(store: &LogStore, known: &mut Known, clock: u64, length: u64) -> u64 {
    let first = known.keys().next_back().map_or(0, |last| last + 1);
    let (mut stored, mut refused) = (0, 0);
    for number in first.. {
        match put(store, number, clock, length).await {
            Ok(()) => {
                known.insert(number, Some(clock));
                stored += 1;
            }
            Err(StoreError::NoSpace { .. }) => refused += 1,
            Err(error) => panic!("it is not said that the disk is full: {error}"),
        }
        if refused == 8 {
            break;
        }
    }
    assert_eq!(store.poisoned(), None);
    stored
}

/// For the first page of everything.
fn list_request() -> ListRequest {
    let bucket = name("a").bucket;
    ListRequest { bucket, prefix: String::new(), start_after: None, limit: 1000 }
}

/// Everything that can be asked gives what was acknowledged and nothing else.
async fn check(store: &LogStore, known: &Known, length: u64) {
    let names: Vec<_> = known.keys().map(|number| name(&key(*number))).collect();
    let stats = store.stat(&names).await;
    for ((number, clock), stat) in known.iter().zip(stats) {
        let stat = stat.unwrap().expect("it was acknowledged");
        let read = store.read(&name(&key(*number)), None, None).await;
        match clock {
            Some(clock) => {
                assert_eq!(stat.version, stamp(*clock).version);
                let bytes = read.unwrap().bytes.try_fold(BytesMut::new(), async |mut all, part| {
                    all.extend_from_slice(&part);
                    Ok(all)
                });
                assert!(bytes.await.unwrap() == content(*number, *clock, length), "{number}");
            }
            None => assert!(matches!(read, Err(StoreError::NotFound { .. })), "{read:?}"),
        }
    }
    let mut request = list_request();
    let mut listed = Vec::new();
    loop {
        let page = store.list(&request).await.unwrap();
        request.start_after = page.entries.last().map(|entry| entry.key.clone());
        listed.extend(page.entries.into_iter().map(|entry| entry.key.as_str().to_owned()));
        if !page.more {
            break;
        }
    }
    assert_eq!(listed, known.keys().map(|number| key(*number)).collect::<Vec<_>>());
    let objects = known.values().flatten().count() as u64;
    assert_eq!(store.usage().await.unwrap().object_count, objects);
}

/// Deletes every second object; all must succeed.
async fn delete_half(store: &LogStore, known: &mut Known, clock: u64) {
    let live = known.iter_mut().filter(|(_, clock)| clock.is_some());
    for (number, known) in live.step_by(2) {
        delete(store, *number, clock).await.unwrap();
        *known = None;
    }
}

async fn fills_up_and_recovers(length: u64, at_least: u64) {
    let Some(mount) = mount(32 * MIB) else { return };
    let store = open(mount.path()).await;
    let mut known = Known::new();
    let stored = fill(&store, &mut known, 1, length).await;
    assert!(stored >= at_least, "{stored} of {length} bytes");
    check(&store, &known, length).await;
    delete_half(&store, &mut known, 2).await;
    check(&store, &known, length).await;
    store.compact().await.unwrap();
    let again = fill(&store, &mut known, 3, length).await;
    println!("{length} bytes: {stored} fitted, {again} more when half was deleted");
    assert!(again * 5 > stored * 2, "{again} after {stored}");
    check(&store, &known, length).await;
    mount.disk().set_capacity(40 * MIB);
    let more = fill(&store, &mut known, 4, length).await;
    assert!(more * length > 6 * MIB, "{more} in 8 MiB more");
    check(&store, &known, length).await;
    store.close().await;
    let store = open(mount.path()).await;
    assert_eq!(store.report().rebuilt_because, None);
    check(&store, &known, length).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_objects_fill_the_disk_and_room_comes_back() {
    fills_up_and_recovers(16 * KIB, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_objects_fill_the_disk_and_room_comes_back() {
    fills_up_and_recovers(700 * KIB, 24).await;
}

/// A little of every segment at a time: nearly all of one is in use when it is written
/// again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_does_not_fill_the_disk_itself() {
    let Some(mount) = mount(64 * MIB) else { return };
    let store = open(mount.path()).await;
    let (mut known, length) = (Known::new(), 16 * KIB);
    let stored = fill(&store, &mut known, 1, length).await;
    // One in eight of each segment: as good as full, and garbage all the same.
    for round in 0..6 {
        let live = known.iter_mut().filter(|(_, clock)| clock.is_some());
        let mut deleted = 0;
        for (number, known) in live.skip(round).step_by(8) {
            match delete(&store, *number, 2 + round as u64).await {
                Ok(()) => *known = None,
                Err(error) => panic!("{error}: after {deleted} in round {round}"),
            }
            deleted += 1;
        }
        let free_bytes = || Runtime::real().files().space(mount.path()).unwrap().free_bytes;
        let free = free_bytes();
        let compacted = store.compact().await;
        println!("round {round}: {deleted} of {stored} deleted, {free} free, then {compacted:?}");
        assert!(free_bytes() >= free, "it gives back more than it takes");
        check(&store, &known, length).await;
    }
    let again = fill(&store, &mut known, 10, length).await;
    assert!(again * 4 > stored, "{again} after {stored}");
    check(&store, &known, length).await;
    store.close().await;
}

/// How the writes of a volume end on a disk that something else has filled.
#[derive(Debug, Default)]
struct Tally {
    stored: u64,
    no_space: u64,
    /// In the log, and not in the index yet.
    unindexed: u64,
    poisoned: u64,
}

impl Tally {
    /// Whether it is durable.
    fn count(&mut self, result: Result<(), StoreError>) -> bool {
        let (counter, is_durable) = match result {
            Ok(()) => (&mut self.stored, true),
            Err(StoreError::NoSpace { .. }) => (&mut self.no_space, false),
            Err(StoreError::Index { source: IndexError::NoSpace | IndexError::Failed { .. } }) => {
                (&mut self.unindexed, true)
            }
            Err(StoreError::Poisoned { .. }) => (&mut self.poisoned, false),
            Err(error) => panic!("neither stored nor full nor poisoned: {error}"),
        };
        *counter += 1;
        is_durable
    }
}

/// Something else takes all but `left` bytes of the disk, in the middle of
/// overwriting, with garbage to compact and payload files to remove.
async fn something_else_eats_the_disk(left: u64) {
    const LENGTH: u64 = 16 * KIB;
    let Some(mut mount) = mount(256 * MIB) else { return };
    let store = open(mount.path()).await;
    let mut known = Known::new();
    for clock in 1..=3 {
        // So that each segment keeps something that must be moved.
        for number in (0..400).filter(|number| number % clock == 0) {
            put(&store, number, clock, LENGTH).await.unwrap();
            known.insert(number, Some(clock));
        }
    }
    for (number, clock) in (0..12).zip([4, 5].into_iter().cycle()) {
        let large = content(number, clock, 300 * KIB);
        store.put(name("large"), stamp(10 + number), large).await.unwrap();
    }
    let mut tally = Tally::default();
    for round in 0..6 {
        let used = mount.disk().core().used_bytes();
        mount.disk().set_capacity(used + left);
        let writes = (0..64).map(async |number| {
            // Which of two clocks is there is not known of a write that failed.
            let (number, clock) = (number + round * 64, 100 + round);
            match number % 4 {
                0 => (number, None, delete(&store, number, clock).await),
                _ => (number, Some(clock), put(&store, number, clock, LENGTH).await),
            }
        });
        for (number, clock, result) in join_all(writes).await {
            if tally.count(result) {
                known.insert(number, clock);
            }
        }
    }
    // It finds no room to move anything to, or enough of it.
    let compacted = patiently("compaction", store.compact()).await;
    println!("{left} bytes left: {tally:?}, compaction {compacted:?}, {:?}", store.poisoned());
    assert_eq!(store.poisoned(), None, "{left} bytes left");
    known.insert(99_999, Some(21));
    let large = store.stat(&[name("large")]).await.remove(0).unwrap().unwrap();
    assert_eq!(large.version, stamp(21).version);
    known.remove(&99_999);
    mount.disk().set_capacity(256 * MIB);
    // An index that met the full disk too is tried again a little later.
    let compacts = async {
        while let Err(error) = store.compact().await {
            println!("with room: {error}");
            assert_eq!(store.poisoned(), None);
            Runtime::real().sleep(Duration::from_millis(50)).await;
        }
    };
    patiently("compaction with room", compacts).await;
    put(&store, 0, 200, LENGTH).await.unwrap();
    known.insert(0, Some(200));
    delete(&store, 1, 200).await.unwrap();
    known.insert(1, None);
    store.delete(name("large"), stamp(200)).await.unwrap();
    assert!(store.forget(&name("large"), stamp(200).version).await.unwrap());
    check(&store, &known, LENGTH).await;
    drop(store);
    mount.power_cut(Choice::NothingUnsynced);
    let store = open(mount.path()).await;
    check(&store, &known, LENGTH).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_something_else_fills_is_survived() {
    for left in [0, 64 * KIB, RESERVE_BYTES / 4, RESERVE_BYTES * 3 / 4, RESERVE_BYTES + 64 * KIB] {
        something_else_eats_the_disk(left).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_opens_on_a_full_disk_however_the_process_ended() {
    for is_killed in [false, true] {
        let Some(mut mount) = mount(256 * MIB) else { return };
        let store = open(mount.path()).await;
        let mut known = Known::new();
        for number in 0..1_000 {
            put(&store, number, 1, KIB).await.unwrap();
            known.insert(number, Some(1));
        }
        if is_killed {
            let operations = mount.disk().operation_count();
            mount.replace(mount.disk().killed(operations));
        } else {
            store.close().await;
        }
        let used = mount.disk().core().used_bytes();
        mount.disk().set_capacity(used);
        let store = open(mount.path()).await;
        check(&store, &known, KIB).await;
        let refused = put(&store, 2_000, 1, KIB).await;
        assert!(matches!(refused, Err(StoreError::NoSpace { .. })), "{refused:?}");
    }
}
