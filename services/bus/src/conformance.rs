//! What every bus does. Each implementation runs [`run`] in its tests, so that
//! what is tested on the one in memory holds on RabbitMQ.
//!
//! The checks panic: they are for tests.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_core::wire::HeaderValue;
use holdfast_runtime::Runtime;
use tokio::sync::mpsc;

use crate::{
    Bus, BusError, BusHealth, BusMetrics, INBOX_MESSAGES, Inbox, MESSAGE_BYTES, Message, Topic,
};

/// Longest wait for anything; a real broker takes 5 s to start on an idle
/// machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A broker whose bus is checked.
#[async_trait]
pub trait Subject: Send + Sync {
    /// A new connection, not necessarily up yet, and its counters.
    async fn connect(&self, topics: &[Topic]) -> (Arc<dyn Bus>, Inbox, BusMetrics);
    /// Ends the broker, and with it every session.
    async fn stop(&mut self);
    /// Starts the broker after [`Self::stop`].
    async fn start(&mut self);
    /// Makes the broker hang.
    async fn freeze(&mut self);
    /// Lets it go on.
    async fn thaw(&mut self);
}

/// Every check. The broker is there at the start and at the end.
///
/// # Panics
/// When a check fails, or takes longer than a minute.
pub async fn run(runtime: &Runtime, subject: &mut dyn Subject) {
    every_listener_gets_each_message_and_nobody_else(runtime, subject).await;
    messages_survive_the_way(runtime, subject).await;
    nothing_of_a_burst_is_lost(runtime, subject).await;
    answers_reach_only_the_asker(runtime, subject).await;
    what_does_not_fit_is_refused(runtime, subject).await;
    a_full_queue_drops_and_holds_up_no_other(runtime, subject).await;
    a_hang_is_noticed_and_survived(runtime, subject).await;
    an_outage_ends_the_session_and_a_new_one_follows(runtime, subject).await;
    a_closed_bus_is_away_and_its_queues_end(runtime, subject).await;
}

/// A message with this text as its body.
#[must_use]
pub fn text(text: &str) -> Message {
    Message { body: Bytes::copy_from_slice(text.as_bytes()), ..Message::default() }
}

/// Waits until `health` satisfies `wanted`; returns it.
///
/// # Panics
/// When it does not within a minute.
pub async fn wait_for_health(
    runtime: &Runtime,
    bus: &dyn Bus,
    wanted: impl FnMut(&BusHealth) -> bool,
) -> BusHealth {
    let mut health = bus.health();
    *within(runtime, "a change of health", health.wait_for(wanted)).await.expect("the bus is there")
}

/// Waits for a connection; returns its session.
///
/// # Panics
/// When there is none within a minute.
pub async fn connected(runtime: &Runtime, bus: &dyn Bus) -> u64 {
    match wait_for_health(runtime, bus, |health| health.is_connected()).await {
        BusHealth::Connected { session } => session,
        other => panic!("{other:?} is no connection"),
    }
}

/// The next message of a queue.
///
/// # Panics
/// When none comes within a minute, or the queue has ended.
pub async fn next(runtime: &Runtime, queue: &mut mpsc::Receiver<Message>) -> Message {
    within(runtime, "a message", queue.recv()).await.expect("the queue is open")
}

async fn within<T>(runtime: &Runtime, what: &str, future: impl Future<Output = T>) -> T {
    let result = runtime.timeout(LIMIT, future).await;
    result.unwrap_or_else(|elapsed| panic!("waited for {what}: {elapsed}"))
}

async fn connect(
    runtime: &Runtime,
    subject: &dyn Subject,
    topics: &[Topic],
) -> (Arc<dyn Bus>, Inbox, BusMetrics) {
    let connection = subject.connect(topics).await;
    connected(runtime, connection.0.as_ref()).await;
    connection
}

async fn every_listener_gets_each_message_and_nobody_else(
    runtime: &Runtime,
    subject: &dyn Subject,
) {
    let (sender, mut own, _) = connect(runtime, subject, &[Topic::Locate]).await;
    let (_one, mut one, _) = connect(runtime, subject, &[Topic::Locate, Topic::ApiServers]).await;
    let (_two, mut two, _) = connect(runtime, subject, &[Topic::DataServers]).await;
    for topic in [Topic::ApiServers, Topic::DataServers, Topic::Locate] {
        sender.publish(topic, text("first")).await.expect("connected");
        sender.publish(topic, text("last")).await.expect("connected");
    }
    for queue in [&mut own.locate, &mut one.locate, &mut one.api_servers, &mut two.data_servers] {
        let mut bodies = [next(runtime, queue).await.body, next(runtime, queue).await.body];
        bodies.sort();
        assert_eq!(bodies, ["first", "last"]);
    }
    for queue in [&mut own.api_servers, &mut one.data_servers, &mut two.locate, &mut own.replies] {
        assert!(queue.try_recv().is_err(), "a message about another topic");
    }
}

