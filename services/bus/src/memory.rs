//! The bus inside one process: what an embedded node uses, and what tests use
//! to lose, repeat and delay messages on purpose.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use holdfast_runtime::Runtime;
use tokio::sync::{Semaphore, watch};

use crate::inbox::{Inbox, Postbox, Queue};
use crate::metrics::DropReason;
use crate::{Bus, BusError, BusHealth, BusMetrics, Message, Topic, check_reply_to};

/// Messages that may be delayed at the same time; further ones are dropped and
/// counted.
const DELAYED_MESSAGES: usize = 65_536;

/// Faults, each drawn from [`Runtime::random_u64`] for every receiver of a
/// message. The default has none, and delivers before `publish` returns.
#[derive(Debug, Clone)]
pub struct MemoryBrokerOptions {
    /// How long a message travels. Messages overtake each other when it is a
    /// range.
    pub delay: RangeInclusive<Duration>,
    /// Part of the messages that are lost, from 0 to 1.
    pub drop_ratio: f64,
    /// Part of the messages that arrive twice, from 0 to 1.
    pub duplicate_ratio: f64,
}

impl Default for MemoryBrokerOptions {
    fn default() -> Self {
        Self { delay: Duration::ZERO..=Duration::ZERO, drop_ratio: 0.0, duplicate_ratio: 0.0 }
    }
}

/// A broker in memory. Clones are the same broker.
#[derive(Debug, Clone)]
pub struct MemoryBroker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    runtime: Runtime,
    options: MemoryBrokerOptions,
    delayed: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    way: Way,
    members: BTreeMap<u64, Member>,
    next_id: u64,
}

/// What the way to the broker is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    Frozen,
    Closed,
}

#[derive(Debug)]
struct Member {
    topics: Vec<Topic>,
    postbox: Postbox,
    /// Of the member alone; the broker's comes on top.
    way: Way,
    session: u64,
    /// Whether the session outlived the last change.
    in_session: bool,
    health: watch::Sender<BusHealth>,
    metrics: BusMetrics,
}

/// A connection to a [`MemoryBroker`]. Dropping it closes it.
#[derive(Debug)]
pub struct MemoryBus {
    broker: MemoryBroker,
    id: u64,
    health: watch::Receiver<BusHealth>,
    metrics: BusMetrics,
}

impl MemoryBroker {
    /// A broker that is there.
    #[must_use]
    pub fn new(runtime: Runtime, options: MemoryBrokerOptions) -> Self {
        let state = State { way: Way::Open, members: BTreeMap::new(), next_id: 0 };
        let delayed = Arc::new(Semaphore::new(DELAYED_MESSAGES));
        Self { inner: Arc::new(Inner { runtime, options, delayed, state: Mutex::new(state) }) }
    }

    /// A connection that gets the messages about `topics`. Connected at once
    /// when the broker is there.
    #[must_use]
    pub fn connect(&self, topics: &[Topic]) -> (Arc<MemoryBus>, Inbox) {
        let metrics = BusMetrics::new();
        let (postbox, inbox) = Postbox::new(metrics.clone());
        let health = watch::Sender::new(BusHealth::Disconnected);
        let receiver = health.subscribe();
        let mut member = Member {
            topics: topics.to_vec(),
            postbox,
            way: Way::Open,
            session: 0,
            in_session: false,
            health,
            metrics: metrics.clone(),
        };
        let mut state = self.state();
        member.apply(state.way);
        let id = state.next_id;
        state.next_id += 1;
        state.members.insert(id, member);
        drop(state);
        let bus = MemoryBus { broker: self.clone(), id, health: receiver, metrics };
        (Arc::new(bus), inbox)
    }

    /// Ends every session: everybody is `Disconnected`.
    pub fn stop(&self) {
        self.set_way(Way::Closed);
    }

    /// Goes on: with a new session after [`Self::stop`], with the same after
    /// [`Self::freeze`].
    pub fn start(&self) {
        self.set_way(Way::Open);
    }

    /// Keeps the sessions, but nothing travels: everybody is `Silent`.
    pub fn freeze(&self) {
        self.set_way(Way::Frozen);
    }

    fn set_way(&self, way: Way) {
        let mut state = self.state();
        state.way = way;
        state.members.values_mut().for_each(|member| member.apply(way));
    }

