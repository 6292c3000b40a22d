//! How object bytes travel between services: the headers and bodies of a data
//! server's internal HTTP paths.
//!
//! | method and path | meaning |
//! |---|---|
//! | `GET /internal/v1/state` | a [`super::heartbeat::NodeReport`] |
//! | `GET`, `POST /internal/v1/roster` | the roster; merge one into it |
//! | `POST /internal/v1/locate` | a batch, as over the broker |
//! | `POST /internal/v1/list` | a part of a bucket, in order |
//! | `PUT /internal/v1/objects/<bucket>/<key>` | a small payload or a tombstone, in one message |
//! | `GET /internal/v1/objects/<bucket>/<key>` | the bytes of one exact version |
//! | `DELETE /internal/v1/objects/<bucket>/<key>` | forget one exact version |
//! | `POST /internal/v1/staging` | the bytes of a large payload |
//! | `PUT /internal/v1/staging/<id>/objects/<bucket>/<key>` | give them a name and a version |
//! | `GET /internal/v1/staging/<id>` | read them back, to pass them on |
//! | `POST /internal/v1/staging/<id>` | have them wait for a minute more |
//! | `DELETE /internal/v1/staging/<id>` | take them back |
//! | `POST /internal/v1/copies` | fetch one version from another member and keep it |
//! | `POST /internal/v1/repair` | look at these names soon |
//! | `POST /internal/v1/collect` | agree to forget tombstones, and forget them |
//! | `POST /internal/v1/pins` | keep these copies, since the asker lets go of its own |

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{Bucket, Key, NameError, ObjectName};
use crate::node::{Generation, NodeId, ParseError};
use crate::object::{Digest, Stat};
use crate::roster::{Roster, RosterDigest};
use crate::stamp::Stamp;
use crate::version::Version;

/// The [`crate::version::Version`] that is written, read or forgotten.
pub const HEADER_VERSION: &str = "holdfast-version";
/// The [`crate::object::Kind`] that is written.
pub const HEADER_KIND: &str = "holdfast-kind";
/// The [`crate::object::Metadata`] that is written, as percent-encoded JSON.
pub const HEADER_METADATA: &str = "holdfast-metadata";
/// The [`Digest`] of the payload, as the sender computed it.
pub const HEADER_DIGEST: &str = "holdfast-digest";
/// The [`crate::node::NodeId`] that the sender means: an address may have come
/// to belong to another member.
pub const HEADER_NODE: &str = "holdfast-node";
/// The [`Stat`] of what is read, as percent-encoded JSON.
pub const HEADER_STAT: &str = "holdfast-stat";

/// The [`Stamp`] of the receiver's answer that a write builds on.
pub const HEADER_STAMP: &str = "holdfast-stamp";

/// What became of a write, as the data server tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum WriteOutcome {
    /// It is durable.
    Stored,
    /// It was there already.
    AlreadyStored,
    /// Something newer is there.
    Superseded {
        /// What is there.
        newest: Stat,
        /// Whether something above the offered version was promised.
        #[serde(default)]
        promised_above: bool,
    },
}

/// The answer to a write or a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteAnswer {
    /// What became of it.
    #[serde(flatten)]
    pub outcome: WriteOutcome,
    /// Digest of the roster that the data server has persisted: a writer that
    /// does not include it may count members that count no more.
    pub roster_digest: RosterDigest,
}

/// The answer to a roster that is to be merged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergedRoster {
    /// What the data server has persisted.
    #[serde(flatten)]
    pub roster: Roster,
    /// At least every version that it has promised, read after that: also while it
    /// did not know of what is new in the roster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promised: Option<Version>,
}

/// "Fetch this version from one of these and keep it": `POST
/// /internal/v1/copies`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRequest {
    /// The object.
    pub name: ObjectName,
    /// The version, a tombstone too.
    pub stat: Stat,
    /// Who has it, best first. Only members of the receiver's roster are asked.
    pub from: Vec<NodeId>,
    /// The version under which those have it, if it is settled under a later one,
    /// which is that of `stat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_as: Option<Version>,
    /// The receiver's stamp in the answer that this builds on.
    pub stamp: Stamp,
    /// Whether it is known that whoever was promised something above this version
    /// has seen it, or something newer.
    #[serde(default)]
    pub is_settled: bool,
}

