//! The bus over RabbitMQ outlives its broker, whatever happens to it.

#![allow(clippy::disallowed_methods, reason = "tests wait for a real broker")]

use std::time::{Duration, Instant};

use common::{assert_travels, config, eventually, shared_broker, start};
use holdfast_bus::conformance::{connected, text, wait_for_health};
use holdfast_bus::{Bus, BusError, BusHealth, RabbitBus, Topic};
use holdfast_runtime::Runtime;
use holdfast_testkit::broker::Broker;

mod common;

fn runtime() -> Runtime {
    Runtime::real()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_comes_later_is_found() {
    let mut broker = Broker::prepare();
    let began = Instant::now();
    let (bus, mut inbox) = RabbitBus::start(runtime(), config(&broker.url()), &[Topic::Locate]);
    assert!(began.elapsed() < Duration::from_millis(100), "start waited for the broker");
    let refused = bus.publish(Topic::Locate, text("x")).await;
    assert!(matches!(refused, Err(BusError::Away)), "{refused:?}");
    broker.restart().await;
    assert_eq!(connected(&runtime(), bus.as_ref()).await, 1);
    assert_travels(&bus, &mut inbox).await;
    assert_eq!(bus.metrics().reconnects_total(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_the_broker_is_noticed_at_once_and_survived() {
    let mut broker = shared_broker().await;
    let (bus, mut inbox) = start(&broker, &[Topic::Locate]).await;
    let began = Instant::now();
    broker.kill().await;
    wait_for_health(&runtime(), bus.as_ref(), |health| *health == BusHealth::Disconnected).await;
    assert!(began.elapsed() < Duration::from_secs(2), "noticed after {:?}", began.elapsed());
    broker.restart().await;
    assert_eq!(connected(&runtime(), bus.as_ref()).await, 2);
    assert_travels(&bus, &mut inbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_the_broker_closes_are_made_again() {
    let broker = shared_broker().await;
    let (bus, mut inbox) = start(&broker, &[Topic::Locate]).await;
    broker.close_connections().await;
    let second = |health: &BusHealth| *health == BusHealth::Connected { session: 2 };
    wait_for_health(&runtime(), bus.as_ref(), second).await;
    assert_travels(&bus, &mut inbox).await;
}

/// No publish takes longer than its limit, with some room for a busy machine.
async fn assert_publishes_return(bus: &RabbitBus, until: impl Fn() -> bool) {
    while !until() {
        let began = Instant::now();
        // Whether it is sent depends on what the broker has noticed so far.
        let _ = bus.publish(Topic::Locate, text("x")).await;
        assert!(began.elapsed() < Duration::from_millis(1_500), "took {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_broker_is_silent_within_bounds_and_goes_on() {
    let broker = shared_broker().await;
    let (bus, mut inbox) = start(&broker, &[Topic::Locate]).await;
    broker.pause();
    let began = Instant::now();
    let health = bus.health();
    assert_publishes_return(&bus, || *health.borrow() == BusHealth::Silent).await;
    assert!(began.elapsed() < Duration::from_secs(3), "noticed after {:?}", began.elapsed());
    broker.resume();
    assert_eq!(connected(&runtime(), bus.as_ref()).await, 1);
    assert_travels(&bus, &mut inbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_stays_silent_is_given_up() {
    let broker = shared_broker().await;
    let mut config = config(&broker.url());
    config.silent_limit = Duration::from_secs(2);
    config.connect_timeout = Duration::from_secs(1);
    let (bus, mut inbox) = RabbitBus::start(runtime(), config, &[Topic::Locate]);
    connected(&runtime(), bus.as_ref()).await;
    broker.pause();
    for wanted in [BusHealth::Silent, BusHealth::Disconnected] {
        wait_for_health(&runtime(), bus.as_ref(), |health| *health == wanted).await;
    }
    broker.resume();
    assert!(connected(&runtime(), bus.as_ref()).await > 1);
    assert_travels(&bus, &mut inbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_that_blocks_publishers_is_silence_and_ends() {
    let broker = shared_broker().await;
    let (bus, mut inbox) = start(&broker, &[Topic::Locate]).await;
    let health = bus.health();
    broker.set_memory_alarm(true).await;
    assert_publishes_return(&bus, || *health.borrow() == BusHealth::Silent).await;
    let refused = bus.publish(Topic::Locate, text("x")).await;
    assert!(matches!(refused, Err(BusError::Away)), "{refused:?}");
    broker.set_memory_alarm(false).await;
    assert_eq!(connected(&runtime(), bus.as_ref()).await, 1);
    assert_travels(&bus, &mut inbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_is_dropped_ends_its_connection() {
    let broker = shared_broker().await;
    let (bus, inbox) = start(&broker, &[Topic::Locate]).await;
    let health = bus.health();
    drop(bus);
    eventually("the connection to end", || inbox.locate.is_closed()).await;
    assert_eq!(*health.borrow(), BusHealth::Disconnected);
}
