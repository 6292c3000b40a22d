//! `POST /internal/v1/copies`, `pins` and `collect`.

use holdfast_coordinator::cluster::Cluster;
use holdfast_core::roster::MemberState;
use holdfast_core::wire::locate::{MAX_BATCH_BYTES, MAX_BATCH_NAMES};
use holdfast_core::wire::transfer::{
    CollectAnswer, CollectRequest, CopyRequest, PinAnswer, PinRequest,
};
use holdfast_http::body::BodyStream;
use warp::reply::Response;

use super::{Internal, json, outcome, parse};
use crate::error::InternalError;
use crate::gate::Gate;
use crate::report::Own;

/// Longest request for one copy: a name, kept headers as JSON may escape them,
/// and some ids.
const MAX_COPY_BYTES: usize = 128 * 1024;

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

/// Agrees that tombstones may be forgotten, or forgets them.
pub(super) async fn handle_collect(
    internal: &Internal,
    body: BodyStream,
) -> Result<Response, InternalError> {
    let request: CollectRequest = parse(body, MAX_BATCH_BYTES).await?;
    let count = request.tombstones.len();
    if count > MAX_BATCH_NAMES {
        return Err(InternalError::Body { what: format!("it names {count} tombstones") });
    }
    json(
        &answer_collect(&internal.gate, &internal.cluster, internal.reporter.own(), request)
            .await?,
    )
}

/// What this data server answers, to others and to itself. Whoever knows another
/// roster does not agree: a member that one of the two has not heard of may hold
/// something older.
pub(crate) async fn answer_collect(
    gate: &Gate,
    cluster: &Cluster,
    own: &Own,
    request: CollectRequest,
) -> Result<CollectAnswer, InternalError> {
    let CollectRequest { roster_digest, forget_in, tombstones } = request;
    let mut agreed = Vec::new();
    let is_same_roster = || cluster.snapshot().view.digest == roster_digest;
    let is_this_run = forget_in.is_none_or(|generation| generation == own.generation);
    if is_same_roster() && is_this_run {
        for (index, (name, version)) in (0u32..).zip(tombstones) {
            let agrees = match forget_in {
                None => gate.agree_to_collect(&name, version).await,
                Some(_) => gate.collect(name, version).await?,
            };
            agreed.extend(agrees.then_some(index));
        }
    }
    Ok(CollectAnswer {
        node: own.node,
        generation: own.generation,
        roster_digest: cluster.snapshot().view.digest,
        agreed,
    })
}
