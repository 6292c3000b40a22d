//! What lives and dies with one connection.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{BoxStream, StreamExt};
use lapin::message::Delivery;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{Channel, Connection, Event};
use thiserror::Error;
use tokio::sync::{Notify, watch};

use super::echo::Echo;
use super::setup::{Arrival, Arrivals};
use super::transport::Lifeline;
use super::{Shared, To, convert};
use crate::inbox::{Postbox, Queue};
use crate::{BusHealth, Message};

/// Longest wait for the broker's farewell.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Messages handed on before the session looks at the clock again.
const BURST: usize = 256;

/// The way out of a session.
pub(super) struct Link {
    channel: Channel,
    reply_queue: ShortString,
    /// A publish failed for another reason than time.
    pub(super) broken: Notify,
}

impl Link {
    pub(super) fn new(channel: Channel, reply_queue: ShortString) -> Self {
        Self { channel, reply_queue, broken: Notify::new() }
    }

    /// Ends when the message is in the socket. The first poll hands it to lapin
    /// as a whole: dropping the future does not cut it in two.
    pub(super) async fn publish(&self, to: To<'_>, message: &Message) -> Result<(), lapin::Error> {
        let (exchange, key) = match to {
            To::Topic(topic) => (topic.exchange().into(), ShortString::default()),
            To::Queue(queue) => (ShortString::default(), queue.clone()),
        };
        let options = BasicPublishOptions::default();
        let properties = convert::properties(message, &self.reply_queue);
        // Confirms are off: what comes back resolves at once and says nothing.
        self.channel
            .basic_publish(exchange, key, options, &message.body, properties)
            .await?
            .await?;
        Ok(())
    }

    async fn publish_echo(self: Arc<Self>, correlation_id: String) -> Result<(), lapin::Error> {
        let message = Message { correlation_id: Some(correlation_id), ..Message::default() };
        self.publish(To::Queue(&self.reply_queue), &message).await
    }
}

/// Why a session ended.
#[derive(Debug, Error)]
pub(super) enum Lost {
    /// It was asked to.
    #[error("closed")]
    Stopped,
    #[error("the connection or a channel broke: {source}")]
    Broker {
        #[source]
        source: lapin::Error,
    },
    #[error("the consumer of {queue} ended")]
    Consumer { queue: &'static str },
    #[error("a publish failed")]
    Publish,
    #[error("no message came back for {silence:?}")]
    Silent { silence: Duration },
}

/// One connection with all that is on it. The fields are dropped in order: the
/// lifeline is last, and cuts what lapin could not end.
pub(super) struct Session {
    arrivals: Arrivals,
    events: BoxStream<'static, Event>,
    link: Arc<Link>,
    /// Dropping it would close it.
    _consuming: Channel,
    connection: Connection,
    _lifeline: Lifeline,
}

/// What changes while a session runs.
struct State {
    echo: Echo,
    health: BusHealth,
    /// An echo on its way into the socket. While it is there, no other is sent:
    /// a blocked broker takes none.
    sending: Option<BoxFuture<'static, Result<(), lapin::Error>>>,
}

/// What woke a session.
#[expect(clippy::large_enum_variant, reason = "nearly all are messages, and boxing costs each one")]
enum Wake {
    Lost(Lost),
    Sent(Result<(), lapin::Error>),
    Event(Event),
    Arrival(Option<Arrival>),
    Time,
}

impl Session {
    pub(super) fn new(
        connection: Connection,
        consuming: Channel,
        link: Arc<Link>,
        arrivals: Arrivals,
        lifeline: Lifeline,
    ) -> Self {
        let events = connection.events_listener().boxed();
        Self { arrivals, events, link, _consuming: consuming, connection, _lifeline: lifeline }
    }

    /// Hands on what arrives and watches the echoes, until the session ends.
    /// Returns why, and whether messages ever came back.
    pub(super) async fn run(
        mut self,
        shared: &Shared,
        postbox: &Postbox,
        number: u64,
    ) -> (Lost, bool) {
        let config = &shared.config;
        let echo = Echo::new(config.echo_interval, config.echo_timeout, shared.runtime.now());
        let mut state = State { echo, health: BusHealth::Disconnected, sending: None };
        let mut stop = shared.stop.subscribe();
        let mut proven = false;
        let lost = loop {
            if let Err(lost) = self.tick(shared, &mut state, number) {
                break lost;
            }
            proven |= state.health.is_connected();
            let wait = state.echo.wait(shared.runtime.now());
            let wake = self.wake(&mut state, &mut stop, shared.runtime.sleep(wait)).await;
            if let Err(lost) = self.apply(wake, shared, postbox, &mut state) {
                break lost;
            }
        };
        // Before anything that takes time: nobody should publish into it.
        shared.set_health(BusHealth::Disconnected, None);
        if matches!(lost, Lost::Stopped) {
            close(&self.connection, shared).await;
        }
        (lost, proven)
    }

