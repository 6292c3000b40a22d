//! Whether what clients saw of one key can have happened one thing after the
//! other.
//!
//! Every operation has a beginning and an end. A history is linearizable when
//! there is an order in which each operation takes effect at one moment between
//! the two, and sees what the one before it left. The search is that of Wing and
//! Gong ("Testing and verifying concurrent objects", 1993) with the cache of
//! Lowe ("Testing for linearizability", 2017).

use std::collections::HashSet;
use std::time::Duration;

/// Most operations of one key: the search holds them as bits.
pub const MAX_OPERATIONS: usize = 128;

/// What a client asked for. Contents are numbers, each written only once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// PUT.
    Write(u64),
    /// DELETE.
    Delete,
    /// PUT if there is nothing.
    Create(u64),
    /// PUT if the content is the one that was seen before.
    Replace {
        /// What must be there.
        expected: u64,
        /// What takes its place.
        value: u64,
    },
    /// GET.
    Read,
}

impl Action {
    /// What it writes, if it does.
    #[must_use]
    pub fn written(self) -> Option<u64> {
        match self {
            Self::Write(value) | Self::Create(value) | Self::Replace { value, .. } => Some(value),
            Self::Delete | Self::Read => None,
        }
    }
}

/// What the client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It happened.
    Done,
    /// It did not, because of its condition.
    Refused,
    /// This is there, or nothing.
    Saw(Option<u64>),
    /// Nothing certain: it may take effect now, later or never.
    Maybe,
}

/// One operation of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub client: usize,
    /// When it began.
    pub start: Duration,
    /// When the answer came.
    pub end: Duration,
    /// What was asked.
    pub action: Action,
    /// What was answered.
    pub outcome: Outcome,
}

impl Operation {
    /// What is there after this, if it may take effect on `state`.
    fn apply(&self, state: Option<u64>) -> Option<Option<u64>> {
        let holds = match self.action {
            Action::Create(_) => state.is_none(),
            Action::Replace { expected, .. } => state == Some(expected),
            _ => true,
        };
        match (self.action, self.outcome) {
            (Action::Read, Outcome::Saw(seen)) => (seen == state).then_some(state),
            (_, Outcome::Refused) => (!holds).then_some(state),
            (Action::Delete, _) => Some(None),
            (Action::Write(value), _) => Some(Some(value)),
            (Action::Create(value) | Action::Replace { value, .. }, _) => {
                holds.then_some(Some(value))
            }
            (Action::Read, _) => Some(state),
        }
    }

    /// Whether it changes nothing, whatever is there.
    fn only_tells(&self) -> bool {
        matches!(self.outcome, Outcome::Refused | Outcome::Saw(_))
    }

    fn is_certain(&self) -> bool {
        self.outcome != Outcome::Maybe
    }

    fn ends(&self) -> Duration {
        if self.is_certain() { self.end } else { Duration::MAX }
    }
}

/// Looks for an order in which `operations` of one key can have happened, when
/// nothing was there before.
///
/// # Errors
/// The longest part of the history that has one, as text, and what cannot
/// follow.
///
/// # Panics
/// When there are more than [`MAX_OPERATIONS`].
pub fn check(operations: &[Operation]) -> Result<(), String> {
    let mut operations: Vec<Operation> = operations
        .iter()
        .filter(|one| one.action != Action::Read || one.is_certain())
        .copied()
        .collect();
    operations.sort_by_key(|one| (one.start, one.end));
    assert!(operations.len() <= MAX_OPERATIONS, "{} operations", operations.len());
    // Most of what is uncertain never happened. Each of it that is left out makes
    // the search twice as short, and an order without it is an order.
    let observed = observed(&operations);
    let without = |deletes: bool, unseen: bool| {
        let keep = |one: &&Operation| match one.action {
            _ if one.is_certain() => true,
            Action::Delete => deletes,
            _ => unseen || one.action.written().is_some_and(|value| observed.contains(&value)),
        };
        operations.iter().filter(keep).copied().collect::<Vec<_>>()
    };
    for (deletes, unseen) in [(false, false), (true, false)] {
        if Search::new(&without(deletes, unseen)).is_possible() {
            return Ok(());
        }
    }
    let mut search = Search::new(&operations);
    if search.is_possible() { Ok(()) } else { Err(search.explain()) }
}

