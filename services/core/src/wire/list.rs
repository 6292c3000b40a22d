//! One member's part of a list: `POST /internal/v1/list`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::name::{Bucket, Key};
use crate::node::{Address, Generation, NodeId};
use crate::object::{Digest, Kind, Stat};
use crate::roster::RosterDigest;
use crate::stamp::Stamp;
use crate::version::Version;

/// Most entries of one page, of a member and of a client's list.
pub const MAX_LIST_ENTRIES: usize = 1_000;

/// Longest prefix, start and request that is read: JSON may write a byte of
/// either as six.
pub const MAX_LIST_REQUEST_BYTES: usize = 2 * 6 * 1024 + 1024;

/// Most bytes of entries in one page, as JSON; a page that would be longer ends
/// earlier. Common entries take 200 bytes, so it does not stand in their way.
pub const MAX_LIST_ENTRY_BYTES: usize = 1 << 20;

/// Largest page that is read: one more entry of the longest key and content
/// type, and who answers.
pub const MAX_LIST_ANSWER_BYTES: usize = MAX_LIST_ENTRY_BYTES + 16 * 1024;

/// "What do you have there?", to one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListRequest {
    /// The bucket.
    pub bucket: Bucket,
    /// Only keys that begin with this; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// Only keys after this one, in byte order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_after: Option<Key>,
    /// At most this many entries, and at most [`MAX_LIST_ENTRIES`].
    pub limit: usize,
    /// When the member answered the asker last. One that is too old, or of
    /// another run, or none at all, is answered "late" with a fresh one: so the
    /// pages that are merged lie close together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<Stamp>,
}

/// What a member has of one name: as much of it as a list shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListEntry {
    /// The key.
    pub key: Key,
    /// Its newest version there.
    pub version: Version,
    /// The version under which its client wrote it, if it was settled under a
    /// later one since: its ETag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_as: Option<Version>,
    /// Content or tombstone.
    pub kind: Kind,
    /// Payload length in bytes; 0 for a tombstone.
    pub size_bytes: u64,
    /// Digest of the payload.
    pub digest: Digest,
    /// The `Content-Type` of the PUT. Most entries of a page have the same, and may
    /// share the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<Arc<str>>,
    /// When the writer took the object, in Unix milliseconds.
    #[serde(default)]
    pub modified_unix_millis: u64,
    /// Whether the payload is known to be damaged there: the version counts, the
    /// copy does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_damaged: bool,
}

impl ListEntry {
    /// The entry for `key`, of which this is known.
    #[must_use]
    pub fn new(key: Key, stat: &Stat) -> Self {
        Self {
            key,
            version: stat.version,
            written_as: stat.metadata.written_as,
            kind: stat.kind,
            size_bytes: stat.size_bytes,
            digest: stat.digest,
            content_type: stat.metadata.content_type.as_deref().map(Arc::from),
            modified_unix_millis: stat.metadata.modified_unix_millis,
            is_damaged: false,
        }
    }
}

/// What one member has: the first names after the start, in byte order of the
/// keys, tombstones too. What lies before the last of them and is not among
/// them, it has not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListAnswer {
    /// Who answers.
    pub node: NodeId,
    /// Which run of it.
    pub generation: Generation,
    /// Where it is reached.
    pub address: Address,
    /// Digest of the roster it has persisted, read after the entries.
    pub roster_digest: RosterDigest,
    /// When the answerer looked, on its own monotonic clock, in milliseconds.
    pub mono_millis: u64,
    /// What it has.
    pub entries: Vec<ListEntry>,
    /// Whether it has more after the last entry.
    pub more: bool,
    /// A part of the volume cannot be read: names may be missing, and the whole
    /// page proves nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown: bool,
    /// The question came too late, or without a stamp of this run: this answer
    /// proves nothing but brings a fresh stamp.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
}

impl ListAnswer {
    /// The stamp that it brings.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        Stamp { generation: self.generation, mono_millis: self.mono_millis }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst_key() -> Key {
        Key::new("\u{1}".repeat(1024)).expect("1,024 bytes")
    }

    #[test]
    fn the_longest_request_is_read() {
        let request = ListRequest {
            bucket: Bucket::new("b".repeat(63)).expect("63 bytes"),
            prefix: worst_key().as_str().to_owned(),
            start_after: Some(worst_key()),
            limit: usize::MAX,
            stamp: Some(Stamp { generation: Generation(u64::MAX), mono_millis: u64::MAX }),
        };
        let body = serde_json::to_vec(&request).expect("plain");
        assert!(body.len() <= MAX_LIST_REQUEST_BYTES, "{}", body.len());
        assert_eq!(serde_json::from_slice::<ListRequest>(&body).expect("just written"), request);
    }

    #[test]
    fn one_entry_more_than_the_bound_is_read() {
        let entry = ListEntry {
            key: worst_key(),
            version: Version::from_parts(u64::MAX, u64::MAX),
            written_as: Some(Version::from_parts(u64::MAX, u64::MAX)),
            kind: Kind::Tombstone,
            size_bytes: u64::MAX,
            digest: Digest(u64::MAX),
            content_type: Some("\"".repeat(1024).into()),
            modified_unix_millis: u64::MAX,
            is_damaged: true,
        };
        let answer = ListAnswer {
            node: NodeId::from_bits(u128::MAX),
            generation: Generation(u64::MAX),
            address: format!("{}:65535", "h".repeat(253)).parse().expect("an address"),
            roster_digest: RosterDigest(u64::MAX),
            mono_millis: u64::MAX,
            entries: vec![entry],
            more: false,
            unknown: true,
            late: true,
        };
        let body = serde_json::to_vec(&answer).expect("plain");
        assert!(body.len() <= MAX_LIST_ANSWER_BYTES - MAX_LIST_ENTRY_BYTES, "{}", body.len());
        assert_eq!(serde_json::from_slice::<ListAnswer>(&body).expect("just written"), answer);
    }
}
