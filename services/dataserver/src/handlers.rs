//! The paths for other services, one file for each room of them. What each path
//! means is told in [`holdfast_core::wire::transfer`].

mod copies;
mod list;
mod locate;
mod objects;
mod repair;
mod roster;
mod staging;

use std::sync::Arc;

pub(crate) use copies::answer_collect;
use holdfast_coordinator::cluster::Cluster;
use holdfast_coordinator::data_servers::decode_header_json;
use holdfast_core::object::{Digest, Kind, Metadata};
use holdfast_core::version::Version;
use holdfast_core::wire::transfer::{
    HEADER_DIGEST, HEADER_KIND, HEADER_METADATA, HEADER_NODE, HEADER_STAMP, HEADER_VERSION,
    WriteAnswer, WriteOutcome,
};
use holdfast_http::body::BodyStream;
use holdfast_runtime::Runtime;
use holdfast_store::{Stamp, Store};
use http::{HeaderMap, HeaderValue, Method, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::warn;
use warp::reply::{Reply, Response};

use crate::admission::takes_data;
use crate::copies::Copier;
use crate::error::InternalError;
use crate::gate::{Basis, Gate};
use crate::list::Lister;
use crate::locate::Answerer;
use crate::repair::hints::Hints;
use crate::repair::pacer::Activity;
use crate::report::Reporter;
use crate::staging::StagingTable;

/// What the handlers work with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Internal {
    /// The seam.
    pub runtime: Runtime,
    /// The volume, to read from and to stage in.
    pub store: Arc<dyn Store>,
    /// The way to change anything.
    pub gate: Gate,
    /// Takes copies from other members.
    pub copier: Copier,
    /// What is known of the cluster.
    pub cluster: Cluster,
    /// What this data server says of itself.
    pub reporter: Arc<Reporter>,
    /// Answers locates.
    pub answerer: Answerer,
    /// Answers lists.
    pub lister: Lister,
    /// Payloads that wait for their commit.
    pub staging: StagingTable,
    /// Names that repair is to look at soon.
    pub hints: Hints,
    /// How busy this data server is.
    pub activity: Activity,
}

/// Routes `/internal/v1/<tail>`.
pub(crate) async fn handle(
    internal: Internal,
    method: Method,
    tail: String,
    headers: HeaderMap,
    body: BodyStream,
) -> Response {
    let answer = match internal.check_node(&headers) {
        Ok(()) => route(&internal, &method, &tail, &headers, body).await,
        Err(error) => Err(error),
    };
    answer.unwrap_or_else(|error| {
        if error.status_and_code().0.is_server_error() {
            warn!(%error, "an internal request failed");
        }
        Reply::into_response(error.to_problem())
    })
}

async fn route(
    internal: &Internal,
    method: &Method,
    tail: &str,
    headers: &HeaderMap,
    body: BodyStream,
) -> Result<Response, InternalError> {
    let (room, rest) = tail.split_once('/').unwrap_or((tail, ""));
    let _under_way = matches!(room, "objects" | "staging").then(|| internal.activity.on_request());
    match (method.as_str(), room, rest) {
        ("GET", "state", "") => json(&internal.reporter.report().await),
        ("GET", "roster", "") => json(&internal.cluster.snapshot().roster),
        ("POST", "roster", "") => roster::handle_merge(internal, body).await,
        ("POST", "locate", "") => locate::handle_locate(internal, body).await,
        ("POST", "list", "") => list::handle_list(internal, body).await,
        ("POST", "copies", "") => copies::handle_copy(internal, body).await,
        ("POST", "collect", "") => copies::handle_collect(internal, body).await,
        ("POST", "pins", "") => copies::handle_pin(internal, body).await,
        ("POST", "repair", "") => repair::handle_hint(internal, body).await,
        ("PUT", "objects", path) => objects::handle_write(internal, path, headers, body).await,
        ("GET", "objects", path) => objects::handle_read(internal, path, headers).await,
        ("DELETE", "objects", path) => objects::handle_forget(internal, path, headers).await,
        ("POST", "staging", "") => staging::handle_stage(internal, body).await,
        ("GET", "staging", id) => staging::handle_read(internal, id).await,
        ("POST", "staging", id) => staging::handle_keep(internal, id),
        ("PUT", "staging", rest) => staging::handle_commit(internal, rest, headers).await,
        ("DELETE", "staging", id) => staging::handle_drop(internal, id),
        _ => Err(InternalError::NoRoute),
    }
}

