//! Draining and retiring data servers.

use holdfast_core::electorate::Electorate;
use holdfast_core::lifecycle::{self, Refused, Retirement};
use holdfast_core::node::NodeId;
use holdfast_core::policy::Policy;
use holdfast_core::roster::{Entry, MemberState, Roster};
use holdfast_http::problem::Problem;
use http::{Method, StatusCode};
use serde_json::json;
use tracing::info;
use warp::reply::{Reply, Response};

use super::{Operators, no_route};
use crate::cluster::{MergeError, Snapshot, Told};

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
        let mut ask = self.ask(id, operators)?;
        let state = ask.entry.state;
        let mut attempts = 1;
        let told = loop {
            let told = operators.changer.tell(ask.change(operators)?).await;
            let told = told.map_err(|error| not_merged(&error))?;
            if attempts == MOST_ATTEMPTS || !self.is_undone(&ask, operators) {
                break told;
            }
            // Somebody else changed the same at the same time.
            attempts += 1;
            let now = operators.changer.cluster.snapshot();
            let terms = ask.terms.and_then(|_| after_loss(&now.roster));
            ask = Ask { terms, ..self.ask(id, operators)? };
        };
        info!(node = %id, state = state.as_str(), change = ?self, ?told, "an operator changed a data server");
        if !told.counts() || self.is_undone(&ask, operators) {
            return Err(not_counted(state, told));
        }
        if self == Self::Drain {
            take_back_if_too_many(id, operators).await?;
        }
        Ok(done(id, state, told))
    }

    fn ask(self, id: NodeId, operators: &Operators) -> Result<Ask, Box<Problem>> {
        let Snapshot { roster, view, .. } = &*operators.changer.cluster.snapshot();
        let of_entry = |entry| Ask { entry, terms: None };
        let ask = match self {
            Self::Drain => lifecycle::drain(roster, view, id).map(of_entry),
            Self::CancelDrain => lifecycle::cancel_drain(roster, id).map(of_entry),
            Self::Retire { accept_loss } => lifecycle::retire(roster, view, id, accept_loss).map(
                |Retirement { entry, is_loss }| Ask {
                    entry,
                    terms: after_loss(roster).filter(|_| is_loss),
                },
            ),
        };
        ask.map_err(|refused| to_problem(&refused))
    }

    /// Whether the members say something else of it, after they were told.
    fn is_undone(self, ask: &Ask, operators: &Operators) -> bool {
        let roster = &operators.changer.cluster.snapshot().roster;
        match self {
            Self::Drain => false,
            // A drain that this api had not heard of.
            Self::CancelDrain => roster
                .get(ask.entry.id)
                .is_some_and(|now| now.state == MemberState::Draining && !now.lost),
            // Another change of the policy has won.
            Self::Retire { .. } => {
                let told = ask.terms.as_ref().map(|(policy, _)| policy.read_quorum);
                told.is_some_and(|told| roster.policy.read_quorum > told)
            }
        }
    }
}

/// How often a change is asked for again that met another one.
const MOST_ATTEMPTS: u32 = 4;

/// What the members are told.
#[derive(Debug)]
struct Ask {
    entry: Entry,
    /// What reads count on from then on, if that is less.
    terms: Option<(Policy, Option<Electorate>)>,
}

impl Ask {
    fn change(&self, operators: &Operators) -> Result<Roster, Box<Problem>> {
        let cluster = operators.changer.cluster.snapshot().roster.cluster;
        let cluster = cluster.ok_or_else(|| not_merged(&MergeError::Unfounded))?;
        let (policy, electorate) = self.terms.clone().unwrap_or((Policy::unsaid(), None));
        let mut change = Roster::of_policy(cluster, policy, electorate);
        change.apply_entry(&self.entry);
        Ok(change)
    }
}

/// What reads count on when some of it may be lost, if that is less than now.
fn after_loss(roster: &Roster) -> Option<(Policy, Option<Electorate>)> {
    Some((roster.policy.after_loss()?, roster.electorate.clone()))
}

/// Two drains that are asked for at once may each leave enough members, and both of
/// them too few. Then neither would end.
async fn take_back_if_too_many(id: NodeId, operators: &Operators) -> Result<(), Box<Problem>> {
    let Snapshot { roster, view, .. } = &*operators.changer.cluster.snapshot();
    let Err(refused) = lifecycle::check_drains(roster, view, id) else { return Ok(()) };
    if let Ok(entry) = lifecycle::cancel_drain(roster, id) {
        let told = operators.changer.tell_entry(entry).await;
        info!(node = %id, %refused, ?told, "a drain was taken back: another one was begun at the same time");
    }
    Err(to_problem(&refused))
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
