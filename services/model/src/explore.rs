//! Running a model.

use stateright::{Checker, HasDiscoveries, Model};

use crate::setup::Setup;
use crate::world::{Action, REACHED, World};

/// Where exploring ends: nothing is proven then. It keeps a model that is too
/// large from taking all memory.
const MOST_STATES: usize = 10_000_000;

/// What came of exploring a model.
#[derive(Debug)]
pub struct Explored {
    /// Its name.
    pub name: &'static str,
    /// States that differ.
    pub unique_states: usize,
    /// States in all, each as often as it was reached.
    pub states: usize,
    /// The longest way that was gone.
    pub depth: usize,
    /// The properties that do not hold, with a way to a state in which they do
    /// not.
    pub counterexamples: Vec<(&'static str, Vec<Action>)>,
    /// Whether every state was visited, if there is no counterexample.
    pub exhausted: bool,
    /// Whether what the model is about happens at all.
    pub reached: bool,
}

/// Visits every state, or as many as it takes to find a counterexample.
#[must_use]
pub fn explore(setup: Setup, threads: usize) -> Explored {
    let name = setup.name;
    let checker = World::new(setup)
        .checker()
        .threads(threads)
        .target_state_count(MOST_STATES)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let mut counterexamples = Vec::new();
    let mut reached = false;
    for (property, path) in checker.discoveries() {
        if property == REACHED {
            reached = true;
        } else {
            counterexamples.push((property, path.into_actions()));
        }
    }
    Explored {
        name,
        unique_states: checker.unique_state_count(),
        states: checker.state_count(),
        depth: checker.max_depth(),
        counterexamples,
        exhausted: checker.state_count() < MOST_STATES,
        reached,
    }
}

impl Explored {
    /// One line.
    #[must_use]
    pub fn summary(&self) -> String {
        let Self { name, unique_states, states, depth, .. } = self;
        let found: Vec<&str> = self.counterexamples.iter().map(|(property, _)| *property).collect();
        let found = match (found.is_empty(), self.exhausted) {
            (true, true) if self.reached => "holds".to_owned(),
            (true, true) => "holds, but what it is about does not happen".to_owned(),
            (true, false) => "too large".to_owned(),
            (false, _) => format!("not true that {}", found.join(" and ")),
        };
        format!("{name}: {unique_states} unique states of {states}, {depth} deep: {found}")
    }
}

impl std::fmt::Display for Explored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.summary())?;
        for (property, actions) in &self.counterexamples {
            write!(f, "\n  not true that {property}:")?;
            for action in actions {
                write!(f, "\n    {action}")?;
            }
        }
        Ok(())
    }
}
