//! Reading from a data server.

use std::ops::Range;
use std::time::Duration;

use holdfast_core::name::{Key, ObjectName};
use holdfast_core::node::{Address, NodeId};
use holdfast_core::object::Stat;
use holdfast_core::version::Version;
use holdfast_core::wire::transfer::{HEADER_STAT, HEADER_VERSION, object_path};
use holdfast_http::client::ResponseBody;
use http::{HeaderMap, HeaderValue, Method, Response, header};
use serde::de::DeserializeOwned;

use super::{DataServerError, DataServers, MAX_SMALL_BYTES, decode_header_json, request};

/// The answer to a read: its head is in, its body follows.
#[derive(Debug)]
pub struct ReadStart {
    /// What is read.
    pub stat: Stat,
    /// The bytes of the range that was asked for.
    pub body: ResponseBody,
}

/// An object on a data server written for the seed.
#[derive(Debug)]
pub struct GuestRead {
    /// The headers it gave.
    pub headers: HeaderMap,
    /// Its bytes.
    pub body: ResponseBody,
}

impl DataServers {
    /// Begins to read exactly `version`: all of it, or a range that lies within
    /// it. `limit` is for the head of the answer.
    ///
    /// # Errors
    /// [`DataServerError`].
    pub async fn read(
        &self,
        address: &Address,
        node: NodeId,
        name: &ObjectName,
        version: Version,
        range: Option<Range<u64>>,
        limit: Duration,
    ) -> Result<ReadStart, DataServerError> {
        let path = format!("/internal/v1/{}", object_path(name));
        let mut request = request(Method::GET, &path, Some(node));
        let version_text = HeaderValue::try_from(version.to_string()).expect("hexadecimal digits");
        request.headers_mut().insert(HEADER_VERSION, version_text);
        if let Some(range) = range {
            let text = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
            let value = HeaderValue::try_from(text).expect("digits");
            request.headers_mut().insert(header::RANGE, value);
        }
        let response = self.accepted(address, request, Some(limit)).await?;
        let stat: Stat = response
            .headers()
            .get(HEADER_STAT)
            .and_then(decode_header_json)
            .ok_or(DataServerError::BadAnswer { what: "the stat header" })?;
        if !stat.is_known_as(version) {
            return Err(DataServerError::BadAnswer { what: "the version" });
        }
        Ok(ReadStart { stat, body: response.into_body() })
    }

    /// Begins to read an object on a data server written for the seed; `None`
    /// when it does not have it.
    ///
    /// # Errors
    /// [`DataServerError`].
    pub async fn read_guest(
        &self,
        address: &Address,
        key: &Key,
        limit: Duration,
    ) -> Result<Option<GuestRead>, DataServerError> {
        let request = request(Method::GET, &format!("/objects/{}", key.to_seed_path()), None);
        match self.accepted(address, request, Some(limit)).await {
            Ok(response) => {
                let (head, body) = response.into_parts();
                Ok(Some(GuestRead { headers: head.headers, body }))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn small_json<T: DeserializeOwned>(
        &self,
        response: Response<ResponseBody>,
    ) -> Result<T, DataServerError> {
        let limit = Duration::from_secs(5);
        let body = self.http.read_all(response, MAX_SMALL_BYTES, limit).await?;
        serde_json::from_slice(&body).map_err(|_| DataServerError::BadAnswer { what: "its JSON" })
    }
}
