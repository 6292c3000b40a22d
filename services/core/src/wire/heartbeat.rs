//! Heartbeats: `"host:port"` as a JSON string, and all else in headers.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{HeaderValue, Headers, PROTOCOL_VERSION, int_header, text_header};
use crate::node::{Address, Generation, NodeId, ParseError};
use crate::roster::{MemberState, RosterDigest};
use crate::version::Version;

/// Longest body that is looked at: an address in quotes.
const MAX_BODY_BYTES: usize = 512;

/// What a data server says of itself: in each heartbeat, and when it is probed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Who.
    pub node: NodeId,
    /// Which run of it.
    pub generation: Generation,
    /// Where it is reached; also the body of the heartbeat.
    pub address: Address,
    /// Its own state as far as it knows.
    pub state: MemberState,
    /// Set in the last heartbeat before a shutdown: no new data from now on.
    pub leaving: bool,
    /// Bytes it can still take.
    pub free_bytes: u64,
    /// Size of its disk.
    pub total_bytes: u64,
    /// Digest of the roster it has persisted.
    pub roster_digest: RosterDigest,
    /// Whether it belongs to a cluster yet.
    pub founded: bool,
    /// How many data servers without a cluster it sees, itself included.
    pub newcomers_seen: u32,
    /// When it was sent, Unix milliseconds on the sender's clock.
    pub sent_unix_millis: u64,
    /// When it was sent, on the sender's own monotonic clock: the stamp that
    /// the next question gives back.
    #[serde(default)]
    pub mono_millis: u64,
    /// At least every version that it ever took, and that earlier runs of it
    /// promised: whoever writes to it with this stamp goes above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Version>,
    /// How many copies its `REPLICAS` asks for.
    #[serde(default)]
    pub replicas: u32,
    /// How many of them its `WRITE_QUORUM` asks for; 0 in releases that know of
    /// none, which is more than half.
    #[serde(default)]
    pub write_quorum: u32,
    /// How far its repair is.
    #[serde(default)]
    pub repair: RepairReport,
}

/// What a data server says of its repair.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RepairReport {
    /// The last full pass that found everything that it had to find; `None`
    /// before the first one of this run.
    #[serde(default)]
    pub passed: Option<Pass>,
    /// Names that the pass under way has not looked at yet.
    #[serde(default)]
    pub backlog: u64,
    /// Copies that it has, tombstones too. A member that drains is done at 0.
    #[serde(default)]
    pub copies_held: u64,
    /// Payload bytes of these copies: what others must have room for when it
    /// drains.
    #[serde(default)]
    pub bytes_held: u64,
    /// Members that it has not heard for `REPAIR_DELAY`, or never in this run. Who is
    /// given up, all that are heard must miss; a release that does not say misses
    /// nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missed: Vec<NodeId>,
}

/// One full repair pass: every copy that this member has was looked up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pass {
    /// The policy as it was when the pass began, by its epoch.
    pub policy_epoch: u32,
    /// The electorate at that time, by its digest; 0 for none.
    #[serde(default)]
    pub electorate: u64,
    /// Members that were draining when the pass began: nothing that this pass
    /// found relies on them.
    pub without: Vec<NodeId>,
    /// The epochs of their entries at that time, in the same order: a drain that
    /// was taken back is another one than the next.
    #[serde(default)]
    pub epochs: Vec<u32>,
    /// The least number of lasting copies that any name had at its end; while
    /// there is an electorate, those of its voters.
    pub least_copies: u32,
}

impl Pass {
    /// Whether nothing that it found relies on this member, whose entry has this
    /// epoch now.
    #[must_use]
    pub fn is_without(&self, node: NodeId, epoch: u32) -> bool {
        self.without.iter().zip(&self.epochs).any(|drained| drained == (&node, &epoch))
    }
}

/// A heartbeat as it was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heartbeat {
    /// From a Holdfast data server.
    Member(Box<NodeReport>),
    /// From a data server written for the seed: an address and nothing else.
    Guest(Address),
}

/// Why a heartbeat was dropped.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HeartbeatError {
    /// The body is not a JSON string that holds an address.
    #[error("the body is not a JSON string of the form \"host:port\"")]
    Body,
    /// The sender speaks another version of the protocol.
    #[error("protocol version {found} is not {PROTOCOL_VERSION}")]
    Protocol {
        /// What the sender speaks.
        found: i64,
    },
    /// A header is missing, or of the wrong type.
    #[error("header {name} is missing or not of the right type")]
    Header {
        /// Which one.
        name: &'static str,
    },
    /// A header has the right type and a wrong value.
    #[error("header {name}: {source}")]
    Value {
        /// Which one.
        name: &'static str,
        /// What is wrong.
        source: ParseError,
    },
}

