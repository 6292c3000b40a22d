//! Requests to a service of Holdfast.

use std::time::Duration;

use bytes::Bytes;
use holdfast_core::node::Address;
use holdfast_http::client::{ClientBody, ClientError, ClientLimits, HttpClient};
use holdfast_runtime::Runtime;
use http::{HeaderMap, Method, Request};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Longest wait for an answer, and again for its body. Longer than a service
/// takes to give up by itself.
const LIMIT: Duration = Duration::from_secs(40);

/// Nothing that is asked for here is longer: objects have at most 64 MiB.
const MAX_ANSWER_BYTES: u64 = 128 << 20;

/// What need not be escaped in a path.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'/');

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site(Address);

impl Site {
    /// Reads `http://host:port`; without a port, 80 is meant.
    ///
    /// # Errors
    /// A sentence that names the accepted form.
    pub fn parse(url: &str) -> Result<Self, String> {
        let refused = || format!("{url:?} is not of the form http://host:port");
        let rest = url.strip_prefix("http://").ok_or_else(refused)?;
        let host = rest.strip_suffix('/').unwrap_or(rest);
        let address = host.parse().or_else(|_| format!("{host}:80").parse());
        address.map(Self).map_err(|_| refused())
    }
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

/// The path of an object.
#[must_use]
pub fn object_path(name: &str) -> String {
    format!("/objects/{}", utf8_percent_encode(name, ESCAPED))
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The code, if this is a problem.
    #[must_use]
    pub fn code(&self) -> Option<String> {
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let code = problem.get("code").and_then(|code| code.as_str())?;
        // It comes from the network.
        Some(code.escape_debug().take(40).collect())
    }

    /// What a problem says for people.
    #[must_use]
    pub fn detail(&self) -> Option<String> {
        let problem: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        let detail = problem.get("detail").and_then(|detail| detail.as_str())?;
        Some(detail.escape_debug().take(400).collect())
    }

    /// The status, with the code of a problem: `503 incomplete`.
    #[must_use]
    pub fn title(&self) -> String {
        self.code().map_or(self.status.to_string(), |code| format!("{} {code}", self.status))
    }
}

/// A client of services.
#[derive(Debug, Clone)]
pub struct Visitor(HttpClient);

impl Visitor {
    /// A client with connections of its own. A kept connection that turns out to
    /// be closed before anything of a request was sent is replaced, as every
    /// client does; nothing else is tried twice.
    #[must_use]
    pub fn new(runtime: &Runtime, keep_alive: bool) -> Self {
        // Two: while one comes back to the pool, another may be opened.
        let max_idle_per_host = if keep_alive { 2 } else { 0 };
        let connect_timeout = Duration::from_secs(5);
        let limits = ClientLimits { connect_timeout, max_idle_per_host, ..ClientLimits::default() };
        Self(HttpClient::new(runtime, limits))
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// See [`ClientError`]; any status is an answer, not an error.
    pub async fn ask(
        &self,
        site: &Site,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Bytes,
    ) -> Result<Answer, ClientError> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(ClientBody::full(body)).map_err(ClientError::BadRequest)?;
        let response = self.0.send(&site.0, request, Some(LIMIT)).await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = self.0.read_all(response, MAX_ANSWER_BYTES, LIMIT).await?;
        Ok(Answer { status, headers, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_a_host_and_a_port() {
        for (url, shown) in [
            ("http://api:8080", "http://api:8080"),
            ("http://api.ns.svc/", "http://api.ns.svc:80"),
            ("http://[::1]:7", "http://[::1]:7"),
        ] {
            assert_eq!(Site::parse(url).expect("right").to_string(), shown);
        }
        for url in ["api:8080", "https://api:8080", "http://", "http://api:8080/objects"] {
            assert!(Site::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(object_path("a b/?#ä%"), "/objects/a%20b/%3F%23%C3%A4%25");
    }
}
