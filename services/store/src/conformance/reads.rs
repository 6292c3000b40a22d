//! Ranges, versions, and readers beside writers.

use futures_util::StreamExt;
use futures_util::future::{join, join_all};

use super::fixture::{
    assert_same, collect, delete, name, payload, put, read, read_all, stat, version,
};
use crate::{PutOutcome, Stamp, Store, StoreError};

/// What a chunk may have at most: who holds many of them counts on it.
const MAX_CHUNK_BYTES: usize = 1024 * 1024;

pub(super) async fn check_ranges(store: &dyn Store) {
    for size_bytes in [1_u64, 300_000, 3_333_333] {
        let key = size_bytes.to_string();
        let content = payload(usize::try_from(size_bytes).expect("it is small"), size_bytes);
        put(store, &key, 1, &content).await;
        for (start, end) in ranges_within(size_bytes) {
            let bytes = read(store, &key, None, Some(start..end)).await;
            let bytes = bytes.expect("the range lies within");
            let at = |offset: u64| usize::try_from(offset).expect("it is small");
            assert_same(&bytes, &content.slice(at(start)..at(end)), &format!("{start}..{end}"));
        }
        for (start, end) in
            [(0, size_bytes + 1), (size_bytes + 1, size_bytes + 1), (1, 0), (0, u64::MAX)]
        {
            let refused = read(store, &key, None, Some(start..end)).await;
            assert!(matches!(refused, Err(StoreError::BadRange { .. })), "{start}..{end}");
        }
        check_chunks(store, &key).await;
    }
    put(store, "empty", 1, &payload(0, 0)).await;
    for range in [None, Some(0..0)] {
        assert!(read(store, "empty", None, range).await.expect("it is there").is_empty());
    }
    let refused = read(store, "empty", None, Some(0..1)).await;
    assert!(matches!(refused, Err(StoreError::BadRange { size_bytes: 0, .. })), "{refused:?}");
}

/// Ranges that begin and end on, before and after every likely border.
fn ranges_within(size_bytes: u64) -> Vec<(u64, u64)> {
    let borders = [0, 4_096, 65_536, 131_072, 262_144, 1_048_576, 2_097_152, size_bytes];
    let mut offsets: Vec<u64> = borders
        .iter()
        .flat_map(|border: &u64| [border.saturating_sub(1), *border, border + 1])
        .filter(|offset| *offset <= size_bytes)
        .collect();
    offsets.sort_unstable();
    offsets.dedup();
    let from =
        |start: u64| offsets.iter().filter(move |end| **end >= start).map(move |end| (start, *end));
    offsets.iter().copied().flat_map(from).collect()
}

async fn check_chunks(store: &dyn Store, key: &str) {
    let mut read = store.read(&name(key), None, None).await.expect("it is there");
    while let Some(chunk) = read.bytes.next().await {
        let chunk = chunk.expect("nothing is damaged");
        assert!((1..=MAX_CHUNK_BYTES).contains(&chunk.len()), "a chunk of {}", chunk.len());
    }
}

pub(super) async fn check_exact_versions(store: &dyn Store) {
    let not_found = async |key: &str, clock| {
        let refused = read(store, key, clock, None).await;
        assert!(matches!(refused, Err(StoreError::NotFound { .. })), "{refused:?}");
    };
    not_found("a", None).await;
    not_found("a", Some(version(2))).await;
    put(store, "a", 2, &payload(100, 2)).await;
    let exact = read(store, "a", Some(version(2)), None).await.expect("it is there");
    assert_same(&exact, &payload(100, 2), "the version asked for");
    not_found("a", Some(version(1))).await;
    not_found("a", Some(version(3))).await;
    put(store, "a", 3, &payload(100, 3)).await;
    not_found("a", Some(version(2))).await;
    let exact = read(store, "a", Some(version(3)), Some(5..9)).await.expect("it is there");
    assert_same(&exact, &payload(100, 3).slice(5..9), "a range of the version asked for");
}

