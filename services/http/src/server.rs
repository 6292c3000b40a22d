//! The accept loop: a bounded number of connections, each with bounded heads,
//! bodies and waits, and an orderly end.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_runtime::{Connection, Listener, Runtime};
use holdfast_telemetry::shutdown::{Phase, Shutdown};
use http::{Request, Response};
use http_body::Body;
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower_service::Service;

use crate::BoxError;
use crate::adapter::HyperRuntime;
pub use crate::connection::RequestBody;
use crate::connection::run;
use crate::control::{Control, Order};
use crate::io::{ServerIo, StallIo};
use crate::log_budget::LogBudget;

/// Least size that hyper accepts for its read buffer.
const MIN_HEAD_BYTES: usize = 8192;

/// Pause after a failed accept: with no file descriptor left, trying again at
/// once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long dropped connections are waited for: as long as a handler takes to
/// come to its next wait.
const DROP_WAIT: Duration = Duration::from_secs(1);

/// What one server may be made to hold and to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections at once; more wait in the kernel's queue.
    pub max_connections: u32,
    /// Request line and headers together, in bytes; at least 8 KiB. Also the
    /// largest single read of a body.
    pub max_head_bytes: usize,
    /// Headers of one request.
    pub max_headers: usize,
    /// Requests at once on one HTTP/2 connection.
    pub max_streams: u32,
    /// From the first byte of a head to its end, and from the start of a
    /// connection to the end of its first head.
    pub header_timeout: Duration,
    /// How long a connection may wait for its next request. Longer than the
    /// idle time of every proxy and client in front, or they meet a closed
    /// connection.
    pub idle_timeout: Duration,
    /// How long a client may send nothing in the middle of a body.
    pub body_timeout: Duration,
    /// How long a client may take nothing in the middle of a response.
    pub write_timeout: Duration,
    /// How long requests in flight may take once the server finishes.
    pub finish_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_head_bytes: 64 * 1024,
            max_headers: 100,
            max_streams: 128,
            header_timeout: Duration::from_secs(10),
            // Above the 60 s of common load balancers.
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            finish_timeout: Duration::from_secs(25),
        }
    }
}

/// Serves `service` on `listener` until the end of `shutdown`.
///
/// HTTP/1.1 and HTTP/2 with prior knowledge, without TLS. In
/// [`Phase::Leaving`] requests are still taken, HTTP/1.1 responses carry
/// `Connection: close` and HTTP/2 connections get GOAWAY. In
/// [`Phase::Finishing`] the listener is closed and requests in flight have
/// `finish_timeout`. Returns once no connection is left. A failing accept never
/// ends it.
///
/// Dropping the future closes the listener and leaves connections running.
pub async fn serve<S, B>(
    runtime: Runtime,
    listener: Box<dyn Listener>,
    service: S,
    limits: ServerLimits,
    shutdown: Shutdown,
) where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let server = Server::new(&runtime, limits);
    server.accept_until_finishing(listener, service, &shutdown).await;
    server.finish(&shutdown).await;
}

/// [`serve`] for a warp filter that needs no instrumentation.
pub async fn serve_filter<F>(
    runtime: Runtime,
    listener: Box<dyn Listener>,
    filter: F,
    limits: ServerLimits,
    shutdown: Shutdown,
) where
    F: warp::Filter<Error = std::convert::Infallible> + Clone + Send + Sync + 'static,
    F::Extract: warp::Reply + Send,
{
    serve(runtime, listener, warp::service(filter), limits, shutdown).await;
}

struct Server {
    runtime: Runtime,
    limits: ServerLimits,
    builder: auto::Builder<HyperRuntime>,
    slots: Arc<Semaphore>,
    open: Arc<Mutex<BTreeMap<u64, Arc<Control>>>>,
    accept_log: LogBudget,
}

