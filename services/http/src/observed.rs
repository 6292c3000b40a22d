//! Bodies that report on their request when they end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use holdfast_runtime::Runtime;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use tracing::Span;

use crate::BoxError;
use crate::instrument::Shared;
use crate::metrics::Ended;
use crate::request_id::RequestId;

/// What nginx, and everyone since, calls a client that left before the answer.
const CLIENT_LEFT: u16 = 499;

/// Counts the bytes of a request body.
pub struct ReadBody<B> {
    pub(crate) inner: B,
    pub(crate) bytes: Arc<AtomicU64>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for ReadBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|f| f.as_ref().ok()?.data_ref()) {
            self.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// One request, from its head to the end of its response. Reports when it is
/// dropped, so that a request whose client left is counted too.
pub(crate) struct Record {
    pub(crate) shared: Arc<Shared>,
    pub(crate) span: Span,
    pub(crate) request_id: RequestId,
    pub(crate) method: &'static str,
    pub(crate) route: &'static str,
    pub(crate) started: Duration,
    pub(crate) request_bytes: Arc<AtomicU64>,
    pub(crate) status: Option<StatusCode>,
    pub(crate) response_bytes: u64,
    pub(crate) complete: bool,
}

impl Record {
    fn runtime(&self) -> &Runtime {
        &self.shared.runtime
    }

    fn ended(&self) -> Ended {
        let left = StatusCode::from_u16(CLIENT_LEFT).unwrap_or(StatusCode::BAD_REQUEST);
        Ended {
            method: self.method,
            route: self.route,
            status: self.status.unwrap_or(left),
            duration: self.runtime().now().saturating_sub(self.started),
            request_bytes: self.request_bytes.load(Ordering::Relaxed),
            response_bytes: self.response_bytes,
        }
    }

    fn log(&self, ended: &Ended) {
        // Named once for both levels, since a macro cannot take a level.
        macro_rules! line {
            ($level:ident $(, $extra:tt)*) => {
                tracing::$level!(
                    request_id = %self.request_id,
                    method = ended.method,
                    route = ended.route,
                    status = ended.status.as_u16(),
                    duration_ms = ended.duration.as_secs_f64() * 1000.0,
                    request_bytes = ended.request_bytes,
                    response_bytes = ended.response_bytes,
                    complete = self.complete,
                    $($extra,)*
                    "request"
                )
            };
        }
        if !ended.status.is_server_error() {
            line!(debug);
        } else if let Some(suppressed) = self.shared.error_log.take(self.runtime().now()) {
            line!(warn, suppressed);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let ended = self.ended();
        let metrics = &self.shared.metrics;
        metrics.in_flight.dec();
        if self.status.is_some() && !self.complete {
            metrics.cut.inc();
        }
        metrics.on_end(&ended);
        self.span.record("status", ended.status.as_u16());
        if ended.status.is_server_error() {
            self.span.record("otel.status_code", "ERROR");
        }
        let _entered = self.span.enter();
        self.log(&ended);
    }
}

/// The body of an instrumented response.
pub struct ObservedBody {
    inner: UnsyncBoxBody<Bytes, BoxError>,
    /// What `content-length` announced, if anything.
    announced: Option<u64>,
    record: Record,
}

impl ObservedBody {
    pub(crate) fn new(
        inner: UnsyncBoxBody<Bytes, BoxError>,
        announced: Option<u64>,
        mut record: Record,
    ) -> Self {
        record.complete = inner.is_end_stream();
        Self { inner, announced, record }
    }

    /// A connection need not ask again once it has all that was announced.
    fn on_frame(&mut self, frame: Option<&Result<Frame<Bytes>, BoxError>>) {
        match frame {
            None => self.record.complete = true,
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.record.response_bytes += bytes;
                let all = self.announced == Some(self.record.response_bytes);
                self.record.complete = all || self.inner.is_end_stream();
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "the response breaks off");
                self.record.complete = false;
            }
        }
    }
}

impl Body for ObservedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let span = self.record.span.clone();
        let _entered = span.enter();
        let inner = Pin::new(&mut self.inner);
        // A panic here must break this response off, not the others that an
        // HTTP/2 connection carries.
        let polled = catch_unwind(AssertUnwindSafe(|| inner.poll_frame(cx)));
        let frame = match polled {
            Ok(polled) => ready!(polled),
            Err(panic) => {
                self.record.shared.on_panic(panic.as_ref());
                Some(Err("a fault in this service".into()))
            }
        };
        self.on_frame(frame.as_ref());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
