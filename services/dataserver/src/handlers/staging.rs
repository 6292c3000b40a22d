//! `/internal/v1/staging`: large payloads, which come before their version.

use futures_util::{StreamExt, TryStreamExt};
use holdfast_core::object::Kind;
use holdfast_core::wire::transfer::{HEADER_KIND, StagingId, parse_object_path};
use holdfast_http::body::BodyStream;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, StatusCode};
use sync_wrapper::SyncStream;
use warp::reply::{Reply, Response};

use super::{Internal, Write, json, outcome};
use crate::error::InternalError;

/// Receives a payload. A sender that goes away in the middle leaves nothing.
pub(super) async fn handle_stage(
    internal: &Internal,
    mut body: BodyStream,
) -> Result<Response, InternalError> {
    internal.check_takes_data()?;
    if !internal.staging.has_room() {
        return Err(InternalError::TooManyStaged);
    }
    let mut staging = internal.store.stage(body.declared_bytes()).await?;
    while let Some(chunk) = body.next().await {
        staging.write(chunk?).await?;
    }
    let staged = staging.finish().await?;
    json(&internal.staging.insert(staged).ok_or(InternalError::TooManyStaged)?)
}

/// Gives what was received, so that others can have it, too.
pub(super) async fn handle_read(internal: &Internal, id: &str) -> Result<Response, InternalError> {
    let (length, bytes) = internal.staging.read(parse_id(id)?).await?;
    let bytes = bytes.map_err(std::io::Error::other);
    let mut response = warp::reply::stream(SyncStream::new(bytes)).into_response();
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

/// Has a staged payload wait for longer: somebody still works on it.
pub(super) fn handle_keep(internal: &Internal, id: &str) -> Result<Response, InternalError> {
    match internal.staging.keep(parse_id(id)?) {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(InternalError::NoStaging),
    }
}

/// Gives a staged payload its name and version.
pub(super) async fn handle_commit(
    internal: &Internal,
    rest: &str,
    headers: &HeaderMap,
) -> Result<Response, InternalError> {
    let (id, path) = rest.split_once("/objects/").ok_or(InternalError::NoRoute)?;
    let name = parse_object_path(path)?;
    let write = Write::of(headers)?;
    if write.kind != Kind::Object {
        return Err(InternalError::Header { header: HEADER_KIND });
    }
    internal.check_takes_data()?;
    let (staging, id) = (internal.staging.clone(), parse_id(id)?);
    let (basis, content, digest) = (write.basis, write.content, write.digest);
    let taken = async move {
        let staged = staging.take(id).await.ok_or(InternalError::NoStaging)?;
        if staged.digest() == digest { Ok(staged) } else { Err(InternalError::DigestMismatch) }
    };
    outcome(internal, internal.gate.commit_taken(name, basis, content, taken).await?)
}

/// Drops a staged payload; fine if it is gone.
pub(super) fn handle_drop(internal: &Internal, id: &str) -> Result<Response, InternalError> {
    internal.staging.discard(parse_id(id)?);
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn parse_id(text: &str) -> Result<StagingId, InternalError> {
    text.parse().map_err(|_| InternalError::NoStaging)
}