impl Server {
    fn new(runtime: &Runtime, limits: ServerLimits) -> Self {
        let slots = usize::try_from(limits.max_connections).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            runtime: runtime.clone(),
            limits,
            builder: builder(runtime, &limits),
            slots: Arc::new(Semaphore::new(slots)),
            open: Arc::default(),
            accept_log: LogBudget::new(1),
        }
    }

    async fn accept_until_finishing<S, B>(
        &self,
        mut listener: Box<dyn Listener>,
        service: S,
        shutdown: &Shutdown,
    ) where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError> + Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let mut next = Phase::Leaving;
        let mut count = 0_u64;
        let mut pause = Duration::ZERO;
        while next <= Phase::Finishing {
            tokio::select! {
                biased;
                () = shutdown.wait_for(next) => {
                    next = self.on_phase(shutdown.phase());
                }
                (slot, accepted) = self.accept(listener.as_mut(), pause) => {
                    pause = Duration::ZERO;
                    match accepted {
                        Ok((socket, _peer)) => {
                            count += 1;
                            let leaving = next > Phase::Leaving;
                            self.start(count, leaving, slot, socket, service.clone());
                        }
                        Err(error) => {
                            self.on_accept_error(&error);
                            pause = ACCEPT_PAUSE;
                        }
                    }
                }
            }
        }
    }

    /// Passes a phase on and gives the next one to wait for.
    fn on_phase(&self, phase: Phase) -> Phase {
        match phase {
            Phase::Running => Phase::Leaving,
            Phase::Leaving => {
                self.give(Order::Leave);
                Phase::Finishing
            }
            Phase::Finishing | Phase::Forced => Phase::Forced,
        }
    }

    /// The next connection, once there is room for it. Cancel safe.
    async fn accept(
        &self,
        listener: &mut dyn Listener,
        pause: Duration,
    ) -> (Option<OwnedSemaphorePermit>, io::Result<(Box<dyn Connection>, String)>) {
        if !pause.is_zero() {
            self.runtime.sleep(pause).await;
        }
        // Never closed, so there always is a permit in the end.
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
        (slot, listener.accept().await)
    }

    fn on_accept_error(&self, error: &io::Error) {
        if let Some(suppressed) = self.accept_log.take(self.runtime.now()) {
            tracing::warn!(%error, suppressed, "a connection could not be accepted");
        }
    }

    fn start<S, B>(
        &self,
        number: u64,
        leaving: bool,
        slot: Option<OwnedSemaphorePermit>,
        socket: Box<dyn Connection>,
        service: S,
    ) where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError> + Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let control = Control::new(&self.runtime);
        if leaving {
            control.give(Order::Leave);
        }
        self.open().insert(number, Arc::clone(&control));
        let listed = Listed { number, open: Arc::clone(&self.open), _slot: slot };
        let socket = StallIo::new(&self.runtime, socket, self.limits.write_timeout);
        let io = ServerIo::new(&self.runtime, socket, Arc::clone(&control));
        let service = TowerToHyperService::new(service);
        let (builder, limits) = (self.builder.clone(), self.limits);
        self.runtime.spawn("http connection", async move {
            let _listed = listed;
            if let Err(error) = run(builder, io, service, control, limits).await {
                tracing::debug!(%error, "a connection broke");
            }
        });
    }

    /// Waits for what is in flight, then drops it.
    async fn finish(&self, shutdown: &Shutdown) {
        self.give(Order::Finish);
        let ended = self.runtime.timeout(self.limits.finish_timeout, self.all_ended());
        tokio::select! {
            biased;
            () = shutdown.wait_for(Phase::Forced) => {}
            ended = ended => if ended.is_ok() { return; },
        }
        let dropped = self.open().len();
        tracing::warn!(connections = dropped, "connections are dropped with requests in flight");
        self.give(Order::Drop);
        let _ = self.runtime.timeout(DROP_WAIT, self.all_ended()).await;
    }

    async fn all_ended(&self) {
        let _ = self.slots.acquire_many(self.limits.max_connections).await;
    }

    fn give(&self, order: Order) {
        for control in self.open().values() {
            control.give(order);
        }
    }

    fn open(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Control>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a connection off the list when its task ends, whichever way.
struct Listed {
    number: u64,
    open: Arc<Mutex<BTreeMap<u64, Arc<Control>>>>,
    _slot: Option<OwnedSemaphorePermit>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

fn builder(runtime: &Runtime, limits: &ServerLimits) -> auto::Builder<HyperRuntime> {
    let hyper = HyperRuntime::new(runtime);
    let mut builder = auto::Builder::new(hyper.clone());
    builder
        .http1()
        .timer(hyper.clone())
        // Hyper's own limit also cuts off idle connections: see `Control`.
        .header_read_timeout(None)
        .max_headers(limits.max_headers)
        .max_buf_size(limits.max_head_bytes.max(MIN_HEAD_BYTES));
    builder
        .http2()
        .timer(hyper)
        .max_header_list_size(u32::try_from(limits.max_head_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.max_streams)
        // A peer that vanished without a word is found out.
        .keep_alive_interval(limits.idle_timeout / 2)
        .keep_alive_timeout(limits.write_timeout);
    builder
}
