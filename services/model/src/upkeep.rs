//! What a member does about its copy: it looks who else has one, has others
//! take it, forgets it when it is superseded, and lets go of it when it is not
//! where it belongs.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_core::electorate::Phase as ElectoratePhase;
use holdfast_core::membership::{Moment, View};
use holdfast_core::repair::{self, Plan};
use holdfast_core::replica::NoPin;
use holdfast_core::roster::MemberState;
use holdfast_core::version::Version;

use crate::book::{Place, id, place};
use crate::client::Locating;
use crate::collecting::Collecting;
use crate::coordinate::places;
use crate::mutation::Mutation;
use crate::node::{Held, Packet, key, moment};
use crate::world::{Action, State, World};

/// What a member is doing about its copy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Upkeep {
    /// Nothing.
    Nothing,
    /// It asks who has what.
    Looking {
        /// The round.
        locating: Locating,
        /// Whether this pass began after what is going on counted.
        counts: bool,
    },
    /// It is about to forget a version that is superseded.
    Forgetting {
        /// Which version that is.
        version: Version,
        /// When it saw that.
        since: Moment,
    },
    /// It lets go of its copy.
    LettingGo {
        /// Which version that is.
        version: Version,
        /// Whose copies it relies on.
        rely_on: BTreeSet<Place>,
        /// Since when.
        since: Moment,
        /// Who has pinned in this round.
        pinned: BTreeSet<Place>,
        /// When the second round began.
        asked_again: Option<Moment>,
    },
    /// It has all members forget a tombstone.
    Collecting(Collecting),
}

impl Upkeep {
    /// Whether what was asked for is under way whatever becomes of who asked.
    pub(crate) fn outlasts_a_restart(&self) -> bool {
        matches!(self, Self::Collecting(Collecting { forgotten: Some(_), .. }))
    }
}

impl World {
    /// What this member may do next about its copy.
    pub(crate) fn upkeep_actions(&self, state: &State, own: Place, actions: &mut Vec<Action>) {
        match &state.upkeep[own] {
            Upkeep::Nothing if self.setup.looks_at_once => {
                actions.push(Action::LookAtOnce(own, None));
                let others = state.nodes[own].book.members().filter(|place| *place != own);
                actions.extend(others.map(|other| Action::LookAtOnce(own, Some(other))));
            }
            Upkeep::Nothing => actions.push(Action::Look(own)),
            Upkeep::Looking { locating, .. } => {
                let asked = state.nodes[own].book.members();
                actions.extend(
                    asked
                        .filter(|place| !locating.answers.contains_key(place))
                        .map(|place| Action::AnswerMember(own, place)),
                );
                actions.push(Action::Plan(own));
                actions.push(Action::Abandon(own));
            }
            Upkeep::Forgetting { .. } => actions.push(Action::Forget(own)),
            Upkeep::Collecting(collecting) => Self::collect_actions(collecting, own, actions),
            Upkeep::LettingGo { rely_on, pinned, .. } => {
                let unasked = rely_on.difference(pinned);
                actions.extend(unasked.map(|place| Action::Pin(own, *place)));
                actions.push(Action::AskAgain(own));
                actions.push(Action::Drop(own));
                actions.push(Action::Abandon(own));
            }
        }
    }

    pub(crate) fn look(&self, state: &mut State, own: Place) -> bool {
        let counts = self.pass_would_count(state, own);
        if state.nodes[own].held.is_none() {
            // A pass over nothing.
            state.node(own).passed |= counts;
            return counts;
        }
        let book = Arc::clone(&state.nodes[own].book);
        let locating = self.locate(state, &book, None);
        state.upkeep[own] = Upkeep::Looking { locating, counts };
        true
    }

    pub(crate) fn look_at_once(
        &self,
        state: &mut State,
        own: Place,
        unheard: Option<Place>,
    ) -> bool {
        if !self.look(state, own) {
            return false;
        }
        // Whom it meets only now, it asks with the next look.
        let Upkeep::Looking { locating, .. } = &state.upkeep[own] else { return true };
        let asked: Vec<Place> = locating.stamps.keys().copied().collect();
        for from in asked.into_iter().filter(|from| Some(*from) != unheard) {
            self.answer_member(state, own, from);
        }
        if !self.plan(state, own) {
            state.upkeep[own] = Upkeep::Nothing;
        }
        true
    }

    pub(crate) fn answer_member(&self, state: &mut State, own: Place, from: Place) -> bool {
        let now = moment(state.tick);
        let Upkeep::Looking { locating, .. } = &mut state.upkeep[own] else { return false };
        let stamp = locating.stamps.get(&from).copied();
        let node = Arc::clone(&state.nodes[from]);
        if !node.is_in_time(&self.setup, stamp, now) {
            return false;
        }
        locating.answers.insert(from, node.answer(&self.setup, false, now));
        self.persist(state, own, &node.book);
        true
    }

    /// Where this member thinks that copies belong.
    fn homes(&self, view: &View, own: Place) -> Vec<holdfast_core::node::NodeId> {
        if let Some(homes) = self.setup.homes.get(own) {
            return homes.iter().copied().map(id).collect();
        }
        let candidates = repair::home_candidates(view, Moment::ZERO, Moment::ZERO);
        repair::homes(&key(), &candidates, &view.policy, view.electorate.as_deref(), |_| false)
    }

