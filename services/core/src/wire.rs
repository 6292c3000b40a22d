//! What the messages look like. The bodies that the seed defined stay as they
//! are; everything else rides in headers, so that a consumer written for the
//! seed understands them.

pub mod heartbeat;
pub mod list;
pub mod locate;
pub mod transfer;

use std::collections::BTreeMap;

/// Version of the messages below. A receiver drops what it does not know.
pub const PROTOCOL_VERSION: i64 = 1;

/// Fanout exchange that carries heartbeats, to every api and data server.
pub const EXCHANGE_API_SERVERS: &str = "apiServers";

/// Fanout exchange that carries single-name locates, to every data server.
pub const EXCHANGE_DATA_SERVERS: &str = "dataServers";

/// Fanout exchange that carries batched locates. Its own, since consumers
/// written for the seed understand one name only.
pub const EXCHANGE_LOCATE: &str = "holdfast.locate";

/// A header value, of the two types that are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderValue {
    /// A signed integer.
    Int(i64),
    /// Text.
    Text(String),
}

/// Headers of a message. Types that Holdfast does not use are left out by the
/// transport: a hostile header is an absent one.
pub type Headers = BTreeMap<String, HeaderValue>;

fn text_header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    match headers.get(name) {
        Some(HeaderValue::Text(text)) => Some(text),
        _ => None,
    }
}

fn int_header(headers: &Headers, name: &str) -> Option<i64> {
    match headers.get(name) {
        Some(HeaderValue::Int(value)) => Some(*value),
        _ => None,
    }
}