    fn set_member_way(&self, id: u64, way: Way) {
        let mut state = self.state();
        let broker_way = state.way;
        if let Some(member) = state.members.get_mut(&id) {
            member.way = way;
            member.apply(broker_way);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends from member `from` to whom `receivers` names.
    fn send(
        &self,
        from: u64,
        message: Message,
        receivers: impl FnOnce(&State) -> Vec<(Target, Queue)>,
    ) -> Result<(), BusError> {
        message.check()?;
        let state = self.state();
        let sender = state.members.get(&from).filter(|member| member.is_connected());
        let own_queue = reply_queue(from, sender.ok_or(BusError::Away)?.session);
        let message = Message {
            reply_to: message.wants_reply.then_some(own_queue),
            wants_reply: false,
            ..message
        };
        for (target, queue) in receivers(&state) {
            for _ in 0..self.copies() {
                self.dispatch(&state, target, queue, message.clone());
            }
        }
        Ok(())
    }

    fn dispatch(&self, state: &State, target: Target, queue: Queue, message: Message) {
        let delay = self.delay();
        if delay.is_zero() {
            return state.deliver(target, queue, message);
        }
        let Ok(permit) = Arc::clone(&self.inner.delayed).try_acquire_owned() else {
            return state.lose(target, queue);
        };
        let broker = self.clone();
        let sleep = self.inner.runtime.sleep(delay);
        let task = self.inner.runtime.spawn("memory-bus-delay", async move {
            sleep.await;
            broker.state().deliver(target, queue, message);
            drop(permit);
        });
        drop(task);
    }

    fn copies(&self) -> u32 {
        if self.happens(self.inner.options.drop_ratio) {
            return 0;
        }
        1 + u32::from(self.happens(self.inner.options.duplicate_ratio))
    }

    /// Draws only where there is something to decide, so that a broker without
    /// faults costs no randomness.
    fn happens(&self, ratio: f64) -> bool {
        // The upper 53 bits are what a double holds exactly.
        ratio > 0.0
            && (self.inner.runtime.random_u64() >> 11) as f64 / (1_u64 << 53) as f64 <= ratio
    }

    fn delay(&self) -> Duration {
        let (least, most) = (*self.inner.options.delay.start(), *self.inner.options.delay.end());
        let span = u64::try_from(most.saturating_sub(least).as_nanos()).unwrap_or(u64::MAX);
        if span == 0 {
            return least;
        }
        least + Duration::from_nanos(self.inner.runtime.random_u64() % span)
    }
}

/// A member in one of its sessions.
#[derive(Debug, Clone, Copy)]
struct Target {
    id: u64,
    session: u64,
}

impl State {
    /// Everybody who listens to `topic`, the sender too if it does.
    fn listeners(&self, topic: Topic) -> Vec<(Target, Queue)> {
        let members = self.members.iter().filter(|(_, member)| member.topics.contains(&topic));
        members
            .map(|(id, member)| (Target { id: *id, session: member.session }, Queue::Topic(topic)))
            .collect()
    }

    /// To nobody when the session is over, or the connection is cut.
    fn deliver(&self, target: Target, queue: Queue, message: Message) {
        let Some(member) = self.members.get(&target.id) else { return };
        if member.session == target.session && member.is_connected() {
            member.postbox.deliver(queue, message);
        }
    }

    fn lose(&self, target: Target, queue: Queue) {
        if let Some(member) = self.members.get(&target.id) {
            member.metrics.dropped(queue, DropReason::Full);
        }
    }
}

impl Member {
    fn is_connected(&self) -> bool {
        self.health.borrow().is_connected()
    }

    fn apply(&mut self, broker: Way) {
        let health = match (broker, self.way) {
            (Way::Closed, _) | (_, Way::Closed) => {
                self.in_session = false;
                BusHealth::Disconnected
            }
            // A frozen broker greets nobody.
            (Way::Frozen, _) | (_, Way::Frozen) if !self.in_session => BusHealth::Disconnected,
            (Way::Frozen, _) | (_, Way::Frozen) => BusHealth::Silent,
            (Way::Open, Way::Open) => self.connected(),
        };
        self.metrics.health(health);
        self.health.send_if_modified(|current| std::mem::replace(current, health) != health);
    }

    fn connected(&mut self) -> BusHealth {
        if !self.in_session {
            self.in_session = true;
            self.session += 1;
            self.metrics.session(self.session);
        }
        BusHealth::Connected { session: self.session }
    }
}

const REPLY_PREFIX: &str = "holdfast.memory.";

fn reply_queue(id: u64, session: u64) -> String {
    format!("{REPLY_PREFIX}{id}.{session}")
}

/// `None` for what is no reply queue of a [`MemoryBroker`].
fn reply_target(reply_to: &str) -> Option<Target> {
    let (id, session) = reply_to.strip_prefix(REPLY_PREFIX)?.split_once('.')?;
    Some(Target { id: id.parse().ok()?, session: session.parse().ok()? })
}

impl MemoryBus {
    /// What this bus counts.
    #[must_use]
    pub fn metrics(&self) -> &BusMetrics {
        &self.metrics
    }

    /// As [`MemoryBroker::stop`], for this connection alone.
    pub fn stop(&self) {
        self.broker.set_member_way(self.id, Way::Closed);
    }

    /// As [`MemoryBroker::start`], for this connection alone.
    pub fn start(&self) {
        self.broker.set_member_way(self.id, Way::Open);
    }

    /// As [`MemoryBroker::freeze`], for this connection alone.
    pub fn freeze(&self) {
        self.broker.set_member_way(self.id, Way::Frozen);
    }

    fn leave(&self) {
        let left = self.broker.state().members.remove(&self.id);
        if let Some(member) = left {
            member.metrics.health(BusHealth::Disconnected);
            member.health.send_replace(BusHealth::Disconnected);
        }
    }
}

#[async_trait]
impl Bus for MemoryBus {
    async fn publish(&self, topic: Topic, message: Message) -> Result<(), BusError> {
        let sent = self.broker.send(self.id, message, |state| state.listeners(topic));
        sent.inspect_err(|error| self.metrics.publish_failed(error))
    }

    async fn reply(&self, reply_to: &str, message: Message) -> Result<(), BusError> {
        let target = reply_target(reply_to).map(|target| (target, Queue::Replies));
        let sent = check_reply_to(reply_to)
            .and_then(|()| self.broker.send(self.id, message, |_| target.into_iter().collect()));
        sent.inspect_err(|error| self.metrics.publish_failed(error))
    }

    fn health(&self) -> watch::Receiver<BusHealth> {
        self.health.clone()
    }

    async fn close(&self) {
        self.leave();
    }
}

impl Drop for MemoryBus {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
