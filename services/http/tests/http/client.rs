//! The client against real servers, good and bad.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use holdfast_core::node::Address;
use holdfast_http::body::BodyError;
use holdfast_http::client::{ClientBody, ClientError, ClientLimits, HttpClient};
use holdfast_http::server::ServerLimits;
use holdfast_runtime::{Listener, Runtime};
use http::Request;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{PATIENCE, TestServer, limits, within};

const SHORT: Duration = Duration::from_millis(100);

fn client() -> HttpClient {
    HttpClient::new(&Runtime::real(), ClientLimits::default())
}

fn address(text: &str) -> Address {
    text.parse().expect("an address")
}

fn get(path: &str) -> Request<ClientBody> {
    Request::get(path).body(ClientBody::empty()).expect("a path")
}

fn put(body: ClientBody) -> Request<ClientBody> {
    Request::put("/body").body(body).expect("a path")
}

async fn listen() -> (Box<dyn Listener>, Address) {
    let listener = Runtime::real().listen("127.0.0.1:0").await.expect("a free port");
    let address = address(&listener.local_address().expect("bound"));
    (listener, address)
}

#[tokio::test]
async fn bodies_go_in_every_form() {
    let server = TestServer::start(limits()).await;
    let (client, to) = (client(), address(&server.address));
    let pieces = || futures_util::stream::iter(["ab", "c"].map(|t| Ok::<_, BodyError>(t.into())));
    for (body, answer) in [
        (ClientBody::empty(), "0"),
        (ClientBody::full("four"), "4"),
        (ClientBody::stream(pieces(), Some(3)), "3"),
        (ClientBody::stream(pieces(), None), "3"),
    ] {
        let response = client.send(&to, put(body), Some(PATIENCE)).await.expect("answered");
        assert_eq!(client.read_all(response, 100, PATIENCE).await.expect("short"), answer);
    }
}

#[tokio::test]
async fn a_connection_is_used_again() {
    // A server with room for one connection would not answer a second one.
    let server = TestServer::start(ServerLimits { max_connections: 1, ..limits() }).await;
    let (client, to) = (client(), address(&server.address));
    for _ in 0..5 {
        let response = client.send(&to, get("/hello"), Some(PATIENCE)).await.expect("answered");
        assert_eq!(client.read_all(response, 5, PATIENCE).await.expect("short"), "hello");
    }
}

/// Sends `items`, pending once after each, so that each is on its way before
/// the next one is looked at.
fn slowly<E: Send + 'static>(
    items: impl IntoIterator<Item = Result<&'static str, E>, IntoIter: Send + 'static>,
) -> impl futures_util::Stream<Item = Result<Bytes, E>> + Send + 'static {
    futures_util::stream::iter(items).then(|item| async {
        tokio::task::yield_now().await;
        item.map(Bytes::from)
    })
}

#[tokio::test]
async fn a_body_that_breaks_never_looks_whole() {
    for length in [None, Some(4)] {
        let mut server = TestServer::start(limits()).await;
        let items = [Ok("ab"), Err(std::io::Error::other("on purpose"))];
        let body = ClientBody::stream(slowly(items), length);
        let sent = client().send(&address(&server.address), put(body), Some(PATIENCE)).await;
        assert!(matches!(sent, Err(ClientError::Broken { .. })));
        assert!(server.body().await.is_err(), "{length:?}");
    }
}

#[tokio::test]
async fn a_body_must_have_the_announced_length() {
    let items = || slowly(["ab", "cd"].map(Ok::<_, BodyError>));
    let mut server = TestServer::start(limits()).await;
    let short = put(ClientBody::stream(items(), Some(9)));
    let sent = client().send(&address(&server.address), short, Some(PATIENCE)).await;
    assert!(matches!(sent, Err(ClientError::Broken { .. })));
    assert!(server.body().await.is_err());
    let long = put(ClientBody::stream(items(), Some(3)));
    let sent = client().send(&address(&server.address), long, Some(PATIENCE)).await;
    assert!(matches!(sent, Err(ClientError::Broken { .. })));
}

