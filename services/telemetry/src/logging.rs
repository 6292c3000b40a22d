//! Log lines to standard error and spans to a collector.
//!
//! [`VARIABLES`] lists what decides about both.

use std::env;
use std::str::FromStr;
use std::time::Duration;

use holdfast_core::settings::{NO_DEFAULT, Variable};
use holdfast_runtime::Runtime;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::resource::{EnvResourceDetector, ResourceDetector};
use opentelemetry_sdk::trace::SdkTracerProvider;
use thiserror::Error;
use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, LevelFilter, ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt as lines};

use crate::json::ServiceJson;
use crate::otlp::{self, ExportClient};

/// How long the end of a process waits for its last spans to be sent. Part of
/// the time that an orchestrator grants a process to end.
pub const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// The SDK's own default for one export.
const EXPORT_LIMIT: Duration = Duration::from_secs(10);

/// The AMQP library calls every lost connection an error, an orderly end too;
/// what matters of that, the bus says itself.
const DEFAULT_FILTER: &str = "info,lapin=off";

/// The variables that are read here or by the OpenTelemetry libraries, as help
/// shows them.
pub static VARIABLES: [Variable; 14] = [
    Variable::new("RUST_LOG", DEFAULT_FILTER, "which log lines are written"),
    Variable::new("OTEL_EXPORTER_OTLP_ENDPOINT", NO_DEFAULT, "collector for traces, http:// alone"),
    Variable::new("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", NO_DEFAULT, "the same, and wins"),
    Variable::new("OTEL_EXPORTER_OTLP_TIMEOUT", "10000", "longest export, in milliseconds"),
    Variable::new("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", NO_DEFAULT, "the same, and wins"),
    Variable::new("OTEL_EXPORTER_OTLP_HEADERS", NO_DEFAULT, "headers of exports: name=value,..."),
    Variable::new("OTEL_EXPORTER_OTLP_TRACES_HEADERS", NO_DEFAULT, "the same, and win"),
    Variable::new("OTEL_BSP_SCHEDULE_DELAY", "5000", "how long spans wait, in milliseconds"),
    Variable::new("OTEL_BSP_MAX_QUEUE_SIZE", "2048", "how many spans may wait"),
    Variable::new("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "512", "how many spans go into one export"),
    Variable::new("OTEL_SERVICE_NAME", NO_DEFAULT, "in place of the name of the binary"),
    Variable::new("OTEL_RESOURCE_ATTRIBUTES", NO_DEFAULT, "more about the service: name=value,..."),
    Variable::new("OTEL_TRACES_SAMPLER", "parentbased_always_on", "which traces are kept"),
    Variable::new("OTEL_TRACES_SAMPLER_ARG", NO_DEFAULT, "what some samplers need to know"),
];

/// What a log line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is not a log format; write text or json")),
        }
    }
}

