//! Sessions that ended leave nothing behind. The only test of its process: it
//! counts threads, sockets and tasks.

#![allow(clippy::disallowed_methods, reason = "tests look at real processes")]

use std::time::Duration;

use common::{assert_travels, client, config, eventually};
use holdfast_bus::conformance::{connected, text, wait_for_health};
use holdfast_bus::{Bus, BusHealth, RabbitBus, Topic};
use holdfast_runtime::Runtime;
use holdfast_testkit::broker::Broker;
use lapin::options::ExchangeDeleteOptions;
use tokio::runtime::Handle;

mod common;

const RECONNECTS: u64 = 50;

fn sockets() -> usize {
    let entries = std::fs::read_dir("/proc/self/fd").expect("Linux").flatten();
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

fn lapin_threads() -> usize {
    let entries = std::fs::read_dir("/proc/self/task").expect("Linux").flatten();
    let names = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("comm")).ok());
    names.filter(|name| name.starts_with("lapin")).count()
}

/// The client library may keep one or the other for the whole process.
const SOCKETS_TO_SPARE: usize = 2;

/// A process with many sessions behind it uses what one in its first does.
async fn assert_no_more_than(sockets_before: usize, tasks_before: usize) {
    eventually("threads to end", || lapin_threads() <= 1).await;
    eventually("sockets to close", || sockets() <= sockets_before + SOCKETS_TO_SPARE).await;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    eventually("tasks to end", || tasks() <= tasks_before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_ended_leave_no_thread_socket_or_task() {
    let mut broker = Broker::start().await;
    // A short heartbeat: its timer is the last of a session to end.
    let mut config = config(&format!("{}?heartbeat=1", broker.url()));
    config.silent_limit = Duration::from_millis(500);
    config.connect_timeout = Duration::from_millis(300);
    config.retry_max = Duration::from_millis(50);
    let (bus, mut inbox) = RabbitBus::start(Runtime::real(), config, &[Topic::Locate]);
    connected(&Runtime::real(), bus.as_ref()).await;
    assert_travels(&bus, &mut inbox).await;
    let (sockets_before, tasks) = (sockets(), Handle::current().metrics().num_alive_tasks());

    let (connection, channel) = client(&broker).await;
    for session in 1..=RECONNECTS {
        let current = |health: &BusHealth| *health == BusHealth::Connected { session };
        wait_for_health(&Runtime::real(), bus.as_ref(), current).await;
        let name = Topic::Locate.exchange().into();
        channel.exchange_delete(name, ExchangeDeleteOptions::default()).await.expect("connected");
        bus.publish(Topic::Locate, text("lost")).await.expect("connected");
        wait_for_health(&Runtime::real(), bus.as_ref(), |health| !health.is_connected()).await;
    }
    connection.close(200, "bye".into()).await.expect("connected");
    drop((connection, channel));
    connected(&Runtime::real(), bus.as_ref()).await;
    assert_no_more_than(sockets_before, tasks).await;

    // Many greetings that are never answered, then many refusals.
    for broken in [true, false] {
        if broken {
            broker.pause();
        } else {
            broker.kill().await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(lapin_threads() <= 2, "{} threads", lapin_threads());
        assert!(Handle::current().metrics().num_alive_tasks() <= tasks + 10);
        broker.resume();
        if !broken {
            broker.restart().await;
        }
        connected(&Runtime::real(), bus.as_ref()).await;
        assert_travels(&bus, &mut inbox).await;
        assert_no_more_than(sockets_before, tasks).await;
    }
    bus.close().await;
    eventually("the last thread to end", || lapin_threads() == 0).await;
}
