//! What the coordinators of the clients do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_core::electorate::order;
use holdfast_core::locate::Located;
use holdfast_core::membership::View;
use holdfast_core::object::Kind;
use holdfast_core::quorum::{Progress, Purpose, Reply};
use holdfast_core::stamp::Stamp;
use holdfast_core::version::{Version, VersionSource};

use crate::book::{Book, Place, place};
use crate::client::{Client, Locating, Phase, Writing};
use crate::history::{Ask, Told};
use crate::mutation::Mutation;
use crate::node::{Held, Packet, key, moment};
use crate::world::{Action, State, World};

/// A version that is to be sent.
pub(crate) struct Offered {
    held: Held,
    purpose: Purpose,
    /// Whether enough were seen to have it already.
    settled: bool,
    /// Whether it is what was found, settled under a promise.
    promised: bool,
}

impl Offered {
    fn new(held: Held, purpose: Purpose) -> Self {
        Self { held, purpose, settled: false, promised: false }
    }
}

impl World {
    pub(crate) fn ask(&self, client: usize, state: &State) -> Ask {
        self.setup.clients[client][state.clients[client].begun - 1]
    }

    /// Where the history has the operation that this client is at.
    pub(crate) fn op(&self, client: usize, state: &State) -> usize {
        let before: usize = self.setup.clients[..client].iter().map(Vec::len).sum();
        before + state.clients[client].begun - 1
    }

    pub(crate) fn finish(
        &self,
        state: &mut State,
        client: usize,
        told: Told,
        version: Option<Version>,
    ) {
        let op = self.op(client, state);
        state.history.answer(op, told);
        state.told = state.told.max(version);
        state.client(client).phase = Phase::Idle;
        state.client(client).open = None;
        if state.clients[client].begun == self.setup.clients[client].len() {
            state.client(client).last = None;
            state.client(client).retried = false;
        }
    }

    /// An answer shows that its sender has another roster.
    pub(crate) fn merge(&self, book: &mut Arc<Book>, other: &Arc<Book>) {
        if !self.broken(Mutation::IgnoreDigest) {
            self.meet(book, other);
        }
    }

    /// Somebody who asks meets another roster.
    pub(crate) fn meet(&self, book: &mut Arc<Book>, other: &Arc<Book>) {
        if book == other {
            return;
        }
        let before = Arc::clone(book);
        Arc::make_mut(book).merge(other);
        if self.broken(Mutation::ReviveRetired) {
            self.revive(book, &before);
        }
    }

    /// What every member that this roster knows last said.
    pub(crate) fn stamps(&self, state: &State, book: &Book) -> BTreeMap<Place, Stamp> {
        let now = moment(state.tick);
        book.members().map(|place| (place, state.nodes[place].stamp(now))).collect()
    }

    pub(crate) fn locate(
        &self,
        state: &State,
        book: &Arc<Book>,
        ballot: Option<Version>,
    ) -> Locating {
        let began = Arc::clone(book);
        Locating { began, stamps: self.stamps(state, book), answers: BTreeMap::new(), ballot }
    }

    /// A version above everything that this client saw and made.
    pub(crate) fn next_version(
        client: &mut Client,
        at: usize,
        clock: u64,
        seen: Option<Version>,
    ) -> Version {
        let mut source = VersionSource::new(2 * at as u64);
        let version = source.next(clock, seen.max(client.last));
        client.last = Some(version);
        version
    }

    pub(crate) fn begin(&self, state: &mut State, at: usize) {
        state.client(at).begun += 1;
        let ask = self.ask(at, state);
        let op = self.op(at, state);
        state.history.begin(op, ask);
        self.begin_locate(state, at, ask);
    }

