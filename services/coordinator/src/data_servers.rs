//! The client of a data server: its internal HTTP paths (documented in
//! [`holdfast_core::wire::transfer`]), and the seed's paths of a guest.

mod copies;
mod list;
mod read;
mod write;

use std::time::Duration;

use bytes::Bytes;
use holdfast_core::node::{Address, NodeId};
use holdfast_core::roster::Roster;
use holdfast_core::wire::heartbeat::NodeReport;
use holdfast_core::wire::locate::{BatchAnswer, LocateWireError, MAX_ANSWER_BYTES};
use holdfast_core::wire::transfer::{HEADER_NODE, MergedRoster};
use holdfast_http::client::{ClientBody, ClientError, HttpClient, ResponseBody};
use http::{Method, Request, Response, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::de::DeserializeOwned;
use thiserror::Error;

pub use read::{GuestRead, ReadStart};
pub use write::{Upload, WriteRequest};

/// Largest roster that is read or taken: tens of thousands of members, those
/// that retired included.
pub const MAX_ROSTER_BYTES: u64 = 16 << 20;

/// Largest state, outcome or refusal that is read.
const MAX_SMALL_BYTES: u64 = 1 << 20;

/// The code with which a data server refuses data that it may not take (yet).
pub const NOT_ADMITTED: &str = "not-admitted";

/// The code with which a data server says that its disk does not take a roster.
pub const NOT_PERSISTED: &str = "roster-not-persisted";

/// The code with which a data server refuses to receive a copy, or to pass a staged
/// payload on, while it does so for as many as it may.
pub const BUSY: &str = "busy";

/// The code with which a data server refuses what it could not raise its floor for,
/// before anything else was done.
pub const FLOOR: &str = "floor";

/// The code with which a data server refuses what is older than it promised.
pub const PROMISED: &str = "promised";

/// The code with which a data server refuses what was found and it may have
/// promised not to take: it must be settled under a promise of its own.
pub const PROMISE_FORGOTTEN: &str = "promise-forgotten";

/// The code with which a data server refuses what builds on an old answer.
pub const STALE_STAMP: &str = "stale-stamp";

/// What went wrong with one data server.
#[derive(Debug, Error)]
pub enum DataServerError {
    /// It was not reached, or the connection broke.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It answered, but not with what was asked for.
    #[error("answered {status} ({code}): {detail}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// The problem's code, or "none".
        code: String,
        /// The problem's sentence.
        detail: String,
    },
    /// Its answer could not be understood.
    #[error("the answer is not what the protocol says: {what}")]
    BadAnswer {
        /// Which part.
        what: &'static str,
    },
    /// Its locate answer could not be understood.
    #[error(transparent)]
    BadLocate(#[from] LocateWireError),
    /// Another data server answers at this address.
    #[error("another data server answers at this address")]
    AnotherNode,
    /// The body that was to be sent could not be read.
    #[error("the body ended early")]
    Source,
    /// Nothing moved for too long.
    #[error("it stood still")]
    Stalled,
}

impl DataServerError {
    /// Whether the request certainly changed nothing, so that it may be made
    /// again elsewhere.
    #[must_use]
    pub fn changed_nothing(&self) -> bool {
        match self {
            Self::Client(error) => error.is_connect(),
            Self::AnotherNode => true,
            // A fault in the middle of the write proves nothing.
            Self::Refused { status, code, .. } => {
                status.is_client_error()
                    || *status == StatusCode::INSUFFICIENT_STORAGE
                    || [NOT_ADMITTED, BUSY, FLOOR].contains(&code.as_str())
            }
            Self::BadAnswer { .. } | Self::BadLocate(_) | Self::Source | Self::Stalled => false,
        }
    }

    /// Whether a promise or a newer run stood in the way: the same request may
    /// do better once it is built on a new locate.
    #[must_use]
    pub fn is_outpaced(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == PROMISED || code == STALE_STAMP)
            || self.needs_promise()
    }

    /// Whether what was offered must be settled under a promise of its own.
    #[must_use]
    pub fn needs_promise(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == PROMISE_FORGOTTEN)
    }

    /// Whether the data server said that its disk is full.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::INSUFFICIENT_STORAGE)
    }

    /// Whether the data server said that it could not make a roster durable.
    #[must_use]
    pub fn is_not_persisted(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == NOT_PERSISTED)
    }

    /// Whether the data server does as much of this as it may, for now.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == BUSY)
    }

    /// Whether what was staged there will not be there again: another data server
    /// runs there, or it says so.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Refused { status, .. } => *status == StatusCode::GONE,
            error => matches!(error, Self::AnotherNode),
        }
    }

    /// Whether the data server does not have the version that was asked for.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }
}

/// The problem+json of a refusal; other fields are of no use here.
#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct ProblemBody {
    code: String,
    detail: String,
}

/// Makes requests to data servers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DataServers {
    http: HttpClient,
}

impl DataServers {
    /// A client over this pool of connections.
    #[must_use]
    pub fn new(http: HttpClient) -> Self {
        Self { http }
    }

