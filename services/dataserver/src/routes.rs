//! The paths of a data server: the internal ones, and the seed's.

use holdfast_coordinator::objects::Objects;
use holdfast_coordinator::routes as client_routes;
use holdfast_http::body::limited;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use crate::handlers::{self, Internal};

/// Every path of a data server. Never rejects.
#[must_use]
pub fn routes(internal: &Internal, objects: &Objects) -> BoxedFilter<(Response,)> {
    let limit = objects.config().max_object_bytes;
    internal_routes(internal, limit).or(client_routes::routes(objects)).unify().boxed()
}

/// The paths for other services, with bodies of at most `limit` bytes.
pub(crate) fn internal_routes(internal: &Internal, limit: u64) -> BoxedFilter<(Response,)> {
    let internal = internal.clone();
    warp::path("internal")
        .and(warp::path("v1"))
        .and(warp::any().map(move || internal.clone()))
        .and(warp::method())
        .and(warp::path::tail().map(|tail: warp::path::Tail| tail.as_str().to_owned()))
        .and(warp::header::headers_cloned())
        .and(limited(limit))
        .then(handlers::handle)
        .boxed()
}

/// What data servers tell each other about the cluster: a few bytes out of memory,
/// whose durations would be series and no news.
pub(crate) const UNTIMED: [&str; 4] =
    ["/internal/v1/pins", "/internal/v1/state", "/internal/v1/repair", "/internal/v1/roster"];

/// The template of a path, for metrics and spans: never a name.
#[must_use]
pub fn template(path: &str) -> &'static str {
    match path.strip_prefix("/internal/v1/").map(|rest| rest.split('/').next().unwrap_or("")) {
        Some("objects") => "/internal/v1/objects/{name}",
        Some("staging") => "/internal/v1/staging",
        Some("locate") => "/internal/v1/locate",
        Some("list") => "/internal/v1/list",
        Some("copies") => "/internal/v1/copies",
        Some("pins") => "/internal/v1/pins",
        Some("state") => "/internal/v1/state",
        Some("repair") => "/internal/v1/repair",
        Some("roster") => "/internal/v1/roster",
        Some(_) => "other",
        None => client_routes::template(path),
    }
}
