//! Damage that a read has found, and copies that replace it.

use bytes::Bytes;

use super::fixture::{assert_same, delete, name, payload, put, read, read_all, stamp, version};
use crate::{Held, PutOutcome, Store, StoreError};

/// How often it is looked again whether a store has taken note of damage: it
/// may do so beside the read.
const TRIES: usize = 10_000;

async fn inspect(store: &dyn Store, key: &str) -> Option<Held> {
    let mut answers = store.inspect(&[name(key), name("absent")]).await;
    assert_eq!(answers.len(), 2, "one answer for one name");
    assert_eq!(answers.pop().expect("two").expect("nothing is unreadable"), None);
    answers.pop().expect("one").expect("nothing is unreadable")
}

pub(super) async fn check_that_nothing_is_damaged(store: &dyn Store) {
    assert_eq!(inspect(store, "a").await, None);
    put(store, "a", 1, &payload(100, 1)).await;
    let held = inspect(store, "a").await.expect("it is there");
    assert_eq!((held.stat.version, held.is_damaged), (version(1), false));
    delete(store, "a", 2).await;
    let held = inspect(store, "a").await.expect("a tombstone is there");
    assert_eq!((held.stat.version, held.is_damaged), (version(2), false));
}

pub(super) async fn check_mending(store: &dyn Store, damage: &impl Fn(&Bytes)) {
    for (key, content) in [("small", payload(3_000, 1)), ("large", payload(3_000_000, 2))] {
        put(store, key, 5, &content).await;
        damage(&content);
        let refused = read(store, key, None, None).await;
        assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{key}: {refused:?}");
        await_damage(store, key).await;
        let older = put(store, key, 4, &payload(10, 4)).await;
        assert!(matches!(older, PutOutcome::Superseded { .. }), "{key}: its version counts");
        let other = store.put(name(key), stamp(5), payload(10, 3)).await;
        assert!(matches!(other, Err(StoreError::VersionConflict { .. })), "{key}: {other:?}");
        let mended = put(store, key, 5, &content).await;
        assert_eq!(mended, PutOutcome::Stored, "{key}: what is damaged is not already stored");
        assert!(!inspect(store, key).await.expect("it is there").is_damaged, "{key}");
        assert_same(&read_all(store, key).await, &content, key);
        assert_eq!(put(store, key, 5, &content).await, PutOutcome::AlreadyStored, "{key}");
    }
}

async fn await_damage(store: &dyn Store, key: &str) {
    for _ in 0..TRIES {
        let held = inspect(store, key).await.expect("its version is known");
        assert_eq!(held.stat.version, version(5), "{key}");
        if held.is_damaged {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{key}: no note was taken of the damage");
}
