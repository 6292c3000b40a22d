//! The index that cannot be written, or not be opened, because the disk is full.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use holdfast_core::name::ObjectName;
use holdfast_core::object::{Kind, Stat};
use holdfast_runtime::Runtime;
use holdfast_store::log_engine::index::{FjallIndexEngine, Index, IndexEngine, IndexError};
use holdfast_store::{LogStore, LogStoreOptions, Store, StoreError};
use rustix::io::Errno;

use crate::common::power::{Call, Choice, Fault, Matching};
use crate::common::{name, stamp};
use crate::{
    KIB, Known, MIB, RESERVE_BYTES, check, content, delete, delete_half, key, list_request, mount,
    patiently, put,
};

/// The index cannot be written below `place` of the volume, which it notices at
/// once or when it next writes a table. What is known stays known, writes are
/// refused, and all goes on by itself once it can be written.
async fn the_index_meets_a_full_disk(place: &'static str, ends: Ending) {
    const LENGTH: u64 = 16 * KIB;
    let Some(mut mount) = mount(256 * MIB) else { return };
    let store = open_with_small_tables(mount.path()).await;
    let mut known = Known::new();
    for number in 0..100 {
        put(&store, number, 1, LENGTH).await.unwrap();
        known.insert(number, Some(1));
    }
    store.put(name("large"), stamp(1), content(1, 1, 300 * KIB)).await.unwrap();

    let full = Fault::next(Call::Write).lasting().errno(Errno::NOSPC);
    mount.disk().fail(full.on(Matching::below(place)));
    let mut unclear = Vec::new();
    for number in 500.. {
        // Two at once, so that one is on its way when the other one fails.
        let (first, second) = (number * 2, number * 2 + 1);
        let writes = [put(&store, first, 2, LENGTH), put(&store, second, 2, LENGTH)];
        for (number, result) in [first, second].into_iter().zip(join_all(writes).await) {
            match result {
                Ok(()) => drop(known.insert(number, Some(2))),
                Err(StoreError::Index {
                    source: IndexError::NoSpace | IndexError::Failed { .. },
                }) => unclear.push(number),
                Err(StoreError::NoSpace { .. }) => {}
                Err(error) => panic!("{place}: {error}"),
            }
        }
        if !unclear.is_empty() {
            break;
        }
        assert!(number < 5_000, "{place}: it is not noticed");
    }
    if place == WHOLE_INDEX {
        for number in [0, 1] {
            let refused = delete(&store, number, 2).await;
            assert!(matches!(refused, Err(StoreError::NoSpace { .. })), "{refused:?}");
        }
    }
    assert_eq!(store.poisoned(), None, "{place}");
    for number in [0, 99] {
        let read = store.read(&name(&key(number)), None, None).await.unwrap();
        let bytes: Vec<Bytes> = read.bytes.try_collect().await.unwrap();
        assert!(bytes.concat() == content(number, 1, LENGTH), "{place}: {number}");
    }

    // Of what waits for the index nothing is said, and a list lacks it.
    for number in unclear.iter().filter(|_| place == WHOLE_INDEX) {
        let told = store.stat(&[name(&key(*number))]).await.remove(0);
        assert!(matches!(told, Err(StoreError::Index { .. })), "{number}: {told:?}");
        let page = store.walk(None, 1).await.unwrap();
        assert_eq!(page.unreadable_count, 1);
    }
    println!("{place}, {ends:?}: {} unclear after {}", unclear.len(), known.len());
    let store = match ends {
        Ending::RoomComesBack => {
            mount.disk().heal();
            // As much as a volume leaves that has filled the disk by itself.
            let used = mount.disk().core().used_bytes();
            mount.disk().set_capacity(used + RESERVE_BYTES * 5 / 8);
            let takes_deletes = async {
                while let Err(error) = delete(&store, 2, 3).await {
                    assert_eq!(store.poisoned(), None, "{place}: {error}");
                    Runtime::real().sleep(Duration::from_millis(50)).await;
                }
            };
            patiently("a delete with some room", takes_deletes).await;
            known.insert(2, None);
            mount.disk().set_capacity(256 * MIB);
            let takes_writes = async {
                while put(&store, 1, 3, LENGTH).await.is_err() {
                    Runtime::real().sleep(Duration::from_millis(50)).await;
                }
            };
            patiently("a put with room", takes_writes).await;
            known.insert(1, Some(3));
            assert_eq!(store.poisoned(), None, "{place}");
            store
        }
        Ending::Closed => {
            store.close().await;
            mount.disk().heal();
            open_with_small_tables(mount.path()).await
        }
        Ending::PowerCut => {
            drop(store);
            mount.power_cut(Choice::NothingUnsynced);
            open_with_small_tables(mount.path()).await
        }
    };
    // They were durable, and only the index did not know.
    known.extend(unclear.iter().map(|number| (*number, Some(2))));
    known.insert(99_999, Some(1));
    let large = store.stat(&[name("large")]).await.remove(0).unwrap().unwrap();
    assert_eq!(large.version, stamp(1).version);
    store.delete(name("large"), stamp(200)).await.unwrap();
    assert!(store.forget(&name("large"), stamp(200).version).await.unwrap());
    known.remove(&99_999);
    check(&store, &known, LENGTH).await;
    delete_half(&store, &mut known, 4).await;
    patiently("compaction", store.compact()).await.unwrap();
    check(&store, &known, LENGTH).await;
    drop(store);
    mount.power_cut(Choice::NothingUnsynced);
    check(&open_with_small_tables(mount.path()).await, &known, LENGTH).await;
}

