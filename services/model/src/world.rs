//! The whole cluster as one state machine that stateright explores.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_core::electorate::{Electorate, Phase as ElectoratePhase};
use holdfast_core::membership::{Moment, View};
use holdfast_core::policy::Policy;
use holdfast_core::version::Version;
use stateright::{Model, Property};

use crate::book::{Book, Place, Views, id};
use crate::client::{Client, Phase};
use crate::history::{Ask, History};
use crate::mutation::Mutation;
use crate::node::{Held, Node, Packet, key, moment};
use crate::setup::{OLD_TOMBSTONE, Setup};
use crate::symmetry;
use crate::upkeep::Upkeep;

/// Everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// Ticks that have passed. Clocks of all members run at one rate, and each
    /// judges only what it said itself, so one clock stands for all.
    pub tick: u64,
    /// The members.
    pub nodes: Vec<Arc<Node>>,
    /// What each member is doing about its copy.
    pub upkeep: Vec<Upkeep>,
    /// The clients.
    pub clients: Vec<Arc<Client>>,
    /// What is under way: it may arrive at any time from now on, or never.
    pub packets: BTreeSet<Arc<Packet>>,
    /// What clients were told.
    pub history: History,
    /// The newest version that anybody was told of.
    pub told: Option<Version>,
    /// Restarts that may still come.
    pub restarts: u8,
    /// The policy before the one that is being brought in.
    pub policy_before: Policy,
    /// The roster of somebody who knows that its electorate counts, and since when.
    pub counted: Option<(Arc<Book>, Moment)>,
}

impl State {
    pub(crate) fn node(&mut self, place: Place) -> &mut Node {
        Arc::make_mut(&mut self.nodes[place])
    }

    pub(crate) fn client(&mut self, at: usize) -> &mut Client {
        Arc::make_mut(&mut self.clients[at])
    }
}

/// What may happen next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A part of the window goes by.
    Tick,
    /// A member loses what it had in memory.
    Restart(Place),
    /// A client begins its next operation.
    Begin(usize),
    /// A member answers a client, and is heard or not.
    Answer(usize, Place, bool),
    /// A client draws its conclusion from the answers that it has.
    Conclude(usize),
    /// A message arrives, and the reply to it, too, or not.
    Deliver(Arc<Packet>, bool),
    /// A client no longer waits: its operation has no known outcome.
    GiveUp(usize),
    /// A client makes its write again, finds out what became of it, or asks
    /// again with what it has learned.
    Again(usize),
    /// A client hears of a member's roster.
    Hear(usize, Place),
    /// A member begins to look after its copy.
    Look(Place),
    /// It looks and concludes at one moment, with this member unheard.
    LookAtOnce(Place, Option<Place>),
    /// A member answers the one that looks after its copy.
    AnswerMember(Place, Place),
    /// A member concludes what is to be done about its copy.
    Plan(Place),
    /// A member forgets a copy that is superseded.
    Forget(Place),
    /// A member is asked to keep its copy by one that lets go, and says so.
    Pin(Place, Place),
    /// A member that lets go asks once more.
    AskAgain(Place),
    /// A member drops its copy.
    Drop(Place),
    /// The second member agrees to forget the tombstone that the first one
    /// collects.
    Agree(Place, Place),
    /// A member sees that all have agreed.
    AllAgreed(Place),
    /// The second member is asked to forget the tombstone.
    Collect(Place, Place),
    /// A member gives up what it was doing about its copy.
    Abandon(Place),
    /// The first member hears of the second one's roster.
    Gossip(Place, Place),
    /// The newcomer enters itself.
    Enter,
    /// A member persists the newcomer's entry, and is heard or not.
    Tell(Place, bool),
    /// The newcomer's join counts.
    Activate,
    /// A member is to be drained.
    Drain,
    /// It retires.
    Retire,
    /// The next step towards another number of copies.
    Step,
    /// A member learns that the electorate counts as it is.
    Counted(Place),
    /// It takes the next step, for which somebody must not vote any more, or not.
    Elect(Place, bool),
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::Deliver(packet, heard) = self else { return write!(f, "{self:?}") };
        let Packet { to, stamp, held, write_back, settled, from } = &**packet;
        let from = from.map_or("a member".to_owned(), |at| format!("client {at}"));
        let what = if *write_back { "copy" } else { "write" };
        write!(
            f,
            "Deliver {what} of {} = {:?} from {from} to {to}, stamp {stamp}",
            held.version, held.content
        )?;
        if let Some(version) = held.written_as {
            write!(f, ", written as {version}")?;
        }
        f.write_str(if *settled { ", settled" } else { "" })?;
        f.write_str(if *heard { "" } else { ", reply lost" })
    }
}

/// A model: a setup, and what is worth computing once.
#[derive(Debug)]
pub struct World {
    /// What it consists of.
    pub setup: Setup,
    views: Views,
}