async fn messages_survive_the_way(runtime: &Runtime, subject: &dyn Subject) {
    let (bus, mut inbox, _) = connect(runtime, subject, &[Topic::Locate]).await;
    let headers = [
        ("least", HeaderValue::Int(i64::MIN)),
        ("most", HeaderValue::Int(i64::MAX)),
        ("text", HeaderValue::Text("Grüße".to_owned())),
        ("empty", HeaderValue::Text(String::new())),
        ("long", HeaderValue::Text("x".repeat(32 << 10))),
    ];
    let sent = Message {
        headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
        correlation_id: Some("c".repeat(255)),
        ..Message::default()
    };
    for bytes in [0, 1, 131_072, 1 << 20] {
        let sent = Message { body: Bytes::from(vec![7; bytes]), ..sent.clone() };
        bus.publish(Topic::Locate, sent.clone()).await.expect("connected");
        assert_eq!(next(runtime, &mut inbox.locate).await, sent);
    }
}

/// From many senders at once; on a healthy broker and with room in the queue.
async fn nothing_of_a_burst_is_lost(runtime: &Runtime, subject: &dyn Subject) {
    const SENDERS: usize = 32;
    const MESSAGES: usize = 100;
    let (bus, mut inbox, metrics) = connect(runtime, subject, &[Topic::Locate]).await;
    let senders = (0..SENDERS).map(|sender| {
        let bus = Arc::clone(&bus);
        async move {
            for number in 0..MESSAGES {
                let body = text(&format!("{sender}/{number}"));
                bus.publish(Topic::Locate, body).await.expect("connected");
            }
        }
    });
    futures_util::future::join_all(senders).await;
    let mut bodies = BTreeSet::new();
    while bodies.len() < SENDERS * MESSAGES {
        assert!(bodies.insert(next(runtime, &mut inbox.locate).await.body), "one came twice");
    }
    assert_eq!(metrics.dropped_total(), 0);
}

async fn answers_reach_only_the_asker(runtime: &Runtime, subject: &dyn Subject) {
    let (asker, mut asker_inbox, _) = connect(runtime, subject, &[]).await;
    let (server, mut server_inbox, _) = connect(runtime, subject, &[Topic::DataServers]).await;
    let (_other, mut other_inbox, _) = connect(runtime, subject, &[Topic::DataServers]).await;
    let question = Message {
        wants_reply: true,
        correlation_id: Some("7".to_owned()),
        // Set by the bus, not by the caller.
        reply_to: Some("elsewhere".to_owned()),
        ..text("who has it?")
    };
    asker.publish(Topic::DataServers, question).await.expect("connected");
    let heard = next(runtime, &mut server_inbox.data_servers).await;
    let reply_to = heard.reply_to.expect("an answer is wanted");
    let answer = Message { correlation_id: heard.correlation_id, ..text("I") };
    // Nobody is behind these; they must not hurt what follows.
    for unknown in ["nobody", "amq.gen-gone", "holdfast.memory.9.9", "ä"] {
        server.reply(unknown, text("lost")).await.expect("harmless");
    }
    server.reply(&reply_to, answer.clone()).await.expect("connected");
    assert_eq!(next(runtime, &mut asker_inbox.replies).await, answer);
    for inbox in [&mut server_inbox, &mut other_inbox] {
        assert!(inbox.replies.try_recv().is_err(), "an answer to somebody else");
    }
}

async fn what_does_not_fit_is_refused(runtime: &Runtime, subject: &dyn Subject) {
    let (bus, mut inbox, _) = connect(runtime, subject, &[Topic::Locate]).await;
    let long = "x".repeat(256);
    let header = |name: &str, bytes| {
        [(name.to_owned(), HeaderValue::Text("x".repeat(bytes)))].into_iter().collect()
    };
    let misfits = [
        ("body", Message { body: vec![0; MESSAGE_BYTES + 1].into(), ..Message::default() }),
        ("correlation_id", Message { correlation_id: Some(long.clone()), ..Message::default() }),
        ("headers", Message { headers: header(&long, 1), ..Message::default() }),
        ("headers", Message { headers: header("h", 1 << 20), ..Message::default() }),
    ];
    for (expected, message) in misfits {
        let refused = bus.publish(Topic::Locate, message).await;
        assert!(
            matches!(refused, Err(BusError::Invalid { part }) if part == expected),
            "{refused:?} instead of {expected}"
        );
    }
    for reply_to in ["", &long] {
        let refused = bus.reply(reply_to, text("x")).await;
        assert!(matches!(refused, Err(BusError::Invalid { part: "reply_to" })), "{refused:?}");
    }
    bus.publish(Topic::Locate, text("unhurt")).await.expect("connected");
    assert_eq!(next(runtime, &mut inbox.locate).await.body, "unhurt");
}

