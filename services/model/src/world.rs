//! The whole cluster as one state machine that stateright explores.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_core::locate::Located;
use holdfast_core::membership::{Moment, View};
use holdfast_core::object::Kind;
use holdfast_core::placement::choose_owners;
use holdfast_core::quorum::{Progress, Purpose, Tally};
use holdfast_core::stamp::Stamp;
use holdfast_core::version::{Version, VersionSource};
use stateright::{Model, Property};

use crate::book::{Book, Place, Views, id, place};
use crate::client::{Client, Locating, Phase, Writing};
use crate::history::{Ask, History, Told};
use crate::mutation::Mutation;
use crate::node::{Held, Node, Packet, key, moment};
use crate::setup::Setup;

/// Everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// Ticks that have passed. Clocks of all members run at one rate, and each
    /// judges only what it said itself, so one clock stands for all.
    pub tick: u64,
    /// The members.
    pub nodes: Vec<Node>,
    /// The clients.
    pub clients: Vec<Client>,
    /// What is under way: it may arrive at any time from now on, or never.
    pub packets: BTreeSet<Packet>,
    /// What clients were told.
    pub history: History,
    /// The newest version that anybody was told of.
    pub told: Option<Version>,
    /// Restarts that may still come.
    pub restarts: u8,
}

