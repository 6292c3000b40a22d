//! What every request gets, whatever the service does with it: an id, a span,
//! metrics, a log line, and an answer even when the handler panics.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use holdfast_runtime::{BoxFuture, Runtime};
use holdfast_telemetry::trace;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Method, Request, Response};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use tower_service::Service;
use tracing::{Instrument as _, Span};

use crate::BoxError;
use crate::log_budget::LogBudget;
use crate::metrics::{HttpMetrics, method_label};
use crate::observed::Record;
pub use crate::observed::{ObservedBody, ReadBody};
use crate::problem::Problem;
use crate::request_id::{RequestId, X_REQUEST_ID, within};

/// Lines a second for requests that were answered with 5xx: an overload must
/// not fill the disk with complaints.
const ERROR_LINES: u32 = 20;

/// Gives the template of a path, such as `/objects/{key}`; never a name out of
/// the path, because it becomes a label.
pub type RouteOf = fn(&str) -> &'static str;

/// A service with everything around it that every request gets.
///
/// - The request id is taken from or put into `x-request-id`, is an extension
///   of the request (see [`crate::request_id::request_id`]), and completes each
///   [`Problem`].
/// - The span `request` continues the client's trace and ends with the response
///   body, as do the metrics and the log line: debug, or warn for 5xx.
/// - A handler that panics or fails answers 500.
/// - The answer to HEAD has no body, and the length that the body had.
#[derive(Debug)]
pub struct Instrumented<S> {
    service: S,
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) runtime: Runtime,
    pub(crate) metrics: HttpMetrics,
    pub(crate) error_log: LogBudget,
    route_of: RouteOf,
}

impl Shared {
    pub(crate) fn on_panic(&self, panic: &(dyn Any + Send)) {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        tracing::error!(panic = text.unwrap_or("unknown"), "a handler panicked");
        self.metrics.panics.inc();
    }
}

impl<S> Instrumented<S> {
    /// Wraps `service`, often `warp::service(filter)`.
    #[must_use]
    pub fn new(service: S, runtime: &Runtime, metrics: HttpMetrics, route_of: RouteOf) -> Self {
        let (runtime, error_log) = (runtime.clone(), LogBudget::new(ERROR_LINES));
        Self { service, shared: Arc::new(Shared { runtime, metrics, error_log, route_of }) }
    }
}

impl<S: Clone> Clone for Instrumented<S> {
    fn clone(&self) -> Self {
        Self { service: self.service.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<S, B, R> Service<Request<B>> for Instrumented<S>
where
    S: Service<Request<ReadBody<B>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + Send,
    B: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<ObservedBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    /// Always ready: a service that is not is waited for within its request.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let record = start(&self.shared, &request);
        request.extensions_mut().insert(record.request_id.clone());
        let head = *request.method() == Method::HEAD;
        let bytes = Arc::clone(&record.request_bytes);
        let request = request.map(|inner| ReadBody { inner, bytes });
        let answer = answer(self.service.clone(), request);
        let (span, request_id) = (record.span.clone(), record.request_id.clone());
        let whole = async move {
            let answered = AssertUnwindSafe(answer).catch_unwind().await;
            let response = answered.unwrap_or_else(|panic| {
                record.shared.on_panic(panic.as_ref());
                boxed(warp::reply::Reply::into_response(Problem::internal()))
            });
            Ok(finish(response, head, record))
        };
        Box::pin(within(request_id, whole).instrument(span))
    }
}

fn start<B>(shared: &Arc<Shared>, request: &Request<B>) -> Record {
    let request_id = RequestId::of(request.headers(), &shared.runtime);
    let method = method_label(request.method());
    let route = (shared.route_of)(request.uri().path());
    let span = tracing::info_span!(
        "request",
        otel.name = format_args!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        method,
        route,
        %request_id,
        status = tracing::field::Empty,
        trace_id = tracing::field::Empty,
    );
    join_trace(&span, request);
    shared.metrics.in_flight.inc();
    Record {
        shared: Arc::clone(shared),
        span,
        request_id,
        method,
        route,
        started: shared.runtime.now(),
        request_bytes: Arc::new(AtomicU64::new(0)),
        status: None,
        response_bytes: 0,
        complete: false,
    }
}

/// In this order: once its trace is known, a span cannot get a parent.
fn join_trace<B>(span: &Span, request: &Request<B>) {
    if let Some(traceparent) = trace::extract(request.headers()) {
        trace::set_parent(span, traceparent);
    }
    if let Some(id) = trace::trace_id(span) {
        span.record("trace_id", id);
    }
}

async fn answer<S, B, R>(
    mut service: S,
    request: Request<ReadBody<B>>,
) -> Response<UnsyncBoxBody<Bytes, BoxError>>
where
    S: Service<Request<ReadBody<B>>, Response = Response<R>>,
    S::Error: Into<BoxError> + Send,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let ready = std::future::poll_fn(|cx| service.poll_ready(cx)).await;
    let answered = match ready {
        Ok(()) => service.call(request).await,
        Err(error) => Err(error),
    };
    answered.map_or_else(
        |error| {
            tracing::error!(error = %error.into(), "a handler failed");
            boxed(warp::reply::Reply::into_response(Problem::internal()))
        },
        boxed,
    )
}

fn boxed<R>(response: Response<R>) -> Response<UnsyncBoxBody<Bytes, BoxError>>
where
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}

fn finish(
    mut response: Response<UnsyncBoxBody<Bytes, BoxError>>,
    head: bool,
    mut record: Record,
) -> Response<ObservedBody> {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        // Only the body: whatever headers a service added stay.
        let whole = problem.response_for(&record.request_id);
        *response.body_mut() = boxed(whole).into_body();
    }
    if head {
        drop_body(&mut response);
    }
    response.headers_mut().insert(X_REQUEST_ID, record.request_id.to_header());
    record.status = Some(response.status());
    let announced = content_length(&response);
    response.map(|body| ObservedBody::new(body, announced, record))
}

/// Keeps the length that the body would have had.
fn drop_body(response: &mut Response<UnsyncBoxBody<Bytes, BoxError>>) {
    if let Some(length) = response.body().size_hint().exact().filter(|length| *length > 0) {
        let headers = response.headers_mut();
        headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    *response.body_mut() = Empty::new().map_err(|never| match never {}).boxed_unsync();
}

fn content_length<B>(response: &Response<B>) -> Option<u64> {
    response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
