//! How members forget a tombstone together.
//!
//! The member in charge asks every member of the roster, itself included, in two
//! rounds. Questions of the second round may come at any time later, whatever
//! becomes of who asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_core::membership::Moment;
use holdfast_core::node::Generation;
use holdfast_core::version::Version;

use crate::book::{Book, Place};
use crate::mutation::Mutation;
use crate::node::moment;
use crate::setup::OLD_TOMBSTONE;
use crate::upkeep::Upkeep;
use crate::world::{Action, State, World};

/// A tombstone that is being collected.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Collecting {
    /// Which version that is.
    pub version: Version,
    /// The roster with which this began.
    pub book: Arc<Book>,
    /// When it began.
    pub since: Moment,
    /// Who has agreed, and in which run.
    pub agreed: BTreeMap<Place, Generation>,
    /// Who was asked to forget it, once all have agreed.
    pub forgotten: Option<BTreeSet<Place>>,
}

impl World {
    /// What may happen next in a collection.
    pub(crate) fn collect_actions(collecting: &Collecting, own: Place, actions: &mut Vec<Action>) {
        let members = collecting.book.members();
        match &collecting.forgotten {
            None => {
                let unasked = members.filter(|place| !collecting.agreed.contains_key(place));
                actions.extend(unasked.map(|place| Action::Agree(own, place)));
                actions.push(Action::AllAgreed(own));
                actions.push(Action::Abandon(own));
            }
            Some(forgotten) => {
                let unasked = members.filter(|place| !forgotten.contains(place));
                actions.extend(unasked.map(|place| Action::Collect(own, place)));
            }
        }
    }

    /// Whether the plan to collect this version is followed: only the tombstone
    /// that was there from the start is old enough.
    pub(crate) fn begin_to_collect(&self, state: &mut State, own: Place, version: Version) {
        if version != OLD_TOMBSTONE {
            return;
        }
        let mut collecting = Collecting {
            version,
            book: Arc::clone(&state.nodes[own].book),
            since: moment(state.tick),
            agreed: BTreeMap::new(),
            forgotten: None,
        };
        if self.broken(Mutation::CollectUnasked) {
            collecting.forgotten = Some(BTreeSet::new());
        }
        state.upkeep[own] = Upkeep::Collecting(collecting);
    }

    /// A member is asked whether it agrees.
    pub(crate) fn agree(&self, state: &mut State, own: Place, other: Place) -> bool {
        let now = moment(state.tick);
        let Upkeep::Collecting(collecting) = &mut state.upkeep[own] else { return false };
        let node = Arc::make_mut(&mut state.nodes[other]);
        if node.book != collecting.book
            || !node.agree_to_collect(&self.setup, collecting.version, now)
        {
            return false;
        }
        collecting.agreed.insert(other, node.generation);
        if self.broken(Mutation::CollectInOneRound) {
            node.collect(collecting.version);
        }
        true
    }

    /// Whoever asks sees that all have agreed.
    pub(crate) fn all_agreed(&self, state: &mut State, own: Place) -> bool {
        let now = moment(state.tick);
        let book = Arc::clone(&state.nodes[own].book);
        let Upkeep::Collecting(collecting) = &mut state.upkeep[own] else { return false };
        let all = collecting.book.members().all(|place| collecting.agreed.contains_key(&place));
        let in_time = now.saturating_sub(collecting.since) < self.setup.window();
        if !all || !in_time || book != collecting.book {
            return false;
        }
        collecting.forgotten = Some(BTreeSet::new());
        true
    }

    /// A member is asked to forget.
    pub(crate) fn collect(&self, state: &mut State, own: Place, other: Place) -> bool {
        let now = moment(state.tick);
        let Upkeep::Collecting(collecting) = &mut state.upkeep[own] else { return false };
        let Some(forgotten) = &mut collecting.forgotten else { return false };
        forgotten.insert(other);
        let node = Arc::make_mut(&mut state.nodes[other]);
        let agreed = collecting.agreed.get(&other);
        let may = node.book == collecting.book
            && agreed == Some(&node.generation)
            && (node.is_barred(collecting.version, now)
                || self.broken(Mutation::CollectWithoutBar));
        if may || self.broken(Mutation::CollectUnasked) {
            node.collect(collecting.version);
        }
        if forgotten.len() == collecting.book.members().count() {
            state.upkeep[own] = Upkeep::Nothing;
        }
        true
    }
}
