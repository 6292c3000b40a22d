//! What clients are told when something is wrong.

use std::time::Duration;

use holdfast_core::name::NameError;
use holdfast_core::node::NodeId;
use holdfast_http::problem::Problem;
use http::StatusCode;
use thiserror::Error;

use crate::locator::LocateError;

/// After how long a client should try again when a member may be back by then:
/// one heartbeat interval.
const RETRY_SOON: Duration = Duration::from_secs(5);

/// Why a request was refused. Every variant says what to do about it.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// The name is none.
    #[error("{0}; use 1 to 1,024 bytes of UTF-8, percent-encoded once")]
    Name(#[from] NameError),
    /// A header cannot be understood.
    #[error("the header {header} cannot be used: {reason}")]
    Header {
        /// Which one.
        header: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A parameter of the query cannot be understood.
    #[error("the query parameter {parameter:?} cannot be used: {reason}")]
    Query {
        /// Which one, as it came.
        parameter: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The payload is larger than is allowed.
    #[error("the object is larger than the {limit_bytes} bytes allowed here (MAX_OBJECT_BYTES)")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The client stopped sending.
    #[error("the body ended before it was complete; nothing was stored, send it again")]
    BodyIncomplete,
    /// The client sent nothing for too long.
    #[error("no byte of the body came for too long; nothing was stored, send it again")]
    BodyTooSlow,
    /// The payload is not what the client announced.
    #[error(
        "the body does not match the {algorithm} that was sent with it; nothing was stored, send it again"
    )]
    DigestMismatch {
        /// The checksum that differs.
        algorithm: &'static str,
    },
    /// There is no such object, for certain.
    #[error("there is no object of this name")]
    NotFound,
    /// There may be such an object.
    #[error(
        "whether this object exists cannot be told while data servers are silent; try again when they are back"
    )]
    Incomplete {
        /// Those that did not say.
        silent: Vec<NodeId>,
    },
    /// There may be more objects, or others.
    #[error(
        "which objects there are cannot be told while data servers are silent; try again when they are back"
    )]
    IncompleteList {
        /// Those that did not say.
        silent: Vec<NodeId>,
    },
    /// Too few members are there for a write that later reads are certain to find.
    #[error(
        "too few data servers answer for this write to be safe; nothing was stored, try again when those that are silent are back, or add data servers"
    )]
    NoQuorum {
        /// Those that did not say.
        silent: Vec<NodeId>,
    },
    /// Other conditional writes of the same name were always first.
    #[error("others kept writing this object in between; nothing was stored, try again")]
    Contended,
    /// There is nobody to store anything.
    #[error(
        "no data server is available; check that data servers run and reach the broker or are listed in DATASERVER_PEERS"
    )]
    NoDataServers,
    /// Every disk is full.
    #[error("too few data servers have room for this object; delete objects or add a data server")]
    NoSpace,
    /// Nothing was stored.
    #[error("the data servers did not take the object; nothing was stored, send it again")]
    WriteFailed,
    /// It is not known whether the write happened.
    #[error(
        "the data server did not confirm the write; it may or may not have happened, read the object to find out"
    )]
    OutcomeUnknown,
    /// The newest content is on too few members, and could not be brought to more.
    #[error(
        "the newest content of this object is on too few data servers to be shown, and could not be copied to more; try again"
    )]
    Unsettled,
    /// The object exists but could not be read.
    #[error("the object exists but its data server could not read it; try again")]
    ReadFailed,
    /// The bytes of the only copy are damaged.
    #[error(
        "the object exists but its bytes are damaged on disk; restore it from a backup or write it again"
    )]
    Damaged,
    /// The range lies outside the object.
    #[error("the range does not lie within the {size_bytes} bytes of the object")]
    Range {
        /// What there is.
        size_bytes: u64,
    },
    /// A condition of a read does not hold.
    #[error("the object is not the one that the request's conditions name")]
    PreconditionFailed,
    /// Too much is going on.
    #[error("too many requests are waiting; try again")]
    Overloaded,
    /// This process is about to end.
    #[error("this server is shutting down; try another one")]
    ShuttingDown,
    /// The path has no such method.
    #[error("this path does not support the method; it supports {allow}")]
    Method {
        /// What it supports.
        allow: &'static str,
    },
    /// There is no such path.
    #[error("there is nothing at this path; objects are at /objects/<name>")]
    NoRoute,
}

impl ObjectError {
    /// The codes of what is no mistake of the client, answered 429 or 5xx, for metrics
    /// that show each of them before it happens.
    pub const FAILURES: [&'static str; 12] = [
        "incomplete",
        "no-quorum",
        "contended",
        "no-data-servers",
        "no-space",
        "write-failed",
        "outcome-unknown",
        "unsettled",
        "read-failed",
        "damaged",
        "overloaded",
        "shutting-down",
    ];

