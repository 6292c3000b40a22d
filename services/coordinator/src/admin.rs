//! What operators ask on the admin port.
//!
//! | method and path | meaning |
//! |---|---|
//! | `GET /admin/dataservers` | who the data servers are, and how they are |
//! | `POST /admin/dataservers/<id>/drain` | have it hand over what it holds, and retire |
//! | `DELETE /admin/dataservers/<id>/drain` | take that back |
//! | `POST /admin/dataservers/<id>/retire` | give up one that is not heard |

mod change;
mod list;

use holdfast_http::problem::Problem;
use holdfast_runtime::Runtime;
use http::StatusCode;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};

use self::change::Change;
use crate::cluster::Changer;

/// What operators' requests are answered with.
#[derive(Debug, Clone)]
pub struct Operators {
    /// The seam.
    pub runtime: Runtime,
    /// How members are told of changes.
    pub changer: Changer,
}

/// The operators' paths.
#[must_use]
pub fn routes(operators: Operators) -> BoxedFilter<(Response,)> {
    let listing = operators.clone();
    let list = warp::path!("admin" / "dataservers").and(warp::get()).map(move || {
        let snapshot = listing.changer.cluster.snapshot();
        list::list(&snapshot, listing.runtime.now()).into_response()
    });
    let with = warp::any().map(move || operators.clone());
    let change = warp::path!("admin" / "dataservers" / String / String)
        .and(warp::method())
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(with)
        .then(handle_change);
    list.or(change).unify().boxed()
}

async fn handle_change(
    id: String,
    what: String,
    method: http::Method,
    query: String,
    operators: Operators,
) -> Response {
    let answer = match Change::parse(&method, &what, &query) {
        Ok(change) => change.carry_out(&id, &operators).await,
        Err(problem) => Err(problem),
    };
    answer.unwrap_or_else(|problem| Reply::into_response(*problem))
}

/// What is refused for a path that is none.
fn no_route() -> Box<Problem> {
    Box::new(Problem::new(StatusCode::NOT_FOUND, "no-route", "there is nothing at this path"))
}