    /// Begins a round. The first locate of a conditional write only chooses a
    /// ballot, so it is left out: a ballot that is too low is promised by
    /// nobody.
    pub(crate) fn begin_locate(&self, state: &mut State, at: usize, ask: Ask) {
        let conditional = matches!(ask, Ask::Create(_) | Ask::Replace(..));
        // A read that could not settle what it found asks for a promise, too.
        let outbids = ask == Ask::Read && state.clients[at].retried && self.setup.outbids;
        let ballot = (conditional || outbids).then(|| {
            let seen = state.nodes.iter().filter_map(|node| node.floor).max();
            Self::next_version(state.client(at), at, 0, seen)
        });
        let locating = self.locate(state, &state.clients[at].book, ballot);
        state.client(at).phase = Phase::Locating(locating);
    }

    pub(crate) fn answer(&self, state: &mut State, at: usize, from: Place, heard: bool) -> bool {
        let now = moment(state.tick);
        let Phase::Locating(locating) = &state.clients[at].phase else { return false };
        let locating = locating.clone();
        if locating.answers.contains_key(&from) {
            return false;
        }
        let stamp = locating.stamps.get(&from).copied();
        if !state.nodes[from].is_in_time(&self.setup, stamp, now) {
            if !self.broken(Mutation::AskAgainInTheRound) {
                return false;
            }
            let fresh = state.nodes[from].stamp(now);
            let Phase::Locating(locating) = &mut state.client(at).phase else { return false };
            return locating.stamps.insert(from, fresh) != Some(fresh);
        }
        let promised = locating
            .ballot
            .is_some_and(|ballot| state.node(from).promise(&self.setup, ballot, now));
        if heard {
            let node = Arc::clone(&state.nodes[from]);
            let answer = node.answer(&self.setup, promised, now);
            let client = state.client(at);
            if let Phase::Locating(locating) = &mut client.phase {
                locating.answers.insert(from, answer);
            }
            self.merge(&mut client.book, &node.book);
        }
        true
    }

