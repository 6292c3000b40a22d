//! Carries a trace from one process to the next, as W3C `traceparent`.
//!
//! Without a collector (see [`crate::logging`]) each of these does nothing.

use std::collections::HashMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The header that carries a trace.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A `traceparent` that leads to the current span, if that span is sampled.
#[must_use]
pub fn current_traceparent() -> Option<String> {
    traceparent_of(&Span::current())
}

/// A `traceparent` that leads to `span`, if it is sampled. Starts the span as
/// far as the collector is concerned: its parent can no longer be set.
#[must_use]
pub fn traceparent_of(span: &Span) -> Option<String> {
    let context = span.context();
    if !context.span().span_context().is_sampled() {
        return None;
    }
    let mut carrier = HashMap::with_capacity(2);
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    carrier.remove(TRACEPARENT.as_str())
}

/// The trace id of `span` in hexadecimal, if it is sampled. Starts the span,
/// as [`traceparent_of`] does.
#[must_use]
pub fn trace_id(span: &Span) -> Option<String> {
    let context = span.context();
    let span = context.span();
    let context = span.span_context();
    context.is_sampled().then(|| context.trace_id().to_string())
}

/// Makes the sender of `traceparent` the parent of a span that has neither
/// been entered nor asked for its trace yet. Text that is no `traceparent` is
/// ignored: it came from the network.
pub fn set_parent(span: &Span, traceparent: &str) {
    if let Some(context) = parse(traceparent) {
        // Fails without a collector, for a disabled span and for a started
        // one; none of them is worth more than a missing edge in a trace.
        let _ = span.set_parent(context);
    }
}

/// Links a span to the sender of `traceparent`: for work that serves many
/// requests at once and so has no single parent.
pub fn add_link(span: &Span, traceparent: &str) {
    if let Some(context) = parse(traceparent) {
        span.add_link(context.span().span_context().clone());
    }
}

/// The `traceparent` that a request or message carries, unchecked.
#[must_use]
pub fn extract(headers: &HeaderMap) -> Option<&str> {
    headers.get(TRACEPARENT)?.to_str().ok()
}

/// Puts the current span's `traceparent` into `headers`, if it is sampled.
pub fn inject(headers: &mut HeaderMap) {
    let value = current_traceparent().and_then(|text| HeaderValue::try_from(text).ok());
    if let Some(value) = value {
        headers.insert(TRACEPARENT, value);
    }
}

fn parse(traceparent: &str) -> Option<Context> {
    let carrier = HashMap::from([(TRACEPARENT.as_str().to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    let valid = context.span().span_context().is_valid();
    valid.then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
    use tracing_subscriber::layer::SubscriberExt;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn with_sampler(sampler: Sampler, test: impl FnOnce()) {
        let provider = SdkTracerProvider::builder().with_sampler(sampler).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), test);
    }

    #[test]
    fn a_trace_goes_on_in_the_next_process() {
        with_sampler(Sampler::AlwaysOn, || {
            let span = tracing::info_span!("work");
            set_parent(&span, PARENT);
            let _entered = span.enter();
            let next = current_traceparent().expect("sampled");
            assert!(next.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{next}");
            assert!(!next.contains("b7ad6b7169203331"), "a span of its own: {next}");
            let mut headers = HeaderMap::new();
            inject(&mut headers);
            assert_eq!(extract(&headers), Some(next.as_str()));
            assert_eq!(trace_id(&span).as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        });
    }

    #[test]
    fn what_is_not_sampled_is_not_carried() {
        with_sampler(Sampler::AlwaysOff, || {
            let span = tracing::info_span!("work");
            let _entered = span.enter();
            assert_eq!(current_traceparent(), None);
        });
    }

    #[test]
    fn without_a_collector_nothing_happens() {
        let span = tracing::info_span!("work");
        set_parent(&span, PARENT);
        add_link(&span, PARENT);
        let _entered = span.enter();
        assert_eq!(current_traceparent(), None);
        let mut headers = HeaderMap::new();
        inject(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn what_is_no_traceparent_is_ignored() {
        with_sampler(Sampler::AlwaysOn, || {
            for bad in ["", "00", "00-0-0-01", "\u{e9}", &PARENT.replace('7', "x")] {
                let span = tracing::info_span!("work");
                set_parent(&span, bad);
                add_link(&span, bad);
                assert!(traceparent_of(&span).is_some(), "{bad}");
            }
        });
    }
}
