//! Who a data server is, which run of it, and where it is reached.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The identity of one volume: made once, at random, and kept in the volume.
/// An emptied disk is therefore a new member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u128);

impl NodeId {
    /// Makes an id of 128 random bits.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The 128 bits, for hashing.
    #[must_use]
    pub fn bits(self) -> u128 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A text that should have been an id, an address or another fixed form.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not {expected}")]
pub struct ParseError {
    /// What was given, cut to a bounded length.
    pub text: String,
    /// What would have been right.
    pub expected: &'static str,
}

impl ParseError {
    /// Keeps at most 80 characters of `text`: it may come from the network.
    #[must_use]
    pub fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.chars().take(80).collect(), expected }
    }
}

impl FromStr for NodeId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        match u128::from_str_radix(text, 16) {
            Ok(bits) if plain => Ok(Self(bits)),
            _ => Err(ParseError::new(text, "a node id of 32 hexadecimal digits")),
        }
    }
}

impl Serialize for NodeId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Which run of a node: counts its starts, so that a message of an earlier run
/// can be told from one of this run and dropped.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// Where a service listens for HTTP, as `host:port`; the host may be a name,
/// an IPv4 address or an IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Address(String);

/// Longest address: a DNS name has at most 253 bytes.
const MAX_ADDRESS_BYTES: usize = 253 + 6;

impl Address {
    /// The address as `host:port`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the port, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        let host = self.0.rsplit_once(':').map_or(self.0.as_str(), |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

impl FromStr for Address {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParseError::new(text, "an address of the form host:port");
        let (host, port) = text.rsplit_once(':').ok_or_else(refused)?;
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let port_ok = digits && port.parse::<u16>().is_ok_and(|port| port > 0);
        if text.len() <= MAX_ADDRESS_BYTES && port_ok && host_ok(host) {
            Ok(Self(text.to_owned()))
        } else {
            Err(refused())
        }
    }
}

fn host_ok(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let label = |l: &str| {
        !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    !host.is_empty() && host.trim_end_matches('.').split('.').all(label)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for good in ["10.0.0.1:8080", "ds-0.ds-headless.ns.svc:1", "[::1]:65535", "localhost:80"] {
            assert_eq!(good.parse::<Address>().map(|a| a.0), Ok(good.to_owned()));
        }
        for bad in [
            "",
            ":8080",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "a b:1",
            "::1:80",
            "http://h:1",
            "h/x:1",
            "a..b:1",
            "[::g]:1",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_node_id_survives_its_text() {
        let id = NodeId::from_bits(0xabc);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("+0000000000000000000000000000abc".parse::<NodeId>().is_err());
        assert!("abc".parse::<NodeId>().is_err());
    }
}
