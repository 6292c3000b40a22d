//! What a client may not do to a server.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use holdfast_http::server::ServerLimits;
use holdfast_runtime::{Connection, Listener, Runtime};

use crate::support::{MAX_BODY, TestServer, limits};

const SHORT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_head_that_does_not_end_is_cut_off() {
    let server = TestServer::start(ServerLimits { header_timeout: SHORT, ..limits() }).await;
    for start in ["", "G", "GET /hello HTTP/1.1\r\nhost: a\r\n", "PRI * HTTP/2.0\r\n\r\n"] {
        let mut client = server.connect().await;
        client.send(start).await;
        assert!(!client.rest().await.contains("200"), "{start:?}");
    }
}

#[tokio::test]
async fn a_head_that_does_not_end_on_a_used_connection_is_cut_off_too() {
    let short = ServerLimits { header_timeout: SHORT, idle_timeout: SHORT, ..limits() };
    let server = TestServer::start(short).await;
    let mut client = server.connect().await;
    client.send("GET /hello HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.until("\r\n\r\nhello").await;
    client.send("GET /hello HT").await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn an_idle_connection_outlives_the_time_for_a_head_but_not_its_own() {
    let idle = Duration::from_millis(600);
    let times = ServerLimits { header_timeout: SHORT, idle_timeout: idle, ..limits() };
    let server = TestServer::start(times).await;
    let mut client = server.connect().await;
    client.send("GET /hello HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.until("\r\n\r\nhello").await;
    let runtime = Runtime::real();
    let quiet_from = runtime.now();
    assert_eq!(client.rest().await, "");
    assert!(runtime.now() - quiet_from > idle / 2, "cut off as if it sent a head");
}

#[tokio::test]
async fn a_request_may_take_longer_than_any_head() {
    let short = ServerLimits { header_timeout: SHORT, idle_timeout: SHORT, ..limits() };
    let server = TestServer::start(short).await;
    let mut client = server.connect().await;
    client.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
    server.metric("holdfast_http_requests_in_flight 1").await;
    Runtime::real().sleep(SHORT * 4).await;
    server.release.send_replace(true);
    client.until("\r\n\r\nheld").await;
}

/// A listener that has run out of file descriptors for a while.
#[derive(Debug)]
struct Exhausted {
    listener: Box<dyn Listener>,
    failures: u8,
}

#[async_trait]
impl Listener for Exhausted {
    async fn accept(&mut self) -> io::Result<(Box<dyn Connection>, String)> {
        if let Some(left) = self.failures.checked_sub(1) {
            self.failures = left;
            return Err(io::Error::other("too many open files"));
        }
        self.listener.accept().await
    }

    fn local_address(&self) -> io::Result<String> {
        self.listener.local_address()
    }
}

#[tokio::test]
async fn a_failing_accept_does_not_end_the_server() {
    let listener = Runtime::real().listen("127.0.0.1:0").await.expect("a free port");
    let server = TestServer::start_on(Box::new(Exhausted { listener, failures: 3 }), limits());
    let mut client = server.connect().await;
    client.send("GET /hello HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.until("\r\n\r\nhello").await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_room() {
    let server = TestServer::start(ServerLimits { max_connections: 1, ..limits() }).await;
    let mut first = server.connect().await;
    first.send("GET /hello HTTP/1.1\r\nhost: a\r\n\r\n").await;
    first.until("\r\n\r\nhello").await;
    let mut second = server.connect().await;
    second.send("GET /hello HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let early = Runtime::real().timeout(SHORT, second.until("hello")).await;
    assert!(early.is_err(), "two connections at once");
    drop(first);
    second.until("\r\n\r\nhello").await;
}

#[tokio::test]
async fn an_oversized_head_is_refused() {
    let server = TestServer::start(ServerLimits { max_head_bytes: 8192, ..limits() }).await;
    let mut client = server.connect().await;
    let head = format!("GET /hello HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(20_000));
    let _ = client.try_send(head.as_bytes()).await;
    assert!(client.rest().await.starts_with("HTTP/1.1 431"));

    let mut client = server.connect().await;
    client.send(format!("GET /hello HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101))).await;
    assert!(client.rest().await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn nonsense_is_a_bad_request() {
    let server = TestServer::start(limits()).await;
    for nonsense in ["\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "GET /hello HTTP/1.1\r\na b: c\r\n\r\n"] {
        let mut client = server.connect().await;
        client.send(nonsense).await;
        assert!(client.rest().await.starts_with("HTTP/1.1 400"), "{nonsense:?}");
    }
}

#[tokio::test]
async fn a_body_that_stops_is_a_timeout() {
    let mut server = TestServer::start(ServerLimits { body_timeout: SHORT, ..limits() }).await;
    let mut client = server.connect().await;
    client.send("PUT /body HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf").await;
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(server.body().await.expect_err("cut").contains("no byte"));
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_whether_announced_or_not() {
    let mut server = TestServer::start(limits()).await;
    let mut client = server.connect().await;
    let announced = format!("PUT /body HTTP/1.1\r\nhost: a\r\ncontent-length: {}", MAX_BODY + 1);
    client.send(announced + "\r\nexpect: 100-continue\r\n\r\n").await;
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    let mut client = server.connect().await;
    client.send("PUT /body HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for _ in 0..MAX_BODY / 0x10000 + 1 {
        client.send(&chunk).await;
    }
    client.until("HTTP/1.1 413").await;
    assert!(server.body().await.expect_err("too long").contains("longer than"));
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let server = TestServer::start(limits()).await;
    let mut client = server.connect().await;
    client.send("PUT /unwanted HTTP/1.1\r\nhost: a\r\ncontent-length: 8388608\r\n\r\n").await;
    // Without the server reading on, the kernel would reset the connection
    // and throw the answer away with it.
    for _ in 0..128 {
        client.send([0; 64 * 1024]).await;
    }
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_dropped() {
    let server = TestServer::start(ServerLimits { write_timeout: SHORT, ..limits() }).await;
    let mut client = server.connect().await;
    client.send("GET /flood HTTP/1.1\r\nhost: a\r\n\r\n").await;
    server.metric("holdfast_http_responses_cut_total 1").await;
    server.metric("holdfast_http_requests_in_flight 0").await;
}

/// However slowly, as long as it reads all the time.
#[tokio::test]
async fn a_client_that_reads_slowly_is_served() {
    let write_timeout = Duration::from_secs(2);
    let server = TestServer::start(ServerLimits { write_timeout, ..limits() }).await;
    let mut client = server.connect().await;
    client.send("GET /flood HTTP/1.1\r\nhost: a\r\n\r\n").await;
    for _ in 0..60 {
        client.exactly(30_000).await;
        Runtime::real().sleep(Duration::from_millis(100)).await;
        assert_eq!(server.value("holdfast_http_responses_cut_total"), "0");
    }
    server.metric("holdfast_http_requests_in_flight 1").await;
}
