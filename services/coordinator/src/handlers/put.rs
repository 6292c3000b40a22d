//! `PUT /objects/<name>`.

use futures_util::StreamExt;
use holdfast_http::body::BodyStream;
use http::{StatusCode, header};
use warp::reply::{Reply, Response};

use super::{Asked, headers};
use crate::error::ObjectError;
use crate::objects::{Incoming, Objects, Put, PutDone};

/// 200 once the object survives a power cut, as in the seed.
pub(super) async fn handle_put(
    objects: &Objects,
    asked: &Asked,
    body: BodyStream,
) -> Result<Response, ObjectError> {
    let name = asked.name()?;
    let put = Put {
        name,
        condition: headers::condition(&asked.method, &asked.headers)?,
        metadata: headers::metadata(&asked.headers)?,
        body: Incoming {
            size_bytes: body.declared_bytes(),
            expected: headers::expected_digests(&asked.headers)?,
            bytes: body.boxed(),
        },
    };
    let mut response = StatusCode::OK.into_response();
    if let PutDone::Stored(version) = objects.put(put).await? {
        response.headers_mut().insert(header::ETAG, headers::etag(version));
    }
    Ok(response)
}