async fn a_full_queue_drops_and_holds_up_no_other(runtime: &Runtime, subject: &dyn Subject) {
    const TOO_MANY: usize = 1_000;
    let (sender, _own, _) = connect(runtime, subject, &[]).await;
    let topics = [Topic::DataServers, Topic::Locate];
    let (_bus, mut inbox, metrics) = connect(runtime, subject, &topics).await;
    for _ in 0..INBOX_MESSAGES + TOO_MANY {
        sender.publish(Topic::DataServers, text("flood")).await.expect("connected");
    }
    let all_dropped = async {
        while metrics.dropped_total() < TOO_MANY as u64 {
            runtime.sleep(Duration::from_millis(5)).await;
        }
    };
    within(runtime, "the queue to overflow", all_dropped).await;
    sender.publish(Topic::Locate, text("other")).await.expect("connected");
    assert_eq!(next(runtime, &mut inbox.locate).await.body, "other");
    let kept = std::iter::from_fn(|| inbox.data_servers.try_recv().ok()).count();
    assert_eq!((kept, metrics.dropped_total()), (INBOX_MESSAGES, TOO_MANY as u64));
}

async fn a_hang_is_noticed_and_survived(runtime: &Runtime, subject: &mut dyn Subject) {
    let (bus, mut inbox, _) = connect(runtime, subject, &[Topic::Locate]).await;
    let session = connected(runtime, bus.as_ref()).await;
    subject.freeze().await;
    wait_for_health(runtime, bus.as_ref(), |health| *health == BusHealth::Silent).await;
    let refused = bus.publish(Topic::Locate, text("into the void")).await;
    assert!(matches!(refused, Err(BusError::Away)), "{refused:?}");
    subject.thaw().await;
    assert_eq!(connected(runtime, bus.as_ref()).await, session);
    bus.publish(Topic::Locate, text("after")).await.expect("connected");
    assert_eq!(next(runtime, &mut inbox.locate).await.body, "after");
}

async fn an_outage_ends_the_session_and_a_new_one_follows(
    runtime: &Runtime,
    subject: &mut dyn Subject,
) {
    let (bus, mut inbox, metrics) = connect(runtime, subject, &[Topic::Locate]).await;
    let session = connected(runtime, bus.as_ref()).await;
    let asking = Message { wants_reply: true, ..text("before") };
    bus.publish(Topic::Locate, asking).await.expect("connected");
    let old_queue = next(runtime, &mut inbox.locate).await.reply_to.expect("an answer is wanted");
    subject.stop().await;
    wait_for_health(runtime, bus.as_ref(), |health| *health == BusHealth::Disconnected).await;
    let refused = bus.publish(Topic::Locate, text("into the void")).await;
    assert!(matches!(refused, Err(BusError::Away)), "{refused:?}");
    subject.start().await;
    assert!(connected(runtime, bus.as_ref()).await > session);
    assert_eq!(metrics.reconnects_total(), 1);
    bus.reply(&old_queue, text("too late")).await.expect("harmless");
    bus.publish(Topic::Locate, text("after")).await.expect("connected");
    assert_eq!(next(runtime, &mut inbox.locate).await.body, "after");
    assert!(inbox.replies.try_recv().is_err(), "an answer to an earlier session");
}

async fn a_closed_bus_is_away_and_its_queues_end(runtime: &Runtime, subject: &dyn Subject) {
    let (bus, mut inbox, _) = connect(runtime, subject, &[Topic::Locate]).await;
    within(runtime, "the farewell", bus.close()).await;
    within(runtime, "the second farewell", bus.close()).await;
    assert_eq!(*bus.health().borrow(), BusHealth::Disconnected);
    let refused = bus.publish(Topic::Locate, text("x")).await;
    assert!(matches!(refused, Err(BusError::Away)), "{refused:?}");
    for queue in [&mut inbox.locate, &mut inbox.replies, &mut inbox.api_servers] {
        assert!(within(runtime, "the end of a queue", queue.recv()).await.is_none());
    }
}
