//! Requests over the simulated network.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use holdfast_http::client::{ClientBody, ClientLimits, HttpClient};
use holdfast_runtime::Runtime;

/// More than any answer has.
const MOST_BYTES: u64 = 16 << 20;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its ETag, if there is one.
    pub etag: String,
    /// The code of a problem.
    pub code: String,
    /// All of its body.
    pub body: Bytes,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, etag, code, body } = self;
        write!(f, "{status} {code}{etag} {} bytes", body.len())
    }
}

/// Somebody who asks. The client of the product, on a host of its own.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    http: HttpClient,
}

impl Client {
    /// Asks by way of this seam.
    #[must_use]
    pub fn new(runtime: &Runtime) -> Self {
        let http = HttpClient::new(runtime, ClientLimits::default());
        Self { runtime: runtime.clone(), http }
    }

    /// A whole request and its whole answer.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn send(
        &self,
        address: &str,
        method: &str,
        path: &str,
        header: Option<&(&'static str, String)>,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<Answer, String> {
        let mut request = http::Request::builder().method(method).uri(path);
        if let Some((name, value)) = header {
            request = request.header(*name, value);
        }
        let request = request.body(ClientBody::full(body)).map_err(|error| error.to_string())?;
        let address = address.parse().map_err(|error| format!("{error}"))?;
        let work = async {
            let response = self.http.send(&address, request, None).await;
            let response = response.map_err(|error| error.to_string())?;
            let status = response.status().as_u16();
            let etag = response.headers().get("etag").and_then(|etag| etag.to_str().ok());
            let etag = etag.unwrap_or_default().to_owned();
            let body = self.http.read_all(response, MOST_BYTES, limit).await;
            let body = body.map_err(|error| error.to_string())?;
            let parsed: serde_json::Value = match status {
                400.. => serde_json::from_slice(&body).unwrap_or_default(),
                _ => serde_json::Value::Null,
            };
            let code = parsed.get("code").and_then(|code| code.as_str()).unwrap_or_default();
            Ok(Answer { status, etag, code: code.to_owned(), body })
        };
        let answered = self.runtime.timeout(limit, work).await;
        answered.map_err(|late| late.to_string())?
    }
}
