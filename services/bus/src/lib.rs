//! Messages between services.
//!
//! [`Bus`] carries small messages: heartbeats and locates to everybody who
//! listens to a [`Topic`], and answers to one process. It may lose, repeat and
//! delay messages, and may be away for hours; nothing relies on it for
//! correctness. Object bytes never travel over it.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_core::wire::{EXCHANGE_API_SERVERS, EXCHANGE_DATA_SERVERS, EXCHANGE_LOCATE, Headers};
use thiserror::Error;
use tokio::sync::{mpsc, watch};

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

    /// Closes the connection after what was sent before. Later calls fail.
    async fn close(&self);
}

/// The way in: bounded queues, one for each topic that was asked for and one
/// for answers, so that a flood of one does not hold up another. When a queue
/// is full, messages are dropped and counted.
#[derive(Debug)]
pub struct Inbox {
    /// Heartbeats, if asked for.
    pub api_servers: mpsc::Receiver<Message>,
    /// Single-name locates, if asked for.
    pub data_servers: mpsc::Receiver<Message>,
    /// Batched locates, if asked for.
    pub locate: mpsc::Receiver<Message>,
    /// Answers to this process's own requests.
    pub replies: mpsc::Receiver<Message>,
}

/// Messages that wait in each queue of an [`Inbox`].
pub const INBOX_MESSAGES: usize = 4_096;
