//! Changes of the roster: joining, draining, retiring, and another number of
//! copies.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_core::admission::{Situation, Step, choose_step};
use holdfast_core::electorate::{self, ElectorateStep, Phase, Situation as Election};
use holdfast_core::membership::{Hearing, View};
use holdfast_core::policy::{Policy, PolicyStep};
use holdfast_core::repair;
use holdfast_core::roster::MemberState;

use crate::book::{Book, Place, id, place};
use crate::mutation::Mutation;
use crate::node::{Node, moment};
use crate::world::{Action, State, World};

impl World {
    /// A member meets another roster, merges it and persists the result before
    /// anything else.
    pub(crate) fn persist(&self, state: &mut State, own: Place, other: &Arc<Book>) {
        if state.nodes[own].book == *other {
            return;
        }
        let now = moment(state.tick);
        let node = state.node(own);
        let before = Arc::clone(&node.book);
        Arc::make_mut(&mut node.book).merge(other);
        if self.broken(Mutation::ReviveRetired) {
            self.revive(&mut node.book, &before);
        }
        let terms = |book: &Book| (book.policy, book.electorate.clone());
        if terms(&node.book) != terms(&before) {
            node.passed = false;
        }
        let refuses = node.book.state(own) >= Some(MemberState::Draining);
        if refuses && node.refusing_since.is_none() {
            node.refusing_since = Some(now);
        }
    }

    /// The fault of a merge that lets somebody come back.
    pub(crate) fn revive(&self, book: &mut Arc<Book>, before: &Book) {
        for place in 0..before.lives.len() {
            let back = before.state(place) == Some(MemberState::Active)
                && book.state(place) == Some(MemberState::Retired);
            if back {
                Arc::make_mut(book).lives[place] = before.lives[place];
            }
        }
    }

    fn change(&self, state: &mut State, own: Place, change: impl FnOnce(&mut Book)) -> bool {
        let mut book = Book::clone(&state.nodes[own].book);
        change(&mut book);
        self.persist(state, own, &Arc::new(book));
        true
    }

    /// What may happen next to the roster.
    pub(crate) fn roster_actions(&self, state: &State, actions: &mut Vec<Action>) {
        if !self.setup.changes_roster() {
            return;
        }
        let nodes = state.nodes.len();
        for (to, from) in (0..nodes).flat_map(|to| (0..nodes).map(move |from| (to, from))) {
            if state.nodes[to].book != state.nodes[from].book {
                actions.push(Action::Gossip(to, from));
            }
        }
        if self.setup.joins {
            let newcomer = self.setup.members;
            match state.nodes[newcomer].book.state(newcomer) {
                None => actions.push(Action::Enter),
                Some(MemberState::Joining) => {
                    for to in
                        (0..newcomer).filter(|to| !state.nodes[newcomer].told.contains(&id(*to)))
                    {
                        actions.push(Action::Tell(to, true));
                    }
                    actions.push(Action::Activate);
                }
                Some(_) => {}
            }
        }
        if self.setup.drains.is_some() {
            actions.push(Action::Drain);
            actions.push(Action::Retire);
        }
        if self.setup.goal.is_some() {
            actions.push(Action::Step);
        }
        if self.setup.electorate.1.is_some() {
            for own in 0..nodes {
                actions.push(Action::Counted(own));
                actions.extend([true, false].map(|unfit| Action::Elect(own, unfit)));
            }
        }
    }

    pub(crate) fn enter(&self, state: &mut State) -> bool {
        let newcomer = self.setup.members;
        let entered = if self.broken(Mutation::NoAdmission) {
            MemberState::Active
        } else {
            MemberState::Joining
        };
        self.change(state, newcomer, |book| book.lives[newcomer] = Some((entered, false)))
    }

    pub(crate) fn tell(&self, state: &mut State, to: Place, heard: bool) -> bool {
        let newcomer = self.setup.members;
        let book = Arc::clone(&state.nodes[newcomer].book);
        self.persist(state, to, &book);
        if heard {
            state.node(newcomer).told.insert(id(to));
        }
        true
    }

