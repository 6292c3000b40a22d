//! `DELETE /objects/<name>`.

use http::StatusCode;
use warp::reply::{Reply, Response};

use super::{Asked, headers};
use crate::error::ObjectError;
use crate::objects::Objects;

/// 204 whether the object was there or not.
pub(super) async fn handle_delete(
    objects: &Objects,
    asked: &Asked,
) -> Result<Response, ObjectError> {
    let name = asked.name()?;
    headers::refuse_conditional_write(&asked.headers)?;
    objects.delete(&name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
