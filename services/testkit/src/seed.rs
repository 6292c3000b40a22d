//! The programs of the seed, byte for byte on the wire: its RabbitMQ package,
//! and its data server.

mod data_server;

use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};

pub use data_server::SeedDataServer;

/// The seed's `rabbitmq.RabbitMQ`: a channel and a queue that the broker names.
/// Everything panics when it fails, as in the seed.
pub struct SeedQueue {
    connection: Connection,
    channel: Channel,
    /// The name that the broker gave to the queue.
    pub name: String,
    consumer: Option<Consumer>,
}

impl std::fmt::Debug for SeedQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SeedQueue").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SeedQueue {
    /// `rabbitmq.New`: `QueueDeclare("", false, true, false, false, nil)`.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn new(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await;
        let connection = connection.expect("the broker runs");
        let channel = connection.create_channel().await.expect("the broker runs");
        let options = QueueDeclareOptions { auto_delete: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare(ShortString::from(""), options, FieldTable::default());
        let name = queue.await.expect("the broker names it").name().to_string();
        Self { connection, channel, name, consumer: None }
    }

    /// `Bind(exchange)`.
    ///
    /// # Panics
    /// When there is no such exchange.
    pub async fn bind(&self, exchange: &str) {
        let bind = self.channel.queue_bind(
            ShortString::from(self.name.as_str()),
            ShortString::from(exchange),
            ShortString::from(""),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        bind.await.expect("the exchange is there");
    }

    /// `Publish(exchange, body)`: `ReplyTo` and the JSON, and nothing else.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn publish(&self, exchange: &str, body: &str) {
        let json = serde_json::to_vec(body).expect("text");
        self.publish_raw(exchange, "", &json, self.properties()).await;
    }

    /// `Send(queue, body)`.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn send(&self, queue: &str, body: &str) {
        let json = serde_json::to_vec(body).expect("text");
        self.publish_raw("", queue, &json, self.properties()).await;
    }

    /// What the seed sets on every message.
    #[must_use]
    pub fn properties(&self) -> BasicProperties {
        BasicProperties::default().with_reply_to(ShortString::from(self.name.as_str()))
    }

    /// Any message at all, for what the seed would never send.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn publish_raw(
        &self,
        exchange: &str,
        routing_key: &str,
        body: &[u8],
        properties: BasicProperties,
    ) {
        let publish = self.channel.basic_publish(
            ShortString::from(exchange),
            ShortString::from(routing_key),
            BasicPublishOptions::default(),
            body,
            properties,
        );
        publish.await.expect("the broker runs");
    }

    /// `Consume()`: acknowledged by being delivered.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn consume(&mut self) {
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consume = self.channel.basic_consume(
            ShortString::from(self.name.as_str()),
            ShortString::from(""),
            options,
            FieldTable::default(),
        );
        self.consumer = Some(consume.await.expect("the broker runs"));
    }

    /// The next message, if one comes within `limit`.
    ///
    /// # Panics
    /// Before [`Self::consume`], and when the connection breaks.
    pub async fn next(&mut self, limit: Duration) -> Option<Delivery> {
        let consumer = self.consumer.as_mut().expect("consume comes first");
        let next = tokio::time::timeout(limit, consumer.next()).await.ok()?;
        Some(next.expect("the queue is there").expect("the connection is there"))
    }

    /// Declares a fanout exchange with arguments that are not Holdfast's.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn declare_exchange(&self, exchange: &str, options: ExchangeDeclareOptions) {
        let declare = self.channel.exchange_declare(
            ShortString::from(exchange),
            ExchangeKind::Fanout,
            options,
            FieldTable::default(),
        );
        declare.await.expect("there is none of this name yet");
    }

    /// Closes the connection.
    pub async fn close(self) {
        // Closed is closed.
        let _ = self.connection.close(200, ShortString::from("")).await;
    }
}

/// The seed's `strconv.Unquote`, for what it may meet here.
///
/// # Panics
/// When it is not text in quotes.
#[must_use]
pub fn unquote(body: &[u8]) -> String {
    serde_json::from_slice(body).expect("text in quotes, as the seed understands it")
}