/// What may happen next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A window goes by, bit by bit.
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
    Deliver(Packet, bool),
    /// A client no longer waits: its operation has no known outcome.
    GiveUp(usize),
    /// A client makes its write again.
    Retry(usize),
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

    fn broken(&self, mutation: Mutation) -> bool {
        self.setup.mutation == Some(mutation)
    }

    fn view(&self, book: &Book) -> Arc<View> {
        self.views.of(book)
    }

    fn ask(&self, client: usize, state: &State) -> Ask {
        self.setup.clients[client][state.clients[client].begun - 1]
    }

    /// Where the history has the operation that this client is at.
    fn op(&self, client: usize, state: &State) -> usize {
        let before: usize = self.setup.clients[..client].iter().map(Vec::len).sum();
        before + state.clients[client].begun - 1
    }

    fn finish(&self, state: &mut State, client: usize, told: Told, version: Option<Version>) {
        let op = self.op(client, state);
        state.history.answer(op, told);
        state.told = state.told.max(version);
        state.clients[client].phase = Phase::Idle;
    }

    fn merge(&self, book: &mut Book, other: &Book) {
        if self.broken(Mutation::IgnoreDigest) {
            return;
        }
        book.merge(other);
    }

    /// What every member that this roster knows last said.
    fn stamps(&self, state: &State, book: &Book) -> BTreeMap<Place, Stamp> {
        let now = moment(state.tick);
        book.members().map(|place| (place, state.nodes[place].stamp(now))).collect()
    }

    fn locate(&self, state: &State, book: &Book, ballot: Option<Version>) -> Locating {
        Locating { stamps: self.stamps(state, book), answers: BTreeMap::new(), ballot }
    }

    /// A version above everything that this client saw and made.
    fn next_version(client: &mut Client, at: usize, clock: u64, seen: Option<Version>) -> Version {
        let mut source = VersionSource::new(at as u64);
        let version = source.next(clock, seen.max(client.last));
        client.last = Some(version);
        version
    }

    fn begin(&self, state: &mut State, at: usize) {
        state.clients[at].begun += 1;
        let ask = self.ask(at, state);
        let op = self.op(at, state);
        state.history.begin(op, ask);
        self.begin_locate(state, at, ask);
    }

    /// Begins a round. The first locate of a conditional write only chooses a
    /// ballot, so it is left out: a ballot that is too low is promised by
    /// nobody.
    fn begin_locate(&self, state: &mut State, at: usize, ask: Ask) {
        let ballot = matches!(ask, Ask::Create(_) | Ask::Replace(..)).then(|| {
            let seen = state.nodes.iter().filter_map(|node| node.floor).max();
            Self::next_version(&mut state.clients[at], at, 0, seen)
        });
        let locating = self.locate(state, &state.clients[at].book, ballot);
        state.clients[at].phase = Phase::Locating(locating);
    }

    fn answer(&self, state: &mut State, at: usize, from: Place, heard: bool) -> bool {
        let now = moment(state.tick);
        let Phase::Locating(locating) = &mut state.clients[at].phase else { return false };
        if locating.answers.contains_key(&from) {
            return false;
        }
        let node = &mut state.nodes[from];
        let stamp = locating.stamps.get(&from).copied();
        let Some(answer) = node.answer(&self.setup, stamp, locating.ballot, now) else {
            if !self.broken(Mutation::AskAgainInTheRound) {
                return false;
            }
            let fresh = node.stamp(now);
            return locating.stamps.insert(from, fresh) != Some(fresh);
        };
        if heard {
            locating.answers.insert(from, answer);
            let other = node.book.clone();
            self.merge(&mut state.clients[at].book, &other);
        }
        true
    }

    fn conclude(&self, state: &mut State, at: usize) -> bool {
        let Phase::Locating(locating) = &state.clients[at].phase else { return false };
        let view = self.view(&state.clients[at].book);
        let located = locating.located(&view, &self.setup.clocks);
        let ballot = locating.ballot;
        let ask = self.ask(at, state);
        let newest = located.newest().map(|replica| Held::of(&replica.stat));
        if !located.complete {
            let believed = self.broken(Mutation::AbsentWhenIncomplete)
                && ask == Ask::Read
                && newest.is_none()
                && !located.answered.is_empty();
            if believed {
                self.finish(state, at, Told::Content(None), None);
            }
            return believed;
        }
        match ask {
            Ask::Read => match newest {
                None => self.finish(state, at, Told::Content(None), None),
                Some(held) if located.settled || self.broken(Mutation::NoWriteBack) => {
                    self.finish(state, at, Told::Content(held.content), Some(held.version));
                }
                Some(held) => {
                    self.write(state, at, held, Purpose::WriteBack, None, &located);
                }
            },
            Ask::Put(_) | Ask::Delete => {
                let gone = located.newest().is_none_or(|replica| {
                    let settled = located.settled || self.broken(Mutation::TrustLoneTombstone);
                    replica.stat.kind == Kind::Tombstone && settled
                });
                if ask == Ask::Delete && gone {
                    self.finish(state, at, Told::Done, None);
                    return true;
                }
                let content = if let Ask::Put(content) = ask { Some(content) } else { None };
                let seen = newest.map(|held| held.version).max(located.floor);
                let clock = located.clock_millis.unwrap_or(0);
                let version = Self::next_version(&mut state.clients[at], at, clock, seen);
                let held = Held { version, content };
                self.write(state, at, held, Purpose::Write, None, &located);
            }
            Ask::Create(_) | Ask::Replace(..) => {
                let ballot = ballot.expect("a conditional write has one");
                match newest {
                    Some(held) if !located.settled => {
                        self.write(state, at, held, Purpose::WriteBack, Some(ballot), &located);
                    }
                    _ => {
                        let stamps = places(&located);
                        self.judge(state, at, newest, ballot, &stamps);
                    }
                }
            }
        }
        true
    }

    /// Judges the condition of a conditional write on what is there, and goes on
    /// if it holds.
    fn judge(
        &self,
        state: &mut State,
        at: usize,
        newest: Option<Held>,
        ballot: Version,
        stamps: &BTreeMap<Place, Stamp>,
    ) {
        let content = newest.and_then(|held| held.content);
        let new = match self.ask(at, state) {
            Ask::Create(new) => content.is_none().then_some(new),
            Ask::Replace(old, new) => (content == Some(old)).then_some(new),
            _ => None,
        };
        let Some(new) = new else {
            let version = newest.map(|held| held.version);
            return self.finish(state, at, Told::Failed, version);
        };
        let held = Held { version: ballot, content: Some(new) };
        self.send(
            state,
            at,
            held,
            Purpose::Conditional,
            Some(ballot),
            stamps,
            Tally::new(Purpose::Conditional),
        );
    }

    fn write(
        &self,
        state: &mut State,
        at: usize,
        held: Held,
        purpose: Purpose,
        ballot: Option<Version>,
        located: &Located,
    ) {
        let mut tally = Tally::new(purpose);
        if purpose == Purpose::WriteBack {
            for replica in located.newest_holders() {
                tally.apply(replica.node, holdfast_core::quorum::Reply::Stored);
            }
        }
        self.send(state, at, held, purpose, ballot, &places(located), tally);
    }

    /// Sends a version: a new one to the owners among those who answered, one
    /// that was found to everybody who lacks it.
    #[allow(clippy::too_many_arguments, reason = "they are what a write consists of")]
    fn send(
        &self,
        state: &mut State,
        at: usize,
        held: Held,
        purpose: Purpose,
        ballot: Option<Version>,
        stamps: &BTreeMap<Place, Stamp>,
        tally: Tally,
    ) {
        let view = self.view(&state.clients[at].book);
        let holders: BTreeSet<Place> = tally.holders().map(place).collect();
        let mut candidates = view.candidates(1);
        candidates.retain(|candidate| stamps.contains_key(&place(candidate.id)));
        let to: BTreeSet<Place> = if purpose == Purpose::WriteBack {
            candidates.iter().map(|candidate| place(candidate.id)).collect()
        } else {
            let owners = choose_owners(&key(), &candidates, view.policy.replicas());
            owners.into_iter().map(place).collect()
        };
        let to: BTreeSet<Place> = to.difference(&holders).copied().collect();
        for receiver in &to {
            state.packets.insert(Packet {
                to: *receiver,
                stamp: stamps[receiver],
                held,
                ballot,
                write_back: purpose == Purpose::WriteBack,
                from: Some(at),
            });
        }
        let ballot = ballot.map(|ballot| (ballot, stamps.clone()));
        state.clients[at].phase = Phase::Writing(Writing {
            held,
            purpose,
            tally,
            sent: to,
            replied: BTreeSet::new(),
            ballot,
        });
        self.acknowledge(state, at);
    }

    /// Goes on if enough members have the version.
    fn acknowledge(&self, state: &mut State, at: usize) {
        let Phase::Writing(writing) = &state.clients[at].phase else { return };
        let view = self.view(&state.clients[at].book);
        let mut quorum = view.policy.write_quorum();
        if self.broken(Mutation::AcknowledgeEarly) {
            quorum -= 1;
        }
        let draining = self.broken(Mutation::CountDraining);
        if writing.tally.progress(quorum, |id| draining || view.counts(id)) == Progress::Open {
            return;
        }
        let writing = writing.clone();
        let version = Some(writing.held.version);
        match (writing.purpose, writing.ballot) {
            (Purpose::Write | Purpose::Conditional, _) => {
                self.finish(state, at, Told::Done, version);
            }
            (Purpose::WriteBack, None) => {
                self.finish(state, at, Told::Content(writing.held.content), version);
            }
            (Purpose::WriteBack, Some((ballot, stamps))) => {
                self.judge(state, at, Some(writing.held), ballot, &stamps);
            }
        }
    }

    fn deliver(&self, state: &mut State, packet: &Packet, heard: bool) {
        let now = moment(state.tick);
        let node = &mut state.nodes[packet.to];
        let reply = node.take(&self.setup, packet.to, packet, now);
        if !self.setup.duplicates {
            state.packets.remove(packet);
        }
        let Some(at) = packet.from.filter(|_| heard) else { return };
        let other = node.book.clone();
        let counted = self.broken(Mutation::CountSuperseded)
            && matches!(reply, holdfast_core::quorum::Reply::Superseded { .. });
        let reply = if counted { holdfast_core::quorum::Reply::Stored } else { reply };
        self.merge(&mut state.clients[at].book, &other);
        if let Phase::Writing(writing) = &mut state.clients[at].phase
            && writing.held == packet.held
        {
            writing.tally.apply(id(packet.to), reply);
            writing.replied.insert(packet.to);
            self.acknowledge(state, at);
        }
    }

    /// Whether this write may be made again under a new version.
    fn may_retry(&self, writing: &Writing) -> bool {
        let certain = writing.replied == writing.sent && writing.tally.changed_nothing();
        writing.purpose == Purpose::Write && (certain || self.broken(Mutation::RetryUnknown))
    }

    /// Forgets what can have no effect any more.
    fn tidy(&self, state: &mut State) {
        let now = moment(state.tick);
        for node in &mut state.nodes {
            node.expire(now);
        }
        if self.broken(Mutation::AcceptOldStamp) {
            return;
        }
        let nodes = &state.nodes;
        state.packets.retain(|packet| {
            let own = nodes[packet.to].generation;
            packet.stamp.check(own, now, self.setup.window()).is_ok()
        });
    }

    /// The roster that everybody would agree on.
    fn agreed(state: &State) -> Book {
        let mut nodes = state.nodes.iter();
        let mut book = nodes.next().expect("a member").book.clone();
        nodes.for_each(|node| book.merge(&node.book));
        book
    }

    /// Whether a complete locate, whoever it hears, finds what anybody was told
    /// of, or something newer.
    fn keeps(&self, state: &State) -> bool {
        let Some(told) = state.told else { return true };
        let book = Self::agreed(state);
        let holders = book
            .members()
            .filter(|place| state.nodes[*place].held.is_some_and(|held| held.version >= told));
        holders.count() >= book.policy.read_quorum()
    }

    /// Whether a read by somebody who hears every member at this very moment
    /// would be told what fits. If what it finds is not settled it would have to
    /// write it back first, which is left to the clients.
    fn reads_well(&self, state: &State) -> bool {
        let book = Self::agreed(state);
        let view = self.view(&book);
        let mut locating = self.locate(state, &book, None);
        let nodes = state.nodes.iter().enumerate();
        for (place, node) in nodes.filter(|(place, _)| locating.stamps.contains_key(place)) {
            let stamp = locating.stamps.get(&place).copied();
            let mut node = node.clone();
            if let Some(answer) =
                node.answer(&self.setup, stamp, None, Moment::from_secs(state.tick))
            {
                locating.answers.insert(place, answer);
            }
        }
        let located = locating.located(&view, &self.setup.clocks);
        match located.newest() {
            _ if !located.complete => true,
            Some(replica) if located.settled => {
                state.history.admits_read(Held::of(&replica.stat).content)
            }
            Some(_) => true,
            None => state.history.admits_read(None),
        }
    }
}

