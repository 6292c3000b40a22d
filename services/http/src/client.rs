//! Requests to other services: pooled connections, bounded waits, and errors
//! that tell whether the other side may have acted.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use holdfast_core::node::Address;
use holdfast_runtime::{BoxFuture, Runtime};
use holdfast_telemetry::trace;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error as LegacyError};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tower_service::Service;

use crate::BoxError;
use crate::adapter::HyperRuntime;
use crate::body::{BodyError, IdleBody};
use crate::io::StallIo;
use crate::request_id::{self, X_REQUEST_ID};

/// What the client may wait for and keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// How long a connection may take to open, the look-up of the name
    /// included.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept. Shorter than the
    /// `idle_timeout` of the servers, so that this side is the first to close.
    pub pool_idle_timeout: Duration,
    /// How many unused connections to one server are kept.
    pub max_idle_per_host: usize,
    /// How long a server may take nothing in the middle of a request, or send
    /// nothing in the middle of a response.
    pub stall_timeout: Duration,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            pool_idle_timeout: Duration::from_secs(30),
            max_idle_per_host: 64,
            stall_timeout: Duration::from_secs(30),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No connection came about, or it closed before the request was sent: the
    /// server certainly has not seen it.
    #[error("{address} cannot be reached")]
    Connect {
        /// The server.
        address: Address,
        /// What failed.
        #[source]
        source: BoxError,
    },
    /// No answer within the limit. The server may have acted.
    #[error("{address} did not answer within {limit:?}")]
    Timeout {
        /// The server.
        address: Address,
        /// The limit.
        limit: Duration,
    },
    /// The connection broke after the request was sent, at least in part. The
    /// server may have acted.
    #[error("the connection to {address} broke")]
    Broken {
        /// The server.
        address: Address,
        /// What failed.
        #[source]
        source: BoxError,
    },
    /// The path of the request cannot be put on the wire: a mistake of the
    /// caller.
    #[error("the request cannot be sent")]
    BadRequest(#[source] http::Error),
    /// The body of a response is too long, too slow or was cut off.
    #[error("the response body was not received")]
    Body(#[source] BodyError),
}

impl ClientError {
    /// Whether the request certainly was not processed, so that it may be sent
    /// elsewhere whatever it does.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::BadRequest(_))
    }

    /// Whether a time limit was the reason.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::Body(BodyError::Idle { .. }))
    }
}

/// The body of a request.
pub struct ClientBody(UnsyncBoxBody<Bytes, BoxError>);

impl ClientBody {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self(Empty::new().map_err(|never| match never {}).boxed_unsync())
    }

    /// A body in memory.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self(Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync())
    }

    /// A body that comes in pieces: of `length_bytes`, or chunked. An error in
    /// the stream, or an end before the length, closes the connection so that
    /// the server cannot take what came for the whole.
    pub fn stream<S, E>(stream: S, length_bytes: Option<u64>) -> Self
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let stream = Box::pin(stream.map(|item| item.map_err(Into::into)));
        Self(Streamed { stream, rest: length_bytes }.boxed_unsync())
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

