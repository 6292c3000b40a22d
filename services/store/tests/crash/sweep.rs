//! Directories of payload files that come back under a number that was swept.

use holdfast_store::Store;

use crate::common::power::{Choice, Operation, PowerDisk};
use crate::engine::RecordingEngine;
use crate::model::{Change, payload};
use crate::{check, machine, session};

/// Where the first of these operations from `start` on ends.
fn after(disk: &PowerDisk, start: usize, is_it: impl Fn(&Operation) -> bool) -> usize {
    let found = disk.operations(start).iter().rposition(is_it).expect("there is one");
    start + found + 1
}

async fn put_large(disk: &PowerDisk, engine: &RecordingEngine, seed: u64) -> usize {
    let store = check::open(disk, engine, seed).await.unwrap();
    let start = disk.operation_count();
    let change = Change::Put { clock: seed, payload: payload(seed, 5_000) };
    assert!(session::ask(store.clone(), 0, change).await.unwrap());
    start
}

fn reopened(disk: &PowerDisk, before: &RecordingEngine, events: usize) -> RecordingEngine {
    let contents = before.history().contents();
    RecordingEngine::found(disk, contents[events].as_ref(), false)
}

/// A process is killed before it has synced the directory that it made, the next
/// one sweeps it, and then the power goes and takes the directory.
async fn swept_and_lost() -> (PowerDisk, RecordingEngine) {
    let disk = PowerDisk::new();
    let start = put_large(&disk, &RecordingEngine::new(&disk), 1).await;
    let made = |operation: &Operation| matches!(operation, Operation::MakeDirectory { .. });
    let killed = disk.killed(after(&disk, start, made));
    let engine = RecordingEngine::new(&killed);
    let store = check::open(&killed, &engine, 2).await.unwrap();
    store.compact().await.unwrap();
    // What was swept is written down with the next write.
    let change = Change::Put { clock: 2, payload: payload(2, 10) };
    assert!(session::ask(store.clone(), 1, change).await.unwrap());
    store.close().await;
    let lost = killed.cut_now(Choice::NothingUnsynced);
    let found = reopened(&lost, &engine, engine.history().len());
    (lost, found)
}

#[test]
fn a_directory_that_was_lost_after_it_was_swept_is_swept_again() {
    machine::executor().block_on(async {
        let (disk, engine) = swept_and_lost().await;
        let start = put_large(&disk, &engine, 3).await;
        let made = |operation: &Operation| matches!(operation, Operation::Create { .. });
        // The first file of the put is that of the payload.
        let first = disk.operations(start).iter().position(made).expect("there is one");
        let at = start + first + 1;
        let left = disk.cut(at, Choice::Everything);
        let engine = reopened(&left, &engine, engine.history().events_before(at));
        let is_large = |path: &std::path::PathBuf| path.starts_with("/volume/large");
        assert_eq!(left.files().iter().filter(|path| is_large(path)).count(), 1);
        let store = check::open(&left, &engine, 4).await.unwrap();
        store.compact().await.unwrap();
        assert_eq!(left.files().iter().filter(|path| is_large(path)).count(), 0);
        store.close().await;
    });
}
