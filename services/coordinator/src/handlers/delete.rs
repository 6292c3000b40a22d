//! `DELETE /objects/<name>`.

use http::StatusCode;
use warp::reply::{Reply, Response};

use super::{Asked, headers};
use crate::error::ObjectError;
use crate::objects::Objects;

/// 204 whether the object was there or not; 412 when a condition does not hold.
pub(super) async fn handle_delete(
    objects: &Objects,
    asked: &Asked,
) -> Result<Response, ObjectError> {
    let name = asked.name()?;
    let condition = headers::condition(&asked.method, &asked.headers)?;
    objects.delete(&name, condition.as_ref()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
