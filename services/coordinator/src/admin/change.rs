//! Draining and retiring data servers.

use holdfast_core::lifecycle::{self, Refused};
use holdfast_core::node::NodeId;
use holdfast_core::roster::{Entry, MemberState};
use holdfast_http::problem::Problem;
use http::{Method, StatusCode};
use serde_json::json;
use tracing::info;
use warp::reply::{Reply, Response};

use super::{Operators, no_route};
use crate::cluster::{MergeError, Told};

/// What an operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Drain,
    CancelDrain,
    Retire { accept_loss: bool },
}

impl Change {
    pub(super) fn parse(method: &Method, what: &str, query: &str) -> Result<Self, Box<Problem>> {
        match (what, method.as_str()) {
            ("drain", "POST") => Ok(Self::Drain),
            ("drain", "DELETE") => Ok(Self::CancelDrain),
            ("retire", "POST") => Ok(Self::Retire {
                accept_loss: query.split('&').any(|one| one == "data_loss=accept"),
            }),
            ("drain", _) => Err(not_allowed("DELETE, POST")),
            ("retire", _) => Err(not_allowed("POST")),
            _ => Err(no_route()),
        }
    }

    /// Changes the member's entry on as many members as can be reached.
    pub(super) async fn carry_out(
        self,
        id: &str,
        operators: &Operators,
    ) -> Result<Response, Box<Problem>> {
        let id: NodeId = id.parse().map_err(|_| to_problem(&Refused::Unknown))?;
        let entry = self.entry(id, operators).map_err(|refused| to_problem(&refused))?;
        let state = entry.state;
        let told = operators.changer.tell_entry(entry).await.map_err(|error| not_merged(&error))?;
        info!(node = %id, state = state.as_str(), change = ?self, ?told, "an operator changed a data server");
        if told.counts() { Ok(done(id, state, told)) } else { Err(not_counted(state, told)) }
    }

    fn entry(self, id: NodeId, operators: &Operators) -> Result<Entry, Refused> {
        let snapshot = operators.changer.cluster.snapshot();
        match self {
            Self::Drain => lifecycle::drain(&snapshot.roster, &snapshot.view, id),
            Self::CancelDrain => lifecycle::cancel_drain(&snapshot.roster, id),
            Self::Retire { accept_loss } => {
                lifecycle::retire(&snapshot.roster, &snapshot.view, id, accept_loss)
            }
        }
    }
}

fn done(node: NodeId, state: MemberState, told: Told) -> Response {
    let Told { persisted, needed } = told;
    let answer = json!({ "node": node, "state": state, "persisted": persisted, "needed": needed });
    warp::reply::json(&answer).into_response()
}

fn not_counted(state: MemberState, told: Told) -> Box<Problem> {
    let Told { persisted, needed } = told;
    let detail = format!(
        "{persisted} of the {needed} data servers that must know of it have persisted that it is \
         {}; it spreads by itself, and counts once it has reached them: ask again",
        state.as_str()
    );
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-counted-yet", detail);
    Box::new(problem.with_member("persisted", persisted).with_member("needed", needed))
}

fn to_problem(refused: &Refused) -> Box<Problem> {
    let (status, code) = match refused {
        Refused::Unknown => (StatusCode::NOT_FOUND, "unknown-dataserver"),
        Refused::WrongState { .. } => (StatusCode::CONFLICT, "wrong-state"),
        Refused::Lost => (StatusCode::CONFLICT, "lost"),
        Refused::TooFew { .. } => (StatusCode::CONFLICT, "too-few-dataservers"),
        // It passes by itself.
        Refused::Votes { .. } => (StatusCode::SERVICE_UNAVAILABLE, "votes"),
        Refused::Heard => (StatusCode::CONFLICT, "heard"),
        Refused::Unproven => (StatusCode::CONFLICT, "data-loss-not-excluded"),
    };
    Box::new(Problem::new(status, code, refused.to_string()))
}

fn not_merged(error: &MergeError) -> Box<Problem> {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    Box::new(Problem::new(status, "not-merged", error.to_string()))
}

fn not_allowed(methods: &'static str) -> Box<Problem> {
    let detail = format!("this path takes {methods}");
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail);
    Box::new(problem.with_allow(methods))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_accepted_in_so_many_words() {
        let retire = |query| Change::parse(&Method::POST, "retire", query).ok();
        assert_eq!(retire("data_loss=accept"), Some(Change::Retire { accept_loss: true }));
        for query in ["", "data_loss", "data_loss=yes", "data_loss=accepted"] {
            assert_eq!(retire(query), Some(Change::Retire { accept_loss: false }), "{query}");
        }
    }

    #[test]
    fn other_methods_and_paths_change_nothing() {
        assert_eq!(Change::parse(&Method::DELETE, "drain", "").ok(), Some(Change::CancelDrain));
        for (method, what) in
            [(Method::GET, "drain"), (Method::DELETE, "retire"), (Method::POST, "stop")]
        {
            assert!(Change::parse(&method, what, "").is_err());
        }
    }
}
