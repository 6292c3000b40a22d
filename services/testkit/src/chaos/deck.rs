//! Which kind of fault is next: by chance, and none is left out for long.

use std::collections::VecDeque;

use super::kind::Kind;
use crate::workload::Dice;

/// Deals every kind once before any comes again.
#[derive(Debug)]
pub(super) struct Deck {
    all: Vec<Kind>,
    left: VecDeque<Kind>,
}

impl Deck {
    pub(super) fn new(all: Vec<Kind>) -> Self {
        Self { all, left: VecDeque::new() }
    }

    pub(super) fn all(&self) -> &[Kind] {
        &self.all
    }

    pub(super) fn deal(&mut self, dice: &mut Dice) -> Kind {
        if self.left.is_empty() {
            let mut kinds = self.all.clone();
            while !kinds.is_empty() {
                let place = usize::try_from(dice.roll(kinds.len() as u64)).unwrap_or(0);
                self.left.push_back(kinds.swap_remove(place));
            }
        }
        self.left.pop_front().expect("there are kinds of faults")
    }

    /// It could not be used now, and comes next.
    pub(super) fn put_back(&mut self, kind: Kind) {
        self.left.push_front(kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_once_before_any_comes_again() {
        let (mut deck, mut dice) = (Deck::new(Kind::ALL.to_vec()), Dice::new(7));
        let mut orders = Vec::new();
        for _ in 0..3 {
            let order: Vec<Kind> = Kind::ALL.iter().map(|_| deck.deal(&mut dice)).collect();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, Kind::ALL);
            orders.push(order);
        }
        assert_ne!(orders[0], orders[1]);
        let first = deck.deal(&mut dice);
        deck.put_back(first);
        assert_eq!(deck.deal(&mut dice), first);
    }
}
