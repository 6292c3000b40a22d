//! Put-if-newer.

use bytes::Bytes;
use futures_util::future::join_all;
use holdfast_core::object::{Digest, Kind, Stat};

use super::fixture::{
    assert_same, delete, name, payload, put, read, read_all, stamp, stat, version,
};
use crate::{PutOutcome, Store, StoreError};

/// Writers of one name at the same time.
const WRITERS: u64 = 64;

pub(super) async fn check_newest_wins_in_any_order(store: &dyn Store) {
    let orders = [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];
    for order in orders {
        let key = format!("{order:?}");
        let mut newest = 0;
        for clock in order {
            let outcome = put(store, &key, clock, &payload(100, clock)).await;
            check_outcome(&outcome, clock, newest);
            newest = newest.max(clock);
            assert_same(&read_all(store, &key).await, &payload(100, newest), &key);
        }
    }
}

fn check_outcome(outcome: &PutOutcome, clock: u64, newest: u64) {
    match outcome {
        PutOutcome::Stored => assert!(clock > newest, "{clock} replaced {newest}"),
        PutOutcome::Superseded { newest: told } => {
            assert_eq!(told.version, version(newest), "the newest is told");
            assert!(clock < newest, "{clock} was refused for {newest}");
        }
        PutOutcome::AlreadyStored => panic!("{clock} was never written before"),
    }
}

pub(super) async fn check_one_version_has_one_content(store: &dyn Store) {
    let content = payload(100, 1);
    assert_eq!(put(store, "a", 5, &content).await, PutOutcome::Stored);
    assert_eq!(put(store, "a", 5, &content).await, PutOutcome::AlreadyStored);
    for other in [payload(100, 2), payload(99, 1), Bytes::new()] {
        let outcome = store.put(name("a"), stamp(5), other).await;
        assert!(matches!(outcome, Err(StoreError::VersionConflict { .. })), "{outcome:?}");
    }
    let outcome = store.delete(name("a"), stamp(5)).await;
    assert!(matches!(outcome, Err(StoreError::VersionConflict { .. })), "{outcome:?}");
    assert_same(&read_all(store, "a").await, &content, "what was written first");
    assert_eq!(delete(store, "b", 5).await, PutOutcome::Stored);
    let outcome = store.put(name("b"), stamp(5), Bytes::new()).await;
    assert!(matches!(outcome, Err(StoreError::VersionConflict { .. })), "{outcome:?}");
}

pub(super) async fn check_tombstones(store: &dyn Store) {
    put(store, "a", 1, &payload(100, 1)).await;
    assert_eq!(delete(store, "a", 3).await, PutOutcome::Stored);
    assert_eq!(delete(store, "a", 3).await, PutOutcome::AlreadyStored);
    let tombstone = Stat {
        version: version(3),
        kind: Kind::Tombstone,
        size_bytes: 0,
        digest: Digest::default(),
        metadata: stamp(3).metadata,
    };
    assert_eq!(stat(store, "a").await, Some(tombstone.clone()));
    for asked in [None, Some(version(1)), Some(version(3))] {
        let refused = read(store, "a", asked, None).await;
        assert!(matches!(refused, Err(StoreError::NotFound { .. })), "{refused:?}");
    }
    let superseded = PutOutcome::Superseded { newest: tombstone };
    assert_eq!(put(store, "a", 2, &payload(100, 2)).await, superseded, "a late copy");
    assert_eq!(delete(store, "a", 2).await, superseded);
    assert_eq!(
        delete(store, "never there", 1).await,
        PutOutcome::Stored,
        "it keeps late copies out"
    );
    assert_eq!(put(store, "a", 4, &payload(100, 4)).await, PutOutcome::Stored);
    assert_same(&read_all(store, "a").await, &payload(100, 4), "after a tombstone");
}

pub(super) async fn check_concurrent_writers(store: &dyn Store) {
    for round in 0..4 {
        let key = format!("round {round}");
        // Every odd number times it gives each of 1..=64 once, out of order.
        let clocks = (0..WRITERS).map(|n| n * (2 * round + 25) % WRITERS + 1);
        let writes = clocks.map(async |clock| {
            let payload = payload(2_000, clock);
            let outcome = match clock % 8 {
                0..=6 => put(store, &key, clock, &payload).await,
                _ => delete(store, &key, clock).await,
            };
            (clock, outcome, stat(store, &key).await)
        });
        for (clock, outcome, seen_after) in join_all(writes).await {
            check_concurrent_outcome(clock, &outcome, seen_after);
        }
        let newest = stat(store, &key).await.map(|stat| stat.version);
        assert_eq!(newest, Some(version(WRITERS)), "the newest is there in the end");
        assert_same(&read_all(store, &key).await, &payload(2_000, WRITERS), &key);
    }
}

fn check_concurrent_outcome(clock: u64, outcome: &PutOutcome, seen_after: Option<Stat>) {
    let seen = seen_after.expect("something was acknowledged").version;
    assert!(seen >= version(clock), "{seen} is older than the acknowledged {clock}");
    match outcome {
        PutOutcome::Stored => assert!(clock >= 1),
        PutOutcome::AlreadyStored => panic!("{clock} is written once"),
        PutOutcome::Superseded { newest } => {
            assert!(newest.version > version(clock), "{clock} was refused for {newest:?}");
            assert!(seen >= newest.version, "what was told as newest is gone");
        }
    }
}

pub(super) async fn check_concurrent_writers_of_one_version(store: &dyn Store) {
    let writes = (0..WRITERS).map(async |writer| {
        let seed = writer % 2;
        (seed, store.put(name("a"), stamp(1), payload(3_000, seed)).await)
    });
    let mut stored = Vec::new();
    let mut conflicts = 0;
    for (seed, outcome) in join_all(writes).await {
        match outcome {
            Ok(PutOutcome::Stored) => stored.push(seed),
            Ok(PutOutcome::AlreadyStored) => {}
            Err(StoreError::VersionConflict { .. }) => conflicts += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(stored.len(), 1, "one writer wins");
    assert_eq!(conflicts, WRITERS / 2, "and all who came with something else know");
    let won = stored.remove(0);
    assert_same(&read_all(store, "a").await, &payload(3_000, won), "what won");
}

pub(super) async fn check_forget(store: &dyn Store) {
    let old = payload(10, 1);
    put(store, "kept", 1, &old).await;
    put(store, "gone", 1, &old).await;
    delete(store, "tombstone", 4).await;
    let forget = |key, clock| async move { store.forget(&name(key), version(clock)).await };
    assert!(!forget("kept", 2).await.expect("no fault"), "another version is kept");
    assert!(!forget("absent", 1).await.expect("no fault"));
    assert!(forget("gone", 1).await.expect("no fault"));
    assert!(!forget("gone", 1).await.expect("no fault"), "it is gone already");
    assert!(forget("tombstone", 4).await.expect("no fault"));
    assert_eq!(stat(store, "kept").await.map(|stat| stat.version), Some(version(1)));
    assert_eq!(stat(store, "gone").await, None);
    assert_eq!(stat(store, "tombstone").await, None);
    let usage = store.usage().await.expect("no fault");
    assert_eq!((usage.object_count, usage.tombstone_count, usage.live_bytes), (1, 0, 10));
    // What was forgotten may come again, older or newer.
    assert_eq!(put(store, "gone", 1, &old).await, PutOutcome::Stored);
}
