//! Where an object is.
//!
//! One task owns every lookup of the process. Lookups are coalesced: while a
//! batch is out, names gather for the next one, so a message carries as many
//! names as wait and costs next to nothing for each. Every data server answers
//! each batch, whether it holds any of the names or not; a miss is proven as
//! soon as the last answer is in.
//!
//! A batch goes over the bus to all at once, and over HTTP to each member when
//! the broker is away, or to those that have not answered after
//! [`LocatorConfig::fallback_after`].

mod batch;
mod guests;
mod task;

use std::sync::Arc;
use std::time::Duration;

use holdfast_bus::{Bus, Message};
use holdfast_core::locate::Located;
use holdfast_core::name::ObjectName;
use holdfast_core::node::Address;
use holdfast_core::stamp;
use holdfast_core::version::Version;
use holdfast_runtime::{Runtime, Task};
use holdfast_telemetry::trace;
use tokio::sync::{mpsc, oneshot};

use crate::cluster::Cluster;
use crate::data_servers::DataServers;
use crate::metrics::LocateMetrics;

/// Lookups that may wait in the channel, and once more in the task's own queue;
/// more are answered "overloaded". Those of a batch that is out do not count:
/// they end within [`LocatorConfig::timeout`].
const MAX_WAITING: usize = 16_384;

/// How lookups are timed.
#[derive(Debug, Clone)]
pub struct LocatorConfig {
    /// When a lookup ends whatever is missing.
    pub timeout: Duration,
    /// When members that have not answered over the bus are asked over HTTP.
    pub fallback_after: Duration,
    /// When the answers of a batch count no more, see [`holdfast_core::stamp`].
    pub window: Duration,
    /// Batches that may be out at once before names gather. Two keep the wire
    /// busy while the answers of the first are read.
    pub batches_in_flight: usize,
    /// A batch that is out for longer than this no longer holds others back:
    /// one slow member must not make everybody queue.
    pub batch_patience: Duration,
}

impl LocatorConfig {
    /// The usual timing for a given `LOCATE_TIMEOUT` and `HEARTBEAT_INTERVAL`.
    #[must_use]
    pub fn new(timeout: Duration, heartbeat_interval: Duration) -> Self {
        Self {
            timeout,
            window: stamp::window(heartbeat_interval),
            fallback_after: timeout / 10,
            batches_in_flight: 2,
            batch_patience: Duration::from_millis(5),
        }
    }
}

/// Why a lookup has no outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LocateError {
    /// More lookups wait than the queue holds.
    #[error("too many lookups are waiting")]
    Overloaded,
    /// The process shuts down.
    #[error("the process is shutting down")]
    Closed,
}

struct Lookup {
    name: ObjectName,
    /// A promise that is asked for beside the lookup.
    ballot: Option<Version>,
    /// Whether everybody is waited for who may still answer.
    from_all: bool,
    trace: Option<String>,
    started: Duration,
    reply: oneshot::Sender<Located>,
}

struct GuestLookup {
    escaped: String,
    reply: oneshot::Sender<Option<Address>>,
}

fn refused<T>(error: mpsc::error::TrySendError<T>) -> LocateError {
    match error {
        mpsc::error::TrySendError::Full(_) => LocateError::Overloaded,
        mpsc::error::TrySendError::Closed(_) => LocateError::Closed,
    }
}

/// The handle to the task. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Locator {
    runtime: Runtime,
    timeout: Duration,
    lookups: mpsc::Sender<Lookup>,
    guest_lookups: mpsc::Sender<GuestLookup>,
}

/// What the task is started with.
pub struct LocatorParts {
    /// The seam.
    pub runtime: Runtime,
    /// Timing.
    pub config: LocatorConfig,
    /// Who is asked.
    pub cluster: Cluster,
    /// The way out of batches.
    pub bus: Arc<dyn Bus>,
    /// The way in of their answers.
    pub replies: mpsc::Receiver<Message>,
    /// The way of batches while the broker is away.
    pub data_servers: DataServers,
    /// Where to count.
    pub metrics: LocateMetrics,
}

impl Locator {
    /// Starts the task.
    #[must_use]
    pub fn start(parts: LocatorParts) -> (Self, Task) {
        let (lookups, received) = mpsc::channel(MAX_WAITING);
        let (guest_lookups, guests) = mpsc::channel(256);
        let (runtime, timeout) = (parts.runtime.clone(), parts.config.timeout);
        let task = task::LocatorTask::new(parts);
        let task = runtime.spawn("locator", task.run(received, guests));
        (Self { runtime, timeout, lookups, guest_lookups }, task)
    }

    /// Asks every member for `name`. Never joins a batch that was sent before
    /// this call. Ends within [`LocatorConfig::timeout`] of being sent. Cancel
    /// safe.
    ///
    /// # Errors
    /// [`LocateError`].
    #[tracing::instrument(name = "locate", skip_all)]
    pub async fn locate(&self, name: &ObjectName) -> Result<Located, LocateError> {
        self.ask(name, None, false).await
    }

    /// The same, but waits for every member that may still answer, also when the
    /// outcome is certain: for who wants to know every copy. Cancel safe.
    ///
    /// # Errors
    /// [`LocateError`].
    #[tracing::instrument(name = "locate_all", skip_all)]
    pub async fn locate_all(&self, name: &ObjectName) -> Result<Located, LocateError> {
        self.ask(name, None, true).await
    }

    /// The same, and asks every member to take nothing below `ballot` for this
    /// name from now on. Who does not promise it counts as unheard. Cancel safe;
    /// what was promised stays promised for a while.
    ///
    /// # Errors
    /// [`LocateError`].
    #[tracing::instrument(name = "promise", skip_all)]
    pub async fn promise(
        &self,
        name: &ObjectName,
        ballot: Version,
    ) -> Result<Located, LocateError> {
        self.ask(name, Some(ballot), false).await
    }

    async fn ask(
        &self,
        name: &ObjectName,
        ballot: Option<Version>,
        from_all: bool,
    ) -> Result<Located, LocateError> {
        let (reply, answer) = oneshot::channel();
        let lookup = Lookup {
            name: name.clone(),
            ballot,
            from_all,
            trace: trace::current_traceparent(),
            started: self.runtime.now(),
            reply,
        };
        self.lookups.try_send(lookup).map_err(refused)?;
        answer.await.map_err(|_| LocateError::Closed)
    }

    /// Asks the data servers written for the seed for one escaped name, the
    /// way the seed does; gives the first address that comes within
    /// [`LocatorConfig::timeout`]. The seed's answers do not say which question
    /// they belong to, so one is asked at a time and the caller must check that
    /// the object is there. Cancel safe.
    ///
    /// # Errors
    /// [`LocateError::Overloaded`] when its turn does not come in time.
    pub async fn locate_guest(&self, escaped: &str) -> Result<Option<Address>, LocateError> {
        let (reply, answer) = oneshot::channel();
        let lookup = GuestLookup { escaped: escaped.to_owned(), reply };
        self.guest_lookups.try_send(lookup).map_err(refused)?;
        // One question may be out before this one.
        let limit = self.timeout * 3;
        let answer = self.runtime.timeout(limit, answer).await;
        answer.map_err(|_| LocateError::Overloaded)?.map_err(|_| LocateError::Closed)
    }
}
