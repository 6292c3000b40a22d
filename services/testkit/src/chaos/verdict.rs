//! What is plainly wrong in a history, by its kind. The search for an order finds
//! more than this, and says less of what it is.

use std::collections::HashMap;
use std::ops::AddAssign;

use crate::history::{Action, Operation, Outcome};

/// Reads that must not be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wrong {
    /// Showed what had been replaced before they began.
    pub stale: usize,
    /// Showed what had been deleted before they began.
    pub resurrected: usize,
    /// Showed nothing, though something had been acknowledged and nobody deleted
    /// it.
    pub lost: usize,
}

impl AddAssign for Wrong {
    fn add_assign(&mut self, other: Self) {
        self.stale += other.stale;
        self.resurrected += other.resurrected;
        self.lost += other.lost;
    }
}

/// Counts them among the operations of one key.
#[must_use]
pub(super) fn judge(operations: &[Operation]) -> Wrong {
    let is_done = |one: &&Operation| one.outcome == Outcome::Done;
    let writers: HashMap<u64, &Operation> =
        operations.iter().filter_map(|one| Some((one.action.written()?, one))).collect();
    let mut wrong = Wrong::default();
    for read in operations {
        let Outcome::Saw(seen) = read.outcome else { continue };
        if let Some(value) = seen {
            // One that is uncertain may take effect at any later time.
            let Some(writer) = writers.get(&value).filter(is_done_at) else { continue };
            let after = operations.iter().filter(is_done).filter(|one| one.action != Action::Read);
            let between = after.filter(|one| one.start > writer.end && one.end < read.start);
            match between.max_by_key(|one| one.end).map(|one| one.action) {
                None => {}
                Some(Action::Delete) => wrong.resurrected += 1,
                Some(_) => wrong.stale += 1,
            }
        } else {
            let before =
                operations.iter().filter(is_done).filter(|one| one.action.written().is_some());
            let latest = before.filter(|one| one.end < read.start).max_by_key(|one| one.start);
            let Some(latest) = latest else { continue };
            let deletes = operations.iter().filter(|one| one.action == Action::Delete);
            let may_explain = |one: &Operation| {
                let ended = one.outcome == Outcome::Done && one.end < latest.start;
                !ended && one.start < read.end
            };
            wrong.lost += usize::from(!deletes.into_iter().any(may_explain));
        }
    }
    wrong
}

fn is_done_at(one: &&&Operation) -> bool {
    one.outcome == Outcome::Done
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use Action::{Delete, Read, Write};
    use Outcome::{Done, Maybe, Saw};

    fn judged(operations: &[(u64, u64, Action, Outcome)]) -> (usize, usize, usize) {
        let operation = |(start, end, action, outcome): &(u64, u64, Action, Outcome)| Operation {
            client: 0,
            start: Duration::from_secs(*start),
            end: Duration::from_secs(*end),
            action: *action,
            outcome: *outcome,
        };
        let operations: Vec<Operation> = operations.iter().map(operation).collect();
        let Wrong { stale, resurrected, lost } = judge(&operations);
        (stale, resurrected, lost)
    }

    #[test]
    fn each_kind_is_counted_as_what_it_is() {
        let one = (0, 1, Write(1), Done);
        let stale = [one, (2, 3, Write(2), Done), (4, 5, Read, Saw(Some(1)))];
        assert_eq!(judged(&stale), (1, 0, 0));
        let resurrected = [one, (2, 3, Delete, Done), (4, 5, Read, Saw(Some(1)))];
        assert_eq!(judged(&resurrected), (0, 1, 0));
        assert_eq!(judged(&[one, (4, 5, Read, Saw(None))]), (0, 0, 1));
        let deleted_before =
            [(0, 1, Delete, Done), (2, 3, Write(1), Done), (4, 5, Read, Saw(None))];
        assert_eq!(judged(&deleted_before), (0, 0, 1));
    }

    #[test]
    fn what_may_be_is_not_counted() {
        let one = (0, 1, Write(1), Done);
        for fine in [
            &[one, (2, 3, Read, Saw(Some(1)))][..],
            // At the same time.
            &[one, (2, 5, Write(2), Done), (4, 6, Read, Saw(Some(1)))],
            &[one, (2, 5, Delete, Done), (4, 6, Read, Saw(None))],
            // Uncertain ones happen late or never.
            &[one, (2, 3, Delete, Maybe), (4, 5, Read, Saw(None))],
            &[one, (2, 3, Delete, Maybe), (4, 5, Read, Saw(Some(1)))],
            &[(0, 1, Write(1), Maybe), (2, 3, Write(2), Done), (4, 5, Read, Saw(Some(1)))],
            &[(0, 1, Delete, Maybe), (2, 3, Write(1), Done), (4, 5, Read, Saw(None))],
        ] {
            assert_eq!(judged(fine), (0, 0, 0), "{fine:?}");
        }
    }
}