    /// The HTTP status of each error: the only place that decides it.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Name(_)
            | Self::Header { .. }
            | Self::Query { .. }
            | Self::BodyIncomplete
            | Self::DigestMismatch { .. } => StatusCode::BAD_REQUEST,
            Self::NotFound | Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Range { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Self::Damaged => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Incomplete { .. }
            | Self::IncompleteList { .. }
            | Self::NoQuorum { .. }
            | Self::Contended
            | Self::NoDataServers
            | Self::WriteFailed
            | Self::OutcomeUnknown
            | Self::Unsettled
            | Self::ReadFailed
            | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        }
    }

    /// The word for each error that programs may rely on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Name(_) => "bad-name",
            Self::Header { .. } => "bad-header",
            Self::Query { .. } => "bad-query",
            Self::TooLarge { .. } => "too-large",
            Self::BodyIncomplete => "body-incomplete",
            Self::BodyTooSlow => "body-too-slow",
            Self::DigestMismatch { .. } => "digest-mismatch",
            Self::NotFound => "not-found",
            Self::Incomplete { .. } | Self::IncompleteList { .. } => "incomplete",
            Self::NoQuorum { .. } => "no-quorum",
            Self::Contended => "contended",
            Self::NoDataServers => "no-data-servers",
            Self::NoSpace => "no-space",
            Self::WriteFailed => "write-failed",
            Self::OutcomeUnknown => "outcome-unknown",
            Self::Unsettled => "unsettled",
            Self::ReadFailed => "read-failed",
            Self::Damaged => "damaged",
            Self::Range { .. } => "bad-range",
            Self::PreconditionFailed => "precondition-failed",
            Self::Overloaded => "overloaded",
            Self::ShuttingDown => "shutting-down",
            Self::Method { .. } => "method-not-allowed",
            Self::NoRoute => "no-route",
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Incomplete { .. }
            | Self::IncompleteList { .. }
            | Self::NoQuorum { .. }
            | Self::NoDataServers => Some(RETRY_SOON),
            Self::Overloaded
            | Self::Contended
            | Self::WriteFailed
            | Self::OutcomeUnknown
            | Self::Unsettled
            | Self::ReadFailed
            | Self::ShuttingDown => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// The answer for it.
    #[must_use]
    pub fn to_problem(&self) -> Problem {
        let mut problem = Problem::new(self.status(), self.code(), self.to_string());
        if let Some(retry_after) = self.retry_after() {
            problem = problem.with_retry_after(retry_after);
        }
        match self {
            Self::Incomplete { silent }
            | Self::IncompleteList { silent }
            | Self::NoQuorum { silent } => {
                let silent: Vec<String> = silent.iter().map(NodeId::to_string).collect();
                problem.with_member("silent", silent)
            }
            Self::Method { allow } => problem.with_allow(allow),
            Self::Range { size_bytes } => problem.with_member("size_bytes", *size_bytes),
            _ => problem,
        }
    }
}

impl From<LocateError> for ObjectError {
    fn from(error: LocateError) -> Self {
        match error {
            LocateError::Overloaded => Self::Overloaded,
            LocateError::Closed => Self::ShuttingDown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every variant leads to another one, so that the compiler asks where a new
    /// one belongs.
    fn after(error: &ObjectError) -> Option<ObjectError> {
        Some(match error {
            ObjectError::Name(_) => ObjectError::Header { header: "range", reason: "none" },
            ObjectError::Header { .. } => {
                ObjectError::Query { parameter: "limit".to_owned(), reason: "none" }
            }
            ObjectError::Query { .. } => ObjectError::TooLarge { limit_bytes: 1 },
            ObjectError::TooLarge { .. } => ObjectError::BodyIncomplete,
            ObjectError::BodyIncomplete => ObjectError::BodyTooSlow,
            ObjectError::BodyTooSlow => ObjectError::DigestMismatch { algorithm: "sha-256" },
            ObjectError::DigestMismatch { .. } => ObjectError::NotFound,
            ObjectError::NotFound => ObjectError::Incomplete { silent: Vec::new() },
            ObjectError::Incomplete { .. } => ObjectError::IncompleteList { silent: Vec::new() },
            ObjectError::IncompleteList { .. } => ObjectError::NoQuorum { silent: Vec::new() },
            ObjectError::NoQuorum { .. } => ObjectError::Contended,
            ObjectError::Contended => ObjectError::NoDataServers,
            ObjectError::NoDataServers => ObjectError::NoSpace,
            ObjectError::NoSpace => ObjectError::WriteFailed,
            ObjectError::WriteFailed => ObjectError::OutcomeUnknown,
            ObjectError::OutcomeUnknown => ObjectError::Unsettled,
            ObjectError::Unsettled => ObjectError::ReadFailed,
            ObjectError::ReadFailed => ObjectError::Damaged,
            ObjectError::Damaged => ObjectError::Range { size_bytes: 1 },
            ObjectError::Range { .. } => ObjectError::PreconditionFailed,
            ObjectError::PreconditionFailed => ObjectError::Overloaded,
            ObjectError::Overloaded => ObjectError::ShuttingDown,
            ObjectError::ShuttingDown => ObjectError::Method { allow: "GET" },
            ObjectError::Method { .. } => ObjectError::NoRoute,
            ObjectError::NoRoute => return None,
        })
    }

    #[test]
    fn the_list_of_failures_has_each_of_them() {
        let name = holdfast_core::name::Key::new("").expect_err("an empty name is none");
        let first = ObjectError::Name(name);
        let all = std::iter::successors(Some(first), after);
        let is_failure = |error: &ObjectError| {
            let status = error.status();
            status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
        };
        let mut codes: Vec<&str> = all.filter(is_failure).map(|error| error.code()).collect();
        // To programs an incomplete list is what an incomplete lookup is.
        codes.dedup();
        assert_eq!(codes, ObjectError::FAILURES);
    }
}
