//! Why data servers are not empty, and what to do about it.

use std::time::Duration;

use holdfast_core::node::NodeId;
use holdfast_http::client::ClientError;
use thiserror::Error;

use crate::kubernetes::ApiError;
use crate::output::Amount;
use crate::site::Site;

/// Why data servers are not empty.
#[derive(Debug, Error)]
pub enum DrainError {
    /// The API server did not do its part.
    #[error(transparent)]
    Kubernetes(#[from] ApiError),
    /// No api answers.
    #[error("the api at {site} cannot be asked: {source}")]
    Unreachable {
        /// Where.
        site: Site,
        /// Why not.
        #[source]
        source: ClientError,
    },
    /// An api does not do what it is asked for.
    #[error("the api at {site} refuses to {what}: {title}{detail}")]
    Refused {
        /// Where.
        site: Site,
        /// What it was asked for.
        what: String,
        /// Status and code.
        title: String,
        /// What it says, after a colon.
        detail: String,
        /// Whether it may do so in a moment.
        passes: bool,
    },
    /// An api says what makes no sense.
    #[error(
        "what the api at {site} says of the data servers cannot be understood: {reason}. A release \
         that cannot drain must be upgraded first, without taking a data server away"
    )]
    Answer {
        /// Where.
        site: Site,
        /// What is wrong.
        reason: String,
    },
    /// An api that has just started does not know them all.
    #[error("the api at {site} does not know all data servers yet")]
    NotYet {
        /// Where.
        site: Site,
    },
    /// The data servers have other addresses.
    #[error(
        "no data server is known under a name of StatefulSet {statefulset}, so it cannot be told \
         which ones would go; nothing was changed"
    )]
    Unknown {
        /// The StatefulSet.
        statefulset: String,
    },
    /// One is no member yet.
    #[error("{pod} ({node}) is joining: wait until it has; nothing was changed")]
    Joining {
        /// The pod.
        pod: String,
        /// The data server.
        node: NodeId,
    },
    /// One has the only copies of what it holds, and does not answer.
    #[error(
        "{pod} ({node}) is silent, and there is one copy of each object: start it again, or give \
         up what it holds, see the runbook; nothing was changed"
    )]
    Silent {
        /// The pod.
        pod: String,
        /// The data server.
        node: NodeId,
    },
    /// There would be fewer data servers than copies.
    #[error("{}; nothing was changed", too_few(*ready, *staying, *replicas))]
    TooFew {
        /// Those that stay and take data.
        ready: usize,
        /// Those that stay.
        staying: usize,
        /// Copies of each object.
        replicas: usize,
    },
    /// What is to move would not fit.
    #[error(
        "{pod} stays and would get about {} once the {} of those that go move, and has {} free: \
         make room, or let the volumes grow first; nothing was changed",
        Amount(*share), Amount(*bytes), Amount(*free)
    )]
    NoRoom {
        /// A pod that stays.
        pod: String,
        /// What it can take.
        free: u64,
        /// What it would get.
        share: u64,
        /// What those that go hold.
        bytes: u64,
    },
    /// The time is over.
    #[error("not all were empty within {limit:?}")]
    Late {
        /// How long was waited.
        limit: Duration,
    },
    /// Somebody ended this process.
    #[error("ended by a signal before all were empty")]
    Interrupted,
}

fn too_few(ready: usize, staying: usize, replicas: usize) -> String {
    if staying < replicas {
        return format!(
            "{staying} data servers would stay, and there are {replicas} copies of each object: \
             take fewer away, or lower the number of copies first, in an upgrade of its own"
        );
    }
    format!(
        "{ready} of the {staying} data servers that stay take data, which is fewer than the \
         {replicas} copies of each object: wait until they are back"
    )
}

impl DrainError {
    /// Whether the same may work in a moment.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Kubernetes(error) => error.may_pass(),
            Self::Refused { passes, .. } => *passes,
            Self::TooFew { staying, replicas, .. } => staying >= replicas,
            Self::Unreachable { .. }
            | Self::NotYet { .. }
            | Self::Joining { .. }
            | Self::Silent { .. } => true,
            _ => false,
        }
    }
}