    pub(crate) fn plan(&self, state: &mut State, own: Place) -> bool {
        let Upkeep::Looking { locating, counts } = &state.upkeep[own] else { return false };
        let counts = *counts;
        let view = self.view(&state.nodes[own].book);
        let began = self.view(&locating.began);
        let located = locating.located(&began, &view, &[]);
        if !located.complete {
            return false;
        }
        let homes = self.homes(&view, own);
        let plan = repair::plan(id(own), &located, &homes, &view.policy);
        let lasting = match self.broken(Mutation::PassOnAnybody) {
            true => located.copies >= view.policy.write_quorum(),
            false => located.lasting >= view.policy.write_quorum(),
        };
        state.upkeep[own] = Upkeep::Nothing;
        state.node(own).passed |= counts && lasting;
        match plan {
            Plan::Rest | Plan::Wait => {}
            Plan::Collect { version } => self.begin_to_collect(state, own, version),
            Plan::Copy { .. } if located.may_be_missed() => {}
            Plan::Copy { stat, to, .. } => {
                let stamps = places(&located);
                for receiver in to.into_iter().map(place) {
                    state.packets.insert(Arc::new(Packet {
                        to: receiver,
                        stamp: stamps[&receiver],
                        held: Held::of(&stat),
                        write_back: true,
                        settled: located.is_accepted || !self.setup.promises(),
                        from: None,
                    }));
                }
            }
            Plan::Forget { version } => {
                let since = moment(state.tick);
                state.upkeep[own] = Upkeep::Forgetting { version, since };
            }
            Plan::LetGo { version, rely_on } => {
                let now = moment(state.tick);
                if state.node(own).pins.begin(&key(), now).is_ok() {
                    state.upkeep[own] = Upkeep::LettingGo {
                        version,
                        rely_on: rely_on.into_iter().map(place).collect(),
                        since: now,
                        pinned: BTreeSet::new(),
                        asked_again: None,
                    };
                }
            }
        }
        true
    }

    pub(crate) fn forget(&self, state: &mut State, own: Place) -> bool {
        let Upkeep::Forgetting { version, since } = state.upkeep[own] else { return false };
        let waited = moment(state.tick).saturating_sub(since) >= self.setup.window();
        if !waited && !self.broken(Mutation::ForgetAtOnce) {
            return false;
        }
        state.upkeep[own] = Upkeep::Nothing;
        Self::drop_exactly(state, own, version);
        true
    }

    fn drop_exactly(state: &mut State, own: Place, version: Version) {
        if state.nodes[own].held.is_some_and(|held| held.version == version) {
            state.node(own).held = None;
        }
    }

    pub(crate) fn pin(&self, state: &mut State, own: Place, other: Place) -> bool {
        let now = moment(state.tick);
        let asker = (id(own), state.nodes[own].generation);
        let Upkeep::LettingGo { version, pinned, .. } = &mut state.upkeep[own] else {
            return false;
        };
        let node = Arc::make_mut(&mut state.nodes[other]);
        let held = node.held.filter(|_| !node.damaged).map(|held| held.version);
        let kept = node.pins.clone();
        let given = node.pins.pin(&key(), *version, held, asker, now);
        if self.broken(Mutation::NoPins) {
            node.pins = kept;
        }
        let careless = self.broken(Mutation::PinWhileLettingGo) && given == Err(NoPin::LettingGo);
        if given.is_ok() || careless {
            pinned.insert(other);
        }
        true
    }

    pub(crate) fn ask_again(&self, state: &mut State, own: Place) -> bool {
        let now = moment(state.tick);
        let window = self.setup.window();
        let Upkeep::LettingGo { rely_on, since, pinned, asked_again, .. } = &mut state.upkeep[own]
        else {
            return false;
        };
        let waited = now.saturating_sub(*since) >= window;
        if asked_again.is_some() || pinned != rely_on || !waited {
            return false;
        }
        *asked_again = Some(now);
        pinned.clear();
        true
    }

    pub(crate) fn drop_copy(&self, state: &mut State, own: Place) -> bool {
        let now = moment(state.tick);
        let Upkeep::LettingGo { version, rely_on, pinned, asked_again, .. } = &state.upkeep[own]
        else {
            return false;
        };
        let at_once = self.broken(Mutation::DropAtOnce);
        let may =
            asked_again.is_some_and(|asked| state.nodes[own].pins.may_drop(&key(), asked, now));
        if rely_on != pinned || !(may || at_once) {
            return false;
        }
        let (version, key, view) = (*version, key(), self.view(&state.nodes[own].book));
        let counts = view.counting(&key);
        let relied_on = rely_on.iter().filter(|place| counts(id(**place))).count();
        if relied_on < view.policy.write_quorum() && !self.broken(Mutation::RelyOnAnybody) {
            return false;
        }
        Self::drop_exactly(state, own, version);
        self.abandon(state, own)
    }

    pub(crate) fn abandon(&self, state: &mut State, own: Place) -> bool {
        state.node(own).pins.end(&key());
        state.upkeep[own] = Upkeep::Nothing;
        true
    }

    /// Whether a pass that this member begins now suffices for what is going on:
    /// what it looks for must count first.
    fn pass_would_count(&self, state: &State, own: Place) -> bool {
        let book = &state.nodes[own].book;
        let lost = self.setup.drains.is_some_and(|(drained, lost)| {
            lost && book.state(drained) == Some(MemberState::Draining)
                && self.drain_counts(state, drained)
        });
        let raised = self.setup.goal.is_some() && self.policy_counts(state, &book.policy);
        let phase = book.electorate.as_ref().map(|electorate| electorate.phase);
        lost || raised || phase == Some(ElectoratePhase::Settling)
    }
}
