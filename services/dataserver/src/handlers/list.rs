//! `POST /internal/v1/list`.

use holdfast_core::wire::list::{ListRequest, MAX_LIST_REQUEST_BYTES};
use holdfast_http::body::BodyStream;
use warp::reply::Response;

use super::{Internal, json, parse};
use crate::error::InternalError;

/// A part of a bucket, in order, as this volume has it.
pub(super) async fn handle_list(
    internal: &Internal,
    body: BodyStream,
) -> Result<Response, InternalError> {
    let request: ListRequest = parse(body, MAX_LIST_REQUEST_BYTES).await?;
    json(&internal.lister.answer(request).await?)
}
