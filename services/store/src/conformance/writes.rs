//! Payloads in and out again.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use holdfast_core::object::{Digest, Kind, Metadata};

use super::fixture::{
    SIZES, assert_same, collect, delete, name, payload, put, read_all, stamp, stat, version,
};
use crate::{PutOutcome, Staging, Stamp, Store, StoreError, Usage};

/// Keys that a file system or a shell would trip over.
const ODD_KEYS: [&str; 12] = [
    "\0",
    "a\0b",
    "/",
    "//",
    ".",
    "..",
    "../../etc/passwd",
    "a/../b",
    "lost+found",
    "🦀/😀",
    "é",
    "%2e%2e",
];

pub(super) async fn check_payloads_of_every_size(store: &dyn Store) {
    for (clock, size_bytes) in (1..).zip(SIZES) {
        let payload = payload(size_bytes, clock);
        let whole = format!("whole {size_bytes}");
        assert_eq!(put(store, &whole, clock, &payload).await, PutOutcome::Stored);
        check_content(store, &whole, &payload).await;
        let pieces = format!("pieces {size_bytes}");
        put_in_pieces(store, &pieces, clock, &payload, 70_001).await;
        check_content(store, &pieces, &payload).await;
    }
}

async fn check_content(store: &dyn Store, key: &str, expected: &Bytes) {
    let stat = stat(store, key).await.expect("it was just written");
    assert_eq!(stat.kind, Kind::Object, "{key}");
    assert_eq!(stat.size_bytes, expected.len() as u64, "{key}");
    assert_eq!(stat.digest, Digest(checksum(CrcAlgorithm::Crc64Nvme, expected)), "{key}");
    let read = store.read(&name(key), None, None).await.expect("it is there");
    assert_eq!(read.stat, stat, "{key}: a read tells the version it reads");
    assert_same(&collect(read.bytes).await.expect("nothing is damaged"), expected, key);
}

async fn put_in_pieces(
    store: &dyn Store,
    key: &str,
    clock: u64,
    payload: &Bytes,
    piece_bytes: usize,
) {
    let mut staging = store.stage(None).await.expect("there is room");
    write_in_pieces(&mut *staging, payload, piece_bytes).await;
    let staged = staging.finish().await.expect("there is room");
    assert_eq!(staged.size_bytes(), payload.len() as u64, "{key}");
    assert_eq!(staged.digest(), Digest(checksum(CrcAlgorithm::Crc64Nvme, payload)), "{key}");
    let outcome = store.commit(name(key), stamp(clock), staged).await;
    assert_eq!(outcome.expect("there is room"), PutOutcome::Stored, "{key}");
}

async fn write_in_pieces(staging: &mut dyn Staging, payload: &Bytes, piece_bytes: usize) {
    let mut rest = payload.clone();
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(piece_bytes));
        staging.write(piece).await.expect("there is room");
    }
}

pub(super) async fn check_any_name_and_metadata(store: &dyn Store) {
    let longest = "🦀".repeat(256);
    let keys = || ODD_KEYS.into_iter().chain([longest.as_str()]);
    for (clock, key) in (1..).zip(keys()) {
        let content_type = Some(format!("text/plain; name=\"{key}\""));
        let metadata = Metadata {
            content_type,
            modified_unix_millis: u64::MAX - clock,
            ..Metadata::default()
        };
        let stamp = Stamp { version: version(clock), metadata: metadata.clone() };
        let put = store.put(name(key), stamp, payload(100, clock)).await;
        assert_eq!(put.expect("any key can be stored"), PutOutcome::Stored, "{key:?}");
        assert_eq!(stat(store, key).await.map(|stat| stat.metadata), Some(metadata), "{key:?}");
    }
    for (clock, key) in (1..).zip(keys()) {
        assert_same(&read_all(store, key).await, &payload(100, clock), key);
    }
}

pub(super) async fn check_dropped_payloads_leave_nothing(store: &dyn Store) {
    put(store, "kept", 1, &payload(10, 1)).await;
    let before = store.usage().await.expect("the disk answers");
    for size_bytes in [10, 3_000_000] {
        let mut staging = store.stage(None).await.expect("there is room");
        staging.write(payload(size_bytes, 2)).await.expect("there is room");
        drop(staging);
        let mut staging = store.stage(Some(10)).await.expect("there is room");
        staging.write(payload(size_bytes, 2)).await.expect("there is room");
        drop(staging.finish().await.expect("there is room"));
    }
    let after = store.usage().await.expect("the disk answers");
    assert_eq!(counts(&after), counts(&before));
    assert_same(&read_all(store, "kept").await, &payload(10, 1), "what was there before");
}

pub(super) async fn check_usage(store: &dyn Store) {
    let usage = async || counts(&store.usage().await.expect("the disk answers"));
    assert_eq!(usage().await, (0, 0, 0), "a fresh store is empty");
    put(store, "a", 1, &payload(1_000, 1)).await;
    put(store, "b", 1, &payload(500, 1)).await;
    assert_eq!(usage().await, (2, 0, 1_500));
    put(store, "a", 2, &payload(10, 1)).await;
    assert_eq!(usage().await, (2, 0, 510), "an overwrite gives back what was there");
    put(store, "a", 1, &payload(1_000, 1)).await;
    assert_eq!(usage().await, (2, 0, 510), "what is old is not counted");
    delete(store, "b", 2).await;
    delete(store, "never there", 2).await;
    assert_eq!(usage().await, (1, 2, 10));
    put(store, "b", 3, &payload(7, 1)).await;
    assert_eq!(usage().await, (2, 1, 17));
    let space = store.usage().await.expect("the disk answers").space;
    assert!(space.free_bytes <= space.total_bytes, "{space:?}");
}

fn counts(usage: &Usage) -> (u64, u64, u64) {
    (usage.object_count, usage.tombstone_count, usage.live_bytes)
}

pub(super) async fn check_staged_elsewhere_is_refused<S: Store>(store: &S, other: &S) {
    let mut staging = other.stage(None).await.expect("there is room");
    staging.write(payload(10, 1)).await.expect("there is room");
    let staged = staging.finish().await.expect("there is room");
    let outcome = store.commit(name("a"), stamp(1), staged).await;
    assert!(matches!(outcome, Err(StoreError::Io { .. })), "{outcome:?}");
    assert_eq!(stat(store, "a").await, None);
    assert_eq!(stat(other, "a").await, None);
}

pub(super) async fn check_staged_payloads_can_be_read(store: &dyn Store) {
    for (clock, size_bytes) in (1..).zip(SIZES) {
        let content = payload(size_bytes, clock);
        let mut staging = store.stage(None).await.expect("there is room");
        // In pieces that lie across every border.
        for from in (0..size_bytes).step_by(50_000) {
            let part = content.slice(from..size_bytes.min(from + 50_000));
            staging.write(part).await.expect("there is room");
        }
        let mut staged = staging.finish().await.expect("there is room");
        let what = format!("{size_bytes} bytes that are staged");
        for _ in 0..2 {
            let bytes = staged.read().await.expect("it can be read");
            assert_same(&collect(bytes).await.expect("all of it"), &content, &what);
        }
        let begun = staged.read().await.expect("it can be read");
        if clock % 2 == 0 {
            let stored = store.commit(name("staged"), stamp(clock), staged).await;
            assert!(stored.is_ok_and(|outcome| outcome == PutOutcome::Stored), "{what}");
            assert_same(&read_all(store, "staged").await, &content, &what);
        } else {
            drop(staged);
        }
        assert_same(&collect(begun).await.expect("what was begun ends"), &content, &what);
    }
}