/// Values that somebody certainly saw, or replaced.
fn observed(operations: &[Operation]) -> HashSet<u64> {
    let seen = |one: &Operation| match (one.action, one.outcome) {
        (_, Outcome::Saw(value)) => value,
        (Action::Replace { expected, .. }, Outcome::Done | Outcome::Maybe) => Some(expected),
        _ => None,
    };
    operations.iter().filter_map(seen).collect()
}

/// States that are looked at before the search is given up.
const MOST_STATES: usize = 4_000_000;

struct Search<'a> {
    operations: &'a [Operation],
    seen: HashSet<(u128, Option<u64>)>,
    best: Vec<usize>,
}

impl<'a> Search<'a> {
    fn new(operations: &'a [Operation]) -> Self {
        Self { operations, seen: HashSet::new(), best: Vec::new() }
    }

    fn is_possible(&mut self) -> bool {
        self.run(0, None, &mut Vec::new())
    }

    fn run(&mut self, done: u128, state: Option<u64>, order: &mut Vec<usize>) -> bool {
        let open = |index: &usize| done & (1 << index) == 0;
        let all = 0..self.operations.len();
        let certain = all.clone().filter(open).filter(|index| self.operations[*index].is_certain());
        let Some(deadline) = certain.clone().map(|index| self.operations[index].end).min() else {
            return true;
        };
        if self.seen.len() >= MOST_STATES || !self.seen.insert((done, state)) {
            return false;
        }
        if order.len() > self.best.len() {
            self.best.clone_from(order);
        }
        // Nothing may take effect after the end of one that has not yet.
        let mut next: Vec<usize> =
            all.filter(open).filter(|index| self.operations[*index].start <= deadline).collect();
        // What is certain first: most of what is not never happened.
        next.sort_by_key(|index| self.operations[*index].ends());
        // What only tells what is there may as well do so at once: whatever can follow
        // can still. Without this the orders of many that were refused would be tried.
        let fits = |index: &&usize| self.operations[**index].apply(state).is_some();
        let tells = |index: &&usize| self.operations[**index].only_tells() && fits(index);
        if let Some(index) = next.iter().find(tells) {
            next = vec![*index];
        }
        for index in next {
            let Some(after) = self.operations[index].apply(state) else { continue };
            order.push(index);
            if self.run(done | (1 << index), after, order) {
                return true;
            }
            order.pop();
        }
        false
    }

