//! Errors as RFC 9457 problem documents.

use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};
use warp::reply::Reply;

use crate::request_id::RequestId;

/// The media type of a problem document.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// An answer that says what went wrong, to people and to programs.
///
/// A handler returns it as a [`Reply`]; [`crate::instrument`] then fills in the
/// request id.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after: Option<Duration>,
    allow: Option<&'static str>,
    members: Map<String, Value>,
}

impl Problem {
    /// A problem. `code` never changes its meaning; `detail` is for people and
    /// must not tell what only operators may know.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let (retry_after, allow) = (None, None);
        Self { status, code, detail: detail.into(), retry_after, allow, members: Map::new() }
    }

    /// What a client sees of a fault in this program.
    #[must_use]
    pub fn internal() -> Self {
        let detail = "the request failed because of a fault in this service";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// Adds `Retry-After`, in whole seconds, rounded up and at least one.
    #[must_use]
    pub fn with_retry_after(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    /// Adds `Allow`, which 405 must have: `"GET, PUT"`.
    #[must_use]
    pub fn with_allow(self, methods: &'static str) -> Self {
        Self { allow: Some(methods), ..self }
    }

    /// Adds a member of its own, which cannot replace a standard one.
    #[must_use]
    pub fn with_member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The document.
    fn document(&self, request_id: Option<&RequestId>) -> String {
        let mut members = self.members.clone();
        let standard = [
            ("type", json!(format!("urn:holdfast:problem:{}", self.code))),
            ("title", json!(self.status.canonical_reason().unwrap_or("Error"))),
            ("status", json!(self.status.as_u16())),
            ("detail", json!(self.detail)),
            ("code", json!(self.code)),
        ];
        members.extend(standard.map(|(name, value)| (name.to_owned(), value)));
        if let Some(id) = request_id {
            members.insert("request_id".to_owned(), json!(id.as_str()));
        }
        Value::Object(members).to_string()
    }

    fn head(&self) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        // A failure is never a cacheable answer, not even 404 or 410.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Some(methods) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(methods));
        }
        response
    }

    /// The whole answer, for a request with this id. A service that answers a
    /// HEAD with it must drop the body; [`crate::instrument`] does.
    #[must_use]
    pub fn response_for(&self, request_id: &RequestId) -> warp::reply::Response {
        self.head().map(|()| self.document(Some(request_id)).into())
    }
}

impl Reply for Problem {
    fn into_response(self) -> warp::reply::Response {
        let mut response = self.head().map(|()| self.document(None).into());
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_runtime::Runtime;
    use http::HeaderMap;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_problem_has_the_standard_members_and_its_own() {
        let id = RequestId::of(&HeaderMap::new(), &Runtime::real());
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "incomplete", "2 are silent")
            .with_retry_after(Duration::from_millis(1500))
            .with_member("silent", vec!["ds-1:80", "ds-2:80"])
            .with_member("status", 200);
        let response = problem.response_for(&id);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
        let body = response.into_body().collect().await.expect("in memory").to_bytes();
        let document: Value = serde_json::from_slice(&body).expect("JSON");
        let expected = json!({
            "type": "urn:holdfast:problem:incomplete",
            "title": "Service Unavailable",
            "status": 503,
            "detail": "2 are silent",
            "code": "incomplete",
            "request_id": id.as_str(),
            "silent": ["ds-1:80", "ds-2:80"],
        });
        assert_eq!(document, expected);
    }

    #[test]
    fn a_refused_method_says_which_are_allowed() {
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "No.");
        let response = Reply::into_response(problem.with_allow("GET, PUT"));
        assert_eq!(response.headers()[ALLOW], "GET, PUT");
        assert!(!response.headers().contains_key(RETRY_AFTER));
    }
}
