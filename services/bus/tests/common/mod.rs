//! What the tests against a real broker share.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod raw;

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_bus::conformance::{connected, next, text};
use holdfast_bus::{Bus, Inbox, RabbitBus, RabbitConfig, Topic};
use holdfast_runtime::Runtime;
use holdfast_testkit::broker::Broker;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

/// The broker of this test file. A start costs seconds, so its tests share it,
/// one at a time. It is cleaned up when the process ends.
pub async fn shared_broker() -> MutexGuard<'static, Broker> {
    static BROKER: OnceCell<Mutex<Broker>> = OnceCell::const_new();
    BROKER.get_or_init(async || Mutex::new(Broker::start().await)).await.lock().await
}

/// The defaults, but quicker to notice and to try again.
pub fn config(url: &str) -> RabbitConfig {
    let mut config = RabbitConfig::new(url).expect("a good URL");
    config.echo_interval = Duration::from_millis(100);
    config.echo_timeout = Duration::from_millis(800);
    config.retry_min = Duration::from_millis(20);
    config.retry_max = Duration::from_millis(200);
    config
}

/// A connected bus.
pub async fn start(broker: &Broker, topics: &[Topic]) -> (Arc<RabbitBus>, Inbox) {
    let (bus, inbox) = RabbitBus::start(Runtime::real(), config(&broker.url()), topics);
    connected(&Runtime::real(), bus.as_ref()).await;
    (bus, inbox)
}

/// That messages travel, after whatever came before.
pub async fn assert_travels(bus: &RabbitBus, inbox: &mut Inbox) {
    let marker = format!("marker {}", Runtime::real().random_u64());
    bus.publish(Topic::Locate, text(&marker)).await.expect("connected");
    while next(&Runtime::real(), &mut inbox.locate).await.body != marker {}
}

/// Polls until `done`, with a deadline.
pub async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A connection of a client that knows nothing of Holdfast.
pub async fn client(broker: &Broker) -> (lapin::Connection, lapin::Channel) {
    let properties = lapin::ConnectionProperties::default();
    let connection = lapin::Connection::connect(&broker.url(), properties).await.expect("there");
    let channel = connection.create_channel().await.expect("connected");
    (connection, channel)
}
