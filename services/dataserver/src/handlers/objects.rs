//! `/internal/v1/objects/<bucket>/<key>`: one version of one object here.

use futures_util::StreamExt;
use holdfast_coordinator::data_servers::encode_header_json;
use holdfast_coordinator::objects::SMALL_BYTES;
use holdfast_core::name::ObjectName;
use holdfast_core::object::Kind;
use holdfast_core::wire::transfer::{HEADER_STAT, parse_object_path};
use holdfast_http::body::BodyStream;
use holdfast_store::StoreError;
use http::header::{CONTENT_LENGTH, RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};
use sync_wrapper::SyncStream;
use warp::reply::{Reply, Response};

use super::{Internal, Write, collect, outcome, version};
use crate::error::InternalError;
use crate::repair::hints::Hints;

/// Writes a small payload, or a tombstone, in one message.
pub(super) async fn handle_write(
    internal: &Internal,
    path: &str,
    headers: &HeaderMap,
    body: BodyStream,
) -> Result<Response, InternalError> {
    let name = parse_object_path(path)?;
    let write = Write::of(headers)?;
    internal.check_takes_data()?;
    internal.gate.check(&name, write.content.version, write.basis)?;
    let payload = collect(body, SMALL_BYTES).await?;
    // The body may have taken its time.
    internal.check_takes_data()?;
    match write.kind {
        Kind::Tombstone if payload.is_empty() => {
            outcome(internal, internal.gate.delete(name, write.basis, write.content).await?)
        }
        Kind::Tombstone => Err(InternalError::Body { what: "a tombstone has no payload".into() }),
        Kind::Object => {
            let mut staging = internal.store.stage(Some(payload.len() as u64)).await?;
            staging.write(payload).await?;
            let staged = staging.finish().await?;
            if staged.digest() != write.digest {
                return Err(InternalError::DigestMismatch);
            }
            let (basis, content) = (write.basis, write.content);
            outcome(internal, internal.gate.commit(name, basis, content, staged).await?)
        }
    }
}

/// Reads exactly the version that is asked for, whole or in part.
pub(super) async fn handle_read(
    internal: &Internal,
    path: &str,
    headers: &HeaderMap,
) -> Result<Response, InternalError> {
    let name = parse_object_path(path)?;
    let version = version(headers)?;
    let range = headers.get(RANGE).map(parse_range).transpose()?;
    let under_way = internal.activity.on_request();
    let hints = internal.hints.clone();
    let payload = internal.store.read(&name, Some(version), range.clone()).await;
    let payload = payload.inspect_err(|error| hint_damage(&hints, &name, error))?;
    let length = range.map_or(payload.stat.size_bytes, |range| range.end - range.start);
    let bytes = payload.bytes.map(move |chunk| {
        // Until the last byte.
        let _ = &under_way;
        chunk.inspect_err(|error| hint_damage(&hints, &name, error)).map_err(std::io::Error::other)
    });
    let mut response = warp::reply::stream(SyncStream::new(bytes)).into_response();
    let head = response.headers_mut();
    head.insert(CONTENT_LENGTH, HeaderValue::from(length));
    head.insert(HEADER_STAT, encode_header_json(&payload.stat));
    Ok(response)
}

/// What is damaged is mended soon.
fn hint_damage(hints: &Hints, name: &ObjectName, error: &StoreError) {
    if error.is_damage() {
        hints.add([name.clone()]);
    }
}

/// Only the form that the client of this path writes: `bytes=<first>-<last>`.
fn parse_range(value: &HeaderValue) -> Result<std::ops::Range<u64>, InternalError> {
    let parse = || {
        let (first, last) = value.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        Some(first..last.checked_add(1)?)
    };
    let range = parse().filter(|range| range.start < range.end);
    range.ok_or(InternalError::Header { header: "range" })
}

/// Forgets exactly this version, soon: a newer one is durable elsewhere.
pub(super) async fn handle_forget(
    internal: &Internal,
    path: &str,
    headers: &HeaderMap,
) -> Result<Response, InternalError> {
    let name = parse_object_path(path)?;
    internal.gate.forget_later(name, version(headers)?, |_| ());
    Ok(StatusCode::ACCEPTED.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_first_and_last() {
        let parse = |text| parse_range(&HeaderValue::from_static(text)).ok();
        assert_eq!(parse("bytes=0-0"), Some(0..1));
        assert_eq!(parse("bytes=5-9"), Some(5..10));
        for bad in ["bytes=9-5", "bytes=-5", "bytes=5-", "5-9", "bytes=0-18446744073709551615"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
