//! Damage that a read has found, and copies that replace it.

use std::time::Duration;

use bytes::Bytes;

use holdfast_core::name::{Bucket, Key};
use holdfast_runtime::Runtime;

use super::fixture::{assert_same, delete, name, payload, put, read, read_all, stamp, version};
use crate::{Held, ListRequest, PutOutcome, Store, StoreError};

/// How long it is looked whether a store has taken note of damage: it may do so
/// beside the read.
const PATIENCE: Duration = Duration::from_secs(20);

async fn inspect(store: &dyn Store, key: &str) -> Option<Held> {
    let mut answers = store.inspect(&[name(key), name("absent")]).await;
    assert_eq!(answers.len(), 2, "one answer for one name");
    assert_eq!(answers.pop().expect("two").expect("nothing is unreadable"), None);
    answers.pop().expect("one").expect("nothing is unreadable")
}

/// The keys that a list, and a walk, say are damaged.
async fn damaged(store: &dyn Store) -> Vec<Key> {
    let (bucket, prefix) = (Bucket::seed(), String::new());
    let request = ListRequest { bucket, prefix, start_after: None, limit: 100 };
    let listed = store.list(&request).await.expect("a list can be made").entries;
    let listed: Vec<_> =
        listed.into_iter().filter(|entry| entry.is_damaged).map(|entry| entry.key).collect();
    let walked = store.walk(None, 100).await.expect("a walk can be made").entries;
    let walked = walked.into_iter().filter(|one| one.is_damaged).map(|one| one.name.key);
    assert_eq!(listed, walked.collect::<Vec<_>>(), "a list and a walk say the same");
    listed
}

pub(super) async fn check_that_nothing_is_damaged(store: &dyn Store) {
    assert_eq!(inspect(store, "a").await, None);
    put(store, "a", 1, &payload(100, 1)).await;
    let held = inspect(store, "a").await.expect("it is there");
    assert_eq!((held.stat.version, held.is_damaged), (version(1), false));
    delete(store, "a", 2).await;
    let held = inspect(store, "a").await.expect("a tombstone is there");
    assert_eq!((held.stat.version, held.is_damaged), (version(2), false));
    assert_eq!(damaged(store).await, []);
}

pub(super) async fn check_mending(store: &dyn Store, damage: &impl Fn(&Bytes)) {
    for (key, content) in [("small", payload(3_000, 1)), ("large", payload(3_000_000, 2))] {
        put(store, key, 5, &content).await;
        damage(&content);
        let refused = read(store, key, None, None).await;
        assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{key}: {refused:?}");
        await_damage(store, key).await;
        assert_eq!(damaged(store).await, [name(key).key]);
        let older = put(store, key, 4, &payload(10, 4)).await;
        assert!(matches!(older, PutOutcome::Superseded { .. }), "{key}: its version counts");
        let other = store.put(name(key), stamp(5), payload(10, 3)).await;
        assert!(matches!(other, Err(StoreError::VersionConflict { .. })), "{key}: {other:?}");
        let mended = put(store, key, 5, &content).await;
        assert_eq!(mended, PutOutcome::Stored, "{key}: what is damaged is not already stored");
        assert!(!inspect(store, key).await.expect("it is there").is_damaged, "{key}");
        assert_eq!(damaged(store).await, []);
        assert_same(&read_all(store, key).await, &content, key);
        assert_eq!(put(store, key, 5, &content).await, PutOutcome::AlreadyStored, "{key}");
    }
}

async fn await_damage(store: &dyn Store, key: &str) {
    let runtime = Runtime::real();
    let deadline = runtime.now() + PATIENCE;
    while runtime.now() < deadline {
        let held = inspect(store, key).await.expect("its version is known");
        assert_eq!(held.stat.version, version(5), "{key}");
        if held.is_damaged {
            return;
        }
        runtime.sleep(Duration::from_millis(1)).await;
    }
    panic!("{key}: no note was taken of the damage");
}
