//! One connection of the server: its requests, and how it is ended.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use holdfast_runtime::BoxFuture;
use http::{HeaderValue, Request, Response, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;

use crate::BoxError;
use crate::adapter::HyperRuntime;
use crate::body::{BodyError, IdleBody};
use crate::control::{Control, InFlight, Order};
use crate::io::ServerIo;
use crate::server::ServerLimits;

/// How long an HTTP/2 connection that is ended for being quiet may take to say
/// so to its client, by GOAWAY.
const GOODBYE: Duration = Duration::from_secs(1);

/// The body of a request to this server; fails with [`BodyError::Idle`] when
/// the client sends nothing for [`ServerLimits::body_timeout`].
pub struct RequestBody {
    inner: IdleBody<Incoming>,
    control: Arc<Control>,
    ended: bool,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        self.ended = frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.ended && !self.inner.is_end_stream() {
            self.control.on_body_left();
        }
    }
}

/// The body of a response, which keeps its request counted as in flight.
pub(crate) struct CountedBody<B> {
    inner: Pin<Box<B>>,
    _in_flight: InFlight,
}

impl<B: Body> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.inner.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Puts the server's rules around the service of one connection.
pub(crate) struct ConnectionService<S> {
    pub(crate) service: S,
    pub(crate) control: Arc<Control>,
    pub(crate) body_timeout: Duration,
}

impl<S, B> Service<Request<Incoming>> for ConnectionService<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
{
    type Response = Response<CountedBody<B>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let control = Arc::clone(&self.control);
        let http2 = request.version() == Version::HTTP_2;
        let in_flight = control.on_request(http2);
        let request = request.map(|body| RequestBody {
            inner: IdleBody::new(control.runtime(), body, self.body_timeout),
            control: Arc::clone(&control),
            ended: false,
        });
        let response = self.service.call(request);
        Box::pin(async move {
            let mut response = response.await?;
            if !http2 && control.ordered(Order::Leave) {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Ok(response.map(|body| CountedBody { inner: Box::pin(body), _in_flight: in_flight }))
        })
    }
}

/// Runs one connection to its end, as [`Control`] orders.
///
/// # Errors
/// What the connection failed with; of interest to nobody but a debugger.
pub(crate) async fn run<S, B>(
    builder: auto::Builder<HyperRuntime>,
    io: ServerIo,
    service: S,
    control: Arc<Control>,
    limits: ServerLimits,
) -> Result<(), BoxError>
where
    S: Service<Request<RequestBody>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let service = ConnectionService {
        service,
        control: Arc::clone(&control),
        body_timeout: limits.body_timeout,
    };
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut end = End { control, limits, told: false, quiet: None, goodbye: None };
    poll_fn(|cx| {
        match end.poll_wish(cx) {
            Wish::Serve => {}
            Wish::Part => connection.as_mut().graceful_shutdown(),
            Wish::Drop => return Poll::Ready(Ok(())),
        }
        connection.as_mut().poll(cx)
    })
    .await
}

/// What should happen to a connection.
enum Wish {
    Serve,
    /// Tell the client, and let what is in flight finish. Given once.
    Part,
    Drop,
}

/// Finds out when a connection must end.
struct End {
    control: Arc<Control>,
    limits: ServerLimits,
    told: bool,
    quiet: Option<BoxFuture<'static, ()>>,
    goodbye: Option<BoxFuture<'static, ()>>,
}

impl End {
    fn poll_wish(&mut self, cx: &mut Context<'_>) -> Wish {
        self.control.register(cx.waker());
        let gone = self.goodbye.as_mut().is_some_and(|time| time.as_mut().poll(cx).is_ready());
        if gone || self.control.ordered(Order::Drop) {
            return Wish::Drop;
        }
        // HTTP/2 has no `Connection: close`: its GOAWAY lets the client finish
        // and go elsewhere, so it is what leaving means there.
        let leaving = self.control.ordered(Order::Leave) && self.control.is_http2();
        let ending = leaving || self.control.ordered(Order::Finish);
        let quiet = self.goodbye.is_none() && self.poll_quiet(cx).is_ready();
        if quiet && !self.control.is_http2() {
            return Wish::Drop;
        }
        if quiet {
            let mut goodbye = self.control.runtime().sleep(GOODBYE);
            // Polled so that it wakes this task; it cannot be over yet.
            let _ = goodbye.as_mut().poll(cx);
            self.goodbye = Some(goodbye);
        }
        if (ending || quiet) && !self.told {
            self.told = true;
            return Wish::Part;
        }
        Wish::Serve
    }

    /// Ready when no request has come for too long. Looks again at least once
    /// per `header_timeout`, so that a request needs not wake it.
    fn poll_quiet(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(sleep) = &mut self.quiet {
                ready!(sleep.as_mut().poll(cx));
            }
            let now = self.control.runtime().now();
            let rest = match self.control.quiet_deadline(&self.limits) {
                Some(deadline) if deadline <= now => return Poll::Ready(()),
                Some(deadline) => (deadline - now).min(self.limits.header_timeout),
                None => self.limits.header_timeout,
            };
            self.quiet = Some(self.control.runtime().sleep(rest));
        }
    }
}
