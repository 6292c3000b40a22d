//! `POST /internal/v1/copies` and `POST /internal/v1/pins`.

use holdfast_core::roster::MemberState;
use holdfast_core::wire::locate::{MAX_BATCH_BYTES, MAX_BATCH_NAMES};
use holdfast_core::wire::transfer::{CopyRequest, PinAnswer, PinRequest};
use holdfast_http::body::BodyStream;
use serde::de::DeserializeOwned;
use warp::reply::Response;

use super::{Internal, collect, json, outcome};
use crate::error::InternalError;

/// Longest request for one copy: a name, kept headers as JSON may escape them,
/// and some ids.
const MAX_COPY_BYTES: usize = 128 * 1024;

async fn parse<T: DeserializeOwned>(body: BodyStream, most: usize) -> Result<T, InternalError> {
    let body = collect(body, most).await?;
    serde_json::from_slice(&body).map_err(|error| InternalError::Body { what: error.to_string() })
}

/// Fetches one version from another member and keeps it.
pub(super) async fn handle_copy(
    internal: &Internal,
    body: BodyStream,
) -> Result<Response, InternalError> {
    let request: CopyRequest = parse(body, MAX_COPY_BYTES).await?;
    outcome(internal, internal.copier.copy(request).await?)
}

/// Keeps copies for a member that lets go of its own. Who hands its own data
/// over keeps nothing for others.
pub(super) async fn handle_pin(
    internal: &Internal,
    body: BodyStream,
) -> Result<Response, InternalError> {
    let request: PinRequest = parse(body, MAX_BATCH_BYTES).await?;
    let count = request.copies.len();
    if count > MAX_BATCH_NAMES {
        return Err(InternalError::Body { what: format!("it names {count} copies") });
    }
    internal.check_takes_data()?;
    let snapshot = internal.cluster.snapshot();
    let asker = snapshot.roster.get(request.node);
    if asker.is_none_or(|asker| asker.state == MemberState::Retired) {
        return Err(InternalError::ForeignSource);
    }
    let pinned = internal.gate.pin(&request).await;
    let own = internal.reporter.own();
    json(&PinAnswer {
        node: own.node,
        generation: own.generation,
        pinned,
        roster_digest: internal.cluster.snapshot().view.digest,
    })
}
