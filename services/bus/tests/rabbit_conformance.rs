//! The bus over RabbitMQ does what every bus does.

use std::sync::Arc;

use async_trait::async_trait;
use holdfast_bus::conformance::{self, Subject};
use holdfast_bus::{Bus, BusMetrics, Inbox, RabbitBus, Topic};
use holdfast_runtime::Runtime;
use holdfast_testkit::broker::Broker;

#[allow(clippy::disallowed_methods, reason = "tests wait for a real broker")]
mod common;

struct Rabbit(Broker);

#[async_trait]
impl Subject for Rabbit {
    async fn connect(&self, topics: &[Topic]) -> (Arc<dyn Bus>, Inbox, BusMetrics) {
        let (bus, inbox) = RabbitBus::start(Runtime::real(), common::config(&self.0.url()), topics);
        let metrics = bus.metrics().clone();
        (bus, inbox, metrics)
    }

    async fn stop(&mut self) {
        self.0.stop().await;
    }

    async fn start(&mut self) {
        self.0.restart().await;
    }

    async fn freeze(&mut self) {
        self.0.pause();
    }

    async fn thaw(&mut self) {
        self.0.resume();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_conforms() {
    let mut rabbit = Rabbit(Broker::start().await);
    conformance::run(&Runtime::real(), &mut rabbit).await;
}
