//! How a server ends.

use std::time::Duration;

use holdfast_http::server::ServerLimits;

use crate::support::{TestServer, limits, within};

const HELLO: &str = "GET /hello HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test]
async fn a_leaving_server_answers_and_asks_to_close() {
    let server = TestServer::start(limits()).await;
    let mut early = server.connect().await;
    early.send(HELLO).await;
    assert!(!early.until("hello").await.contains("connection: close"));
    server.shutdown.begin();
    let mut late = server.connect().await;
    for client in [&mut early, &mut late] {
        client.send(HELLO).await;
        let answer = client.rest().await;
        assert!(answer.contains("connection: close") && answer.ends_with("hello"), "{answer}");
    }
}

#[tokio::test]
async fn a_finishing_server_finishes_what_it_began() {
    let mut server = TestServer::start(limits()).await;
    let (mut held, mut idle) = (server.connect().await, server.connect().await);
    held.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
    idle.send(HELLO).await;
    idle.until("hello").await;
    server.metric("holdfast_http_requests_in_flight 1").await;
    server.shutdown.finish();
    assert_eq!(idle.rest().await, "", "idle connections end at once");
    let refused =
        async { while holdfast_runtime::Runtime::real().connect(&server.address).await.is_ok() {} };
    within(refused).await;
    server.release.send_replace(true);
    let answer = held.rest().await;
    assert!(answer.contains("connection: close") && answer.ends_with("held"), "{answer}");
    server.ended().await;
}

#[tokio::test]
async fn requests_that_take_too_long_are_dropped() {
    let finish_timeout = Duration::from_millis(100);
    let mut server = TestServer::start(ServerLimits { finish_timeout, ..limits() }).await;
    let mut held = server.connect().await;
    held.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
    server.metric("holdfast_http_requests_in_flight 1").await;
    server.shutdown.finish();
    assert_eq!(held.rest().await, "");
    server.ended().await;
    server.metric("holdfast_http_requests_in_flight 0").await;
}

#[tokio::test]
async fn a_second_signal_drops_everything_at_once() {
    let mut server = TestServer::start(limits()).await;
    let mut held = server.connect().await;
    held.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
    server.metric("holdfast_http_requests_in_flight 1").await;
    server.shutdown.begin();
    server.shutdown.force();
    assert_eq!(held.rest().await, "");
    server.ended().await;
}
