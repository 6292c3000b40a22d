//! The way of spans to a collector: OTLP over plain HTTP/1.1.
//!
//! The SDK's batch processor exports from a thread of its own, outside of
//! tokio. That thread only waits on a channel; one task does the sending. With
//! that task gone (the runtime has ended) or stuck, the thread gets an error or
//! waits alone: no request of a client ever waits for the collector. The SDK's
//! queue is bounded and drops spans when it is full.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_runtime::Runtime;
use http::header::{HOST, HeaderValue};
use http::uri::Scheme;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use tokio::sync::{mpsc, oneshot};

/// A collector answers an export with a few bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

type Answer = Result<Response<Bytes>, HttpError>;

/// Hands requests to the task that sends them.
#[derive(Debug)]
pub(crate) struct ExportClient {
    requests: mpsc::Sender<(Request<Bytes>, oneshot::Sender<Answer>)>,
}

impl ExportClient {
    /// Starts the task that sends. `limit` bounds one export as a whole.
    pub(crate) fn start(runtime: &Runtime, limit: Duration) -> Self {
        // One export is under way at a time; the second place is for the one
        // that waits while a shutdown flushes.
        let (requests, queue) = mpsc::channel(2);
        let sender = Exporter { runtime: runtime.clone(), limit, failing: false };
        runtime.spawn("trace exporter", sender.run(queue));
        Self { requests }
    }
}

#[async_trait]
impl HttpClient for ExportClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.requests.send((request, reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

fn ended() -> HttpError {
    Box::new(io::Error::new(io::ErrorKind::NotConnected, "the trace exporter has ended"))
}

struct Exporter {
    runtime: Runtime,
    limit: Duration,
    failing: bool,
}

impl Exporter {
    async fn run(mut self, mut queue: mpsc::Receiver<(Request<Bytes>, oneshot::Sender<Answer>)>) {
        while let Some((request, reply)) = queue.recv().await {
            let sent = self.runtime.timeout(self.limit, send(&self.runtime, request)).await;
            let answer = sent.unwrap_or_else(|late| Err(late.into()));
            self.on_answer(&answer);
            // Nobody waits any more: the SDK gave up first.
            let _ = reply.send(answer);
        }
    }

    /// One line when exports begin to fail and one when they work again: a
    /// collector may be away for days.
    fn on_answer(&mut self, answer: &Answer) {
        let problem = match answer {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(response.status().to_string()),
            Err(error) => Some(error.to_string()),
        };
        match (problem, self.failing) {
            (Some(error), false) => {
                tracing::warn!(%error, "traces cannot be exported and will be dropped");
                self.failing = true;
            }
            (None, true) => {
                tracing::info!("traces are exported again");
                self.failing = false;
            }
            _ => {}
        }
    }
}

/// Whether traces can be sent there: TLS is not spoken here.
pub(crate) fn endpoint_ok(endpoint: &str) -> bool {
    endpoint.parse::<Uri>().is_ok_and(|uri| {
        uri.scheme() == Some(&Scheme::HTTP) && uri.host().is_some_and(|host| !host.is_empty())
    })
}

/// One connection for one export: there is one every few seconds.
async fn send(runtime: &Runtime, mut request: Request<Bytes>) -> Answer {
    let uri = request.uri().clone();
    let host = uri.authority().ok_or_else(|| io::Error::other("the endpoint has no host"))?;
    let port = uri.port_u16().unwrap_or(80);
    let connection = runtime.connect(&format!("{}:{port}", host.host())).await?;
    let io = TokioIo::new(connection);
    let (mut sender, driver) = hyper::client::conn::http1::handshake(io).await?;
    let driver = runtime.spawn("trace export", async move {
        // What goes wrong here is seen by the sender as well.
        let _ = driver.await;
    });
    request.headers_mut().insert(HOST, HeaderValue::try_from(host.as_str())?);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse()?;
    let answer = async {
        let (head, body) = sender.send_request(request.map(Full::new)).await?.into_parts();
        let bytes = Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes();
        Ok(Response::from_parts(head, bytes))
    };
    let answer = answer.await;
    driver.abort();
    answer
}
