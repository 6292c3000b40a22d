//! Whatever others do on the broker, the bus stays where it is.

#![allow(clippy::disallowed_methods, reason = "tests wait for a real broker")]

use common::raw::{RawClient, long, nested_table, short};
use common::{assert_travels, client, shared_broker, start};
use holdfast_bus::conformance::{connected, next, text, wait_for_health};
use holdfast_bus::{Bus, BusHealth, MESSAGE_BYTES, Message, Topic};
use holdfast_core::wire::HeaderValue;
use holdfast_runtime::Runtime;
use lapin::options::{
    BasicPublishOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, DecimalValue, FieldArray, FieldTable};
use lapin::{BasicProperties, ErrorKind, ExchangeKind};

mod common;

const EXCHANGE: &str = "holdfast.locate";

fn runtime() -> Runtime {
    Runtime::real()
}

fn table(entries: impl IntoIterator<Item = (&'static str, AMQPValue)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(name.into(), value);
    }
    table
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_of_every_type_arrive_as_what_is_used_of_them() {
    let broker = shared_broker().await;
    let (_bus, mut inbox) = start(&broker, &[Topic::Locate]).await;
    let (_connection, channel) = client(&broker).await;
    let inner = table([("inner", AMQPValue::Void)]);
    let headers = table([
        ("table", AMQPValue::FieldTable(inner.clone())),
        ("array", AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::FieldTable(inner)]))),
        ("float", AMQPValue::Float(1.5)),
        ("double", AMQPValue::Double(f64::MIN)),
        ("time", AMQPValue::Timestamp(u64::MAX)),
        ("decimal", AMQPValue::DecimalValue(DecimalValue { scale: 255, value: u32::MAX })),
        ("bytes", AMQPValue::ByteArray(vec![0xff; 9].into())),
        ("bad text", AMQPValue::LongString(vec![0xff; 9].into())),
        ("huge", AMQPValue::LongString("x".repeat(100_000).into())),
        ("yes", AMQPValue::Boolean(true)),
        ("int", AMQPValue::ShortShortInt(-7)),
    ]);
    let properties = BasicProperties::default().with_headers(headers).with_priority(255);
    let options = BasicPublishOptions::default();
    let body = b"not json";
    let published = channel.basic_publish(EXCHANGE.into(), "".into(), options, body, properties);
    published.await.expect("connected").await.expect("no confirms");
    let message = next(&runtime(), &mut inbox.locate).await;
    let expected = [
        ("huge", HeaderValue::Text("x".repeat(100_000))),
        ("int", HeaderValue::Int(-7)),
        ("yes", HeaderValue::Int(1)),
    ];
    assert_eq!(message.headers, expected.map(|(name, value)| (name.to_owned(), value)).into());
    assert_eq!((message.body.as_ref(), message.reply_to), (&body[..], None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_no_library_sends_do_not_move_it() {
    const HEADERS: u16 = 1 << 13;
    const CORRELATION_ID: u16 = 1 << 10;
    const REPLY_TO: u16 = 1 << 9;
    let broker = shared_broker().await;
    let (bus, mut inbox) = start(&broker, &[Topic::Locate]).await;
    let bad = [0xff, 0xfe, b'a'];
    let cases: [(&str, &[u8], u16, Vec<u8>); 5] = [
        ("deep tables", b"", HEADERS, long(&nested_table(18_000))),
        ("header name", b"", HEADERS, long(&[&short(&bad)[..], b"V"].concat())),
        ("correlation id", b"", CORRELATION_ID, short(&bad)),
        ("reply queue", b"", REPLY_TO, short(&bad)),
        ("routing key", &bad, 0, Vec::new()),
    ];
    for (name, key, flags, properties) in cases {
        let client = RawClient::connect(broker.address()).await;
        let taken = client.publish(EXCHANGE, key, flags, &properties, b"hostile").await;
        assert!(taken, "the broker refused the message with a bad {name}");
        let message = next(&runtime(), &mut inbox.locate).await;
        assert_eq!(message.body, "hostile", "after a bad {name}");
        if let Some(reply_to) = message.reply_to {
            bus.reply(&reply_to, text("to nobody")).await.expect("harmless");
        }
        assert_travels(&bus, &mut inbox).await;
    }
    assert_eq!(connected(&runtime(), bus.as_ref()).await, 1);
    assert_eq!(bus.metrics().reconnects_total(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_too_large_is_dropped_and_counted() {
    let broker = shared_broker().await;
    let (bus, mut inbox) = start(&broker, &[Topic::Locate]).await;
    let (_connection, channel) = client(&broker).await;
    for bytes in [MESSAGE_BYTES + 1, MESSAGE_BYTES] {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let body = vec![b'x'; bytes];
        let published =
            channel.basic_publish(EXCHANGE.into(), "".into(), options, &body, properties);
        published.await.expect("connected").await.expect("no confirms");
    }
    assert_eq!(next(&runtime(), &mut inbox.locate).await.body.len(), MESSAGE_BYTES);
    assert_eq!(bus.metrics().dropped_total(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exchanges_that_are_there_with_other_arguments_are_used_as_they_are() {
    let broker = shared_broker().await;
    let (_connection, channel) = client(&broker).await;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let alternate = table([("alternate-exchange", AMQPValue::LongString("amq.fanout".into()))]);
    let existing = [
        ("apiServers", ExchangeKind::Fanout, ExchangeDeclareOptions::default(), table([])),
        ("dataServers", ExchangeKind::Fanout, durable, alternate),
        (EXCHANGE, ExchangeKind::Direct, durable, table([])),
    ];
    for (name, kind, options, arguments) in existing {
        let delete = channel.exchange_delete(name.into(), ExchangeDeleteOptions::default());
        delete.await.expect("connected");
        channel.exchange_declare(name.into(), kind, options, arguments).await.expect("deleted");
    }
    let (bus, mut inbox) = start(&broker, &Topic::ALL).await;
    for topic in Topic::ALL {
        bus.publish(topic, text(topic.exchange())).await.expect("connected");
    }
    for (queue, topic) in [&mut inbox.api_servers, &mut inbox.data_servers, &mut inbox.locate]
        .into_iter()
        .zip(Topic::ALL)
    {
        assert_eq!(next(&runtime(), queue).await.body, topic.exchange());
    }
    assert_eq!(connected(&runtime(), bus.as_ref()).await, 1);
    let delete = channel.exchange_delete(EXCHANGE.into(), ExchangeDeleteOptions::default());
    delete.await.expect("connected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_that_vanishes_is_declared_again() {
    let broker = shared_broker().await;
    let (bus, mut inbox) = start(&broker, &[Topic::Locate]).await;
    let (_connection, channel) = client(&broker).await;
    let delete = channel.exchange_delete(EXCHANGE.into(), ExchangeDeleteOptions::default());
    delete.await.expect("connected");
    // It goes into the socket, and costs the channel later.
    bus.publish(Topic::Locate, text("lost")).await.expect("connected");
    let second = |health: &BusHealth| *health == BusHealth::Connected { session: 2 };
    wait_for_health(&runtime(), bus.as_ref(), second).await;
    assert_travels(&bus, &mut inbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_queues_are_its_own() {
    let broker = shared_broker().await;
    let (bus, mut inbox) = start(&broker, &[Topic::Locate]).await;
    let asking = Message { wants_reply: true, ..text("x") };
    bus.publish(Topic::Locate, asking).await.expect("connected");
    let reply_queue = next(&runtime(), &mut inbox.locate).await.reply_to.expect("asked for");
    let (_connection, channel) = client(&broker).await;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(reply_queue.into(), passive, table([])).await;
    let error = declared.expect_err("the queue is somebody else's");
    assert!(
        matches!(error.kind(), ErrorKind::ProtocolError(error) if error.get_id() == 405),
        "{error}"
    );
}

/// Somebody answers to a queue with what looks like an echo of ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_echo_is_not_handed_on() {
    let broker = shared_broker().await;
    let (bus, mut inbox) = start(&broker, &[Topic::Locate]).await;
    bus.publish(Topic::Locate, Message { wants_reply: true, ..text("x") })
        .await
        .expect("connected");
    let reply_queue = next(&runtime(), &mut inbox.locate).await.reply_to.expect("asked for");
    let forged =
        Message { correlation_id: Some("holdfast.echo.99999999".to_owned()), ..text("forged") };
    bus.reply(&reply_queue, forged).await.expect("connected");
    bus.reply(&reply_queue, text("answer")).await.expect("connected");
    assert_eq!(next(&runtime(), &mut inbox.replies).await.body, "answer");
}
