//! The broker for tests is private, can be broken in every way, and leaves
//! nothing behind.

#![allow(clippy::disallowed_methods, reason = "it looks at real processes and files")]

use std::time::Duration;

use holdfast_testkit::broker::Broker;
use lapin::{Connection, ConnectionProperties};

async fn connects(broker: &Broker) -> bool {
    let url = broker.url();
    let connect = Connection::connect(&url, ConnectionProperties::default());
    matches!(tokio::time::timeout(Duration::from_secs(2), connect).await, Ok(Ok(_)))
}

#[tokio::test]
async fn a_broker_is_started_broken_in_every_way_and_removed() {
    let mut broker = Broker::start().await;
    assert!(connects(&broker).await);
    broker.pause();
    assert!(!connects(&broker).await);
    broker.resume();
    assert!(connects(&broker).await);
    broker.kill().await;
    assert!(!connects(&broker).await);
    broker.restart().await;
    assert!(connects(&broker).await);
    broker.set_memory_alarm(true).await;
    broker.set_memory_alarm(false).await;
    broker.stop().await;
    assert!(!connects(&broker).await);
    let before = format!("{broker:?}");
    drop(broker);
    let directory = before.split('"').nth(1).expect("the directory comes first");
    assert!(!std::path::Path::new(directory).exists(), "{directory}");
}