/// "I am letting go of these; do you keep them?": `POST /internal/v1/pins`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinRequest {
    /// Who lets go.
    pub node: NodeId,
    /// Which run of it.
    pub generation: Generation,
    /// What, at most [`super::locate::MAX_BATCH_NAMES`].
    pub copies: Vec<(ObjectName, Version)>,
}

/// The answer to a [`PinRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinAnswer {
    /// Who answers.
    pub node: NodeId,
    /// Which run of it: pins do not outlive it.
    pub generation: Generation,
    /// Which copies, by their place in the request, it has in this version or a
    /// newer one, can read, and keeps.
    pub pinned: Vec<u32>,
    /// Digest of the roster that it has persisted.
    pub roster_digest: RosterDigest,
}

/// "These have too few copies": `POST /internal/v1/repair`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairHint {
    /// What to look at, at most [`super::locate::MAX_BATCH_NAMES`].
    pub names: Vec<ObjectName>,
}

/// "These were deleted long ago; may we forget that?": `POST
/// /internal/v1/collect`, twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectRequest {
    /// The roster of the asker: whoever has another one does not agree.
    pub roster_digest: RosterDigest,
    /// `None` to ask whether the receiver holds nothing older and will take
    /// nothing older; then, once all members have agreed, the run of the receiver
    /// that did, to have it forget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forget_in: Option<Generation>,
    /// The tombstones, at most [`super::locate::MAX_BATCH_NAMES`].
    pub tombstones: Vec<(ObjectName, Version)>,
}

/// The answer to a [`CollectRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectAnswer {
    /// Who answers.
    pub node: NodeId,
    /// Which run of it.
    pub generation: Generation,
    /// Digest of the roster that it has persisted.
    pub roster_digest: RosterDigest,
    /// With which tombstones it agrees, or which it has forgotten, by place.
    pub agreed: Vec<u32>,
}

/// A payload that was received and waits for its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// How to refer to it.
    pub staging: StagingId,
    /// How many bytes came.
    pub size_bytes: u64,
    /// Their digest.
    pub digest: Digest,
}

/// Names a staged payload on one data server, in one run of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StagingId(pub u64);

impl std::fmt::Display for StagingId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for StagingId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        match u64::from_str_radix(text, 16) {
            Ok(id) if plain => Ok(Self(id)),
            _ => Err(ParseError::new(text, "a staging id of 16 hexadecimal digits")),
        }
    }
}

impl Serialize for StagingId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StagingId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The path of an object below `/internal/v1/objects` and its like.
#[must_use]
pub fn object_path(name: &ObjectName) -> String {
    format!("objects/{}/{}", name.bucket.as_str(), name.key.to_path())
}

/// Understands `<bucket>/<key>` as [`object_path`] writes it.
///
/// # Errors
/// [`NameError`].
pub fn parse_object_path(raw: &str) -> Result<ObjectName, NameError> {
    let (bucket, key) = raw.split_once('/').ok_or(NameError::Empty)?;
    Ok(ObjectName::new(Bucket::new(bucket)?, Key::from_path(key)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_survives_its_path() {
        let name = ObjectName::seed(Key::new("a/../b \0é").expect("short"));
        let path = object_path(&name);
        assert_eq!(path, "objects/objects/a%2F%2E%2E%2Fb%20%00%C3%A9");
        let rest = path.strip_prefix("objects/").expect("just seen");
        assert_eq!(parse_object_path(rest), Ok(name));
        assert!(parse_object_path("objects").is_err());
    }

    #[test]
    fn an_outcome_is_told_by_its_name() {
        let answer =
            WriteAnswer { outcome: WriteOutcome::AlreadyStored, roster_digest: RosterDigest(5) };
        let json = serde_json::to_string(&answer).expect("plain");
        assert_eq!(json, r#"{"outcome":"already-stored","roster_digest":"0000000000000005"}"#);
        assert_eq!(serde_json::from_str::<WriteAnswer>(&json).expect("just written"), answer);
    }
}