/// When each member that answered did.
fn places(located: &Located) -> BTreeMap<Place, Stamp> {
    located.stamps.iter().map(|(id, stamp)| (place(*id), *stamp)).collect()
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let setup = &self.setup;
        let book = Book::active(setup.policy, setup.members, setup.places());
        let initial = Held { version: Version::from_parts(1, 0), content: Some(9) };
        let held = |place: Place| setup.initial.contains(&place).then_some(initial);
        let mut nodes: Vec<Node> =
            (0..setup.places()).map(|place| Node::new(setup, held(place), book.clone())).collect();
        if let Some(damaged) = setup.damaged {
            nodes[damaged].damaged = true;
        }
        let client = Client { begun: 0, phase: Phase::Idle, last: None, book };
        let stored = !setup.initial.is_empty();
        let places = setup.clients.iter().map(Vec::len).sum();
        vec![State {
            tick: 0,
            nodes,
            clients: vec![client; setup.clients.len()],
            packets: BTreeSet::new(),
            history: History::new(stored.then_some(9), places),
            told: stored.then_some(initial.version),
            restarts: setup.restarts,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.tick < self.setup.ticks {
            actions.push(Action::Tick);
        }
        if state.restarts > 0 {
            actions.extend((0..state.nodes.len()).map(Action::Restart));
        }
        for (at, client) in state.clients.iter().enumerate() {
            let more = client.begun < self.setup.clients[at].len();
            match &client.phase {
                Phase::Idle => {
                    if more {
                        actions.push(Action::Begin(at));
                    }
                }
                Phase::Locating(locating) => {
                    for place in client.book.members() {
                        if locating.answers.contains_key(&place) {
                            continue;
                        }
                        actions.push(Action::Answer(at, place, true));
                        if locating.ballot.is_some() {
                            actions.push(Action::Answer(at, place, false));
                        }
                    }
                    if !locating.answers.is_empty() {
                        actions.push(Action::Conclude(at));
                    }
                    if more {
                        actions.push(Action::GiveUp(at));
                    }
                }
                Phase::Writing(writing) => {
                    if more {
                        actions.push(Action::GiveUp(at));
                    }
                    if self.may_retry(writing) {
                        actions.push(Action::Retry(at));
                    }
                }
            }
        }
        for packet in &state.packets {
            let waits = packet.from.is_some_and(|at| {
                matches!(&state.clients[at].phase, Phase::Writing(writing) if writing.held == packet.held)
            });
            if waits {
                actions.push(Action::Deliver(packet.clone(), true));
            }
            actions.push(Action::Deliver(packet.clone(), false));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let happened = match action {
            Action::Tick => {
                state.tick += 1;
                true
            }
            Action::Restart(place) => {
                state.restarts -= 1;
                state.nodes[place].restart(&self.setup, moment(state.tick));
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
                state.clients[at].phase = Phase::Idle;
                true
            }
            Action::Retry(at) => {
                let ask = self.ask(at, &state);
                self.begin_locate(&mut state, at, ask);
                true
            }
        };
        if !happened {
            return None;
        }
        self.tidy(&mut state);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LINEARIZABLE, |_, state: &State| state.history.is_linearizable()),
            Property::always(READABLE, |world: &Self, state: &State| world.reads_well(state)),
            Property::always(KEPT, |world: &Self, state: &State| world.keeps(state)),
            Property::sometimes(ANSWERED, |_, state: &State| {
                state.history.ops().any(|op| op.told.is_some())
            }),
        ]
    }
}

/// What clients were told fits one register.
pub const LINEARIZABLE: &str = "each key is linearizable";
/// So does what a read would be told now.
pub const READABLE: &str = "a read that hears everybody fits as well";
/// What was told stays.
pub const KEPT: &str = "nothing that was told of is lost";
/// The model is not empty.
pub const ANSWERED: &str = "somebody is answered";
