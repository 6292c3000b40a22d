//! What a client asks for: one file for each kind of request. Each reads the
//! request, calls [`crate::objects`] and writes the answer.

mod delete;
mod get;
mod headers;
mod list;
mod locate;
mod put;

use holdfast_core::name::{Key, ObjectName};
use holdfast_http::body::BodyStream;
use http::{HeaderMap, Method};
use warp::reply::{Reply, Response};

use crate::error::ObjectError;
use crate::objects::Objects;

/// What `/objects/<name>` supports.
const OBJECT_METHODS: &str = "GET, HEAD, PUT, DELETE";
/// What `/locate/<name>` supports.
const LOCATE_METHODS: &str = "GET, HEAD";

/// A request as the routes hand it over.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// The rest of the path, as it came.
    pub(crate) tail: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
}

impl Asked {
    fn name(&self) -> Result<ObjectName, ObjectError> {
        Ok(ObjectName::seed(Key::from_path(&self.tail)?))
    }
}

/// `/objects/<name>`, or the list of all of them when there is no name.
pub(crate) async fn handle_object(objects: Objects, asked: Asked, body: BodyStream) -> Response {
    let answer = match asked.method {
        Method::GET | Method::HEAD if asked.tail.is_empty() => {
            list::handle_list(&objects, &asked).await
        }
        Method::GET | Method::HEAD => get::handle_get(&objects, &asked).await,
        Method::PUT => put::handle_put(&objects, &asked, body).await,
        Method::DELETE => delete::handle_delete(&objects, &asked).await,
        _ => Err(ObjectError::Method { allow: OBJECT_METHODS }),
    };
    answered(&objects, answer)
}

/// `/locate/<name>`.
pub(crate) async fn handle_locate(objects: Objects, asked: Asked) -> Response {
    let answer = match asked.method {
        Method::GET | Method::HEAD => locate::handle_locate(&objects, &asked).await,
        _ => Err(ObjectError::Method { allow: LOCATE_METHODS }),
    };
    answered(&objects, answer)
}

/// Any other path.
pub(crate) fn handle_unknown(objects: &Objects) -> Response {
    answered(objects, Err(ObjectError::NoRoute))
}

fn answered(objects: &Objects, answer: Result<Response, ObjectError>) -> Response {
    answer.unwrap_or_else(|error| {
        objects.on_refused(&error);
        let mut response = Reply::into_response(error.to_problem());
        if let ObjectError::Range { size_bytes } = error {
            headers::set_unsatisfied_range(&mut response, size_bytes);
        }
        response
    })
}