impl World {
    /// The model of this setup.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self { setup, views: Views::default() }
    }

    pub(crate) fn broken(&self, mutation: Mutation) -> bool {
        self.setup.mutation == Some(mutation)
    }

    pub(crate) fn view(&self, book: &Book) -> Arc<View> {
        self.views.of(book)
    }

    /// Forgets what can have no effect any more.
    fn tidy(&self, state: &mut State) {
        let now = moment(state.tick);
        if self.broken(Mutation::AcceptOldStamp) {
            return;
        }
        let nodes = &state.nodes;
        state.packets.retain(|packet| {
            let own = nodes[packet.to].generation;
            packet.stamp.check(own, now, self.setup.window()).is_ok()
        });
        if !self.setup.drops() {
            self.drop_idle_packets(state);
        }
    }

    /// Where copies are never dropped, a packet that brings nothing new, and on
    /// whose reply nobody waits, is as good as lost.
    fn drop_idle_packets(&self, state: &mut State) {
        let (nodes, clients) = (&state.nodes, &state.clients);
        state.packets.retain(|packet| {
            let node = &nodes[packet.to];
            let newer =
                node.damaged || node.held.is_none_or(|held| held.version < packet.held.version);
            newer || packet.from.is_some_and(|at| clients[at].waits_for(packet.held))
        });
    }

    fn tick(&self, state: &mut State) {
        state.tick += 1;
        let now = moment(state.tick);
        for node in &mut state.nodes {
            if node.promises.count() > 0 || node.pins.count() > 0 {
                Arc::make_mut(node).expire(now);
            }
        }
    }

    /// The roster that everybody would agree on.
    pub(crate) fn agreed(state: &State) -> Book {
        let mut nodes = state.nodes.iter();
        let mut book = Book::clone(&nodes.next().expect("a member").book);
        nodes.for_each(|node| book.merge(&node.book));
        book
    }

    /// Whether a complete locate, whoever it hears, finds what anybody was told
    /// of, or something newer.
    fn keeps(&self, state: &State) -> bool {
        let Some(told) = state.told else { return true };
        let book = Self::agreed(state);
        let reading = |electorate: &Electorate| electorate.phase == ElectoratePhase::Reading;
        let voters =
            book.electorate.as_ref().filter(|all| reading(all)).map(|all| all.voters(&key()));
        let votes =
            |place: &Place| voters.as_ref().is_none_or(|voters| voters.contains(&id(*place)));
        let holders = book.members().filter(|place| state.nodes[*place].keeps(told));
        holders.filter(votes).count() >= book.policy.read_quorum()
    }

    /// Whether reads at this very moment would be told what fits: by somebody
    /// who hears every member, and by somebody who misses as many as a read may.
    /// If what such a read finds is not settled it would have to be written back
    /// first, which is left to the clients.
    fn reads_well(&self, state: &State) -> bool {
        let book = Arc::new(Self::agreed(state));
        let view = self.view(&book);
        let mut all = self.locate(state, &book, None);
        for place in book.members() {
            let answer = state.nodes[place].answer(&self.setup, false, moment(state.tick));
            all.answers.insert(place, answer);
        }
        let mut told: Vec<Option<u8>> = Vec::new();
        for omitted in 0_u32..1 << state.nodes.len() {
            if omitted.count_ones() >= book.policy.read_quorum.max(2) {
                continue;
            }
            let mut heard = all.clone();
            heard.answers.retain(|place, _| omitted & (1 << *place) == 0);
            let located = heard.located(&view, &view, &self.setup.clocks);
            let newest = located.newest().map(|replica| Held::of(&replica.stat));
            if located.complete && (located.settled || newest.is_none()) {
                told.push(newest.and_then(|held| held.content));
            }
        }
        told.dedup();
        told.into_iter().all(|content| state.history.admits_read(content))
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let setup = &self.setup;
        let mut book = Book::active(setup.policy, setup.members, setup.places());
        book.electorate = setup.electorate.0.map(|phase| book.convene(phase));
        let book = Arc::new(book);
        let initial = Held::new(Version::from_parts(1, 0), Some(9));
        let held = |place: Place| setup.initial.contains(&place).then_some(initial);
        let node = |place| Node::new(setup, held(place), Arc::clone(&book));
        let mut nodes: Vec<Arc<Node>> = (0..setup.places()).map(node).map(Arc::new).collect();
        if let Some(damaged) = setup.damaged {
            Arc::make_mut(&mut nodes[damaged]).damaged = true;
        }
        let idle =
            Client { begun: 0, phase: Phase::Idle, retried: false, open: None, last: None, book };
        let stored = !setup.initial.is_empty();
        let asks: usize = setup.clients.iter().map(Vec::len).sum();
        let mut history = History::new(stored.then_some(9), asks + 1);
        if let Some(place) = setup.unacknowledged {
            let held = Held::new(Version::from_parts(2, 0), Some(8));
            let node = Arc::make_mut(&mut nodes[place]);
            node.held = Some(held);
            node.floor = Some(held.version);
            history.begin(asks, Ask::Put(8));
        }
        let mut told = stored.then_some(initial.version);
        if !setup.tombstones.is_empty() {
            let held = Held::new(OLD_TOMBSTONE, None);
            for place in &setup.tombstones {
                let node = Arc::make_mut(&mut nodes[*place]);
                node.held = Some(held);
                node.floor = Some(held.version);
            }
            if setup.tombstones.len() >= setup.policy.write_quorum() {
                history = History::new(None, asks + 1);
                told = Some(held.version);
            } else {
                history.begin(asks, Ask::Delete);
            }
        }
        vec![State {
            tick: 0,
            upkeep: vec![Upkeep::Nothing; nodes.len()],
            nodes,
            clients: setup.clients.iter().map(|_| Arc::new(idle.clone())).collect(),
            packets: BTreeSet::new(),
            history,
            told,
            restarts: setup.restarts,
            policy_before: setup.policy,
            counted: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.tick < self.setup.ticks {
            actions.push(Action::Tick);
        }
        if state.restarts > 0 {
            actions.extend((0..state.nodes.len()).map(Action::Restart));
        }
        for at in 0..state.clients.len() {
            self.client_actions(state, at, actions);
        }
        for packet in &state.packets {
            let waits = packet.from.is_some_and(|at| state.clients[at].waits_for(packet.held));
            if waits {
                actions.push(Action::Deliver(Arc::clone(packet), true));
            }
            if !waits || !self.setup.replies_arrive {
                actions.push(Action::Deliver(Arc::clone(packet), false));
            }
        }
        for place in &self.setup.repairers {
            self.upkeep_actions(state, *place, actions);
        }
        self.roster_actions(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let happened = match action {
            Action::Tick => {
                self.tick(&mut state);
                true
            }
            Action::Restart(place) => {
                state.restarts -= 1;
                if !state.upkeep[place].outlasts_a_restart() {
                    state.upkeep[place] = Upkeep::Nothing;
                }
                let now = moment(state.tick);
                state.node(place).restart(&self.setup, now);
                true
            }
            Action::Begin(at) => {
                self.begin(&mut state, at);
                true
            }
            Action::Answer(at, from, heard) => self.answer(&mut state, at, from, heard),
            Action::Conclude(at) => self.conclude(&mut state, at),
            Action::Deliver(packet, heard) => {
                self.deliver(&mut state, &packet, heard);
                true
            }
            Action::GiveUp(at) => {
                state.client(at).phase = Phase::Idle;
                true
            }
            Action::Again(at) => {
                state.client(at).retried = true;
                self.leave_open(&mut state, at);
                let ask = self.ask(at, &state);
                self.begin_locate(&mut state, at, ask);
                true
            }
            Action::Hear(at, from) => {
                let other = Arc::clone(&state.nodes[from].book);
                self.meet(&mut state.client(at).book, &other);
                true
            }
            Action::Look(own) => self.look(&mut state, own),
            Action::LookAtOnce(own, unheard) => self.look_at_once(&mut state, own, unheard),
            Action::AnswerMember(own, from) => self.answer_member(&mut state, own, from),
            Action::Plan(own) => self.plan(&mut state, own),
            Action::Forget(own) => self.forget(&mut state, own),
            Action::Pin(own, other) => self.pin(&mut state, own, other),
            Action::AskAgain(own) => self.ask_again(&mut state, own),
            Action::Drop(own) => self.drop_copy(&mut state, own),
            Action::Agree(own, other) => self.agree(&mut state, own, other),
            Action::AllAgreed(own) => self.all_agreed(&mut state, own),
            Action::Collect(own, other) => self.collect(&mut state, own, other),
            Action::Abandon(own) => self.abandon(&mut state, own),
            Action::Gossip(to, from) => {
                let other = Arc::clone(&state.nodes[from].book);
                self.persist(&mut state, to, &other);
                true
            }
            Action::Enter => self.enter(&mut state),
            Action::Tell(to, heard) => self.tell(&mut state, to, heard),
            Action::Activate => self.activate(&mut state),
            Action::Drain => self.drain(&mut state),
            Action::Retire => self.retire(&mut state),
            Action::Step => self.step(&mut state),
            Action::Counted(own) => self.counted(&mut state, own),
            Action::Elect(own, unfit) => self.elect(&mut state, own, unfit),
        };
        if !happened {
            return None;
        }
        self.tidy(&mut state);
        if self.setup.is_symmetric() {
            symmetry::sort_members(&mut state);
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LINEARIZABLE, |_, state: &State| state.history.is_linearizable()),
            Property::always(READABLE, |world: &Self, state: &State| world.reads_well(state)),
            Property::always(KEPT, |world: &Self, state: &State| world.keeps(state)),
            Property::sometimes(REACHED, |world: &Self, state: &State| world.is_at_its_goal(state)),
        ]
    }
}

/// What clients were told fits one register.
pub const LINEARIZABLE: &str = "each key is linearizable";
/// So does what a read would be told now.
pub const READABLE: &str = "a read that hears everybody fits as well";
/// What was told stays.
pub const KEPT: &str = "nothing that was told of is lost";
/// The model is not empty: what it is about happens.
pub const REACHED: &str = "what the model is about happens";
