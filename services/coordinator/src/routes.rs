//! The paths of the seed: `/objects/<name>` and `/locate/<name>`. Without a
//! name, which the seed has nothing at, `/objects/` is the list.

use std::convert::Infallible;

use holdfast_http::body::limited;
use http::Method;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use crate::handlers::{self, Asked};
use crate::objects::Objects;

const OBJECT: &str = "/objects/{name}";
const LIST: &str = "/objects/";
const LOCATE: &str = "/locate/{name}";

/// Every path that a client may use. Never rejects: what is not there is
/// answered 404 with a problem.
#[must_use]
pub fn routes(objects: &Objects) -> BoxedFilter<(Response,)> {
    let limit = objects.config().max_object_bytes;
    let to_objects = |objects: &Objects| {
        let objects = objects.clone();
        warp::any().map(move || objects.clone())
    };
    let object = warp::path("objects")
        .and(to_objects(objects))
        .and(asked())
        .and(limited(limit))
        .then(handlers::handle_object);
    let locate =
        warp::path("locate").and(to_objects(objects)).and(asked()).then(handlers::handle_locate);
    let unknown = to_objects(objects).map(|objects: Objects| handlers::handle_unknown(&objects));
    object.or(locate).unify().or(unknown).unify().boxed()
}

/// What clients send, by method and template.
#[must_use]
pub fn requests() -> [(Method, &'static str); 6] {
    [
        (Method::GET, OBJECT),
        (Method::HEAD, OBJECT),
        (Method::PUT, OBJECT),
        (Method::DELETE, OBJECT),
        (Method::GET, LIST),
        (Method::GET, LOCATE),
    ]
}

/// The template of a path, for metrics and spans: never a name.
#[must_use]
pub fn template(path: &str) -> &'static str {
    let begins = |prefix: &str| {
        path.strip_prefix(prefix).is_some_and(|r| r.is_empty() || r.starts_with('/'))
    };
    if matches!(path, "/objects" | "/objects/") {
        LIST
    } else if begins("/objects") {
        OBJECT
    } else if begins("/locate") {
        LOCATE
    } else {
        "other"
    }
}

fn asked() -> impl Filter<Extract = (Asked,), Error = Infallible> + Clone {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method().and(warp::path::tail()).and(query).and(warp::header::headers_cloned()).map(
        |method, tail: warp::path::Tail, query, headers| Asked {
            method,
            tail: tail.as_str().to_owned(),
            query,
            headers,
        },
    )
}
