//! The seed's lookup, for comparison only: a connection, a channel and a queue
//! for each, one name as a JSON string to the exchange `dataServers`, the first
//! answer wins, and a second without one is a miss.
//!
//! It is kinder to itself than the seed is. The seed closes the channel a second
//! after the question, whenever the answer came, and never the connection; here
//! the connection is closed as soon as the answer is there, beside the next
//! lookup. The time that closing takes is not counted as latency.
//!
//! The AMQP client is lapin, not the seed's. On two cores it took a third of the
//! time that the pattern used, the broker nearly all of the rest: a client that
//! costs nothing would look up half as much again, at most.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::load::Client;

/// How long the seed waits before it calls it a miss.
const PATIENCE: Duration = Duration::from_secs(1);

/// Looks up as the seed does. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Seed {
    url: Arc<str>,
    closing: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Seed {
    pub(crate) fn new(url: &str) -> Self {
        Self { url: url.into(), closing: Arc::default() }
    }

    async fn locate(&self, name: &str) -> Option<String> {
        let connection = Connection::connect(&self.url, ConnectionProperties::default())
            .await
            .expect("the broker takes connections");
        let address = ask(&connection, name).await.expect("the broker works");
        let close = tokio::spawn(async move {
            // What it says is of no use: nothing is done with it any more.
            let _ = connection.close(200, "OK".into()).await;
        });
        self.closing.lock().unwrap_or_else(PoisonError::into_inner).push(close);
        address
    }

    /// Waits until every connection is closed, so that what is measured next
    /// does not pay for it.
    pub(crate) async fn settle(&self) {
        let closing =
            std::mem::take(&mut *self.closing.lock().unwrap_or_else(PoisonError::into_inner));
        for close in closing {
            close.await.expect("closing does not panic");
        }
    }

    /// Serves `GET /locate/<name>`, each with a lookup of its own.
    pub(crate) async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let seed = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(seed.clone().answer(stream));
            }
        });
        address
    }

    /// Answers the requests of one connection until it ends.
    async fn answer(self, mut stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let (reader, mut writer) = stream.split();
        let mut lines = BufReader::new(reader).lines();
        while let Ok(Some(first)) = lines.next_line().await {
            while matches!(lines.next_line().await, Ok(Some(line)) if !line.is_empty()) {}
            let path = first.split(' ').nth(1).unwrap_or_default();
            let name = path.strip_prefix("/locate/").unwrap_or_default();
            let answer = match self.locate(name).await {
                Some(address) => {
                    let length = address.len() + 2;
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n\"{address}\"")
                }
                None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
            };
            if writer.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

async fn ask(connection: &Connection, name: &str) -> Result<Option<String>, lapin::Error> {
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions { auto_delete: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare("".into(), options, FieldTable::default()).await?;
    let body = serde_json::to_vec(name).expect("text is always JSON");
    let properties = BasicProperties::default().with_reply_to(queue.name().clone());
    let publish = BasicPublishOptions::default();
    channel
        .basic_publish("dataServers".into(), "".into(), publish, &body, properties)
        .await?
        .await?;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let arguments = FieldTable::default();
    let mut answers =
        channel.basic_consume(queue.name().clone(), "".into(), options, arguments).await?;
    match tokio::time::timeout(PATIENCE, answers.next()).await {
        Ok(Some(answer)) => Ok(serde_json::from_slice(&answer?.data).ok()),
        Ok(None) | Err(_) => Ok(None),
    }
}

impl Client for Seed {
    async fn lookup(&mut self, name: &str) -> bool {
        self.locate(name).await.is_some()
    }
}
