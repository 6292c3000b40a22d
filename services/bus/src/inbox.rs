//! The way in, the same for every bus.

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::metrics::DropReason;
use crate::{BusMetrics, MESSAGE_BYTES, Message, Topic};

/// Messages that wait in each queue of an [`Inbox`].
pub const INBOX_MESSAGES: usize = 4_096;

/// The way in: bounded queues, one for each topic that was asked for and one
/// for answers, so that a flood of one does not hold up another. When a queue
/// is full, messages are dropped and counted. The queue of a topic that was not
/// asked for stays empty. All end when the bus is closed or dropped.
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

/// One queue of an [`Inbox`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queue {
    Topic(Topic),
    Replies,
}

impl Queue {
    pub(crate) const ALL: [Self; 4] = [
        Self::Topic(Topic::ApiServers),
        Self::Topic(Topic::DataServers),
        Self::Topic(Topic::Locate),
        Self::Replies,
    ];

    /// As the metrics name it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Topic(Topic::ApiServers) => "api_servers",
            Self::Topic(Topic::DataServers) => "data_servers",
            Self::Topic(Topic::Locate) => "locate",
            Self::Replies => "replies",
        }
    }
}

/// The other end of an [`Inbox`].
#[derive(Debug)]
pub(crate) struct Postbox {
    api_servers: mpsc::Sender<Message>,
    data_servers: mpsc::Sender<Message>,
    locate: mpsc::Sender<Message>,
    replies: mpsc::Sender<Message>,
    metrics: BusMetrics,
}

impl Postbox {
    pub(crate) fn new(metrics: BusMetrics) -> (Self, Inbox) {
        let (api_servers, api_servers_in) = mpsc::channel(INBOX_MESSAGES);
        let (data_servers, data_servers_in) = mpsc::channel(INBOX_MESSAGES);
        let (locate, locate_in) = mpsc::channel(INBOX_MESSAGES);
        let (replies, replies_in) = mpsc::channel(INBOX_MESSAGES);
        let inbox = Inbox {
            api_servers: api_servers_in,
            data_servers: data_servers_in,
            locate: locate_in,
            replies: replies_in,
        };
        (Self { api_servers, data_servers, locate, replies, metrics }, inbox)
    }

    /// Puts a message into its queue, or drops and counts it: a reader that is
    /// behind never holds up the connection.
    pub(crate) fn deliver(&self, queue: Queue, message: Message) {
        if message.body.len() > MESSAGE_BYTES {
            self.metrics.dropped(queue, DropReason::Oversized);
            return;
        }
        match self.sender(queue).try_send(message) {
            Ok(()) => (),
            Err(TrySendError::Full(_)) => self.metrics.dropped(queue, DropReason::Full),
            Err(TrySendError::Closed(_)) => self.metrics.dropped(queue, DropReason::Closed),
        }
    }

    fn sender(&self, queue: Queue) -> &mpsc::Sender<Message> {
        match queue {
            Queue::Topic(Topic::ApiServers) => &self.api_servers,
            Queue::Topic(Topic::DataServers) => &self.data_servers,
            Queue::Topic(Topic::Locate) => &self.locate,
            Queue::Replies => &self.replies,
        }
    }
}
