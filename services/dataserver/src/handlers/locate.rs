//! `POST /internal/v1/locate`.

use holdfast_core::wire::locate::{BatchRequest, MAX_BATCH_BYTES};
use holdfast_http::body::BodyStream;
use warp::reply::Response;

use super::{Internal, collect, json};
use crate::error::InternalError;

/// The same question and the same answer as over the bus.
pub(super) async fn handle_locate(
    internal: &Internal,
    body: BodyStream,
) -> Result<Response, InternalError> {
    let body = collect(body, MAX_BATCH_BYTES).await?;
    let request = BatchRequest::decode(&body)
        .map_err(|error| InternalError::Body { what: error.to_string() })?;
    internal.answerer.on_http();
    json(&internal.answerer.answer(&request).await)
}
