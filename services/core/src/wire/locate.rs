//! Locate: one name as a JSON string, as in the seed, or many names in a batch.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::PROTOCOL_VERSION;
use crate::name::ObjectName;
use crate::node::{Address, Generation, NodeId};
use crate::object::Stat;
use crate::roster::RosterDigest;
use crate::stamp::Stamp;
use crate::version::Version;

/// Most names in one batch. With keys of [`crate::name::MAX_KEY_BYTES`], fully
/// escaped, a batch stays under [`MAX_BATCH_BYTES`].
pub const MAX_BATCH_NAMES: usize = 256;

/// Largest request that is read: JSON may write a byte of a key as six.
pub const MAX_BATCH_BYTES: usize = MAX_BATCH_NAMES * (6 * 1024 + 1024);

/// Largest answer that is read: six headers of 1 KiB are kept with an object,
/// and JSON may write a character of a header as two. Must not exceed what the
/// bus carries.
pub const MAX_ANSWER_BYTES: usize = MAX_BATCH_NAMES * (2 * 6 * 1024 + 1024);

/// Longest single-name request that is read.
pub const MAX_SINGLE_BYTES: usize = 6 * 1024 + 2;

/// "Which of these do you hold?", to every data server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchRequest {
    /// [`PROTOCOL_VERSION`].
    pub protocol: i64,
    /// Comes back in the answer.
    pub id: u64,
    /// The names, at most [`MAX_BATCH_NAMES`].
    pub names: Vec<ObjectName>,
    /// W3C traceparent of the batch's own span, if it is sampled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// W3C traceparent of each sampled lookup, by its place in `names`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub traces: BTreeMap<u32, String>,
    /// When each member last answered the asker: who finds its own stamp too
    /// old, or none, says so instead of answering. So the answers of one batch
    /// lie close together, whatever the network or a pause does to it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stamps: BTreeMap<NodeId, Stamp>,
    /// Versions below which nothing must be taken any more, by place in `names`:
    /// whoever can promise that does.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub promises: BTreeMap<u32, Version>,
}

/// What one data server holds of a batch. What is in neither list, it has not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchAnswer {
    /// [`PROTOCOL_VERSION`].
    pub protocol: i64,
    /// From the request.
    pub id: u64,
    /// Who answers.
    pub node: NodeId,
    /// Which run of it.
    pub generation: Generation,
    /// Where it is reached.
    pub address: Address,
    /// Digest of the roster it has persisted; one that differs from the
    /// asker's is fetched and merged before anything is concluded.
    pub roster_digest: RosterDigest,
    /// When the answerer looked, on its own monotonic clock, in milliseconds.
    pub mono_millis: u64,
    /// The answerer's wall clock, Unix milliseconds: a write takes the median.
    pub unix_millis: u64,
    /// What it holds, by place in the request, tombstones too.
    pub found: Vec<(u32, Stat)>,
    /// Names of which it cannot tell, by place: an I/O error is not a "no". One
    /// that is among `found` too is here in that version and cannot be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<u32>,
    /// The highest version that this member ever took or promised, for any name.
    #[serde(default)]
    pub floor: Option<Version>,
    /// Names for which it gave the promise that was asked for, by place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub promised: Vec<u32>,
    /// The highest version that it may have promised for a name, by place, if that
    /// is above what it has; not for names of which a promise was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub may_have_promised: Vec<(u32, Version)>,
    /// The same of whichever name, by earlier runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promised_before: Option<Version>,
    /// The question came too late, or without a stamp of this run: this answer
    /// proves nothing but brings a fresh stamp.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
}

/// Why a locate message was dropped.
#[derive(Debug, Error)]
pub enum LocateWireError {
    /// Longer than any honest message.
    #[error("the message has {bytes} bytes, more than the {most} allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// Not the expected JSON.
    #[error("the message is not the expected JSON: {source}")]
    Json {
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// Another version of the protocol.
    #[error("protocol version {found} is not {PROTOCOL_VERSION}")]
    Protocol {
        /// What the sender speaks.
        found: i64,
    },
    /// More names than a batch may have.
    #[error("the batch has {names} names, more than the {MAX_BATCH_NAMES} allowed")]
    TooMany {
        /// How many it has.
        names: usize,
    },
}

impl LocateWireError {
    /// One word for the metric that counts dropped messages.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLong { .. } | Self::TooMany { .. } => "size",
            Self::Json { .. } => "body",
            Self::Protocol { .. } => "protocol",
        }
    }
}

