//! A sync that failed, a new start, and then a power cut: what the start read is
//! what there is afterwards.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests look behind the seam"
)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::sync::Arc;

use common::faulty::{FaultyFiles, PAGE_BYTES};
use common::log::Opener;
use common::power::{Call, Choice, Fault, Matching, PowerDisk};
use common::{name, payload, stamp};
use holdfast_store::log_engine::index::MemoryIndexEngine;
use holdfast_store::{LogStore, Store, StoreError};

const SEGMENT_BYTES: u32 = 256 * 1024;

async fn version(store: &LogStore, key: &str) -> u64 {
    let stat = store.stat(&[name(key)]).await.remove(0).expect("it is known");
    stat.map_or(0, |stat| (1..9).find(|clock| stamp(*clock).version == stat.version).unwrap())
}

/// The kernel takes what it could not write for written, and gives it to readers
/// until it forgets it: another sync alone does nothing.
#[tokio::test]
async fn what_a_start_reads_after_a_failed_sync_survives_a_power_cut() {
    for keeps_index in [true, false] {
        for is_compacted in [false, true] {
            survives(keeps_index, is_compacted).await;
        }
    }
}

async fn survives(keeps_index: bool, is_compacted: bool) {
    let (disk, index) = (PowerDisk::new(), MemoryIndexEngine::new());
    let opener = |index: &MemoryIndexEngine| Opener::in_memory(&disk, index, SEGMENT_BYTES);
    let store = opener(&index).open().await.unwrap();
    for key in ["a", "b"] {
        store.put(name(key), stamp(1), payload(3_000)).await.unwrap();
    }
    disk.settle();
    let log = Matching::below("/volume/log");
    disk.fail(Fault::next(Call::SyncData).on(log));
    let failed = store.put(name("a"), stamp(2), payload(5_000)).await;
    assert!(matches!(failed, Err(StoreError::Poisoned { .. })), "{failed:?}");
    store.close().await;
    drop(store);
    disk.heal();

    let index = if keeps_index { index } else { MemoryIndexEngine::new() };
    let store = opener(&index).open().await.unwrap();
    let told = version(&store, "a").await;
    assert_eq!(told, 2, "it is in the page cache");
    if is_compacted {
        // What was before is garbage now.
        store.compact().await.unwrap();
    }
    store.close().await;
    drop(store);

    let cut = disk.cut_now(Choice::NothingUnsynced);
    for index in [index, MemoryIndexEngine::new()] {
        let opener = Opener::in_memory(&cut, &index, SEGMENT_BYTES);
        let store = opener.open().await.unwrap();
        assert_eq!(version(&store, "a").await, told, "with the index: {keeps_index}");
        assert_eq!(version(&store, "b").await, 1);
        let read = store.read(&name("a"), None, None).await.unwrap();
        assert_eq!(read.stat.size_bytes, 5_000);
        store.close().await;
    }
}

/// A page that the disk does not give keeps nothing else from being written again.
#[tokio::test]
async fn around_a_page_that_cannot_be_read_all_is_written_again() {
    let disk = PowerDisk::new();
    let faulty = FaultyFiles::over(Arc::new(disk.clone()));
    let opener = |index: &MemoryIndexEngine| Opener {
        files: Some(Arc::clone(&faulty) as Arc<_>),
        ..Opener::in_memory(&disk, index, SEGMENT_BYTES)
    };
    let store = opener(&MemoryIndexEngine::new()).open().await.unwrap();
    for number in 0..20 {
        store.put(name(&format!("{number}")), stamp(1), payload(900)).await.unwrap();
    }
    disk.settle();
    disk.fail(Fault::next(Call::SyncData).on(Matching::below("/volume/log")));
    let failed = store.put(name("0"), stamp(2), payload(500)).await;
    assert!(matches!(failed, Err(StoreError::Poisoned { .. })), "{failed:?}");
    store.close().await;
    drop(store);
    disk.heal();

    let segments = disk.files().into_iter().filter(|path| path.starts_with("/volume/log"));
    let last = segments.max().expect("there is a log");
    assert!(disk.contents(&last).unwrap().len() as u64 > 3 * PAGE_BYTES);
    faulty.break_page(&last, 1);
    let store = opener(&MemoryIndexEngine::new()).open().await.unwrap();
    assert_eq!(version(&store, "0").await, 2, "it is in the page cache");
    store.close().await;
    drop(store);

    let cut = disk.cut_now(Choice::NothingUnsynced);
    let faulty = FaultyFiles::over(Arc::new(cut.clone()));
    faulty.break_page(&last, 1);
    let opener = Opener {
        files: Some(faulty),
        ..Opener::in_memory(&cut, &MemoryIndexEngine::new(), SEGMENT_BYTES)
    };
    let store = opener.open().await.unwrap();
    assert_eq!(version(&store, "0").await, 2);
    assert_eq!(version(&store, "19").await, 1);
    store.close().await;
}
