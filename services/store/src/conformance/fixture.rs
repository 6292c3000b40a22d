//! Names, stamps and payloads for the checks.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use holdfast_core::name::{Key, ObjectName};
use holdfast_core::object::{Metadata, Stat};
use holdfast_core::version::Version;

use crate::{ByteStream, PutOutcome, Stamp, Store, StoreError};

/// Lengths on both sides of every border an engine may have: nothing, blocks
/// and pieces of 64 KiB to 1 MiB, and a payload of several of them.
pub(super) const SIZES: [usize; 14] = [
    0, 1, 4_095, 65_536, 65_537, 131_071, 131_072, 131_073, 262_144, 1_048_575, 1_048_576,
    1_048_577, 2_097_152, 5_000_011,
];

pub(super) fn name(key: &str) -> ObjectName {
    ObjectName::seed(Key::new(key).expect("the keys of the checks are valid"))
}

pub(super) fn version(clock: u64) -> Version {
    Version::from_parts(clock, 7)
}

pub(super) fn stamp(clock: u64) -> Stamp {
    let metadata = Metadata { modified_unix_millis: clock, ..Metadata::default() };
    Stamp { version: version(clock), metadata }
}

/// Bytes that differ from block to block and from seed to seed.
pub(super) fn payload(size_bytes: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = BytesMut::with_capacity(size_bytes + 8);
    while bytes.len() < size_bytes {
        // xorshift64: https://www.jstatsoft.org/article/view/v008i14
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size_bytes);
    bytes.freeze()
}

pub(super) async fn put(store: &dyn Store, key: &str, clock: u64, payload: &Bytes) -> PutOutcome {
    let outcome = store.put(name(key), stamp(clock), payload.clone()).await;
    outcome.expect("there is room for the payload")
}

pub(super) async fn delete(store: &dyn Store, key: &str, clock: u64) -> PutOutcome {
    store.delete(name(key), stamp(clock)).await.expect("there is room for a tombstone")
}

pub(super) async fn stat(store: &dyn Store, key: &str) -> Option<Stat> {
    let mut answers = store.stat(&[name(key)]).await;
    assert_eq!(answers.len(), 1, "one answer for one name");
    answers.remove(0).expect("nothing is damaged")
}

pub(super) async fn read(
    store: &dyn Store,
    key: &str,
    version: Option<Version>,
    range: Option<Range<u64>>,
) -> Result<Bytes, StoreError> {
    let payload = store.read(&name(key), version, range).await?;
    collect(payload.bytes).await
}

pub(super) async fn read_all(store: &dyn Store, key: &str) -> Bytes {
    read(store, key, None, None).await.expect("the name has a payload")
}

pub(super) async fn collect(mut chunks: ByteStream) -> Result<Bytes, StoreError> {
    let mut all = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all.freeze())
}

/// Compares without printing megabytes.
pub(super) fn assert_same(actual: &Bytes, expected: &Bytes, what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}: length");
    assert!(actual == expected, "{what}: other bytes than were written");
}
