//! What it takes to run either service: sockets, servers, and the order in
//! which they start and stop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use holdfast_bus::{Bus, Inbox};
use holdfast_core::node::Address;
use holdfast_core::settings::ListenAddress;
use holdfast_http::client::{ClientBody, ClientLimits, HttpClient};
use holdfast_http::instrument::{Instrumented, RouteOf};
use holdfast_http::metrics::HttpMetrics;
use holdfast_http::server::serve;
use holdfast_runtime::{Listener, Runtime, Task};
use holdfast_telemetry::admin::Health;
use holdfast_telemetry::metrics::Metrics;
use holdfast_telemetry::shutdown::{Ending, Shutdown, ShutdownTimes, run_shutdown};
use thiserror::Error;
use tracing::{info, warn};
use warp::filters::BoxedFilter;
use warp::reply::Response;

pub use crate::admin_port::{AdminPort, Starting};
use crate::routes;
use crate::settings::CommonSettings;

/// Why a service did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Which one.
        address: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A metric is registered twice: a fault in this program.
    #[error("a metric could not be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Others could not be told where this service is.
    #[error("the address to tell others is not usable: {reason}")]
    Advertise {
        /// What is wrong.
        reason: String,
    },
    /// The volume could not be opened.
    #[error("the volume cannot be used: {0}")]
    Volume(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// This member of the cluster has retired: the next start makes the volume
    /// a new one.
    #[error("this data server was given up by the others; the next start joins as a new member")]
    Retired,
    /// The volume takes no more writes: a sync failed, or its index was found
    /// damaged. The next start puts in order what can be.
    #[error("the volume takes no more writes: {reason}")]
    VolumeFailed {
        /// What happened first.
        reason: String,
    },
}

/// The way to the other services.
#[derive(Debug)]
pub struct BusConnection {
    /// The way out.
    pub bus: Arc<dyn Bus>,
    /// The way in.
    pub inbox: Inbox,
}

/// Where a service listens, once it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    /// For clients and other services.
    pub address: String,
    /// For probes, metrics and operators.
    pub admin: String,
}

/// Opens the admin port, which answers probes from now on: `starting` says why
/// the service is not ready yet.
///
/// # Errors
/// [`StartError::Bind`].
pub async fn open_admin_port(
    runtime: &Runtime,
    settings: &CommonSettings,
    metrics: &Metrics,
    starting: Arc<dyn Health>,
    shutdown: &Shutdown,
) -> Result<AdminPort, StartError> {
    let bound = bind(runtime, &settings.admin).await?;
    Ok(AdminPort::start(runtime, settings, bound, metrics, starting, shutdown))
}

/// The two sockets of a service.
#[derive(Debug)]
pub struct Sockets {
    listener: Box<dyn Listener>,
    admin: AdminPort,
    /// Where they are.
    pub ports: Ports,
}

impl Sockets {
    /// Binds the public port. Nobody is served there before
    /// [`Servers::start`].
    ///
    /// # Errors
    /// [`StartError::Bind`].
    pub async fn bind(
        runtime: &Runtime,
        settings: &CommonSettings,
        admin: AdminPort,
    ) -> Result<Self, StartError> {
        let (listener, address) = bind(runtime, &settings.listen).await?;
        let ports = Ports { address, admin: admin.address.clone() };
        Ok(Self { listener, admin, ports })
    }
}

async fn bind(
    runtime: &Runtime,
    listen: &ListenAddress,
) -> Result<(Box<dyn Listener>, String), StartError> {
    let address = listen.to_bind();
    let refused = |source| StartError::Bind { address: address.clone(), source };
    let listener = runtime.listen(&address).await.map_err(refused)?;
    let bound = listener.local_address().map_err(refused)?;
    Ok((listener, bound))
}

/// A client for data servers with the limits that fit these settings.
#[must_use]
pub fn http_client(runtime: &Runtime, settings: &CommonSettings) -> HttpClient {
    let limits = ClientLimits { stall_timeout: settings.body_timeout, ..ClientLimits::default() };
    HttpClient::new(runtime, limits)
}

/// Both servers of a service.
pub struct Servers {
    /// What the public port answers; never rejects.
    pub public: BoxedFilter<(Response,)>,
    /// The template of each of its paths.
    pub route_of: RouteOf,
    /// The templates of those whose durations nobody needs.
    pub untimed: &'static [&'static str],
    /// What the admin port answers beside probes and metrics.
    pub admin: BoxedFilter<(Response,)>,
    /// Whether the service is ready.
    pub health: Arc<dyn Health>,
    /// Everything that is counted.
    pub metrics: Metrics,
}

impl Servers {
    /// Serves until the end of `shutdown`; gives the task of the public server,
    /// whose end is the end of the last request, and the admin port, which is to
    /// be kept.
    ///
    /// # Errors
    /// [`StartError::Metrics`].
    pub fn start(
        self,
        runtime: &Runtime,
        settings: &CommonSettings,
        sockets: Sockets,
        shutdown: &Shutdown,
    ) -> Result<(Task, AdminPort), StartError> {
        let http = HttpMetrics::new(&self.metrics, self.untimed)?;
        http.begin_failures_at_zero(&routes::requests());
        let service = Instrumented::new(warp::service(self.public), runtime, http, self.route_of);
        let Sockets { listener, admin, .. } = sockets;
        let limits = settings.server_limits();
        let public = serve(runtime.clone(), listener, service, limits, shutdown.clone());
        admin.complete(self.health, self.metrics, self.admin);
        Ok((runtime.spawn("http", public), admin))
    }
}

/// Runs the end of a service: waits for the signal, says goodbye, goes on
/// taking requests for a while, finishes what is in flight.
pub async fn end(
    runtime: &Runtime,
    settings: &CommonSettings,
    shutdown: &Shutdown,
    goodbye: impl Future<Output = ()>,
    mut public: Task,
) {
    let times = ShutdownTimes { delay: settings.shutdown_delay, finish: settings.shutdown_timeout };
    match run_shutdown(runtime, shutdown, times, goodbye, public.finished()).await {
        Ending::Clean => info!("every request was finished"),
        Ending::Late => warn!("requests in flight were cut off at SHUTDOWN_TIMEOUT"),
        Ending::Forced => warn!(
            "this process ends at once, after a second signal or a failure that is told below"
        ),
    }
}

/// Waits until the service with this admin address is ready. Cancel safe.
pub async fn wait_until_ready(runtime: &Runtime, client: &HttpClient, admin: &Address) {
    let pause = Duration::from_millis(20);
    loop {
        let mut request = http::Request::new(ClientBody::empty());
        *request.uri_mut() = http::Uri::from_static("/readyz");
        let answer = client.send(admin, request, Some(Duration::from_secs(1))).await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return;
        }
        runtime.sleep(pause).await;
    }
}
