//! The admin port, which answers probes before the rest of a service is there:
//! a data server may read its log for a long time, and whoever watches it must
//! not take that for a process that hangs, kill it, and have it begin again.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use holdfast_http::server::{RequestBody, ServerLimits, serve};
use holdfast_runtime::{Listener, Runtime, Task};
use holdfast_telemetry::admin::{self, Health};
use holdfast_telemetry::metrics::Metrics;
use holdfast_telemetry::shutdown::Shutdown;
use http::{Request, StatusCode};
use tower_service::Service;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};

use crate::settings::CommonSettings;

/// Operators and probes; never many.
const MAX_CONNECTIONS: u32 = 64;

/// The admin server of a process. It ends with this, or with the process's
/// shutdown.
pub struct AdminPort {
    /// Where it listens.
    pub address: String,
    complete: Arc<OnceLock<BoxedFilter<(Response,)>>>,
    /// Ends the server when it is dropped.
    _task: Task,
}

impl fmt::Debug for AdminPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminPort").field("address", &self.address).finish_non_exhaustive()
    }
}

impl AdminPort {
    /// Serves probes and metrics; `starting` says why the service is not ready
    /// yet.
    pub(crate) fn start(
        runtime: &Runtime,
        settings: &CommonSettings,
        (listener, address): (Box<dyn Listener>, String),
        metrics: &Metrics,
        starting: Arc<dyn Health>,
        shutdown: &Shutdown,
    ) -> Self {
        let complete = Arc::new(OnceLock::new());
        let service = Late {
            starting: routes(starting, metrics.clone(), None),
            complete: Arc::clone(&complete),
        };
        let limits = ServerLimits { max_connections: MAX_CONNECTIONS, ..settings.server_limits() };
        let server = serve(runtime.clone(), listener, service, limits, shutdown.clone());
        Self { address, complete, _task: runtime.spawn("admin-http", server) }
    }

    /// The service is there: from now on its own health and routes answer.
    pub(crate) fn complete(
        &self,
        health: Arc<dyn Health>,
        metrics: Metrics,
        own: BoxedFilter<(Response,)>,
    ) {
        // A second time changes nothing.
        let _ = self.complete.set(routes(health, metrics, Some(own)));
    }
}

/// Why a service that has just begun is not ready.
#[derive(Debug, Default)]
pub struct Starting;

impl Health for Starting {
    fn readiness(&self) -> Result<(), Vec<String>> {
        Err(vec!["starting".to_owned()])
    }
}

fn routes(
    health: Arc<dyn Health>,
    metrics: Metrics,
    own: Option<BoxedFilter<(Response,)>>,
) -> BoxedFilter<(Response,)> {
    let nothing = warp::any().map(|| StatusCode::NOT_FOUND.into_response()).boxed();
    let common = admin::routes(health, metrics);
    match own {
        Some(own) => common.or(own).unify().or(nothing).unify().boxed(),
        None => common.or(nothing).unify().boxed(),
    }
}

/// Answers with what is there at the time of each request.
#[derive(Clone)]
struct Late {
    starting: BoxedFilter<(Response,)>,
    complete: Arc<OnceLock<BoxedFilter<(Response,)>>>,
}

impl Service<Request<RequestBody>> for Late {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let filter = self.complete.get().unwrap_or(&self.starting).clone();
        let mut service = warp::service(filter);
        Box::pin(async move { service.call(request).await })
    }
}
