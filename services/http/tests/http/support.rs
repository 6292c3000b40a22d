//! A server on a free port, and a client that sends bytes as they are.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use holdfast_http::body::{BodyError, BodyStream, limited};
use holdfast_http::client::{ClientBody, ClientLimits, HttpClient};
use holdfast_http::instrument::Instrumented;
use holdfast_http::metrics::HttpMetrics;
use holdfast_http::problem::Problem;
use holdfast_http::server::{ServerLimits, serve};
use holdfast_runtime::{Connection, Listener, Runtime, Task};
use holdfast_telemetry::metrics::Metrics;
use holdfast_telemetry::shutdown::Shutdown;
use holdfast_telemetry::trace;
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use warp::reply::{Reply, Response};
use warp::{Filter, Rejection};

/// No test waits longer than this for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Largest body that `PUT /body` takes.
pub(crate) const MAX_BODY: u64 = 1 << 20;

pub(crate) fn limits() -> ServerLimits {
    ServerLimits {
        max_connections: 8,
        header_timeout: PATIENCE,
        idle_timeout: PATIENCE,
        body_timeout: PATIENCE,
        write_timeout: PATIENCE,
        finish_timeout: PATIENCE,
        ..ServerLimits::default()
    }
}

pub(crate) struct TestServer {
    pub(crate) address: String,
    pub(crate) shutdown: Shutdown,
    pub(crate) metrics: Metrics,
    /// Lets `GET /held` answer.
    pub(crate) release: watch::Sender<bool>,
    /// Each `PUT /body` that ended, and how.
    pub(crate) bodies: watch::Receiver<Vec<Result<usize, String>>>,
    task: Task,
}

impl TestServer {
    pub(crate) async fn start(limits: ServerLimits) -> Self {
        let listener = Runtime::real().listen("127.0.0.1:0").await.expect("a free port");
        Self::start_on(listener, limits)
    }

    pub(crate) fn start_on(listener: Box<dyn Listener>, limits: ServerLimits) -> Self {
        let runtime = Runtime::real();
        let address = listener.local_address().expect("bound");
        let metrics = Metrics::new("test").expect("new");
        let http = HttpMetrics::new(&metrics, &["/hello"]).expect("new");
        let (release, held) = watch::channel(false);
        let (note, bodies) = watch::channel(Vec::new());
        let service = warp::service(routes(held, note));
        let service = Instrumented::new(service, &runtime, http, route_of);
        let shutdown = Shutdown::new();
        let serving = serve(runtime.clone(), listener, service, limits, shutdown.clone());
        let task = runtime.spawn("server", serving);
        Self { address, shutdown, metrics, release, bodies, task }
    }

    pub(crate) async fn connect(&self) -> Raw {
        let socket = Runtime::real().connect(&self.address).await.expect("listening");
        Raw { socket, seen: Vec::new() }
    }

    pub(crate) async fn ended(&mut self) {
        within(self.task.finished()).await;
    }

    pub(crate) async fn body(&mut self) -> Result<usize, String> {
        let bodies = within(self.bodies.wait_for(|bodies| !bodies.is_empty())).await;
        bodies.expect("running").last().expect("not empty").clone()
    }

    /// What the metrics say of this name now.
    pub(crate) fn value(&self, name: &str) -> String {
        let text = self.metrics.encode();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.expect("it is there").to_owned()
    }

    /// Waits until the metrics have this line.
    pub(crate) async fn metric(&self, line: &str) {
        eventually(line, || self.metrics.encode().lines().any(|found| found == line)).await;
    }
}

fn route_of(path: &str) -> &'static str {
    match path {
        "/hello" => "/hello",
        "/body" => "/body",
        _ => "other",
    }
}

