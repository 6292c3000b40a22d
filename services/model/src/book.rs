//! Rosters, small enough to be part of a state.
//!
//! A [`Book`] is what core's roster says in a model: states and the policy,
//! since generations, addresses, weights and zones stay as they are. It is
//! merged by [`Roster::merge`] and judged through core's [`View`].

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use holdfast_core::electorate::{Electorate, Phase};
use holdfast_core::membership::{Hearing, Membership, View};
use holdfast_core::node::{Address, Generation, NodeId};
use holdfast_core::placement::Candidate;
use holdfast_core::policy::Policy;
use holdfast_core::roster::{Entry, MemberState, Roster};

/// The members that a model may have, by their place in it.
pub type Place = usize;

/// Where a member is in its life, and whether it drains because it was lost.
pub type Life = (MemberState, bool);

/// A roster without what does not change in a model. `None` is a member that
/// this roster does not know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Book {
    /// How many copies there are.
    pub policy: Policy,
    /// Who answers for the key.
    pub electorate: Option<Electorate>,
    /// The members.
    pub lives: Vec<Option<Life>>,
}

/// The id of the member at this place.
#[must_use]
pub fn id(place: Place) -> NodeId {
    NodeId::from_bits(1 + place as u128)
}

/// The place of the member with this id.
#[must_use]
pub fn place(id: NodeId) -> Place {
    usize::try_from(id.bits() - 1).expect("ids are made by `id`")
}

/// The address of the member at this place.
#[must_use]
pub fn address(place: Place) -> Address {
    format!("ds-{place}:80").parse().expect("a good address")
}

impl Book {
    /// A roster in which all of these members are active.
    #[must_use]
    pub fn active(policy: Policy, members: usize, places: usize) -> Self {
        let life = |place| (place < members).then_some((MemberState::Active, false));
        Self { policy, electorate: None, lives: (0..places).map(life).collect() }
    }

    /// The electorate of all its members, in this phase.
    #[must_use]
    pub fn convene(&self, phase: Phase) -> Electorate {
        let voter = |place| Candidate { id: id(place), weight: 1, zone: None };
        Electorate {
            phase,
            voters: 2 * self.policy.write_quorum - 1,
            members: self.members().map(voter).collect(),
        }
    }

    /// Where this member is in its life.
    #[must_use]
    pub fn state(&self, place: Place) -> Option<MemberState> {
        self.lives[place].map(|(state, _)| state)
    }

    /// The members that count in a locate.
    pub fn members(&self) -> impl Iterator<Item = Place> {
        let counts = |life: &Option<Life>| matches!(life, Some((state, _)) if *state != MemberState::Retired);
        self.lives.iter().enumerate().filter(move |(_, life)| counts(life)).map(|(at, _)| at)
    }

    fn to_roster(&self) -> Roster {
        let cluster = NodeId::from_bits(u128::MAX);
        let mut roster = Roster::of_policy(cluster, self.policy, self.electorate.clone());
        for (place, life) in self.lives.iter().enumerate() {
            let Some((state, lost)) = *life else { continue };
            roster.apply_entry(&Entry {
                id: id(place),
                epoch: 0,
                state,
                lost,
                generation: Generation(0),
                address: address(place),
                weight: 1,
                zone: None,
            });
        }
        roster
    }

    fn of_roster(roster: &Roster, places: usize) -> Self {
        let life = |at| roster.get(id(at)).map(|entry| (entry.state, entry.lost));
        Self {
            policy: roster.policy,
            electorate: roster.electorate.clone(),
            lives: (0..places).map(life).collect(),
        }
    }

    /// Merges another one into this one, as core does.
    pub fn merge(&mut self, other: &Self) {
        if self == other {
            return;
        }
        let mut roster = self.to_roster();
        roster.merge(&other.to_roster()).expect("one cluster");
        *self = Self::of_roster(&roster, self.lives.len());
    }
}

/// What follows from each roster, made once.
#[derive(Debug, Default)]
pub struct Views(RwLock<BTreeMap<Book, Arc<View>>>);

impl Views {
    /// The view of somebody who has this roster and hears everybody: who does
    /// not answer is decided by the network, not by the view.
    pub fn of(&self, book: &Book) -> Arc<View> {
        if let Some(view) = self.0.read().expect("no panic").get(book) {
            return Arc::clone(view);
        }
        let mut view = Membership::new(Duration::from_secs(1), book.to_roster(), Duration::ZERO)
            .view(Duration::ZERO);
        for member in &mut view.members {
            member.hearing = Hearing::Heard;
            member.free_bytes = 1 << 30;
        }
        let view = Arc::new(view);
        self.0.write().expect("no panic").insert(book.clone(), Arc::clone(&view));
        view
    }
}
