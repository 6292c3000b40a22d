use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use holdfast_runtime::Entropy;

use super::*;
use crate::conformance::{self, Subject};

#[derive(Debug)]
struct Seeded(AtomicU64);

impl Entropy for Seeded {
    fn random_u64(&self) -> u64 {
        // SplitMix64.
        let mut bits = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

fn seeded(seed: u64) -> Runtime {
    Runtime::real().with_entropy(Arc::new(Seeded(AtomicU64::new(seed))))
}

struct InMemory(MemoryBroker);

#[async_trait]
impl Subject for InMemory {
    async fn connect(&self, topics: &[Topic]) -> (Arc<dyn Bus>, Inbox, BusMetrics) {
        let (bus, inbox) = self.0.connect(topics);
        let metrics = bus.metrics().clone();
        (bus, inbox, metrics)
    }

    async fn stop(&mut self) {
        self.0.stop();
    }

    async fn start(&mut self) {
        self.0.start();
    }

    async fn freeze(&mut self) {
        self.0.freeze();
    }

    async fn thaw(&mut self) {
        self.0.start();
    }
}

#[tokio::test]
async fn it_conforms() {
    let broker = MemoryBroker::new(Runtime::real(), MemoryBrokerOptions::default());
    conformance::run(&Runtime::real(), &mut InMemory(broker)).await;
}

#[tokio::test]
async fn it_conforms_with_delays() {
    let delay = Duration::from_millis(2)..=Duration::from_millis(2);
    let options = MemoryBrokerOptions { delay, ..MemoryBrokerOptions::default() };
    let broker = MemoryBroker::new(Runtime::real(), options);
    conformance::run(&Runtime::real(), &mut InMemory(broker)).await;
}

/// How many of 1,000 messages arrive.
async fn arrivals(seed: u64, options: MemoryBrokerOptions) -> usize {
    let broker = MemoryBroker::new(seeded(seed), options);
    let (bus, mut inbox) = broker.connect(&[Topic::Locate]);
    for _ in 0..1_000 {
        bus.publish(Topic::Locate, Message::default()).await.expect("connected");
    }
    std::iter::from_fn(|| inbox.locate.try_recv().ok()).count()
}

#[tokio::test]
async fn faults_follow_the_seed() {
    let lossy = MemoryBrokerOptions { drop_ratio: 0.3, ..MemoryBrokerOptions::default() };
    let arrived = arrivals(7, lossy.clone()).await;
    assert!((600..800).contains(&arrived), "{arrived}");
    assert_eq!(arrivals(7, lossy).await, arrived);
    let repeating = MemoryBrokerOptions { duplicate_ratio: 0.3, ..MemoryBrokerOptions::default() };
    let arrived = arrivals(7, repeating).await;
    assert!((1_200..1_400).contains(&arrived), "{arrived}");
    let lost = MemoryBrokerOptions { drop_ratio: 1.0, ..MemoryBrokerOptions::default() };
    assert_eq!(arrivals(7, lost).await, 0);
}

#[tokio::test]
async fn one_connection_is_cut_without_the_others() {
    let broker = MemoryBroker::new(Runtime::real(), MemoryBrokerOptions::default());
    let (cut, mut cut_inbox) = broker.connect(&[Topic::Locate]);
    let (other, mut other_inbox) = broker.connect(&[Topic::Locate]);
    cut.stop();
    other.publish(Topic::Locate, Message::default()).await.expect("connected");
    assert!(other_inbox.locate.try_recv().is_ok() && cut_inbox.locate.try_recv().is_err());
    assert!(matches!(cut.publish(Topic::Locate, Message::default()).await, Err(BusError::Away)));
    cut.start();
    assert_eq!(*cut.health().borrow(), BusHealth::Connected { session: 2 });
    assert_eq!(*other.health().borrow(), BusHealth::Connected { session: 1 });
}

#[tokio::test]
async fn a_frozen_broker_greets_nobody() {
    let broker = MemoryBroker::new(Runtime::real(), MemoryBrokerOptions::default());
    broker.freeze();
    let (bus, _inbox) = broker.connect(&[]);
    assert_eq!(*bus.health().borrow(), BusHealth::Disconnected);
    broker.start();
    assert_eq!(*bus.health().borrow(), BusHealth::Connected { session: 1 });
}
