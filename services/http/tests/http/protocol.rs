//! What a client may do.

use crate::support::{TestServer, limits};

#[tokio::test]
async fn continue_is_said_only_when_the_body_is_wanted() {
    let server = TestServer::start(limits()).await;
    let head = |path| {
        format!(
            "PUT {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n"
        )
    };
    let mut wanted = server.connect().await;
    wanted.send(head("/body")).await;
    assert_eq!(wanted.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    wanted.send("body").await;
    assert!(wanted.until("\r\n\r\n4").await.starts_with("HTTP/1.1 200"));

    let mut unwanted = server.connect().await;
    unwanted.send(head("/unwanted")).await;
    assert!(unwanted.until("\r\n\r\n").await.starts_with("HTTP/1.1 403"));
}

#[tokio::test]
async fn requests_follow_each_other_on_a_connection_even_unasked() {
    let server = TestServer::start(limits()).await;
    let mut client = server.connect().await;
    let put = "PUT /body HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    let get = "GET /hello HTTP/1.1\r\nhost: a\r\n\r\n";
    client.send([put, get, put].concat()).await;
    client.until("\r\n\r\n3").await;
    client.until("\r\n\r\nhello").await;
    client.until("\r\n\r\n3").await;
    client.send(get).await;
    client.until("\r\n\r\nhello").await;
}

#[tokio::test]
async fn a_client_that_has_only_stopped_sending_gets_its_answer() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = TestServer::start(limits()).await;
    let runtime = holdfast_runtime::Runtime::real();
    let mut socket = runtime.connect(&server.address).await.expect("listening");
    let put = b"PUT /body HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    socket.write_all(put).await.expect("open");
    socket.shutdown().await.expect("open");
    let mut answer = String::new();
    crate::support::within(socket.read_to_string(&mut answer)).await.expect("text");
    assert!(answer.ends_with("\r\n\r\n3"), "{answer}");
}

#[tokio::test]
async fn http2_is_spoken_with_prior_knowledge() {
    use http_body_util::{BodyExt, Full};
    let server = TestServer::start(limits()).await;
    let socket = holdfast_runtime::Runtime::real().connect(&server.address).await;
    let io = hyper_util::rt::TokioIo::new(socket.expect("listening"));
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, driver) =
        hyper::client::conn::http2::handshake(executor, io).await.expect("HTTP/2");
    let driver = holdfast_runtime::Runtime::real().spawn("h2", async {
        let _ = driver.await;
    });
    let put = |path: &str, body: &'static str| {
        let uri = format!("http://{}{path}", server.address);
        http::Request::put(uri).body(Full::new(bytes::Bytes::from(body))).expect("a request")
    };
    let (one, two) =
        tokio::join!(sender.send_request(put("/body", "four")), async { Ok::<_, ()>(()) });
    assert_eq!(two, Ok(()));
    let one = one.expect("answered");
    assert_eq!(one.status(), 200);
    assert_eq!(one.into_body().collect().await.expect("whole").to_bytes(), "4");
    let head = http::Request::head(format!("http://{}/hello", server.address));
    let head = head.body(Full::default()).expect("a request");
    let head = sender.send_request(head).await.expect("answered");
    assert_eq!(head.headers()["content-length"], "5");
    assert!(head.into_body().collect().await.expect("whole").to_bytes().is_empty());

    // GOAWAY: the connection ends by itself, and takes no new request.
    server.shutdown.begin();
    let mut driver = driver;
    crate::support::within(driver.finished()).await;
}