/// Who is logging, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggingConfig {
    /// The service, such as `holdfast-api`.
    pub service_name: String,
    /// Which one of it: the pod's name or the advertised address.
    pub service_instance: String,
    /// What a line looks like.
    pub format: LogFormat,
}

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum InitError {
    /// `RUST_LOG` has no meaning.
    #[error("RUST_LOG is {value:?}, which is not a log filter such as info or holdfast_api=debug")]
    Filter {
        /// The value.
        value: String,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// Traces cannot be sent there.
    #[error("{variable} is {value:?}; it must be an http:// URL (TLS is not supported here)")]
    Endpoint {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
    },
    /// Another variable of the exporter has no meaning.
    #[error("the OpenTelemetry exporter refuses its configuration")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
    /// Logging was set up before in this process.
    #[error("logging is already set up")]
    Twice(#[source] TryInitError),
}

/// Keeps the export of spans alive; sends what is left when it is shut down or
/// dropped.
#[derive(Debug)]
#[must_use = "dropped, it ends the export of spans"]
pub struct TracingGuard {
    runtime: Runtime,
    provider: Option<SdkTracerProvider>,
}

impl TracingGuard {
    /// Sends the spans that are left, for at most [`FLUSH_LIMIT`].
    pub async fn shutdown(mut self) {
        if let Some(provider) = self.provider.take() {
            // Blocks, so it must not run where the exporter's task may run.
            let _ = self.runtime.blocking(move || flush(&provider)).await;
        }
    }
}

impl Drop for TracingGuard {
    /// Blocks the thread for at most [`FLUSH_LIMIT`]; [`Self::shutdown`] does
    /// not, and is sure to reach the collector on a runtime of one thread too.
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take() {
            flush(&provider);
        }
    }
}

fn flush(provider: &SdkTracerProvider) {
    if let Err(error) = provider.shutdown_with_timeout(FLUSH_LIMIT) {
        tracing::debug!(%error, "the last spans were not exported");
    }
}

/// Sets up logging for the whole process. Call it once, inside of tokio.
///
/// # Errors
/// See [`InitError`]; a variable that has no meaning is never replaced by a
/// default.
pub fn init(runtime: &Runtime, config: &LoggingConfig) -> Result<TracingGuard, InitError> {
    let provider = provider(runtime, config)?;
    let spans = provider.as_ref().map(|provider| {
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        // Spans do not depend on RUST_LOG, and those of libraries are left out.
        let own = Targets::new().with_target("holdfast", LevelFilter::INFO);
        let tracer = provider.tracer("holdfast");
        tracing_opentelemetry::layer().with_tracer(tracer).with_filter(own)
    });
    let filter = filter(env::var("RUST_LOG").ok())?;
    tracing_subscriber::registry()
        .with(line_layer(config).with_filter(filter))
        .with(spans)
        .try_init()
        .map_err(InitError::Twice)?;
    Ok(TracingGuard { runtime: runtime.clone(), provider })
}

fn filter(value: Option<String>) -> Result<EnvFilter, InitError> {
    let value = value.filter(|value| !value.trim().is_empty());
    let value = value.unwrap_or_else(|| DEFAULT_FILTER.into());
    EnvFilter::builder().parse(&value).map_err(|source| InitError::Filter { value, source })
}

fn line_layer<S>(config: &LoggingConfig) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let layer = lines::layer().with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => {
            use std::io::IsTerminal;
            layer.with_ansi(std::io::stderr().is_terminal()).boxed()
        }
        LogFormat::Json => {
            let format = ServiceJson::new(&config.service_name, &config.service_instance);
            layer.json().event_format(format).boxed()
        }
    }
}

/// `None` when no collector is named.
fn provider(
    runtime: &Runtime,
    config: &LoggingConfig,
) -> Result<Option<SdkTracerProvider>, InitError> {
    let named = |variable: &'static str| {
        let value = env::var(variable).ok().filter(|value| !value.trim().is_empty());
        value.map(|value| (variable, value))
    };
    let endpoint = named(opentelemetry_otlp::OTEL_EXPORTER_OTLP_TRACES_ENDPOINT)
        .or_else(|| named(opentelemetry_otlp::OTEL_EXPORTER_OTLP_ENDPOINT));
    let Some((variable, value)) = endpoint else { return Ok(None) };
    if !otlp::endpoint_ok(&value) {
        return Err(InitError::Endpoint { variable, value });
    }
    let limit = named(opentelemetry_otlp::OTEL_EXPORTER_OTLP_TRACES_TIMEOUT)
        .or_else(|| named(opentelemetry_otlp::OTEL_EXPORTER_OTLP_TIMEOUT))
        .and_then(|(_, millis)| millis.trim().parse().ok())
        .map_or(EXPORT_LIMIT, Duration::from_millis);
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(ExportClient::start(runtime, limit))
        .build()
        .map_err(InitError::Exporter)?;
    let built = SdkTracerProvider::builder().with_resource(resource(config));
    Ok(Some(built.with_batch_exporter(exporter).build()))
}

/// The environment wins over what the service says of itself.
fn resource(config: &LoggingConfig) -> Resource {
    let own = [
        KeyValue::new("service.name", config.service_name.clone()),
        KeyValue::new("service.instance.id", config.service_instance.clone()),
    ];
    let from_env = EnvResourceDetector::new().detect();
    let mut attributes: Vec<KeyValue> = own.to_vec();
    attributes
        .extend(from_env.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())));
    if let Some(name) = env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty()) {
        attributes.push(KeyValue::new("service.name", name));
    }
    Resource::builder().with_attributes(attributes).build()
}
