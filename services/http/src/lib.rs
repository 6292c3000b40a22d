//! HTTP as every Holdfast service speaks it.
//!
//! | module | does |
//! |---|---|
//! | [`server`] | accepts connections and bounds what each may take |
//! | [`body`] | request bodies with a size limit and an idle limit |
//! | [`instrument`] | request id, span, metrics, log line and panic guard around a service |
//! | [`request_id`] | one id for a request, from the client or made here |
//! | [`problem`] | errors as RFC 9457 documents |
//! | [`range`], [`conditional`] | RFC 9110 ranges and preconditions, pure |
//! | [`client`] | pooled requests to other services |

mod adapter;
pub mod body;
pub mod client;
pub mod conditional;
mod connection;
mod control;
pub mod instrument;
mod io;
mod log_budget;
pub mod metrics;
mod observed;
pub mod problem;
pub mod range;
pub mod request_id;
pub mod server;
mod stall;

/// Any error, boxed; what bodies and services of other crates fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