    /// Core decides whether the join counts. Who has not been told is taken for
    /// silent: the newcomer may always think so.
    pub(crate) fn activate(&self, state: &mut State) -> bool {
        let newcomer = self.setup.members;
        let node = &state.nodes[newcomer];
        let mut view = View::clone(&self.view(&node.book));
        for member in &mut view.members {
            if !node.told.contains(&member.id) && place(member.id) != newcomer {
                member.hearing = Hearing::Silent;
            }
        }
        let situation = Situation {
            own: id(newcomer),
            view: &view,
            own_state: node.book.state(newcomer),
            newcomers: &[],
            founded_elsewhere: false,
            warmed_up: true,
            initial_members: 1,
            write_quorum: view.policy.write_quorum(),
            told: &node.told,
            unable: &BTreeSet::new(),
        };
        choose_step(&situation) == Step::Activate
            && self.change(state, newcomer, |book| {
                book.lives[newcomer] = Some((MemberState::Active, false));
            })
    }

    /// Another member, or the drained one itself if it is not lost, writes the
    /// drain into its roster.
    pub(crate) fn drain(&self, state: &mut State) -> bool {
        let Some((drained, lost)) = self.setup.drains else { return false };
        let first = usize::from(drained == 0);
        self.change(state, first, |book| {
            if book.state(drained) == Some(MemberState::Active) {
                book.lives[drained] = Some((MemberState::Draining, lost));
            }
        })
    }

    /// Whether enough members have persisted that this one drains.
    pub(crate) fn drain_counts(&self, state: &State, drained: Place) -> bool {
        let knows =
            |place: &Place| state.nodes[*place].book.state(drained) >= Some(MemberState::Draining);
        let book = Self::agreed(state);
        let members: Vec<Place> = book.members().collect();
        let known = members.iter().filter(|place| knows(place)).count();
        let needed = if self.broken(Mutation::DrainUnnoticed) {
            1
        } else {
            book.policy.notice_quorum(members.len())
        };
        known >= needed
    }

    /// A drained member that is empty, and has refused for a window, retires; a
    /// lost one is retired when enough others have repaired.
    pub(crate) fn retire(&self, state: &mut State) -> bool {
        let Some((drained, lost)) = self.setup.drains else { return false };
        if !self.drain_counts(state, drained) {
            return false;
        }
        let retired = |book: &mut Book| {
            book.lives[drained] = Some((MemberState::Retired, lost));
        };
        if lost {
            let first = usize::from(drained == 0);
            let view = self.view(&state.nodes[first].book);
            let all = self.broken(Mutation::RetireWithoutPass);
            let passed = |id| all || state.nodes[place(id)].passed;
            return repair::may_retire(&view, id(drained), passed)
                && self.change(state, first, retired);
        }
        let node = &state.nodes[drained];
        let now = moment(state.tick);
        let waited = node.refusing_since.is_some_and(|since| {
            self.setup.retires_at_once() || now.saturating_sub(since) >= self.setup.window()
        });
        let ready = node.book.state(drained) == Some(MemberState::Draining)
            && node.held.is_none()
            && waited;
        ready && self.change(state, drained, retired)
    }

    /// Whether enough members have persisted this policy: as many as the
    /// stricter one of it and its predecessor wants.
    pub(crate) fn policy_counts(&self, state: &State, policy: &Policy) -> bool {
        let members = state.nodes.len();
        let by_new = policy.notice_quorum(members);
        let needed = if self.broken(Mutation::NoticeByNewPolicy) {
            by_new
        } else {
            by_new.max(state.policy_before.notice_quorum(members))
        };
        let known = state.nodes.iter().filter(|node| node.book.policy.epoch >= policy.epoch);
        known.count() >= needed
    }

    pub(crate) fn step(&self, state: &mut State) -> bool {
        let Some(goal) = self.setup.goal else { return false };
        let policy = state.nodes[0].book.policy;
        if !self.policy_counts(state, &policy) {
            return false;
        }
        let repaired = self.broken(Mutation::ReadQuorumBeforePass)
            || state.nodes.iter().all(|node| node.passed);
        let Some(PolicyStep::Take(mut next)) = policy.next(goal, repaired) else { return false };
        if self.broken(Mutation::WriteQuorumDownFirst) && policy.write_quorum > goal.write_quorum()
        {
            next = Policy { read_quorum: policy.read_quorum, ..next };
            next.write_quorum = goal.write_quorum();
        }
        state.policy_before = policy;
        self.change(state, 0, |book| book.policy = next)
    }

