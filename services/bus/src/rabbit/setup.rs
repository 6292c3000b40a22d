//! Everything a session needs of the broker.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream, SelectAll};
use lapin::message::Delivery;
use lapin::options::{
    BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};
use thiserror::Error;

use super::Shared;
use super::config::RabbitConfig;
use super::session::{Link, Session};
use super::transport::{self, LapinRuntime, Lifeline, Wire};
use crate::inbox::Queue;
use crate::{MESSAGE_BYTES, Topic};

/// Largest backlog of one queue in the broker, in bytes of bodies.
const BACKLOG_BYTES: i64 = 16 * MESSAGE_BYTES as i64;

/// Why there is no session.
#[derive(Debug, Error)]
pub(super) enum OpenError {
    #[error("no connection: {source}")]
    Connect {
        #[source]
        source: io::Error,
    },
    #[error("the broker refused: {source}")]
    Broker {
        #[from]
        source: lapin::Error,
    },
    #[error("no answer within {limit:?}")]
    Timeout { limit: Duration },
}

/// What comes from the consumers of a session.
#[expect(clippy::large_enum_variant, reason = "nearly all are messages, and boxing costs each one")]
pub(super) enum Arrival {
    Message(Queue, Delivery),
    /// The consumer is gone: the connection broke, its channel did, or somebody
    /// deleted its queue.
    Ended(Queue, Option<lapin::Error>),
}

pub(super) type Arrivals = SelectAll<BoxStream<'static, Arrival>>;

/// Connects and sets everything up, within the limit of the configuration.
/// Whatever goes wrong on the way, nothing of it stays behind.
pub(super) async fn open(shared: &Shared, topics: &[Topic]) -> Result<Session, OpenError> {
    let limit = shared.config.connect_timeout;
    let open = async {
        let wire = transport::connect(&shared.runtime, &shared.config)
            .await
            .map_err(|source| OpenError::Connect { source })?;
        let lifeline = wire.lifeline();
        let session = build(&shared.config, topics, wire, lifeline).await?;
        Ok(session)
    };
    shared.runtime.timeout(limit, open).await.unwrap_or(Err(OpenError::Timeout { limit }))
}

/// `lifeline` is a parameter so that it is dropped after everything in here.
async fn build(
    config: &RabbitConfig,
    topics: &[Topic],
    wire: Wire,
    lifeline: Lifeline,
) -> Result<Session, lapin::Error> {
    let connection = greet(config, wire).await?;
    for topic in Topic::ALL {
        declare_exchange(&connection, topic).await?;
    }
    let consuming = connection.create_channel().await?;
    let mut arrivals = SelectAll::new();
    for topic in topics {
        let queue = declare_queue(&consuming, config).await?;
        bind(&consuming, &queue, *topic).await?;
        arrivals.push(consume(&consuming, &queue, Queue::Topic(*topic)).await?);
    }
    let reply_queue = declare_queue(&consuming, config).await?;
    arrivals.push(consume(&consuming, &reply_queue, Queue::Replies).await?);
    // Its own channel: a publish that fails takes no consumer with it.
    let channel = connection.create_channel().await?;
    let link = Arc::new(Link::new(channel, reply_queue));
    Ok(Session::new(connection, consuming, link, arrivals, lifeline))
}

/// The AMQP greeting over a connection that is there. Auto-recovery stays off.
async fn greet(config: &RabbitConfig, wire: Wire) -> Result<Connection, lapin::Error> {
    let properties = ConnectionProperties::default()
        .with_connection_name(config.connection_name.clone().into())
        .with_client_property("product".into(), "holdfast".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    let wire = Mutex::new(Some(AsyncTcpStream::Plain(wire)));
    let take = async move |_uri, _runtime: LapinRuntime| {
        let taken = wire.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A second call would be a retry, which is switched off.
        taken.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected).into())
    };
    Connection::connector(config.uri.clone(), transport::lapin_runtime(), take, properties).await
}

/// An exchange that is there with other arguments, or that this user may not
/// declare, is used as it is. The refusal closes the channel, so each exchange
/// has one of its own.
async fn declare_exchange(connection: &Connection, topic: Topic) -> Result<(), lapin::Error> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let passive = ExchangeDeclareOptions { passive: true, ..durable };
    match declare(connection, topic, durable).await {
        Err(_) if connection.status().connected() => declare(connection, topic, passive).await,
        declared => declared,
    }
}

async fn declare(
    connection: &Connection,
    topic: Topic,
    options: ExchangeDeclareOptions,
) -> Result<(), lapin::Error> {
    let channel = connection.create_channel().await?;
    let name = topic.exchange().into();
    channel.exchange_declare(name, ExchangeKind::Fanout, options, FieldTable::default()).await?;
    channel.close(200, "OK".into()).await
}

/// A queue that is this connection's alone and ends with it, named by the
/// broker. What piles up in it is bounded in number, size and age.
async fn declare_queue(
    channel: &Channel,
    config: &RabbitConfig,
) -> Result<ShortString, lapin::Error> {
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let age = i64::try_from(config.backlog_age.as_millis()).unwrap_or(i64::MAX);
    let mut arguments = FieldTable::default();
    for (name, limit) in [
        ("x-max-length", i64::from(config.backlog_messages)),
        ("x-max-length-bytes", BACKLOG_BYTES),
        ("x-message-ttl", age),
    ] {
        arguments.insert(name.into(), AMQPValue::LongLongInt(limit));
    }
    let overflow = AMQPValue::LongString(LongString::from("drop-head"));
    arguments.insert("x-overflow".into(), overflow);
    let queue = channel.queue_declare("".into(), options, arguments).await?;
    Ok(queue.name().clone())
}

async fn bind(channel: &Channel, queue: &ShortString, topic: Topic) -> Result<(), lapin::Error> {
    let options = QueueBindOptions::default();
    let exchange = topic.exchange().into();
    channel.queue_bind(queue.clone(), exchange, "".into(), options, FieldTable::default()).await
}

/// Without acknowledgements: a message that is lost is sent again by whoever
/// needs it. The session empties the consumer at once, into bounded queues.
async fn consume(
    channel: &Channel,
    queue: &ShortString,
    slot: Queue,
) -> Result<BoxStream<'static, Arrival>, lapin::Error> {
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let arguments = FieldTable::default();
    let consumer: Consumer =
        channel.basic_consume(queue.clone(), "".into(), options, arguments).await?;
    let messages = consumer.map(move |delivery| match delivery {
        Ok(delivery) => Arrival::Message(slot, delivery),
        Err(error) => Arrival::Ended(slot, Some(error)),
    });
    let end = stream::once(async move { Arrival::Ended(slot, None) });
    Ok(messages.chain(end).boxed())
}