    fn explain(&self) -> String {
        let given_up = self.seen.len() >= MOST_STATES;
        let verdict =
            if given_up { "no order was found" } else { "no order explains this history" };
        let mut lines = vec![format!("{verdict}; the longest that is possible:")];
        let line = |index: usize| {
            let one = self.operations[index];
            format!(
                "  {:>9.3}..{:>9.3} client {}: {:?} -> {:?}",
                one.start.as_secs_f64(),
                one.end.as_secs_f64(),
                one.client,
                one.action,
                one.outcome
            )
        };
        lines.extend(self.best.iter().map(|index| line(*index)));
        lines.push("and then none of:".to_owned());
        let rest = (0..self.operations.len()).filter(|index| !self.best.contains(index));
        lines.extend(rest.take(12).map(line));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Action::{Create, Delete, Read, Replace, Write};
    use Outcome::{Done, Maybe, Refused, Saw};

    fn history(operations: &[(u64, u64, Action, Outcome)]) -> Result<(), String> {
        let operations: Vec<Operation> = operations
            .iter()
            .enumerate()
            .map(|(client, (start, end, action, outcome))| Operation {
                client,
                start: Duration::from_secs(*start),
                end: Duration::from_secs(*end),
                action: *action,
                outcome: *outcome,
            })
            .collect();
        check(&operations)
    }

    #[test]
    fn what_happened_in_turn_must_be_seen_in_turn() {
        assert!(history(&[(0, 1, Write(1), Done), (2, 3, Read, Saw(Some(1)))]).is_ok());
        assert!(history(&[(0, 1, Write(1), Done), (2, 3, Read, Saw(None))]).is_err());
        let stale = [(0, 1, Write(1), Done), (2, 3, Write(2), Done), (4, 5, Read, Saw(Some(1)))];
        assert!(history(&stale).is_err());
    }

    #[test]
    fn what_overlaps_may_have_happened_either_way_but_only_one() {
        let overlap = [(0, 9, Write(1), Done), (0, 9, Write(2), Done)];
        for last in [1, 2] {
            let mut seen = overlap.to_vec();
            seen.push((10, 11, Read, Saw(Some(last))));
            assert!(history(&seen).is_ok());
            seen.push((12, 13, Read, Saw(Some(3 - last))));
            assert!(history(&seen).is_err());
        }
    }

    #[test]
    fn a_write_that_may_have_happened_is_not_undone_once_it_was_seen() {
        let maybe = [(0, 1, Write(1), Done), (2, 3, Write(2), Maybe)];
        for seen in [&[1, 1, 2][..], &[1, 1], &[2, 2], &[1, 2, 2]] {
            let mut history_of = maybe.to_vec();
            for (index, value) in (0..).zip(seen) {
                history_of.push((10 + index * 2, 11 + index * 2, Read, Saw(Some(*value))));
            }
            assert!(history(&history_of).is_ok(), "{seen:?}");
        }
        let mut undone = maybe.to_vec();
        undone.extend([(10, 11, Read, Saw(Some(2))), (12, 13, Read, Saw(Some(1)))]);
        assert!(history(&undone).is_err());
    }

    #[test]
    fn a_delete_is_not_undone() {
        let deleted = [(0, 1, Write(1), Done), (2, 3, Delete, Done)];
        let with = |more: &[(u64, u64, Action, Outcome)]| history(&[&deleted[..], more].concat());
        assert!(with(&[(4, 5, Read, Saw(None))]).is_ok());
        assert!(with(&[(4, 5, Read, Saw(Some(1)))]).is_err());
    }

    #[test]
    fn of_two_creators_one_succeeds() {
        assert!(history(&[(0, 9, Create(1), Done), (0, 9, Create(2), Refused)]).is_ok());
        assert!(history(&[(0, 9, Create(1), Done), (0, 9, Create(2), Done)]).is_err());
        assert!(history(&[(0, 1, Create(1), Refused)]).is_err());
        let between = [(0, 9, Create(1), Done), (0, 9, Delete, Done), (0, 9, Create(2), Done)];
        assert!(history(&between).is_ok());
    }

    #[test]
    fn of_many_creators_one_succeeds() {
        let creators = |outcome: fn(u64) -> Outcome, last: Option<u64>| {
            let mut all: Vec<_> =
                (0..64).map(|value| (0, 9 + value % 7, Create(value), outcome(value))).collect();
            all.push((20, 21, Read, Saw(last)));
            history(&all)
        };
        let one = |value| if value == 40 { Done } else { Refused };
        assert!(creators(one, Some(40)).is_ok());
        let one_or_more = |value| match value {
            ..40 => Maybe,
            40 => Done,
            _ => Refused,
        };
        assert!(creators(one_or_more, Some(40)).is_ok());
        let unknown = |value| if value < 40 { Maybe } else { Refused };
        assert!(creators(unknown, Some(39)).is_ok());
        assert!(creators(|_| Maybe, None).is_ok());

        let two = |value: u64| if value.is_multiple_of(40) { Done } else { Refused };
        let nobody = |_| Refused;
        for (outcome, last) in [
            (two as fn(u64) -> Outcome, Some(40)),
            (one, Some(39)),
            (one, None),
            (one_or_more, Some(39)),
            (unknown, Some(40)),
            (unknown, None),
            (nobody, None),
        ] {
            let error = creators(outcome, last).expect_err("it cannot have happened");
            assert!(error.starts_with("no order explains"), "it was given up: {error}");
        }
    }

    #[test]
    fn a_replacement_takes_the_place_of_what_it_names() {
        let replace = |expected, value| Replace { expected, value };
        let first = (0, 1, Write(1), Done);
        assert!(history(&[first, (2, 3, replace(1, 2), Done), (4, 5, Read, Saw(Some(2)))]).is_ok());
        assert!(history(&[first, (2, 3, replace(7, 2), Done)]).is_err());
        assert!(history(&[first, (2, 3, replace(1, 2), Refused)]).is_err());
        let both = [first, (2, 9, replace(1, 2), Done), (2, 9, replace(1, 3), Done)];
        assert!(history(&both).is_err());
    }
}