    /// A member learns that the electorate as it knows it counts.
    pub(crate) fn counted(&self, state: &mut State, own: Place) -> bool {
        let book = &state.nodes[own].book;
        let same = |node: &&Arc<Node>| {
            (&node.book.policy, &node.book.electorate) >= (&book.policy, &book.electorate)
        };
        let falls = book.electorate.as_ref().is_some_and(|all| all.phase == Phase::Falling);
        let needed = match falls && self.broken(Mutation::FallUnnoticed) {
            true => 1,
            false => book.policy.notice_quorum(state.nodes.len()),
        };
        let counts = state.nodes.iter().filter(same).count() >= needed;
        let is_known = state.counted.as_ref().is_some_and(|(known, _)| known == book);
        if is_known || !counts {
            return false;
        }
        state.counted = Some((Arc::clone(book), moment(state.tick)));
        true
    }

    /// A member that knows that the electorate counts takes the next step, as core
    /// says. Whether somebody must not vote any more is left open.
    pub(crate) fn elect(&self, state: &mut State, own: Place, unfit: bool) -> bool {
        let book = Arc::clone(&state.nodes[own].book);
        let Some((_, since)) = state.counted.as_ref().filter(|(known, _)| *known == book) else {
            return false;
        };
        let (goal, view) = (self.setup.electorate.1.flatten(), self.view(&book));
        let phase = book.electorate.as_ref().map(|electorate| electorate.phase);
        let at_once = match phase {
            Some(Phase::Rising) => self.broken(Mutation::RiseAtOnce),
            Some(Phase::Falling) => self.broken(Mutation::FallAtOnce),
            _ => false,
        };
        let waited = moment(state.tick).saturating_sub(*since) >= self.setup.phase_lasts();
        let situation = Election {
            view: &view,
            wanted: None,
            repaired: self.broken(Mutation::ReadVotersAtOnce)
                || state.nodes.iter().all(|node| node.passed),
            has_lasted: at_once || waited,
            is_unfit: &|_| unfit,
        };
        let next = match phase {
            // What follows has been seen, or is not of interest.
            _ if phase == goal => return false,
            // Core's other conditions are about members that models do not have.
            None if book.policy.epoch > self.setup.policy.epoch => return false,
            None => Some(book.convene(Phase::Rising)),
            Some(_) => match electorate::next(&situation) {
                ElectorateStep::Take(next) => next,
                ElectorateStep::Rest => return false,
            },
        };
        self.change(state, own, |book| {
            book.policy.epoch += 1;
            book.electorate = next;
        })
    }

    /// Whether what this model is about has happened.
    pub(crate) fn is_at_its_goal(&self, state: &State) -> bool {
        let book = Self::agreed(state);
        let drained = self
            .setup
            .drains
            .is_none_or(|(place, _)| book.state(place) == Some(MemberState::Retired));
        let joined =
            !self.setup.joins || book.state(self.setup.members) == Some(MemberState::Active);
        let settled = self.setup.goal.is_none_or(|goal| book.policy.is_settled_at(goal));
        let asks: usize = self.setup.clients.iter().map(Vec::len).sum();
        let answered = state.history.ops().filter(|op| op.told.is_some()).count() == asks;
        let let_go = self.setup.homes.is_empty()
            || state
                .nodes
                .iter()
                .zip(0..)
                .any(|(node, at)| node.held.is_none() && self.setup.initial.contains(&at));
        let collected = self.setup.tombstones.is_empty()
            || state.nodes.iter().all(|node| node.collected.is_some());
        let phase = book.electorate.as_ref().map(|electorate| electorate.phase);
        let elected = self.setup.electorate.1.is_none_or(|goal| phase == goal);
        drained && joined && settled && elected && answered && let_go && collected
    }
}