    pub(crate) fn conclude(&self, state: &mut State, at: usize) -> bool {
        let Phase::Locating(locating) = &state.clients[at].phase else { return false };
        let view = self.view(&state.clients[at].book);
        let began = if self.broken(Mutation::JudgeByLastRoster) {
            Arc::clone(&view)
        } else {
            self.view(&locating.began)
        };
        let mut located = locating.located(&began, &view, &self.setup.clocks);
        if self.broken(Mutation::SettleOnAnybody) {
            located.settled = located.copies >= view.policy.write_quorum();
        }
        if self.broken(Mutation::SettleByReadQuorum) {
            located.settled = located.lasting >= view.policy.read_quorum();
        }
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
                Some(_) if ballot.is_some_and(|ballot| located.shows_above(ballot)) => {
                    return false;
                }
                // A promise is needed, and asked for next, if at all.
                Some(_) if ballot.is_none() && located.may_be_missed() => return false,
                Some(held) => self.settle(state, at, held, ballot, &located),
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
                let version = Self::next_version(state.client(at), at, clock, seen);
                let held = Held::new(version, content);
                let offered = Offered::new(held, Purpose::Write);
                self.send(state, at, &offered, &places(&located), &BTreeSet::new());
            }
            Ask::Create(_) | Ask::Replace(..) => {
                let ballot = ballot.expect("a conditional write has one");
                if located.shows_above(ballot) && !self.broken(Mutation::JudgeAboveBallot) {
                    return false;
                }
                match newest {
                    Some(held) if !located.settled => {
                        self.settle(state, at, held, Some(ballot), &located);
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
    pub(crate) fn judge(
        &self,
        state: &mut State,
        at: usize,
        newest: Option<Held>,
        version: Version,
        stamps: &BTreeMap<Place, Stamp>,
    ) {
        if let Some(open) = state.clients[at].open {
            let version = newest.map(|held| held.version);
            if newest.is_some_and(|held| held.stat().written_as() == open) {
                return self.finish(state, at, Told::Done, version);
            }
            // It has no known outcome.
            state.client(at).phase = Phase::Idle;
            state.client(at).open = None;
            return;
        }
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
        let held = Held::new(version, Some(new));
        let offered = Offered::new(held, Purpose::Conditional);
        self.send(state, at, &offered, stamps, &BTreeSet::new());
    }

    /// Brings what was found to W members: as it is, or, with a promise, under the
    /// version that was promised.
    pub(crate) fn settle(
        &self,
        state: &mut State,
        at: usize,
        held: Held,
        ballot: Option<Version>,
        located: &Located,
    ) {
        let holders = located.newest_holders().map(|replica| place(replica.node));
        let holders: BTreeSet<Place> = holders.filter(|_| ballot.is_none()).collect();
        let below = self.broken(Mutation::SettleBelowBallot);
        let under = ballot.filter(|_| !below);
        let held = under.map_or(held, |ballot| Held::of(&held.stat().settled_as(ballot)));
        let offered = Offered {
            settled: match ballot {
                Some(_) => below,
                None => located.is_accepted || !self.setup.promises(),
            },
            promised: ballot.is_some(),
            ..Offered::new(held, Purpose::WriteBack)
        };
        self.send(state, at, &offered, &places(located), &holders);
    }

    /// Sends a version: a new one to the owners among those who answered, one
    /// that was found to everybody who lacks it.
    pub(crate) fn send(
        &self,
        state: &mut State,
        at: usize,
        offered: &Offered,
        stamps: &BTreeMap<Place, Stamp>,
        holders: &BTreeSet<Place>,
    ) {
        let Offered { held, purpose, settled, promised } = *offered;
        let view = self.view(&state.clients[at].book);
        let mut candidates = view.candidates(1);
        candidates.retain(|candidate| stamps.contains_key(&place(candidate.id)));
        let to: BTreeSet<Place> = if purpose == Purpose::WriteBack {
            candidates.iter().map(|candidate| place(candidate.id)).collect()
        } else {
            let count = if self.setup.everywhere { usize::MAX } else { view.policy.replicas() };
            let owners = order(&key(), &candidates, view.electorate.as_deref());
            owners.into_iter().take(count).map(place).collect()
        };
        let to: BTreeSet<Place> = to.difference(holders).copied().collect();
        for receiver in &to {
            state.packets.insert(Arc::new(Packet {
                to: *receiver,
                stamp: stamps[receiver],
                held,
                write_back: purpose == Purpose::WriteBack,
                settled,
                from: Some(at),
            }));
        }
        state.client(at).phase = Phase::Writing(Writing {
            held,
            purpose,
            replies: holders.iter().map(|holder| (*holder, vec![Reply::Stored])).collect(),
            sent: to,
            promised: promised.then(|| stamps.clone()),
        });
        self.acknowledge(state, at);
    }

    /// Goes on if enough members have the version.
    pub(crate) fn acknowledge(&self, state: &mut State, at: usize) {
        let Phase::Writing(writing) = &state.clients[at].phase else { return };
        let view = self.view(&state.clients[at].book);
        let mut quorum = view.policy.write_quorum();
        if self.broken(Mutation::AcknowledgeEarly) {
            quorum -= 1;
        }
        let draining =
            self.broken(Mutation::CountDraining) || self.broken(Mutation::RetireAtOnceAndCount);
        let anybody = self.broken(Mutation::CountAnybody);
        let (key, all) = (key(), View { electorate: None, ..View::clone(&view) });
        let counts = if anybody { all.counting(&key) } else { view.counting(&key) };
        if writing.tally().progress(quorum, |id| draining || counts(id)) == Progress::Open {
            return;
        }
        let writing = writing.clone();
        let version = Some(writing.held.version);
        let ask = self.ask(at, state);
        match (writing.purpose, ask) {
            (Purpose::Write | Purpose::Conditional, _) => {
                self.finish(state, at, Told::Done, version);
            }
            (Purpose::WriteBack, Ask::Read) => {
                self.finish(state, at, Told::Content(writing.held.content), version);
            }
            (Purpose::WriteBack, _) => {
                let stamps = writing.promised.unwrap_or_default();
                // Under the promised version, or right above what was settled under it.
                let version = match self.broken(Mutation::SettleBelowBallot) {
                    true => state.clients[at].last.expect("it was promised"),
                    false => writing.held.version.right_above(),
                };
                self.judge(state, at, Some(writing.held), version, &stamps);
            }
        }
    }

    pub(crate) fn deliver(&self, state: &mut State, packet: &Packet, heard: bool) {
        let now = moment(state.tick);
        let reply = state.node(packet.to).take(&self.setup, packet.to, packet, now);
        if !self.setup.duplicates {
            state.packets.remove(packet);
        }
        let Some(at) = packet.from.filter(|_| heard) else { return };
        let other = Arc::clone(&state.nodes[packet.to].book);
        let counted =
            self.broken(Mutation::CountSuperseded) && matches!(reply, Reply::Superseded { .. });
        let reply = if counted { Reply::Stored } else { reply };
        self.merge(&mut state.client(at).book, &other);
        if let Phase::Writing(writing) = &mut state.client(at).phase
            && writing.held == packet.held
        {
            writing.apply(packet.to, reply);
            self.acknowledge(state, at);
        }
    }

    /// A conditional write that is not acknowledged is not made again under
    /// another version: its client asks for a promise, and looks what is there.
    pub(crate) fn leave_open(&self, state: &mut State, at: usize) {
        if let Phase::Writing(writing) = &state.clients[at].phase
            && writing.purpose == Purpose::Conditional
        {
            state.client(at).open = Some(writing.held.version);
        }
    }

    /// What this client may do next.
    pub(crate) fn client_actions(&self, state: &State, at: usize, actions: &mut Vec<Action>) {
        let client = &state.clients[at];
        let more = client.begun < self.setup.clients[at].len();
        match &client.phase {
            Phase::Idle if more => actions.push(Action::Begin(at)),
            Phase::Idle => return,
            Phase::Locating(locating) => {
                for place in client.book.members() {
                    if locating.answers.contains_key(&place) {
                        continue;
                    }
                    actions.push(Action::Answer(at, place, true));
                    if locating.ballot.is_some() && !self.setup.replies_arrive {
                        actions.push(Action::Answer(at, place, false));
                    }
                }
                if !locating.answers.is_empty() {
                    actions.push(Action::Conclude(at));
                }
                // With the members that it has met since it began to ask.
                if client.book.members().any(|place| !locating.stamps.contains_key(&place)) {
                    actions.push(Action::Again(at));
                }
                if more {
                    actions.push(Action::GiveUp(at));
                }
            }
            Phase::Writing(writing) => {
                if more {
                    actions.push(Action::GiveUp(at));
                }
                let finds_out = writing.purpose == Purpose::Conditional && self.setup.finds_out;
                let outbids = self.setup.outbids
                    && writing.purpose == Purpose::WriteBack
                    && self.ask(at, state) == Ask::Read;
                if !client.retried && (finds_out || outbids || self.may_retry(writing)) {
                    actions.push(Action::Again(at));
                }
            }
        }
        if self.setup.changes_roster() {
            let differs = |place: &Place| state.nodes[*place].book != client.book;
            let heard = (0..state.nodes.len()).filter(differs);
            actions.extend(heard.map(|place| Action::Hear(at, place)));
        }
    }

    /// Whether this write may be made again under a new version.
    pub(crate) fn may_retry(&self, writing: &Writing) -> bool {
        let all = writing.sent.iter().all(|to| writing.replies.contains_key(to));
        let certain = all && writing.tally().changed_nothing();
        writing.purpose == Purpose::Write && (certain || self.broken(Mutation::RetryUnknown))
    }
}

/// When each member that answered did.
pub(crate) fn places(located: &Located) -> BTreeMap<Place, Stamp> {
    located.stamps.iter().map(|(id, stamp)| (place(*id), *stamp)).collect()
}
