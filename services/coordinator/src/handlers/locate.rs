//! `GET /locate/<name>`.

use holdfast_core::locate::{Replica, Verdict};
use holdfast_core::object::Kind;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use warp::reply::{Reply, Response};

use super::{Asked, headers};
use crate::error::ObjectError;
use crate::objects::Objects;

/// The address of the data server that has the newest content, as a JSON
/// string, as a read would find it; with `?replicas` every copy there is, also of
/// what no read would show yet.
pub(super) async fn handle_locate(
    objects: &Objects,
    asked: &Asked,
) -> Result<Response, ObjectError> {
    let name = asked.name()?;
    let wants_replicas =
        asked.query.split('&').any(|part| part.split('=').next() == Some("replicas"));
    let mut located = match wants_replicas {
        true => objects.locate_all(&name).await?,
        false => objects.locate_settled(&name).await?,
    };
    // That a name was deleted is told when every reader will find it so.
    let is_deleted = located.verdict() == Verdict::Absent && located.newest().is_some();
    if wants_replicas && is_deleted && !located.is_certain() {
        located = objects.locate_settled(&name).await?;
    }
    let found = match located.verdict() {
        Verdict::Found(replica) => replica.address.to_string(),
        Verdict::Absent if located.newest().is_some() => return Err(ObjectError::NotFound),
        Verdict::Absent => match objects.locate_guest(&name).await? {
            Some(guest) => guest.to_string(),
            None => return Err(ObjectError::NotFound),
        },
        Verdict::Incomplete([]) => match objects.locate_guest(&name).await? {
            Some(guest) => guest.to_string(),
            None => return Err(ObjectError::NoDataServers),
        },
        Verdict::Incomplete(silent) => {
            return Err(ObjectError::Incomplete { silent: silent.to_vec() });
        }
    };
    let answer = if wants_replicas {
        located.replicas.iter().filter(|r| r.stat.kind == Kind::Object).map(describe).collect()
    } else {
        Value::String(found)
    };
    let mut response = answer.to_string().into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn describe(replica: &Replica) -> Value {
    json!({
        "address": replica.address,
        "node": replica.node,
        "version": replica.stat.version,
        "etag": headers::etag(replica.stat.written_as()).to_str().unwrap_or_default(),
        "size": replica.stat.size_bytes,
        "checksum": format!("crc64nvme:{}", replica.stat.digest),
    })
}