    /// Sends the echo that is due and tells whether messages travel.
    fn tick(&self, shared: &Shared, state: &mut State, number: u64) -> Result<(), Lost> {
        let now = shared.runtime.now();
        if state.sending.is_none() && state.echo.is_due(now) {
            let id = state.echo.apply_sent(now);
            state.sending = Some(Arc::clone(&self.link).publish_echo(id).boxed());
        }
        let silence = state.echo.silence(now);
        let given_up = silence >= shared.config.silent_limit;
        if given_up && !self.connection.status().blocked() && !state.echo.is_heard(now) {
            return Err(Lost::Silent { silence });
        }
        let health = if state.echo.is_heard(now) {
            BusHealth::Connected { session: number }
        } else if state.echo.is_overdue(now) {
            BusHealth::Silent
        } else {
            // Not proven yet, or not overdue any more while others still are.
            state.health
        };
        if health != state.health {
            self.tell(shared, state.health, health);
            state.health = health;
        }
        Ok(())
    }

    fn tell(&self, shared: &Shared, before: BusHealth, health: BusHealth) {
        match health {
            BusHealth::Connected { session } => {
                let recovered = before == BusHealth::Silent;
                tracing::info!(session, recovered, "connected to the broker");
                shared.set_health(health, Some(Arc::clone(&self.link)));
            }
            BusHealth::Silent | BusHealth::Disconnected => {
                let blocked = self.connection.status().blocked();
                tracing::warn!(blocked, "the broker is silent: messages do not come back");
                shared.set_health(health, None);
            }
        }
    }

    /// Cancel safe: what it waits for stays where it is.
    async fn wake(
        &mut self,
        state: &mut State,
        stop: &mut watch::Receiver<bool>,
        sleep: impl Future<Output = ()>,
    ) -> Wake {
        let sending = async {
            match &mut state.sending {
                Some(sending) => Pin::new(sending).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // The sender lives as long as the supervisor.
            _ = stop.wait_for(|stop| *stop) => Wake::Lost(Lost::Stopped),
            () = self.link.broken.notified() => Wake::Lost(Lost::Publish),
            sent = sending => Wake::Sent(sent),
            Some(event) = self.events.next() => Wake::Event(event),
            () = sleep => Wake::Time,
            arrival = self.arrivals.next() => Wake::Arrival(arrival),
        }
    }

    fn apply(
        &mut self,
        wake: Wake,
        shared: &Shared,
        postbox: &Postbox,
        state: &mut State,
    ) -> Result<(), Lost> {
        match wake {
            Wake::Lost(lost) => return Err(lost),
            Wake::Sent(sent) => {
                state.sending = None;
                sent.map_err(|source| Lost::Broker { source })?;
            }
            Wake::Event(Event::ConnectionBlocked(reason)) => {
                tracing::warn!(%reason, "the broker blocks publishers");
            }
            // The rest shows where it matters: in consumers and publishes.
            Wake::Event(_) | Wake::Time => (),
            Wake::Arrival(arrival) => self.apply_arrivals(arrival, shared, postbox, state)?,
        }
        Ok(())
    }

    /// Hands on one message and those that wait behind it.
    fn apply_arrivals(
        &mut self,
        first: Option<Arrival>,
        shared: &Shared,
        postbox: &Postbox,
        state: &mut State,
    ) -> Result<(), Lost> {
        let mut next = first;
        for remaining in (0..BURST).rev() {
            match next {
                Some(Arrival::Message(queue, delivery)) => {
                    hand_on(queue, delivery, shared, postbox, &mut state.echo);
                }
                Some(Arrival::Ended(_, Some(source))) => return Err(Lost::Broker { source }),
                Some(Arrival::Ended(queue, None)) => {
                    return Err(Lost::Consumer { queue: queue.label() });
                }
                None => break,
            }
            // What is taken out must be handed on: none after the last.
            next = match remaining {
                0 => None,
                _ => self.arrivals.next().now_or_never().flatten(),
            };
        }
        Ok(())
    }
}

/// Errors are of no use here: the connection is dropped next.
async fn close(connection: &Connection, shared: &Shared) {
    let close = connection.close(200, "OK".into());
    if !matches!(shared.runtime.timeout(CLOSE_LIMIT, close).await, Ok(Ok(()))) {
        tracing::debug!("the broker did not answer to the farewell");
    }
}

/// An echo that somebody else sent to the reply queue is not handed on either.
fn hand_on(queue: Queue, delivery: Delivery, shared: &Shared, postbox: &Postbox, echo: &mut Echo) {
    let id = delivery.properties.correlation_id().as_ref().map(ShortString::as_str);
    match (queue, Echo::number(id)) {
        (Queue::Replies, Some(number)) => echo.apply_heard(number, shared.runtime.now()),
        _ => postbox.deliver(queue, convert::incoming(delivery)),
    }
}