impl HeartbeatError {
    /// One word for the metric that counts dropped messages.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Protocol { .. } => "protocol",
            Self::Header { .. } | Self::Value { .. } => "header",
        }
    }
}

const PROTOCOL: &str = "holdfast-protocol";
const NODE: &str = "holdfast-node";
const GENERATION: &str = "holdfast-generation";
const STATE: &str = "holdfast-state";
const LEAVING: &str = "holdfast-leaving";
const FREE_BYTES: &str = "holdfast-free-bytes";
const TOTAL_BYTES: &str = "holdfast-total-bytes";
const ROSTER: &str = "holdfast-roster";
const FOUNDED: &str = "holdfast-founded";
const NEWCOMERS: &str = "holdfast-newcomers-seen";
const SENT: &str = "holdfast-sent-unix-millis";
const MONO: &str = "holdfast-mono-millis";
const FLOOR: &str = "holdfast-floor";
const REPLICAS: &str = "holdfast-replicas";
const WRITE_QUORUM: &str = "holdfast-write-quorum";
const REPAIR: &str = "holdfast-repair";

/// The body and the headers of a heartbeat.
#[must_use]
pub fn encode(report: &NodeReport) -> (Vec<u8>, Headers) {
    let int = |value: u64| HeaderValue::Int(i64::try_from(value).unwrap_or(i64::MAX));
    let text = |value: String| HeaderValue::Text(value);
    let floor = report.floor.map(|floor| (FLOOR, text(floor.to_string())));
    let headers = [
        (PROTOCOL, HeaderValue::Int(PROTOCOL_VERSION)),
        (NODE, text(report.node.to_string())),
        (GENERATION, int(report.generation.0)),
        (STATE, text(report.state.as_str().to_owned())),
        (LEAVING, int(report.leaving.into())),
        (FREE_BYTES, int(report.free_bytes)),
        (TOTAL_BYTES, int(report.total_bytes)),
        (ROSTER, text(report.roster_digest.to_string())),
        (FOUNDED, int(report.founded.into())),
        (NEWCOMERS, int(report.newcomers_seen.into())),
        (SENT, int(report.sent_unix_millis)),
        (MONO, int(report.mono_millis)),
        (REPLICAS, int(report.replicas.into())),
        (WRITE_QUORUM, int(report.write_quorum.into())),
        (REPAIR, text(serde_json::to_string(&report.repair).unwrap_or_default())),
    ]
    .into_iter()
    .chain(floor)
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    // An address has no character that JSON would escape.
    (format!("\"{}\"", report.address).into_bytes(), headers)
}

