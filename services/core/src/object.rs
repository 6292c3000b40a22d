//! What is known of one stored version of an object.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::node::ParseError;
use crate::version::Version;

/// CRC-64/NVME of an object's whole payload: proves that the bytes that are
/// served are the bytes that were stored. It guards against faults, not
/// against forgery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Digest(pub u64);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Digest {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        match u64::from_str_radix(text, 16) {
            Ok(crc) if plain => Ok(Self(crc)),
            _ => Err(ParseError::new(text, "a CRC-64 of 16 hexadecimal digits")),
        }
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a version is: content, or the statement that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A payload.
    Object,
    /// A version meaning deleted. It must be kept and compared like any other,
    /// or an older copy that turns up later would undo the delete.
    Tombstone,
}

/// Headers of a PUT that describe its payload and come back with a GET, beside
/// `Content-Type`.
pub const KEPT_HEADERS: [&str; 5] =
    ["cache-control", "content-disposition", "content-encoding", "content-language", "expires"];

/// What is known of an object beside its bytes: what its client said, and when.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Metadata {
    /// The `Content-Type` of the PUT, given back unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Other headers that describe the payload, by lower-case name, given back
    /// unchanged; see [`KEPT_HEADERS`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The time of the version under which its client wrote it, in Unix
    /// milliseconds: of two contents of a name the newer one has the later time.
    #[serde(default)]
    pub modified_unix_millis: u64,
    /// The version under which its client wrote it, if somebody who found it on
    /// too few members has settled it under a later one since; see
    /// [`Stat::written_as`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_as: Option<Version>,
}

/// One stored version of one key, as a data server knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// Which content this is.
    pub version: Version,
    /// Content or tombstone.
    pub kind: Kind,
    /// Payload length in bytes; 0 for a tombstone.
    pub size_bytes: u64,
    /// Digest of the payload; that of nothing for a tombstone.
    pub digest: Digest,
    /// What the client said about it.
    #[serde(default)]
    pub metadata: Metadata,
}

impl Stat {
    /// Which write of a client this is: its ETag. Stays the same when it is
    /// settled under a later version.
    #[must_use]
    pub fn written_as(&self) -> Version {
        self.metadata.written_as.unwrap_or(self.version)
    }

    /// Whether this is what was written as `version`, or has been settled as it.
    #[must_use]
    pub fn is_known_as(&self, version: Version) -> bool {
        self.version == version || self.written_as() == version
    }

    /// The same write under a later version: what comes between the two is
    /// outranked by it.
    #[must_use]
    pub fn settled_as(&self, version: Version) -> Self {
        let mut stat = self.clone();
        stat.metadata.written_as = Some(self.written_as());
        Self { version, ..stat }
    }
}