#[tokio::test]
async fn dropping_an_upload_is_seen_by_the_server() {
    let mut server = TestServer::start(limits()).await;
    let first = futures_util::stream::iter([Ok::<_, BodyError>(Bytes::from("ab"))]);
    let body = ClientBody::stream(first.chain(futures_util::stream::pending()), None);
    let sent = client().send(&address(&server.address), put(body), Some(SHORT)).await;
    let error = sent.expect_err("no answer comes");
    assert!(error.is_timeout() && !error.is_connect(), "{error}");
    assert!(server.body().await.is_err());
}

#[tokio::test]
async fn nobody_there_is_certain() {
    let (listener, to) = listen().await;
    drop(listener);
    let error = client().send(&to, get("/"), None).await.expect_err("nobody listens");
    assert!(error.is_connect() && !error.is_timeout(), "{error}");
}

#[tokio::test]
async fn a_silent_server_is_a_timeout_and_nothing_is_certain() {
    let (_listener, to) = listen().await;
    let error = client().send(&to, get("/"), Some(SHORT)).await.expect_err("silent");
    assert!(error.is_timeout() && !error.is_connect(), "{error}");
}

#[tokio::test]
async fn a_server_that_hangs_up_on_a_request_leaves_it_uncertain() {
    let (mut listener, to) = listen().await;
    let hang_up = async {
        let (mut socket, _) = listener.accept().await.expect("open");
        let _ = socket.read(&mut [0; 4096]).await;
    };
    let client = client();
    let (error, ()) = tokio::join!(client.send(&to, get("/"), Some(PATIENCE)), hang_up);
    let error = error.expect_err("hung up");
    assert!(matches!(error, ClientError::Broken { .. }), "{error}");
}

#[tokio::test]
async fn a_pooled_connection_that_was_closed_is_replaced() {
    let (mut listener, to) = listen().await;
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let client = client();
    for _ in 0..3 {
        let serve_one = async {
            let (mut socket, _) = listener.accept().await.expect("open");
            let read = socket.read(&mut [0; 4096]).await.expect("open");
            assert!(read > 0);
            socket.write_all(answer).await.expect("open");
        };
        let exchange = async {
            let response = client.send(&to, get("/"), Some(PATIENCE)).await.expect("answered");
            client.read_all(response, 2, PATIENCE).await.expect("short")
        };
        let (body, ()) = within(async { tokio::join!(exchange, serve_one) }).await;
        assert_eq!(body, "ok");
    }
}

#[tokio::test]
async fn a_response_is_bounded_in_bytes_and_time() {
    let server = TestServer::start(limits()).await;
    let limits = ClientLimits { stall_timeout: SHORT, ..ClientLimits::default() };
    let (client, to) = (HttpClient::new(&Runtime::real(), limits), address(&server.address));
    for path in ["/hello", "/flood"] {
        let response = client.send(&to, get(path), Some(PATIENCE)).await.expect("answered");
        let read = client.read_all(response, 4, PATIENCE).await;
        let too_large = matches!(read, Err(ClientError::Body(BodyError::TooLarge { limit: 4 })));
        assert!(too_large, "{path}");
    }
    let response = client.send(&to, get("/silent"), Some(PATIENCE)).await.expect("answered");
    let error = client.read_all(response, 100, PATIENCE).await.expect_err("it stalls");
    assert!(error.is_timeout(), "{error}");
    let response = client.send(&to, get("/broken"), Some(PATIENCE)).await.expect("answered");
    let whole = response.into_body().collect().await;
    assert!(matches!(whole, Err(BodyError::Broken(_))));
}

#[tokio::test]
async fn a_server_that_takes_nothing_is_given_up() {
    let (mut listener, to) = listen().await;
    let limits = ClientLimits { stall_timeout: SHORT, ..ClientLimits::default() };
    let client = HttpClient::new(&Runtime::real(), limits);
    let piece = || Ok::<_, BodyError>(Bytes::from_static(&[7; 64 * 1024]));
    let body = ClientBody::stream(futures_util::stream::repeat_with(piece), None);
    let sent = client.send(&to, put(body), Some(PATIENCE));
    let (sent, _socket) = tokio::join!(sent, listener.accept());
    let error = sent.expect_err("never taken");
    assert!(matches!(error, ClientError::Broken { .. }), "{error}");
}