/// Understands a heartbeat.
///
/// # Errors
/// [`HeartbeatError`]; the message is to be dropped and counted.
pub fn decode(body: &[u8], headers: &Headers) -> Result<Heartbeat, HeartbeatError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(HeartbeatError::Body);
    }
    let address: Address = serde_json::from_slice(body).map_err(|_| HeartbeatError::Body)?;
    if !headers.keys().any(|name| name.starts_with("holdfast-")) {
        return Ok(Heartbeat::Guest(address));
    }
    let int = |name| int_header(headers, name).ok_or(HeartbeatError::Header { name });
    let text = |name| text_header(headers, name).ok_or(HeartbeatError::Header { name });
    let found = int(PROTOCOL)?;
    if found != PROTOCOL_VERSION {
        return Err(HeartbeatError::Protocol { found });
    }
    let count = |name| u64::try_from(int(name)?).map_err(|_| HeartbeatError::Header { name });
    // What a release may leave out; what is there must be right.
    let optional = |name: &'static str| match headers.contains_key(name) {
        true => count(name),
        false => Ok(0),
    };
    let repair = match headers.contains_key(REPAIR) {
        true => serde_json::from_str(text(REPAIR)?)
            .map_err(|_| HeartbeatError::Header { name: REPAIR })?,
        false => RepairReport::default(),
    };
    let bad = |name| move |source| HeartbeatError::Value { name, source };
    let floor = match headers.contains_key(FLOOR) {
        true => Some(text(FLOOR)?.parse().map_err(bad(FLOOR))?),
        false => None,
    };
    Ok(Heartbeat::Member(Box::new(NodeReport {
        node: text(NODE)?.parse().map_err(bad(NODE))?,
        generation: Generation(count(GENERATION)?),
        address,
        state: text(STATE)?.parse().map_err(bad(STATE))?,
        leaving: count(LEAVING)? != 0,
        free_bytes: count(FREE_BYTES)?,
        total_bytes: count(TOTAL_BYTES)?,
        roster_digest: text(ROSTER)?.parse().map_err(bad(ROSTER))?,
        founded: count(FOUNDED)? != 0,
        newcomers_seen: u32::try_from(count(NEWCOMERS)?).unwrap_or(u32::MAX),
        sent_unix_millis: count(SENT)?,
        mono_millis: optional(MONO)?,
        floor,
        replicas: u32::try_from(optional(REPLICAS)?).unwrap_or(u32::MAX),
        write_quorum: u32::try_from(optional(WRITE_QUORUM)?).unwrap_or(u32::MAX),
        repair,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> NodeReport {
        NodeReport {
            node: NodeId::from_bits(7),
            generation: Generation(3),
            address: "10.0.0.1:8080".parse().expect("an address"),
            state: MemberState::Active,
            leaving: false,
            free_bytes: 10,
            total_bytes: 20,
            roster_digest: RosterDigest(5),
            founded: true,
            newcomers_seen: 0,
            sent_unix_millis: 1_700_000_000_000,
            mono_millis: 12,
            floor: Some(Version::from_parts(9, 8)),
            replicas: 3,
            write_quorum: 2,
            repair: RepairReport {
                passed: Some(Pass {
                    policy_epoch: 1,
                    electorate: 0,
                    without: Vec::new(),
                    epochs: Vec::new(),
                    least_copies: 2,
                }),
                backlog: 4,
                copies_held: 9,
                bytes_held: 90,
                missed: vec![NodeId::from_bits(8)],
            },
        }
    }

    /// What was added after the first release.
    const OPTIONAL: [&str; 5] = [MONO, FLOOR, REPLICAS, WRITE_QUORUM, REPAIR];

    #[test]
    fn the_body_is_the_seeds_and_the_rest_comes_back() {
        let (body, headers) = encode(&report());
        assert_eq!(body, b"\"10.0.0.1:8080\"");
        assert_eq!(decode(&body, &headers), Ok(Heartbeat::Member(Box::new(report()))));
    }

    /// Releases that are one apart probe each other.
    #[test]
    fn a_report_of_an_earlier_release_is_understood() {
        let mut told = serde_json::to_value(report()).expect("plain");
        let fields = told.as_object_mut().expect("an object");
        for added in ["mono_millis", "replicas", "write_quorum", "repair"] {
            assert!(fields.remove(added).is_some(), "{added}");
        }
        let known: NodeReport = serde_json::from_value(told).expect("nothing of it is needed");
        assert_eq!((known.replicas, known.write_quorum), (0, 0));
    }

    #[test]
    fn without_our_headers_it_is_a_guest() {
        let mut headers = Headers::new();
        headers.insert("x-other".into(), HeaderValue::Int(1));
        let guest = decode(b"\"10.0.0.1:8080\"", &headers);
        assert_eq!(guest, Ok(Heartbeat::Guest("10.0.0.1:8080".parse().expect("an address"))));
    }

    #[test]
    fn garbage_is_refused_with_a_reason() {
        let none = Headers::new();
        let huge = vec![b'"'; 1 << 20];
        for body in [&b""[..], b"10.0.0.1:8080", b"\"no address\"", b"{}", b"\xff\xfe", &huge] {
            assert_eq!(decode(body, &none), Err(HeartbeatError::Body));
        }
        let (body, good) = encode(&report());
        for name in good.keys() {
            for bad in [HeaderValue::Int(-1), HeaderValue::Text("?".into())] {
                let mut headers = good.clone();
                headers.insert(name.clone(), bad);
                assert!(decode(&body, &headers).is_err(), "{name}");
            }
            let mut headers = good.clone();
            headers.remove(name);
            let may_miss = OPTIONAL.contains(&name.as_str());
            assert_eq!(decode(&body, &headers).is_ok(), may_miss, "{name}");
        }
    }
}
