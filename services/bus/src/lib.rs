//! Messages between services.
//!
//! [`Bus`] carries small messages: heartbeats and locates to everybody who
//! listens to a [`Topic`], and answers to one process. It may lose, repeat and
//! delay messages, and may be away for hours; nothing relies on it for
//! correctness. Object bytes never travel over it.

pub mod conformance;
mod inbox;
mod memory;
mod metrics;
mod rabbit;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_core::wire::{
    EXCHANGE_API_SERVERS, EXCHANGE_DATA_SERVERS, EXCHANGE_LOCATE, HeaderValue, Headers,
};
pub use inbox::{INBOX_MESSAGES, Inbox};
pub use memory::{MemoryBroker, MemoryBrokerOptions, MemoryBus};
pub use metrics::BusMetrics;
pub use rabbit::{RabbitBus, RabbitConfig, RabbitParts, RabbitUrlError};
use thiserror::Error;
use tokio::sync::watch;

/// What a message is about: who listens to a topic gets every message of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Heartbeats.
    ApiServers,
    /// Single-name locates, as in the seed.
    DataServers,
    /// Batched locates.
    Locate,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 3] = [Self::ApiServers, Self::DataServers, Self::Locate];

    /// The exchange that carries it.
    #[must_use]
    pub fn exchange(self) -> &'static str {
        match self {
            Self::ApiServers => EXCHANGE_API_SERVERS,
            Self::DataServers => EXCHANGE_DATA_SERVERS,
            Self::Locate => EXCHANGE_LOCATE,
        }
    }
}

/// A message, in either direction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// The body.
    pub body: Bytes,
    /// The headers of the types that are used; others were left out.
    pub headers: Headers,
    /// Where an answer goes. On the way out it is set by the bus, to the
    /// sender's own reply queue, when `wants_reply`.
    pub reply_to: Option<String>,
    /// Ties an answer to its request.
    pub correlation_id: Option<String>,
    /// On the way out: an answer is wanted.
    pub wants_reply: bool,
}

/// Whether messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusHealth {
    /// Messages come back to their sender in time.
    Connected {
        /// Counts the connections that this process has made. Answers to
        /// requests of an earlier session will not come.
        session: u64,
    },
    /// There is a connection, but messages do not come back: the broker hangs,
    /// or an alarm blocks publishers.
    Silent,
    /// There is no connection.
    Disconnected,
}

impl BusHealth {
    /// Whether it is worth sending a message.
    #[must_use]
    pub fn is_connected(self) -> bool {
        matches!(self, Self::Connected { .. })
    }
}

/// Why a message was not sent.
#[derive(Debug, Error)]
pub enum BusError {
    /// There is no connection, or the broker is silent.
    #[error("the broker is away")]
    Away,
    /// The broker did not take the message in time.
    #[error("the broker did not take the message within {limit:?}")]
    Timeout {
        /// The limit.
        limit: Duration,
    },
    /// A part of the message is longer than a message can carry, or empty where
    /// it must not be. It was not sent.
    #[error("the {part} does not fit a message")]
    Invalid {
        /// The part: `body`, `headers`, `reply_to` or `correlation_id`.
        part: &'static str,
    },
    /// The broker refused, or the connection broke.
    #[error("the broker failed: {source}")]
    Broker {
        /// What the client library says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The way out.
#[async_trait]
pub trait Bus: Send + Sync + fmt::Debug + 'static {
    /// Sends to everybody who listens to `topic`. Returns within a bounded time
    /// when the broker hangs. `Ok` does not mean that anybody got it.
    ///
    /// # Errors
    /// [`BusError`]; the message may have been sent all the same.
    async fn publish(&self, topic: Topic, message: Message) -> Result<(), BusError>;

    /// Sends to the one who gave `reply_to`. As [`Self::publish`].
    ///
    /// # Errors
    /// [`BusError`]; the message may have been sent all the same.
    async fn reply(&self, reply_to: &str, message: Message) -> Result<(), BusError>;

    /// Whether messages travel, and each change of it.
    fn health(&self) -> watch::Receiver<BusHealth>;

    /// Closes the connection after what was sent before. Later calls fail, and
    /// the queues of the [`Inbox`] end once they are empty. Bounded in time.
    async fn close(&self);
}

/// Longest `reply_to` and `correlation_id` in bytes: AMQP counts them in one
/// byte. Both come from the network.
pub(crate) const SHORT_TEXT_BYTES: usize = 255;

/// Largest body in bytes, in both directions. The largest message that Holdfast
/// sends is a locate answer of `MAX_ANSWER_BYTES`, which is less.
pub const MESSAGE_BYTES: usize = 4 << 20;

/// Largest headers in bytes on the way out. They travel in one frame, which
/// RabbitMQ allows 128 KiB; a larger one would cost the connection.
pub(crate) const HEADER_BYTES: usize = 64 << 10;

impl Message {
    /// Whether the message can be sent, so that every bus refuses the same.
    fn check(&self) -> Result<(), BusError> {
        let headers: usize =
            self.headers.iter().map(|(name, value)| header_bytes(name, value)).sum();
        let long_name = self.headers.keys().any(|name| name.len() > SHORT_TEXT_BYTES);
        let correlation_bytes = self.correlation_id.as_ref().map_or(0, String::len);
        match () {
            () if self.body.len() > MESSAGE_BYTES => Err(BusError::Invalid { part: "body" }),
            () if headers > HEADER_BYTES || long_name => Err(BusError::Invalid { part: "headers" }),
            () if correlation_bytes > SHORT_TEXT_BYTES => {
                Err(BusError::Invalid { part: "correlation_id" })
            }
            () => Ok(()),
        }
    }
}

fn check_reply_to(reply_to: &str) -> Result<(), BusError> {
    if reply_to.is_empty() || reply_to.len() > SHORT_TEXT_BYTES {
        return Err(BusError::Invalid { part: "reply_to" });
    }
    Ok(())
}

/// Name, type and value, as AMQP writes them.
fn header_bytes(name: &str, value: &HeaderValue) -> usize {
    let value = match value {
        HeaderValue::Int(_) => 8,
        HeaderValue::Text(text) => 4 + text.len(),
    };
    2 + name.len() + value
}
