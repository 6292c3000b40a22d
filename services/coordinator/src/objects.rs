//! PUT, GET and DELETE over many data servers.
//!
//! In this release every object has one copy. An overwrite goes to the member
//! that holds the object, while that member is heard; otherwise placement says
//! where it goes. Which content is the newest, versions say.

mod body;
mod delete;
mod get;
mod guests;
mod put;
mod target;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_core::locate::{Located, Replica};
use holdfast_core::name::ObjectName;
use holdfast_core::version::{Version, VersionSource};
use holdfast_runtime::Runtime;
use tokio::sync::Semaphore;
use tracing::debug;

pub use body::{Expected, Incoming};
pub use get::{Fetched, ReadStream};
pub use put::{Put, PutDone};

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

/// Bounds of the work for one request.
#[derive(Debug, Clone)]
pub struct ObjectsConfig {
    /// Largest object.
    pub max_object_bytes: u64,
    /// How long a data server may take to make a write durable.
    pub write_timeout: Duration,
    /// How long a data server may take to begin an answer.
    pub read_timeout: Duration,
    /// How long a body may stand still.
    pub body_timeout: Duration,
}

impl Default for ObjectsConfig {
    fn default() -> Self {
        Self {
            max_object_bytes: 5 << 40,
            write_timeout: Duration::from_secs(20),
            read_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(30),
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

    pub(crate) fn on_refused(&self, error: &ObjectError) {
        self.metrics.refused.with_label_values(&[error.code()]).inc();
    }

    /// A version above everything that `located` shows. Its clock is the median
    /// of those that answered, so that one wrong clock decides nothing.
    fn next_version(&self, located: &Located) -> Version {
        let now = located.clock_millis.unwrap_or_else(|| self.runtime.unix_millis());
        let newest = located.newest().map(|replica| replica.stat.version);
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.next(now, newest)
    }

    /// The same for what the newest copy that was found superseded.
    fn forget_superseded(&self, name: &ObjectName, located: &Located) {
        if let Some(newest) = located.newest() {
            self.forget_others(name, located, newest);
        }
    }

    /// Makes the holders of what `kept` superseded forget it, in the background:
    /// when the newest copy's holder is silent, an old copy must not be taken
    /// for the newest.
    fn forget_others(&self, name: &ObjectName, located: &Located, kept: &Replica) {
        let stale = located.replicas.iter().filter(|replica| {
            replica.node != kept.node && replica.stat.version < kept.stat.version
        });
        for replica in stale.cloned() {
            let (objects, name) = (self.clone(), name.clone());
            self.runtime.spawn("forget", async move {
                let Replica { node, address, stat } = replica;
                let limit = objects.config.write_timeout;
                let version = stat.version;
                let forgotten =
                    objects.data_servers.forget(&address, node, &name, version, limit).await;
                if let Err(error) = forgotten {
                    debug!(%node, %name, %version, %error, "a superseded copy was not forgotten");
                }
            });
        }
    }
}
