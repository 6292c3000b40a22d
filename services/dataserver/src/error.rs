//! What other services are told when something is wrong.

use holdfast_coordinator::cluster::MergeError;
use holdfast_coordinator::data_servers::{
    BUSY, FLOOR, NOT_ADMITTED, NOT_PERSISTED, PROMISE_FORGOTTEN, PROMISED, STALE_STAMP,
};
use holdfast_core::name::NameError;
use holdfast_core::replica::PromisedAbove;
use holdfast_core::stamp::StampError;
use holdfast_core::version::TooFarAhead;
use holdfast_http::body::BodyError;
use holdfast_http::problem::Problem;
use holdfast_store::StoreError;
use http::StatusCode;
use thiserror::Error;

use crate::gate::GateError;
use crate::identity::IdentityError;

/// Why an internal request was refused.
#[derive(Debug, Error)]
pub enum InternalError {
    /// The name in the path is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A header is missing or cannot be understood.
    #[error("the header {header} is missing or cannot be understood")]
    Header {
        /// Which one.
        header: &'static str,
    },
    /// The body is not what it should be.
    #[error("the body cannot be understood: {what}")]
    Body {
        /// What is wrong.
        what: String,
    },
    /// The body did not come whole.
    #[error(transparent)]
    Incoming(#[from] BodyError),
    /// The payload is not what the sender announced.
    #[error("the payload does not match its digest")]
    DigestMismatch,
    /// The sender means another data server.
    #[error("this is data server {own}, not the one that was meant")]
    AnotherNode {
        /// Who this is.
        own: holdfast_core::node::NodeId,
    },
    /// This data server takes no data (yet).
    #[error("this data server takes no data in its present state")]
    NotAdmitted,
    /// The staged payload is not here (any more).
    #[error("there is no such staged payload; it may have waited too long")]
    NoStaging,
    /// Too many payloads wait for their commit.
    #[error("too many staged payloads are waiting")]
    TooManyStaged,
    /// The version lies too far ahead.
    #[error(transparent)]
    Ahead(#[from] TooFarAhead),
    /// The answer that the request builds on counts no more.
    #[error(transparent)]
    StaleStamp(#[from] StampError),
    /// A promise stands in the way of the version.
    #[error(transparent)]
    Promised(#[from] PromisedAbove),
    /// As many payloads as may be are being copied, or written.
    #[error("this data server writes, receives or passes on as much at once as it may; try again")]
    Busy,
    /// Nobody who was named is a member.
    #[error("no data server that was named is a member here, other than this one")]
    ForeignSource,
    /// No member that was named has given the copy.
    #[error("no data server that was named has given this version: {reasons}")]
    NoSource {
        /// What each of them did instead.
        reasons: String,
    },
    /// The floor could not be raised.
    #[error("the floor could not be raised: {0}")]
    Floor(#[source] IdentityError),
    /// The roster was not merged.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// The volume refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The path has no such method, or does not exist.
    #[error("there is nothing at this path for this method")]
    NoRoute,
}

impl InternalError {
    /// The HTTP status and the code of each error: the only place that decides
    /// them. Which of them prove that nothing was changed, the client of these
    /// paths knows.
    #[must_use]
    pub fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Name(_) => (StatusCode::BAD_REQUEST, "bad-name"),
            Self::Header { .. } => (StatusCode::BAD_REQUEST, "bad-header"),
            Self::Body { .. } => (StatusCode::BAD_REQUEST, "bad-body"),
            Self::Incoming(BodyError::TooLarge { .. }) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "too-large")
            }
            Self::Incoming(BodyError::Idle { .. }) => {
                (StatusCode::REQUEST_TIMEOUT, "body-too-slow")
            }
            Self::Incoming(BodyError::Broken(_)) => (StatusCode::BAD_REQUEST, "body-incomplete"),
            Self::DigestMismatch => (StatusCode::BAD_REQUEST, "digest-mismatch"),
            Self::AnotherNode { .. } => (StatusCode::MISDIRECTED_REQUEST, "another-node"),
            Self::NotAdmitted => (StatusCode::SERVICE_UNAVAILABLE, NOT_ADMITTED),
            Self::NoStaging => (StatusCode::GONE, "no-staging"),
            Self::TooManyStaged => (StatusCode::TOO_MANY_REQUESTS, "too-many-staged"),
            Self::Ahead(_) => (StatusCode::CONFLICT, "version-ahead"),
            Self::StaleStamp(_) => (StatusCode::CONFLICT, STALE_STAMP),
            Self::Promised(PromisedAbove::Kept { .. }) => (StatusCode::CONFLICT, PROMISED),
            Self::Promised(PromisedAbove::Forgotten { .. }) => {
                (StatusCode::CONFLICT, PROMISE_FORGOTTEN)
            }
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, BUSY),
            Self::ForeignSource => (StatusCode::CONFLICT, "foreign-source"),
            Self::NoSource { .. } => (StatusCode::FAILED_DEPENDENCY, "no-source"),
            Self::Floor(_) => (StatusCode::INTERNAL_SERVER_ERROR, FLOOR),
            Self::Merge(MergeError::Foreign(_)) => (StatusCode::CONFLICT, "foreign-cluster"),
            Self::Merge(MergeError::Persist { .. }) => {
                (StatusCode::INTERNAL_SERVER_ERROR, NOT_PERSISTED)
            }
            Self::Merge(MergeError::Unfounded) => (StatusCode::CONFLICT, "unfounded"),
            Self::Merge(MergeError::Closed) => (StatusCode::SERVICE_UNAVAILABLE, "shutting-down"),
            Self::Store(error) => store_status(error),
            Self::NoRoute => (StatusCode::NOT_FOUND, "no-route"),
        }
    }

    /// Whether the request was not even begun.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        let status = self.status_and_code().0;
        status.is_client_error() || matches!(self, Self::NotAdmitted | Self::Busy)
    }

    /// The answer for it.
    #[must_use]
    pub fn to_problem(&self) -> Problem {
        let (status, code) = self.status_and_code();
        Problem::new(status, code, self.to_string())
    }
}

impl From<GateError> for InternalError {
    fn from(error: GateError) -> Self {
        match error {
            GateError::Stale(error) => error.into(),
            GateError::Promised(error) => error.into(),
            GateError::Ahead(error) => error.into(),
            GateError::Floor(error) => Self::Floor(error),
            GateError::Store(error) => error.into(),
            GateError::Busy => Self::Busy,
        }
    }
}

fn store_status(error: &StoreError) -> (StatusCode, &'static str) {
    match error {
        StoreError::NotFound { .. } => (StatusCode::NOT_FOUND, "not-here"),
        StoreError::BadRange { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "bad-range"),
        StoreError::VersionConflict { .. } => (StatusCode::CONFLICT, "version-conflict"),
        StoreError::Corrupt { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "damaged"),
        StoreError::NoSpace { .. } => (StatusCode::INSUFFICIENT_STORAGE, "no-space"),
        StoreError::MetadataTooLong => (StatusCode::BAD_REQUEST, "metadata-too-long"),
        StoreError::Doubtful { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "doubtful"),
        StoreError::Index { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "index"),
        StoreError::SegmentInUse { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "segment-in-use"),
        StoreError::Poisoned { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "poisoned"),
        StoreError::InUse { .. } | StoreError::Format { .. } => {
            (StatusCode::INTERNAL_SERVER_ERROR, "volume")
        }
        StoreError::Io { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "io"),
        StoreError::WorkLost => (StatusCode::INTERNAL_SERVER_ERROR, "work-lost"),
    }
}