struct Streamed {
    stream: Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>,
    /// What is left of the announced length.
    rest: Option<u64>,
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let item = std::task::ready!(self.stream.poll_next_unpin(cx));
        let Some(item) = item else {
            let short = self.rest.is_some_and(|rest| rest > 0);
            let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the body is too short");
            return Poll::Ready(short.then(|| Err(error.into())));
        };
        Poll::Ready(Some(item.and_then(|data| self.count(data)).map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        self.rest.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Streamed {
    fn count(&mut self, data: Bytes) -> Result<Bytes, BoxError> {
        if let Some(rest) = self.rest {
            let left = rest.checked_sub(data.len() as u64);
            self.rest = Some(left.ok_or("the body is longer than announced")?);
        }
        Ok(data)
    }
}

/// The body of a response; fails with [`BodyError::Idle`] when the server
/// sends nothing for [`ClientLimits::stall_timeout`].
pub type ResponseBody = IdleBody<Incoming>;

/// A pooled HTTP/1.1 client, cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpClient {
    runtime: Runtime,
    limits: ClientLimits,
    client: Client<Connector, ClientBody>,
}

impl HttpClient {
    /// A client with an empty pool.
    #[must_use]
    pub fn new(runtime: &Runtime, limits: ClientLimits) -> Self {
        let hyper = HyperRuntime::new(runtime);
        let client = Client::builder(hyper.clone())
            .pool_timer(hyper.clone())
            .timer(hyper)
            .pool_idle_timeout(limits.pool_idle_timeout)
            .pool_max_idle_per_host(limits.max_idle_per_host)
            .build(Connector { runtime: runtime.clone(), limits });
        Self { runtime: runtime.clone(), limits, client }
    }

    /// Sends a request, whose URI needs only a path, and gives the response
    /// once its head is there. `limit` bounds the time until then, the sending
    /// of the request's body included. The current trace goes along, and the id of
    /// the request that this is done for.
    ///
    /// A pooled connection that turns out to be closed before the request was
    /// sent is replaced silently, when the body has not been touched; nothing
    /// else is tried twice.
    ///
    /// Dropping the future ends the request by closing its connection, unless
    /// it was sent completely; then the server may act all the same.
    ///
    /// # Errors
    /// See [`ClientError`]; any status is an answer, not an error.
    pub async fn send(
        &self,
        address: &Address,
        mut request: Request<ClientBody>,
        limit: Option<Duration>,
    ) -> Result<Response<ResponseBody>, ClientError> {
        *request.uri_mut() = absolute(address, request.uri()).map_err(ClientError::BadRequest)?;
        trace::inject(request.headers_mut());
        if let Some(id) = request_id::current() {
            request.headers_mut().insert(X_REQUEST_ID, id.to_header());
        }
        let sent = self.client.request(request);
        let answered = match limit {
            None => sent.await,
            Some(limit) => self.runtime.timeout(limit, sent).await.map_err(|late| {
                ClientError::Timeout { address: address.clone(), limit: late.limit }
            })?,
        };
        let response = answered.map_err(|error| classified(address, error))?;
        Ok(response.map(|body| IdleBody::new(&self.runtime, body, self.limits.stall_timeout)))
    }

    /// Reads a whole body into memory: at most `max_bytes`, within `limit`.
    ///
    /// # Errors
    /// [`ClientError::Body`].
    pub async fn read_all<B>(
        &self,
        response: Response<B>,
        max_bytes: u64,
        limit: Duration,
    ) -> Result<Bytes, ClientError>
    where
        B: Body<Data = Bytes, Error = BodyError>,
    {
        let read = self.runtime.timeout(limit, collect(response.into_body(), max_bytes)).await;
        read.unwrap_or(Err(BodyError::Idle { limit })).map_err(ClientError::Body)
    }
}

async fn collect<B>(body: B, max_bytes: u64) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes, Error = BodyError>,
{
    let mut body = std::pin::pin!(body);
    if body.size_hint().lower() > max_bytes {
        return Err(BodyError::TooLarge { limit: max_bytes });
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = body.as_mut().frame().await.transpose()? {
        let Some(data) = frame.data_ref() else { continue };
        if (whole.len() as u64).saturating_add(data.len() as u64) > max_bytes {
            return Err(BodyError::TooLarge { limit: max_bytes });
        }
        whole.extend_from_slice(data);
    }
    Ok(whole.freeze())
}

fn absolute(address: &Address, uri: &Uri) -> Result<Uri, http::Error> {
    let authority: Authority = address.as_str().parse()?;
    let path = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(path).build()
}

fn classified(address: &Address, error: LegacyError) -> ClientError {
    let address = address.clone();
    let unsent = error.is_connect() || was_canceled(&error);
    let source = error.into();
    if unsent {
        ClientError::Connect { address, source }
    } else {
        ClientError::Broken { address, source }
    }
}

/// Hyper calls a request canceled when its connection closed before any of it
/// was written.
fn was_canceled(error: &LegacyError) -> bool {
    let source = std::error::Error::source(error);
    source.and_then(|e| e.downcast_ref::<hyper::Error>()).is_some_and(hyper::Error::is_canceled)
}

#[derive(Debug, Clone)]
struct Connector {
    runtime: Runtime,
    limits: ClientLimits,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<StallIo>;
    type Error = io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { runtime, limits } = self.clone();
        Box::pin(async move {
            let address = uri.authority().map_or("", |authority| authority.as_str());
            let opened = runtime.timeout(limits.connect_timeout, runtime.connect(address)).await;
            let late = |late| io::Error::new(io::ErrorKind::TimedOut, late);
            let socket = opened.map_err(late)??;
            Ok(TokioIo::new(StallIo::new(&runtime, socket, limits.stall_timeout)))
        })
    }
}