/// What was written as one version and settled as a later one is read as either.
pub(super) async fn check_what_was_settled_under_another_version(store: &dyn Store) {
    let (written, settled) = (version(2), version(5));
    put(store, "a", 2, &payload(100, 2)).await;
    let before = stat(store, "a").await.expect("it is there");
    let metadata = before.settled_as(settled).metadata;
    let stamp = Stamp { version: settled, metadata };
    let outcome = store.put(name("a"), stamp, payload(100, 2)).await.expect("there is room");
    assert_eq!(outcome, PutOutcome::Stored);
    assert_eq!(stat(store, "a").await, Some(before.settled_as(settled)));
    for known_as in [written, settled] {
        let read = read(store, "a", Some(known_as), None).await.expect("it is known as both");
        assert_same(&read, &payload(100, 2), "the content of either");
    }
    let between = read(store, "a", Some(version(3)), None).await;
    assert!(matches!(between, Err(StoreError::NotFound { .. })), "{between:?}");
    // It outranks what came between.
    let outcome = put(store, "a", 3, &payload(100, 3)).await;
    assert!(matches!(outcome, PutOutcome::Superseded { .. }), "{outcome:?}");
    assert!(!store.forget(&name("a"), written).await.expect("no fault"), "another version");
}

pub(super) async fn check_a_reader_keeps_what_it_opened(store: &dyn Store) {
    for end in ["overwrite", "delete", "forget"] {
        let old = payload(6_000_000, 1);
        put(store, end, 1, &old).await;
        let mut reading = store.read(&name(end), None, None).await.expect("it is there");
        let first = reading.bytes.next().await.expect("there is a chunk").expect("it is sound");
        match end {
            "delete" => drop(delete(store, end, 2).await),
            "forget" => assert!(store.forget(&name(end), version(1)).await.expect("no fault")),
            _ => drop(put(store, end, 2, &payload(6_000_000, 2)).await),
        }
        let rest = collect(reading.bytes).await.expect("the old version is still readable");
        assert_eq!(reading.stat.version, version(1));
        assert_same(&[first, rest].concat().into(), &old, end);
    }
    assert_same(&read_all(store, "overwrite").await, &payload(6_000_000, 2), "a new reader");
}

pub(super) async fn check_reads_during_overwrites(store: &dyn Store) {
    put(store, "a", 1, &payload(10_000, 1)).await;
    let writes = async {
        for clock in 2..40 {
            put(store, "a", clock, &payload(10_000, clock)).await;
        }
    };
    let reads = (0..4).map(async |_| {
        let mut newest_seen = version(1);
        for _ in 0..40 {
            let reading = store.read(&name("a"), None, None).await.expect("it is always there");
            let seen = reading.stat.version;
            assert!(seen >= newest_seen, "{seen} was read after {newest_seen}");
            newest_seen = seen;
            let bytes = collect(reading.bytes).await.expect("nothing is damaged");
            assert_same(&bytes, &payload(10_000, seen.clock()), "the version that was told");
        }
    });
    join(writes, join_all(reads)).await;
}

pub(super) async fn check_stat_of_many(store: &dyn Store) {
    assert!(store.stat(&[]).await.is_empty());
    for clock in 1..=600 {
        put(store, &format!("{clock:03}"), clock, &payload(3, clock)).await;
    }
    let names: Vec<_> = (0..1_200).rev().map(|n| name(&format!("{n:03}"))).collect();
    let answers = store.stat(&names).await;
    assert_eq!(answers.len(), names.len());
    for (clock, answer) in (0..1_200).rev().zip(answers) {
        let expected = (1..=600).contains(&clock).then(|| version(clock));
        let answer = answer.expect("nothing is damaged").map(|stat| stat.version);
        assert_eq!(answer, expected, "in the order of the names");
    }
    assert_eq!(stat(store, "000").await, None);
}
