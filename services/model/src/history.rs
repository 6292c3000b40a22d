//! What clients asked and were told about one key, and whether a single
//! register could have said the same.
//!
//! An operation that was not answered, or whose outcome is unknown, may have
//! happened at any time since it began, or not at all.

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ask {
    /// PUT of this content.
    Put(u8),
    /// DELETE.
    Delete,
    /// GET.
    Read,
    /// PUT of this content if there is none.
    Create(u8),
    /// PUT of the second content if the first is there.
    Replace(u8, u8),
}

/// What a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Told {
    /// It is done.
    Done,
    /// This is the content, or there is none.
    Content(Option<u8>),
    /// The condition did not hold.
    Failed,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Op {
    /// What was asked for.
    pub ask: Ask,
    /// The operations that had been answered when this one began, one bit each.
    pub after: u32,
    /// The answer, once there is one.
    pub told: Option<Told>,
}

/// Every operation on one key, each at a place that its client owns, so that
/// equal histories are equal however they came about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct History {
    ops: Vec<Option<Op>>,
    initial: Option<u8>,
}

impl History {
    /// No operations yet, on a key that has this content; `places` is how many
    /// operations there may be.
    #[must_use]
    pub fn new(initial: Option<u8>, places: usize) -> Self {
        Self { ops: vec![None; places], initial }
    }

    /// An operation begins.
    pub fn begin(&mut self, place: usize, ask: Ask) {
        let after = self.answered();
        self.ops[place] = Some(Op { ask, after, told: None });
    }

    /// It is answered.
    pub fn answer(&mut self, place: usize, told: Told) {
        if let Some(op) = &mut self.ops[place] {
            op.told = Some(told);
        }
    }

    /// Everything that was asked so far.
    pub fn ops(&self) -> impl Iterator<Item = &Op> {
        self.ops.iter().flatten()
    }

    /// Whether one register could have given these answers, each at one moment
    /// between the question and the answer.
    #[must_use]
    pub fn is_linearizable(&self) -> bool {
        let wanted = self.answered();
        self.explains(0, self.initial, wanted)
    }

    /// The same, with one more read at this very moment that was told `content`.
    #[must_use]
    pub fn admits_read(&self, content: Option<u8>) -> bool {
        let mut longer = self.clone();
        longer.ops.push(None);
        let place = longer.ops.len() - 1;
        longer.begin(place, Ask::Read);
        longer.answer(place, Told::Content(content));
        longer.is_linearizable()
    }

    fn answered(&self) -> u32 {
        let bit = |(place, op): (usize, &Option<Op>)| {
            u32::from(op.as_ref().is_some_and(|op| op.told.is_some())) << place
        };
        self.ops.iter().enumerate().map(bit).sum()
    }

    /// Whether the operations outside `done` can follow in some order, where
    /// `content` is what is there after those in `done`.
    fn explains(&self, done: u32, content: Option<u8>, wanted: u32) -> bool {
        if done & wanted == wanted {
            return true;
        }
        self.ops.iter().enumerate().any(|(place, op)| {
            let Some(op) = op else { return false };
            let ready = done & (1 << place) == 0 && op.after & !done == 0;
            ready
                && step(op, content)
                    .is_some_and(|content| self.explains(done | (1 << place), content, wanted))
        })
    }
}

/// What is there after this operation, or `None` if it cannot have been told
/// what it was told.
fn step(op: &Op, content: Option<u8>) -> Option<Option<u8>> {
    let conditional = |holds: bool, new: u8| match op.told {
        Some(Told::Done) => holds.then_some(Some(new)),
        Some(Told::Failed) => (!holds).then_some(content),
        Some(Told::Content(_)) => None,
        None => Some(if holds { Some(new) } else { content }),
    };
    match op.ask {
        Ask::Put(new) => Some(Some(new)),
        Ask::Delete => Some(None),
        Ask::Read => match op.told {
            Some(Told::Content(told)) => (told == content).then_some(content),
            _ => Some(content),
        },
        Ask::Create(new) => conditional(content.is_none(), new),
        Ask::Replace(old, new) => conditional(content == Some(old), new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Operations one after the other.
    fn sequence(initial: Option<u8>, ops: &[(Ask, Option<Told>)]) -> History {
        let mut history = History::new(initial, ops.len());
        for (place, (ask, told)) in ops.iter().enumerate() {
            history.begin(place, *ask);
            if let Some(told) = told {
                history.answer(place, *told);
            }
        }
        history
    }

    #[test]
    fn a_register_is_linearizable() {
        let good = [
            (Ask::Put(1), Some(Told::Done)),
            (Ask::Read, Some(Told::Content(Some(1)))),
            (Ask::Create(2), Some(Told::Failed)),
            (Ask::Replace(1, 3), Some(Told::Done)),
            (Ask::Delete, Some(Told::Done)),
            (Ask::Create(4), Some(Told::Done)),
            (Ask::Read, Some(Told::Content(Some(4)))),
        ];
        assert!(sequence(None, &good).is_linearizable());
    }

    #[test]
    fn what_was_acknowledged_must_be_seen() {
        let lost = [(Ask::Put(1), Some(Told::Done)), (Ask::Read, Some(Told::Content(None)))];
        assert!(!sequence(None, &lost).is_linearizable());
        let twice = [(Ask::Create(1), Some(Told::Done)), (Ask::Create(2), Some(Told::Done))];
        assert!(!sequence(None, &twice).is_linearizable());
        assert!(!sequence(Some(1), &[(Ask::Read, Some(Told::Content(None)))]).is_linearizable());
    }

    #[test]
    fn what_was_not_answered_may_happen_once_or_never() {
        let maybe = (Ask::Put(1), None);
        let read = |content| (Ask::Read, Some(Told::Content(content)));
        assert!(sequence(None, &[maybe, read(None), read(Some(1))]).is_linearizable());
        assert!(sequence(None, &[maybe, read(None), read(None)]).is_linearizable());
        assert!(!sequence(None, &[maybe, read(Some(1)), read(None)]).is_linearizable());
    }

    #[test]
    fn operations_at_the_same_time_may_come_in_any_order() {
        let mut history = History::new(None, 2);
        history.begin(0, Ask::Put(1));
        history.begin(1, Ask::Read);
        history.answer(0, Told::Done);
        history.answer(1, Told::Content(None));
        assert!(history.is_linearizable());
        assert!(history.admits_read(Some(1)));
        assert!(!history.admits_read(None));
    }
}