fn routes(
    held: watch::Receiver<bool>,
    note: watch::Sender<Vec<Result<usize, String>>>,
) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static {
    let hello = warp::path!("hello").map(|| "hello".into_response());
    let passed_on = warp::path!("passed-on" / String).then(|address: String| async move {
        let client = HttpClient::new(&Runtime::real(), ClientLimits::default());
        let request = http::Request::get("/hello").body(ClientBody::empty()).expect("a path");
        let address = address.parse().expect("an address");
        let answer = client.send(&address, request, None).await.expect("answered");
        let id = answer.headers().get("x-request-id").expect("every answer has one");
        id.to_str().expect("text").to_owned().into_response()
    });
    let traced = warp::path!("trace")
        .map(|| trace::current_traceparent().unwrap_or_default().into_response());
    let held = warp::path!("held").and_then(move || {
        let mut held = held.clone();
        async move {
            let _ = held.wait_for(|released| *released).await;
            Ok::<_, Rejection>("held".into_response())
        }
    });
    let body = warp::path!("body").and(limited(MAX_BODY)).and_then(move |body| {
        let note = note.clone();
        async move { Ok::<_, Rejection>(take_body(body, &note).await) }
    });
    let unwanted = warp::path!("unwanted")
        .map(|| Problem::new(StatusCode::FORBIDDEN, "unwanted", "No.").into_response());
    let panics = warp::path!("panic").map(|| -> Response { panic!("on purpose") });
    let flood = warp::path!("flood").map(|| {
        let piece = || Ok::<_, Infallible>(Bytes::from_static(&[7; 64 * 1024]));
        warp::reply::stream(futures_util::stream::repeat_with(piece)).into_response()
    });
    let broken = warp::path!("broken").map(|| {
        let start = futures_util::stream::iter([Ok("start")]);
        // Pending once, so that the start is on its way first.
        let failure = futures_util::stream::once(async {
            tokio::task::yield_now().await;
            Err(std::io::Error::other("on purpose"))
        });
        warp::reply::stream(start.chain(failure)).into_response()
    });
    let silent = warp::path!("silent").map(|| {
        let pieces = futures_util::stream::iter([Ok::<_, Infallible>("start")]);
        warp::reply::stream(pieces.chain(futures_util::stream::pending())).into_response()
    });
    let some = hello
        .or(passed_on)
        .unify()
        .or(traced)
        .unify()
        .or(held)
        .unify()
        .or(body)
        .unify()
        .or(unwanted)
        .unify();
    let others = panics.or(flood).unify().or(broken).unify().or(silent).unify();
    some.or(others)
        .unify()
        .recover(|_| async {
            let problem = Problem::new(StatusCode::NOT_FOUND, "no_route", "Nothing is here.");
            Ok::<_, Infallible>(problem.into_response())
        })
        .unify()
}

async fn take_body(
    mut body: BodyStream,
    note: &watch::Sender<Vec<Result<usize, String>>>,
) -> Response {
    let mut bytes = 0;
    let ended = loop {
        match body.next().await {
            None => break Ok(bytes),
            Some(Ok(chunk)) => bytes += chunk.len(),
            Some(Err(error)) => break Err(error),
        }
    };
    let noted = ended.as_ref().map(|bytes| *bytes).map_err(ToString::to_string);
    note.send_modify(|bodies| bodies.push(noted));
    let refuse =
        |status, error: &BodyError| Problem::new(status, "body", error.to_string()).into_response();
    match ended {
        Ok(bytes) => bytes.to_string().into_response(),
        Err(error @ BodyError::TooLarge { .. }) => refuse(StatusCode::PAYLOAD_TOO_LARGE, &error),
        Err(error @ BodyError::Idle { .. }) => refuse(StatusCode::REQUEST_TIMEOUT, &error),
        Err(error @ BodyError::Broken(_)) => refuse(StatusCode::BAD_REQUEST, &error),
    }
}

/// A connection that sends what it is told to.
pub(crate) struct Raw {
    socket: Box<dyn Connection>,
    seen: Vec<u8>,
}

impl Raw {
    pub(crate) async fn send(&mut self, text: impl AsRef<[u8]>) {
        within(self.socket.write_all(text.as_ref())).await.expect("open");
    }

    /// Sends until the other side takes no more.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        within(self.socket.write_all(bytes)).await
    }

    async fn read(&mut self) -> usize {
        let mut buffer = [0; 64 * 1024];
        // A reset ends the connection as well as an orderly close.
        let bytes = within(self.socket.read(&mut buffer)).await.unwrap_or(0);
        self.seen.extend_from_slice(buffer.get(..bytes).expect("read into it"));
        bytes
    }

    /// Takes so many bytes, and no more.
    pub(crate) async fn exactly(&mut self, bytes: usize) {
        let mut waste = vec![0; bytes];
        within(self.socket.read_exact(&mut waste)).await.expect("open");
    }

    /// Waits until `text` has come and takes everything up to its end.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        loop {
            let found = self.seen.windows(text.len()).position(|at| at == text.as_bytes());
            if let Some(at) = found {
                let rest = self.seen.split_off(at + text.len());
                let taken = std::mem::replace(&mut self.seen, rest);
                return String::from_utf8_lossy(&taken).into_owned();
            }
            let seen = self.seen.len();
            assert!(self.read().await > 0, "closed after {seen} bytes, before {text:?}");
        }
    }

    /// Everything until the other side closes.
    pub(crate) async fn rest(&mut self) -> String {
        while self.read().await > 0 {}
        String::from_utf8_lossy(&std::mem::take(&mut self.seen)).into_owned()
    }
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    Runtime::real().timeout(PATIENCE, future).await.expect("in time")
}

pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let poll = async {
        while !holds() {
            Runtime::real().sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(Runtime::real().timeout(PATIENCE, poll).await.is_ok(), "never: {what}");
}
