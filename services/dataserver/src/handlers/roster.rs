//! `POST /internal/v1/roster`.

use holdfast_coordinator::data_servers::MAX_ROSTER_BYTES;
use holdfast_core::roster::Roster;
use holdfast_core::wire::transfer::MergedRoster;
use holdfast_http::body::BodyStream;
use warp::reply::Response;

use super::{Internal, collect, json};
use crate::error::InternalError;

/// Merges a roster, persists the result and gives it back: when this answers
/// 200, the sender's entries survive a power cut here.
pub(super) async fn handle_merge(
    internal: &Internal,
    body: BodyStream,
) -> Result<Response, InternalError> {
    let body = collect(body, usize::try_from(MAX_ROSTER_BYTES).unwrap_or(usize::MAX)).await?;
    let roster: Roster = serde_json::from_slice(&body)
        .map_err(|error| InternalError::Body { what: error.to_string() })?;
    let roster = internal.cluster.merge_roster(roster).await?;
    json(&MergedRoster { roster, promised: internal.gate.promised() })
}
