//! `GET` and `HEAD /objects/<name>`.

use std::ops::Range;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::StreamExt;
use holdfast_core::name::ObjectName;
use holdfast_http::conditional::{Outcome, Validators, evaluate};
use holdfast_http::range::{Requested, requested};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, EXPIRES,
    LAST_MODIFIED,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use sync_wrapper::SyncStream;
use warp::reply::{Reply, Response};

use super::{Asked, headers};
use crate::data_servers::GuestRead;
use crate::error::ObjectError;
use crate::objects::{Fetched, Found, Objects, ReadStream};

/// How often an object that is replaced while it is read is found again.
const ATTEMPTS: usize = 4;

const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// 200 with the newest content, 206 with a part of it, 304, 412 or 416.
pub(super) async fn handle_get(objects: &Objects, asked: &Asked) -> Result<Response, ObjectError> {
    let name = asked.name()?;
    for _ in 0..ATTEMPTS {
        let found = match objects.find(&name).await? {
            Fetched::Member(found) => found,
            Fetched::Guest(guest) => return Ok(guest_answer(guest, asked)),
        };
        if let Some(answer) = answer(objects, asked, &name, &found).await? {
            return Ok(answer);
        }
    }
    Err(ObjectError::ReadFailed)
}

/// `None` when the content was replaced before it could be read.
async fn answer(
    objects: &Objects,
    asked: &Asked,
    name: &ObjectName,
    found: &Found,
) -> Result<Option<Response>, ObjectError> {
    let stat = &found.stat;
    let etag = headers::etag(stat.written_as());
    let modified_seconds = stat.metadata.modified_unix_millis / 1_000;
    let current = Validators {
        etag: etag.to_str().unwrap_or_default(),
        last_modified: Some(modified_seconds),
    };
    let mut head = HeaderMap::new();
    head.insert(ETAG, etag.clone());
    head.insert(LAST_MODIFIED, http_date(modified_seconds));
    match evaluate(&asked.method, &asked.headers, Some(&current)) {
        Outcome::Proceed => {}
        Outcome::PreconditionFailed => return Err(ObjectError::PreconditionFailed),
        Outcome::NotModified => {
            keep(&mut head, found, |name| name == CACHE_CONTROL || name == EXPIRES);
            return Ok(Some(respond(StatusCode::NOT_MODIFIED, head, None)));
        }
    }
    head.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    describe(&mut head, found);
    let requested = requested(&asked.headers, &current, stat.size_bytes);
    let range = match &requested {
        Requested::Whole => 0..stat.size_bytes,
        Requested::Part(part) => part.clone(),
        Requested::Unsatisfiable => {
            return Err(ObjectError::Range { size_bytes: stat.size_bytes });
        }
    };
    head.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    let status = match requested.content_range(stat.size_bytes) {
        None => StatusCode::OK,
        Some(content_range) => {
            let value = HeaderValue::try_from(content_range).expect("digits");
            head.insert(CONTENT_RANGE, value);
            StatusCode::PARTIAL_CONTENT
        }
    };
    let Some(bytes) = open(objects, asked, name, found, range).await? else { return Ok(None) };
    Ok(Some(respond(status, head, bytes)))
}

async fn open(
    objects: &Objects,
    asked: &Asked,
    name: &ObjectName,
    found: &Found,
    range: Range<u64>,
) -> Result<Option<Option<ReadStream>>, ObjectError> {
    if asked.method == Method::HEAD {
        return Ok(Some(None));
    }
    Ok(objects.read(name, found, Some(range)).await?.map(Some))
}

fn describe(head: &mut HeaderMap, found: &Found) {
    let metadata = &found.stat.metadata;
    let content_type = metadata.content_type.as_deref().map(HeaderValue::try_from);
    head.insert(CONTENT_TYPE, content_type.and_then(Result::ok).unwrap_or(OCTET_STREAM));
    keep(head, found, |_| true);
}

/// The kept headers that the caller wants.
fn keep(head: &mut HeaderMap, found: &Found, wanted: impl Fn(&HeaderName) -> bool) {
    for (name, value) in &found.stat.metadata.headers {
        let parsed = (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value));
        if let (Ok(name), Ok(value)) = parsed
            && wanted(&name)
        {
            head.insert(name, value);
        }
    }
}

/// The length is set by hand: a stream alone would be sent in chunks.
fn respond(status: StatusCode, head: HeaderMap, bytes: Option<ReadStream>) -> Response {
    let mut response = match bytes {
        Some(bytes) => warp::reply::stream(SyncStream::new(bytes)).into_response(),
        None => warp::reply::Response::default(),
    };
    *response.status_mut() = status;
    response.headers_mut().extend(head);
    response
}

/// What a data server written for the seed has: its bytes and nothing more.
fn guest_answer(guest: GuestRead, asked: &Asked) -> Response {
    let mut head = HeaderMap::new();
    for name in [CONTENT_LENGTH, CONTENT_TYPE] {
        if let Some(value) = guest.headers.get(&name) {
            head.insert(name, value.clone());
        }
    }
    let bytes = guest.body.into_data_stream();
    let bytes = bytes.map(|chunk| chunk.map_err(std::io::Error::other)).boxed();
    respond(StatusCode::OK, head, (asked.method != Method::HEAD).then_some(bytes))
}

pub(super) fn http_date(unix_seconds: u64) -> HeaderValue {
    // Beyond the year 9999 there is no HTTP date.
    let time = UNIX_EPOCH + Duration::from_secs(unix_seconds.min(253_402_300_799));
    HeaderValue::try_from(httpdate::fmt_http_date(time)).expect("a date is ASCII")
}