const WHOLE_INDEX: &str = "/volume/index";

#[derive(Debug, Clone, Copy)]
enum Ending {
    RoomComesBack,
    Closed,
    PowerCut,
}

async fn open_with_small_tables(root: &Path) -> LogStore {
    open_with_index(root, Arc::new(small_tables())).await
}

fn small_tables() -> FjallIndexEngine {
    FjallIndexEngine::new(Runtime::real()).with_memtable_bytes(64 * KIB)
}

async fn open_with_index(root: &Path, index: Arc<dyn IndexEngine>) -> LogStore {
    LogStore::open(Runtime::real(), root.join("volume"), options(index)).await.unwrap()
}

fn options(index: Arc<dyn IndexEngine>) -> LogStoreOptions {
    LogStoreOptions {
        reserve_bytes: RESERVE_BYTES,
        segment_bytes: 2 * 1024 * 1024,
        index: Some(index),
        ..LogStoreOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_without_room_refuses_writes_until_there_is_some() {
    for place in [WHOLE_INDEX, "/volume/index/keyspaces"] {
        for ends in [Ending::RoomComesBack, Ending::Closed, Ending::PowerCut] {
            the_index_meets_a_full_disk(place, ends).await;
        }
    }
}

/// A quota, of which the free space of the disk tells nothing, met by the worker
/// that writes the tables, which does not say why it failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_without_room_that_nothing_tells_of_is_waited_for() {
    const LENGTH: u64 = 16 * KIB;
    let Some(mount) = mount(256 * MIB) else { return };
    let store = open_with_small_tables(mount.path()).await;
    let full = Fault::next(Call::Write).lasting().errno(Errno::DQUOT);
    mount.disk().fail(full.on(Matching::below("/volume/index/keyspaces")));
    let clock = Runtime::real();
    let (mut known, mut unclear) = (Known::new(), Vec::new());
    let mut refused_since = None;
    // It is opened again after a second at the latest.
    for number in 0.. {
        match put(&store, number, 1, LENGTH).await {
            Ok(()) => drop(known.insert(number, Some(1))),
            Err(StoreError::NoSpace { .. }) => clock.sleep(Duration::from_millis(20)).await,
            Err(StoreError::Index { .. }) => unclear.push(number),
            Err(error) => panic!("{error}"),
        }
        if !unclear.is_empty() {
            let since = *refused_since.get_or_insert_with(|| clock.now());
            if clock.now() > since + Duration::from_millis(3_500) {
                break;
            }
        }
    }
    assert_eq!(store.poisoned(), None);
    assert!(unclear.len() <= 2, "it was taken for one with room: {unclear:?}");
    mount.disk().heal();
    let takes_writes = async {
        while put(&store, 1_000_000, 1, LENGTH).await.is_err() {
            clock.sleep(Duration::from_millis(50)).await;
        }
    };
    patiently("a put with room", takes_writes).await;
    known.insert(1_000_000, Some(1));
    known.extend(unclear.iter().map(|number| (*number, Some(1))));
    check(&store, &known, LENGTH).await;
    store.close().await;
    check(&open_with_small_tables(mount.path()).await, &known, LENGTH).await;
}

/// fjall leaves what it wrote of tables that it could not finish, and that may be
/// all there was room for. It is gone once the index is opened again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_tables_does_not_keep_writes_out() {
    const COUNT: u64 = 10_500;
    const RESERVE_BYTES: u64 = 16 * MIB;
    let Some(mount) = mount(256 * MIB) else { return };
    let options =
        LogStoreOptions { reserve_bytes: RESERVE_BYTES, ..options(Arc::new(small_tables())) };
    let open = || LogStore::open(Runtime::real(), mount.path().join("volume"), options.clone());
    let store = open().await.unwrap();
    let put = async |number: u64| store.put(long_name(number), stamp(1), Bytes::new()).await;
    for first in (0..COUNT).step_by(50) {
        for result in join_all((first..first + 50).map(put)).await {
            result.unwrap();
        }
    }
    // More than tombstones leave, and less than the next compaction of the index
    // takes, which writes all of it anew.
    let capacity = mount.disk().core().used_bytes() + RESERVE_BYTES / 2 + 3 * MIB;
    mount.disk().set_capacity(capacity);
    let delete = async |number: u64| store.delete(long_name(number), stamp(2)).await;
    let free_bytes = || mount.disk().core().free_bytes();
    let mut deleted = 0;
    let meets_full_disk = async {
        while free_bytes() >= 64 * KIB {
            match delete(deleted).await {
                Ok(_) => deleted += 1,
                Err(StoreError::Index { .. }) => break,
                // What compacts the index takes what tombstones leave.
                Err(StoreError::NoSpace { .. }) => {
                    Runtime::real().sleep(Duration::from_millis(1)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    patiently("the full disk", meets_full_disk).await;
    println!("{deleted} deleted, then {} bytes free", free_bytes());
    // It is given up.
    Runtime::real().sleep(Duration::from_millis(300)).await;
    // Less than is asked for, but for what is left of them.
    mount.disk().set_capacity(capacity + RESERVE_BYTES / 4 - MIB / 2);
    let takes_deletes = async {
        while let Err(error) = delete(COUNT - 1).await {
            assert_eq!(store.poisoned(), None, "{error}");
            Runtime::real().sleep(Duration::from_millis(50)).await;
        }
    };
    patiently("a delete with room", takes_deletes).await;
    mount.disk().set_capacity(256 * MIB);
    store.close().await;
    let store = open().await.unwrap();
    assert_eq!(store.report().rebuilt_because, None);
    for number in 0..COUNT {
        let stat = store.stat(&[long_name(number)]).await.remove(0).unwrap().unwrap();
        // The last one that was refused is durable or is not.
        if number != deleted {
            let is_deleted = number < deleted || number == COUNT - 1;
            assert_eq!(stat.kind == Kind::Tombstone, is_deleted, "{number}");
        }
    }
}

/// Names whose order is not that of their numbers, and that do not get shorter
/// when they are compressed.
fn long_name(number: u64) -> ObjectName {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        format!("{state:016x}")
    });
    name(&words.take(56).collect::<String>())
}

/// Opens no index while it is shut.
#[derive(Debug)]
struct ShutIndex {
    inner: FjallIndexEngine,
    why: fn() -> IndexError,
    is_shut: AtomicBool,
    refused: AtomicU64,
}

impl IndexEngine for ShutIndex {
    fn open(&self, directory: &Path) -> Result<Box<dyn Index>, IndexError> {
        if self.is_shut.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err((self.why)());
        }
        self.inner.open(directory)
    }

    fn remove(&self, directory: &Path) -> Result<(), IndexError> {
        self.inner.remove(directory)
    }
}

/// As on a disk without inodes, and in a process without descriptors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_index_nothing_is_said_to_be_absent() {
    without_an_index(|| IndexError::NoSpace).await;
    without_an_index(|| IndexError::Failed { reason: "no descriptor".into() }).await;
}

async fn without_an_index(why: fn() -> IndexError) {
    const LENGTH: u64 = KIB;
    let Some(mount) = mount(256 * MIB) else { return };
    let (is_shut, refused) = (AtomicBool::new(false), AtomicU64::new(0));
    let index = Arc::new(ShutIndex { inner: small_tables(), why, is_shut, refused });
    let store = open_with_index(mount.path(), Arc::clone(&index) as _).await;
    let mut known = Known::new();
    for number in 0..100 {
        put(&store, number, 1, LENGTH).await.unwrap();
        known.insert(number, Some(1));
    }

    index.is_shut.store(true, Ordering::SeqCst);
    let full = Fault::next(Call::Write).lasting().errno(Errno::NOSPC);
    mount.disk().fail(full.on(Matching::below(WHOLE_INDEX)));
    let unclear = put(&store, 100, 1, LENGTH).await;
    assert!(matches!(unclear, Err(StoreError::Index { .. })), "{unclear:?}");
    // Each write that is refused looks whether it is time to open the index again.
    let is_tried = async {
        while index.refused.load(Ordering::SeqCst) < 2 {
            let refused = put(&store, 101, 1, LENGTH).await;
            assert!(matches!(refused, Err(StoreError::NoSpace { .. })), "{refused:?}");
            Runtime::real().sleep(Duration::from_millis(50)).await;
        }
    };
    patiently("two attempts to open the index", is_tried).await;
    assert_eq!(store.poisoned(), None);
    for number in [100, 101, 102] {
        let told = store.stat(&[name(&key(number))]).await.remove(0);
        assert!(matches!(told, Err(StoreError::Index { .. })), "{number}: {told:?}");
        let read = store.read(&name(&key(number)), None, None).await;
        assert!(matches!(read, Err(StoreError::Index { .. })), "{number}: {:?}", read.err());
    }
    assert!(store.walk(None, 1).await.is_err());
    assert!(store.list(&list_request()).await.is_err());
    // What was looked up lately cannot have changed.
    for told in store.stat(&[0, 99].map(|number| name(&key(number)))).await {
        let is_right = |told: &Option<Stat>| {
            told.as_ref().is_some_and(|stat| stat.version == stamp(1).version)
        };
        assert!(told.as_ref().map_or(true, is_right), "{told:?}");
    }

    mount.disk().heal();
    index.is_shut.store(false, Ordering::SeqCst);
    let takes_writes = async {
        while put(&store, 102, 1, LENGTH).await.is_err() {
            Runtime::real().sleep(Duration::from_millis(50)).await;
        }
    };
    patiently("a put with an index", takes_writes).await;
    known.extend([(100, Some(1)), (102, Some(1))]);
    check(&store, &known, LENGTH).await;
    store.close().await;
    check(&open_with_small_tables(mount.path()).await, &known, LENGTH).await;
}

/// Not for want of room: a new start has to look at the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_goes_on_failing_poisons_the_volume() {
    // At once, and again soon after it was opened again.
    for place in [WHOLE_INDEX, "/volume/index/keyspaces"] {
        let Some(mount) = mount(256 * MIB) else { return };
        let store = open_with_small_tables(mount.path()).await;
        put(&store, 0, 1, KIB).await.unwrap();
        mount.disk().fail(Fault::next(Call::Write).lasting().on(Matching::below(place)));
        let fails = async {
            for number in 1.. {
                let _ = put(&store, number, 1, KIB).await;
                if store.poisoned().is_some() {
                    break;
                }
            }
        };
        patiently(place, fails).await;
        mount.disk().heal();
        store.close().await;
        let store = open_with_small_tables(mount.path()).await;
        let stat = store.stat(&[name(&key(0))]).await.remove(0).unwrap();
        assert_eq!(stat.map(|stat| stat.version), Some(stamp(1).version), "{place}");
    }
}