impl Internal {
    /// An address may have come to belong to another member: what was meant for
    /// the one must not change the other.
    fn check_node(&self, headers: &HeaderMap) -> Result<(), InternalError> {
        let own = self.reporter.own().node;
        let Some(meant) = headers.get(HEADER_NODE) else { return Ok(()) };
        let meant = meant.to_str().ok().and_then(|text| text.parse().ok());
        if meant == Some(own) { Ok(()) } else { Err(InternalError::AnotherNode { own }) }
    }

    fn check_takes_data(&self) -> Result<(), InternalError> {
        if takes_data(self.reporter.state()) { Ok(()) } else { Err(InternalError::NotAdmitted) }
    }
}

/// The headers of a write.
struct Write {
    content: Stamp,
    basis: Basis,
    kind: Kind,
    digest: Digest,
}

impl Write {
    fn of(headers: &HeaderMap) -> Result<Self, InternalError> {
        let kind = match text(headers, HEADER_KIND)? {
            "object" => Kind::Object,
            "tombstone" => Kind::Tombstone,
            _ => return Err(InternalError::Header { header: HEADER_KIND }),
        };
        let bad_digest = |_| InternalError::Header { header: HEADER_DIGEST };
        let metadata: Option<Metadata> = headers.get(HEADER_METADATA).and_then(decode_header_json);
        let metadata = metadata.ok_or(InternalError::Header { header: HEADER_METADATA })?;
        let digest = text(headers, HEADER_DIGEST)?.parse().map_err(bad_digest)?;
        let content = Stamp { version: version(headers)?, metadata };
        Ok(Self { content, basis: basis(headers)?, kind, digest })
    }
}

fn basis(headers: &HeaderMap) -> Result<Basis, InternalError> {
    // A write that does not say on which answer it builds may be as old as can be.
    let bad = |_| InternalError::Header { header: HEADER_STAMP };
    let stamp = text(headers, HEADER_STAMP)?.parse().map_err(bad)?;
    Ok(Basis { stamp: Some(stamp), ..Basis::default() })
}

fn text<'a>(headers: &'a HeaderMap, header: &'static str) -> Result<&'a str, InternalError> {
    let value = headers.get(header).and_then(|value| value.to_str().ok());
    value.ok_or(InternalError::Header { header })
}

fn version(headers: &HeaderMap) -> Result<Version, InternalError> {
    let bad = |_| InternalError::Header { header: HEADER_VERSION };
    text(headers, HEADER_VERSION)?.parse().map_err(bad)
}

fn outcome(internal: &Internal, outcome: WriteOutcome) -> Result<Response, InternalError> {
    json(&WriteAnswer { outcome, roster_digest: internal.cluster.snapshot().view.digest })
}

fn json<T: Serialize>(value: &T) -> Result<Response, InternalError> {
    let body = serde_json::to_vec(value)
        .map_err(|error| InternalError::Body { what: error.to_string() })?;
    let mut response = body.into_response();
    let content_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    Ok(response)
}

/// Reads a body of JSON of bounded length.
async fn parse<T: DeserializeOwned>(body: BodyStream, most: usize) -> Result<T, InternalError> {
    let body = collect(body, most).await?;
    serde_json::from_slice(&body).map_err(|error| InternalError::Body { what: error.to_string() })
}

/// Reads a body of bounded length into memory.
async fn collect(body: BodyStream, most: usize) -> Result<bytes::Bytes, InternalError> {
    if body.declared_bytes().is_some_and(|bytes| bytes > most as u64) {
        return Err(InternalError::Body { what: format!("it is longer than {most} bytes") });
    }
    let mut whole = bytes::BytesMut::new();
    let mut body = body;
    while let Some(chunk) = futures_util::StreamExt::next(&mut body).await {
        whole.extend_from_slice(&chunk?);
        if whole.len() > most {
            return Err(InternalError::Body { what: format!("it is longer than {most} bytes") });
        }
    }
    Ok(whole.freeze())
}

#[cfg(test)]
#[path = "handlers_tests.rs"]
mod tests;