fn parse<T: for<'de> Deserialize<'de>>(body: &[u8], most: usize) -> Result<T, LocateWireError> {
    if body.len() > most {
        return Err(LocateWireError::TooLong { bytes: body.len(), most });
    }
    serde_json::from_slice(body).map_err(|source| LocateWireError::Json { source })
}

fn check_protocol(found: i64) -> Result<(), LocateWireError> {
    if found == PROTOCOL_VERSION { Ok(()) } else { Err(LocateWireError::Protocol { found }) }
}

impl BatchRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// [`LocateWireError`]; the message is to be dropped and counted.
    pub fn decode(body: &[u8]) -> Result<Self, LocateWireError> {
        let request: Self = parse(body, MAX_BATCH_BYTES)?;
        check_protocol(request.protocol)?;
        let names = request.names.len().max(request.traces.len()).max(request.promises.len());
        if names > MAX_BATCH_NAMES {
            return Err(LocateWireError::TooMany { names });
        }
        Ok(request)
    }

    /// The JSON of this request.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("no map with keys that JSON cannot have")
    }
}

impl BatchAnswer {
    /// Reads an answer.
    ///
    /// # Errors
    /// [`LocateWireError`]; the message is to be dropped and counted.
    pub fn decode(body: &[u8]) -> Result<Self, LocateWireError> {
        let answer: Self = parse(body, MAX_ANSWER_BYTES)?;
        check_protocol(answer.protocol)?;
        Ok(answer)
    }

    /// The JSON of this answer.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("no map with keys that JSON cannot have")
    }
}

/// Reads a single-name request: a name as a JSON string.
///
/// # Errors
/// [`LocateWireError`]; the message is to be dropped and counted.
pub fn decode_single(body: &[u8]) -> Result<String, LocateWireError> {
    parse(body, MAX_SINGLE_BYTES)
}

/// A name or an address as the seed writes it: a JSON string.
#[must_use]
pub fn encode_single(text: &str) -> Vec<u8> {
    serde_json::to_vec(text).expect("text is always JSON")
}

/// Reads the seed's answer: an address as a JSON string.
///
/// # Errors
/// [`LocateWireError`]; the message is to be dropped and counted.
pub fn decode_single_answer(body: &[u8]) -> Result<Address, LocateWireError> {
    parse(body, MAX_SINGLE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Key;

    #[test]
    fn a_full_batch_of_the_worst_names_fits() {
        let worst = Key::new("\0".repeat(1024)).expect("1,024 bytes");
        let request = BatchRequest {
            protocol: PROTOCOL_VERSION,
            id: u64::MAX,
            names: vec![ObjectName::seed(worst); MAX_BATCH_NAMES],
            trace: None,
            traces: (0..256).map(|i| (i, "0".repeat(55))).collect(),
            stamps: (0..1_000)
                .map(|i| {
                    let generation = Generation(u64::MAX);
                    (NodeId::from_bits(i), Stamp { generation, mono_millis: u64::MAX })
                })
                .collect(),
            promises: (0..256).map(|i| (i, Version::from_parts(u64::MAX, 1))).collect(),
        };
        let body = request.encode();
        assert!(body.len() <= MAX_BATCH_BYTES, "{}", body.len());
        assert_eq!(BatchRequest::decode(&body).expect("decodes"), request);
    }

    #[test]
    fn single_names_are_json_strings() {
        assert_eq!(encode_single("a\"b"), b"\"a\\\"b\"");
        assert_eq!(decode_single(b"\"a%20b\"").expect("a string"), "a%20b");
        for bad in [&b""[..], b"a", b"{}", b"[\"a\"]", b"7", b"\"\xff\""] {
            assert!(decode_single(bad).is_err());
        }
        assert!(decode_single(&vec![b' '; MAX_SINGLE_BYTES + 1]).is_err());
    }

    #[test]
    fn garbage_is_refused_with_a_reason() {
        for (bad, reason) in [
            (&b"{}"[..], "body"),
            (b"{\"protocol\":2,\"id\":1,\"names\":[]}", "protocol"),
            (b"{\"protocol\":1,\"id\":1,\"names\":[{\"bucket\":\"B/\",\"key\":\"k\"}]}", "body"),
            (b"{\"protocol\":1,\"id\":1,\"names\":[{\"bucket\":\"b\",\"key\":\"\"}]}", "body"),
        ] {
            assert_eq!(BatchRequest::decode(bad).expect_err("garbage").reason(), reason);
        }
    }
}
