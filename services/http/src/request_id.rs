//! One id for a request, the same in logs, traces and answers, and at the services
//! that it is passed on to.

use std::fmt;
use std::sync::Arc;

use holdfast_runtime::Runtime;
use http::{HeaderMap, HeaderName, HeaderValue};
use warp::{Filter, Rejection};

/// The header that carries the id in both directions.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that is taken from a client, in bytes.
const MAX_BYTES: usize = 128;

/// The id of one request: 1 to 128 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Takes the client's id if it is sane, and makes one otherwise.
    #[must_use]
    pub fn of(headers: &HeaderMap, runtime: &Runtime) -> Self {
        let given = headers.get(&X_REQUEST_ID).and_then(|value| value.to_str().ok());
        match given.filter(|text| sane(text)) {
            Some(text) => Self(text.into()),
            None => Self(format!("{:032x}", runtime.random_u128()).into()),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as a header value.
    #[must_use]
    pub fn to_header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).unwrap_or(HeaderValue::from_static("unknown"))
    }
}

tokio::task_local! {
    /// The request that is worked on.
    static CURRENT: RequestId;
}

/// Works on a request: what is asked of other services meanwhile carries its id.
pub(crate) fn within<F: Future>(id: RequestId, work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(id, work)
}

/// The id of the request that this task works on; `None` in a task that works on
/// none, or that was spawned by one that does.
#[must_use]
pub fn current() -> Option<RequestId> {
    CURRENT.try_with(Clone::clone).ok()
}

fn sane(text: &str) -> bool {
    (1..=MAX_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Extracts the id that [`crate::instrument`] gave the request; rejects when
/// the service is not instrumented.
pub fn request_id()
-> impl Filter<Extract = (RequestId,), Error = Rejection> + Copy + Send + Sync + 'static {
    warp::ext::get::<RequestId>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &[u8]) -> String {
        let value = HeaderValue::from_bytes(text).expect("a header value");
        RequestId::of(&HeaderMap::from_iter([(X_REQUEST_ID, value)]), &Runtime::real()).to_string()
    }

    #[test]
    fn a_sane_id_is_kept() {
        let longest = "x".repeat(128);
        for good in ["a", "8f-1/2:{}", longest.as_str()] {
            assert_eq!(of(good.as_bytes()), good);
        }
    }

    #[test]
    fn any_other_is_replaced_by_a_new_one() {
        let longer = "x".repeat(129);
        for bad in [b"".as_slice(), b"a b", b"\xc3\xa9", longer.as_bytes()] {
            let id = of(bad);
            assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        }
        let runtime = Runtime::real();
        let new = || RequestId::of(&HeaderMap::new(), &runtime);
        assert_ne!(new(), new());
    }
}