    /// Asks a data server what it is and how it is. Cancel safe.
    ///
    /// # Errors
    /// [`DataServerError`].
    pub async fn state(
        &self,
        address: &Address,
        limit: Duration,
    ) -> Result<NodeReport, DataServerError> {
        let request = request(Method::GET, "/internal/v1/state", None);
        self.json(address, request, limit).await
    }

    /// Fetches the roster that `node` has persisted. Cancel safe.
    ///
    /// # Errors
    /// [`DataServerError`].
    pub async fn roster(
        &self,
        address: &Address,
        node: NodeId,
        limit: Duration,
    ) -> Result<Roster, DataServerError> {
        let request = request(Method::GET, "/internal/v1/roster", Some(node));
        self.bounded_json(address, request, MAX_ROSTER_BYTES, limit).await
    }

    /// Has `node` merge and persist a roster; gives back what it then has.
    ///
    /// # Errors
    /// [`DataServerError`]; it may have been merged all the same.
    pub async fn merge_roster(
        &self,
        address: &Address,
        node: NodeId,
        roster: &Roster,
        limit: Duration,
    ) -> Result<MergedRoster, DataServerError> {
        let mut request = request(Method::POST, "/internal/v1/roster", Some(node));
        let body = serde_json::to_vec(roster)
            .map_err(|_| DataServerError::BadAnswer { what: "own roster" })?;
        *request.body_mut() = ClientBody::full(body);
        self.bounded_json(address, request, MAX_ROSTER_BYTES, limit).await
    }

    /// Asks one data server a batch, as over the bus. Cancel safe.
    ///
    /// # Errors
    /// [`DataServerError`].
    pub async fn locate(
        &self,
        address: &Address,
        node: NodeId,
        batch: Bytes,
        limit: Duration,
    ) -> Result<BatchAnswer, DataServerError> {
        let mut request = request(Method::POST, "/internal/v1/locate", Some(node));
        *request.body_mut() = ClientBody::full(batch);
        let response = self.accepted(address, request, Some(limit)).await?;
        let body = self.http.read_all(response, MAX_ANSWER_BYTES as u64, limit).await?;
        let answer = BatchAnswer::decode(&body)?;
        if answer.node == node { Ok(answer) } else { Err(DataServerError::AnotherNode) }
    }

    /// Whether anything speaks HTTP at this address. Cancel safe.
    pub async fn answers_http(&self, address: &Address, limit: Duration) -> bool {
        let request = request(Method::GET, "/objects/holdfast-guest-probe", None);
        self.http.send(address, request, Some(limit)).await.is_ok()
    }

    async fn json<T: DeserializeOwned>(
        &self,
        address: &Address,
        request: Request<ClientBody>,
        limit: Duration,
    ) -> Result<T, DataServerError> {
        self.bounded_json(address, request, MAX_SMALL_BYTES, limit).await
    }

    async fn bounded_json<T: DeserializeOwned>(
        &self,
        address: &Address,
        request: Request<ClientBody>,
        max_bytes: u64,
        limit: Duration,
    ) -> Result<T, DataServerError> {
        let response = self.accepted(address, request, Some(limit)).await?;
        let body = self.http.read_all(response, max_bytes, limit).await?;
        serde_json::from_slice(&body).map_err(|_| DataServerError::BadAnswer { what: "its JSON" })
    }

    /// Sends a request and turns every status but a success into an error.
    async fn accepted(
        &self,
        address: &Address,
        request: Request<ClientBody>,
        limit: Option<Duration>,
    ) -> Result<Response<ResponseBody>, DataServerError> {
        let response = self.http.send(address, request, limit).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let patience = Duration::from_secs(1);
        let body = self.http.read_all(response, MAX_SMALL_BYTES, patience).await;
        let problem: ProblemBody =
            body.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default();
        if status == StatusCode::MISDIRECTED_REQUEST {
            return Err(DataServerError::AnotherNode);
        }
        Err(DataServerError::Refused { status, code: problem.code, detail: problem.detail })
    }
}

fn request(method: Method, path: &str, node: Option<NodeId>) -> Request<ClientBody> {
    let mut request = Request::new(ClientBody::empty());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().expect("paths are made of escaped parts");
    if let Some(node) = node {
        let value = node.to_string().parse().expect("hexadecimal digits");
        request.headers_mut().insert(HEADER_NODE, value);
    }
    request
}

/// JSON in a header: percent-encoded, since header values are not UTF-8.
#[must_use]
pub fn encode_header_json<T: serde::Serialize>(value: &T) -> http::HeaderValue {
    let json = serde_json::to_string(value).unwrap_or_default();
    let text = utf8_percent_encode(&json, NON_ALPHANUMERIC).to_string();
    http::HeaderValue::try_from(text).expect("percent-encoded text is a header value")
}

/// Undoes [`encode_header_json`]; `None` for anything else.
#[must_use]
pub fn decode_header_json<T: DeserializeOwned>(value: &http::HeaderValue) -> Option<T> {
    let text = percent_decode_str(value.to_str().ok()?).decode_utf8().ok()?;
    serde_json::from_str(&text).ok()
}
