//! `POST /internal/v1/repair`.

use holdfast_core::wire::locate::{MAX_BATCH_BYTES, MAX_BATCH_NAMES};
use holdfast_core::wire::transfer::RepairHint;
use holdfast_http::body::BodyStream;
use http::StatusCode;
use warp::reply::{Reply, Response};

use super::{Internal, collect};
use crate::error::InternalError;

/// Takes note of names that somebody knows to have too few copies.
pub(super) async fn handle_hint(
    internal: &Internal,
    body: BodyStream,
) -> Result<Response, InternalError> {
    let body = collect(body, MAX_BATCH_BYTES).await?;
    let hint: RepairHint = serde_json::from_slice(&body)
        .map_err(|error| InternalError::Body { what: error.to_string() })?;
    let count = hint.names.len();
    if count > MAX_BATCH_NAMES {
        return Err(InternalError::Body { what: format!("it names {count} objects") });
    }
    internal.hints.add(hint.names);
    Ok(StatusCode::NO_CONTENT.into_response())
}
