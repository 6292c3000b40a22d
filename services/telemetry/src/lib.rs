//! What a Holdfast service shows of itself, and how it is told to stop.
//!
//! | module | does |
//! |---|---|
//! | [`logging`] | log lines to standard error, spans to an OpenTelemetry collector |
//! | [`trace`] | carries a trace over HTTP and the broker |
//! | [`metrics`] | the Prometheus registry of the process |
//! | [`admin`] | `/livez`, `/readyz` and `/metrics` |
//! | [`shutdown`] | signals, and the order in which a service ends |

pub mod admin;
mod json;
pub mod logging;
pub mod metrics;
mod otlp;
pub mod shutdown;
pub mod trace;
