//! What was asked of a store and what it answered, and so what may be found.

use bytes::Bytes;
use holdfast_core::object::Kind;

use crate::common::index::Numbers;

/// Payloads above this length have files of their own.
pub const INLINE_LIMIT_BYTES: usize = 2048;

/// A write.
#[derive(Debug, Clone)]
pub enum Change {
    Put { clock: u64, payload: Bytes },
    Delete { clock: u64 },
    Forget { clock: u64 },
}

/// The newest version of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub clock: u64,
    pub kind: Kind,
    pub payload: Bytes,
}

impl Found {
    pub fn is_large(&self) -> bool {
        self.payload.len() > INLINE_LIMIT_BYTES
    }
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// None came, or its client had gone.
    None,
    /// It was promised; the mark of its number on the disk says when.
    Promised,
    /// It was refused, after so many operations of the disk.
    Refused(usize),
}

/// A write that was asked for.
#[derive(Debug, Clone)]
struct Write {
    key: usize,
    change: Change,
    /// Operations of the disk before it.
    begun: usize,
    answer: Answer,
}

/// All writes, in the order in which they were asked for.
#[derive(Debug, Clone, Default)]
pub struct Model {
    writes: Vec<Write>,
    promised: Vec<Option<Found>>,
}

/// For each key, all that it may be.
pub type Expected = Vec<Vec<Option<Found>>>;

/// Bytes that no other write has.
pub fn payload(seed: u64, size_bytes: usize) -> Bytes {
    let mut numbers = Numbers(seed << 20);
    let words = std::iter::repeat_with(|| numbers.below(u64::MAX).to_le_bytes());
    words.take(size_bytes.div_ceil(8)).flatten().take(size_bytes).collect()
}

impl Change {
    pub fn apply(&self, found: Option<Found>) -> Option<Found> {
        let (clock, kind, payload) = match self {
            Self::Forget { clock } => return found.filter(|found| found.clock != *clock),
            Self::Put { clock, payload } => (*clock, Kind::Object, payload.clone()),
            Self::Delete { clock } => (*clock, Kind::Tombstone, Bytes::new()),
        };
        match found {
            Some(newer) if newer.clock >= clock => Some(newer),
            _ => Some(Found { clock, kind, payload }),
        }
    }
}

impl Model {
    pub fn key_count(&self) -> usize {
        self.promised.len()
    }

    /// A write is asked for; gives its number.
    pub fn begin(&mut self, key: usize, change: Change, operations: usize) -> usize {
        let key_count = self.promised.len().max(key + 1);
        self.promised.resize(key_count, None);
        self.writes.push(Write { key, change, begun: operations, answer: Answer::None });
        self.writes.len() - 1
    }

    /// A write was promised; says whether it changes anything.
    pub fn promise(&mut self, number: usize) -> bool {
        let write = &mut self.writes[number];
        write.answer = Answer::Promised;
        let found = &mut self.promised[write.key];
        let after = write.change.apply(found.clone());
        std::mem::replace(found, after.clone()) != after
    }

    pub fn refuse(&mut self, number: usize, operations: usize) {
        self.writes[number].answer = Answer::Refused(operations);
    }

    /// What is promised of a key.
    pub fn promised(&self, key: usize) -> Option<&Found> {
        self.promised.get(key)?.as_ref()
    }

    /// What may be found after a cut, given which writes were promised before.
    pub fn expected(&self, at: usize, promised: &[usize]) -> Expected {
        let mut expected = vec![vec![None]; self.key_count()];
        let begun = self.writes.iter().enumerate().filter(|(_, write)| write.begun < at);
        for (number, write) in begun {
            let states = &mut expected[write.key];
            let after = states.iter().map(|state| write.change.apply(state.clone()));
            let after: Vec<_> = after.collect();
            match write.answer {
                Answer::Refused(when) if when <= at => {}
                _ if promised.contains(&number) => *states = after,
                _ => states.extend(after),
            }
        }
        expected
    }
}
