//! PUT, GET, DELETE and lists over many data servers.
//!
//! | room | purpose |
//! |---|---|
//! | `put`, `delete`, `get`, `list` | what clients ask for |
//! | `write`, `conditional` | the order of a write, without and with a condition |
//! | `target`, `upload`, `replicate` | which members get a version, and how |
//! | `settle` | bringing a version that was found to W members |
//! | `body`, `guests`, `turns` | payloads on their way in, the seed's data servers, taking turns |
//!
//! Which content is the newest, versions say. A version is acknowledged once W
//! members have it, and shown only when that is certain.

mod body;
mod conditional;
mod delete;
mod get;
mod guests;
mod list;
mod put;
mod replicate;
mod settle;
mod target;
mod turns;
mod upload;
mod write;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_core::locate::Located;
use holdfast_core::name::ObjectName;
use holdfast_core::version::{Version, VersionSource};
use holdfast_runtime::Runtime;
use tokio::sync::Semaphore;

pub use body::{Expected, Incoming};
pub use get::{Fetched, Found, ReadStream};
pub use list::{ListConfig, ListPage, ListQuery};
pub use put::{Put, PutDone};
pub use write::Condition;

use turns::Turns;

use crate::cluster::Cluster;
use crate::data_servers::DataServers;
use crate::error::ObjectError;
use crate::locator::Locator;
use crate::metrics::ObjectMetrics;

/// Payloads up to this size travel in one message and are held in memory, once
/// per request; 1,024 of them at once, or 128 MiB.
pub const SMALL_BYTES: usize = 128 * 1024;

/// Small payloads that are in memory at once: 128 MiB of them. Connections do
/// not bound it, since one HTTP/2 connection carries many requests.
const MAX_SMALL_WRITES: usize = 1_024;

/// Lists that are worked on at once: each holds a page of every member, up to
/// 1 MiB of entries each. More are answered "overloaded".
const MAX_LISTS: usize = 16;

/// Bounds of the work for one request.
#[derive(Debug, Clone)]
pub struct ObjectsConfig {
    /// Largest object.
    pub max_object_bytes: u64,
    /// How long a data server may take to make a write durable.
    pub write_timeout: Duration,
    /// How long a data server may take to fetch a copy from another one.
    pub copy_timeout: Duration,
    /// How long a data server may take to begin an answer.
    pub read_timeout: Duration,
    /// After how long another replica is asked as well.
    pub hedge_delay: Duration,
    /// How long a body may stand still.
    pub body_timeout: Duration,
    /// How lists are timed.
    pub list: ListConfig,
}

impl Default for ObjectsConfig {
    fn default() -> Self {
        Self {
            max_object_bytes: 5 << 40,
            write_timeout: Duration::from_secs(20),
            copy_timeout: Duration::from_secs(20),
            read_timeout: Duration::from_secs(5),
            hedge_delay: Duration::from_millis(100),
            body_timeout: Duration::from_secs(30),
            list: ListConfig::new(Duration::from_secs(1), Duration::from_secs(5)),
        }
    }
}

/// Stores and finds objects. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Objects {
    runtime: Runtime,
    config: Arc<ObjectsConfig>,
    cluster: Cluster,
    locator: Locator,
    data_servers: DataServers,
    versions: Arc<Mutex<VersionSource>>,
    small_writes: Arc<Semaphore>,
    lists: Arc<Semaphore>,
    turns: Turns,
    metrics: ObjectMetrics,
}

impl Objects {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        runtime: Runtime,
        config: ObjectsConfig,
        cluster: Cluster,
        locator: Locator,
        data_servers: DataServers,
        metrics: ObjectMetrics,
    ) -> Self {
        let versions = VersionSource::new(runtime.random_u64());
        Self {
            runtime,
            config: Arc::new(config),
            cluster,
            locator,
            data_servers,
            versions: Arc::new(Mutex::new(versions)),
            small_writes: Arc::new(Semaphore::new(MAX_SMALL_WRITES)),
            lists: Arc::new(Semaphore::new(MAX_LISTS)),
            turns: Turns::new(),
            metrics,
        }
    }

    /// The seam, for those who build on this.
    #[must_use]
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Bounds of the work for one request.
    #[must_use]
    pub fn config(&self) -> &ObjectsConfig {
        &self.config
    }

    /// Where a name is; every copy, and who did not say.
    ///
    /// # Errors
    /// [`ObjectError::Overloaded`], [`ObjectError::ShuttingDown`].
    pub async fn locate(&self, name: &ObjectName) -> Result<Located, ObjectError> {
        Ok(self.locator.locate(name).await?)
    }

    /// Where every copy of a name is; waits for all members that may answer.
    ///
    /// # Errors
    /// [`ObjectError::Overloaded`], [`ObjectError::ShuttingDown`].
    pub async fn locate_all(&self, name: &ObjectName) -> Result<Located, ObjectError> {
        Ok(self.locator.locate_all(name).await?)
    }

    pub(crate) fn on_refused(&self, error: &ObjectError) {
        self.metrics.refused.with_label_values(&[error.code()]).inc();
    }

    /// A version above everything that `located` shows: every copy, and every
    /// floor. Its clock is the median of those that answered, so that one wrong
    /// clock decides nothing.
    fn next_version(&self, located: &Located) -> Version {
        let now = located.clock_millis.unwrap_or_else(|| self.runtime.unix_millis());
        let newest = located.newest().map(|replica| replica.stat.version).max(located.floor);
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.next(now, newest)
    }
}
