//! The one seam between Holdfast and the machine: clock, randomness, sockets,
//! files and spawning.
//!
//! Every service is handed a [`Runtime`] and reaches the outside through it
//! alone (`clippy.toml` refuses the ways round it). With [`Runtime::real`] that
//! outside is the operating system; another implementation of the traits runs
//! the same services in virtual time, on a network that loses messages and on a
//! disk that loses power.
//!
//! `tokio::sync`, `select!` and byte streams are used directly: they touch
//! nothing outside the process.

mod files;
mod limits;
mod network;
mod real;

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use files::{DIRECT_ALIGNMENT_BYTES, File, FileSystem, OpenMode, Space, VolumeLock};
pub use limits::raise_file_limit;
pub use network::{Connection, Listener, Network};
pub use real::instant_origin;
use thiserror::Error;

/// A boxed future that can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Time as the services see it.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Time since an arbitrary start. Never goes back, and counts the time for
    /// which the machine or the process slept.
    fn now(&self) -> Duration;

    /// Wall clock in Unix milliseconds. May jump in any direction.
    fn unix_millis(&self) -> u64;

    /// Waits for at least `duration`. Cancel safe.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// Randomness as the services see it.
pub trait Entropy: Send + Sync + fmt::Debug {
    /// Sixty-four random bits.
    fn random_u64(&self) -> u64;
}

/// Concurrency as the services see it.
pub trait Spawner: Send + Sync + fmt::Debug {
    /// Runs a task until it ends or its [`Task`] is aborted.
    fn spawn(&self, name: &'static str, future: BoxFuture<'static, ()>) -> Task;

    /// Runs `work` where it may block on the disk.
    fn blocking(&self, work: Box<dyn FnOnce() + Send>);

    /// Runs `work` on a thread of its own, for work that lasts long. Tasks can be
    /// spawned from it.
    ///
    /// # Errors
    /// When the operating system has no thread left.
    fn thread(&self, name: &'static str, work: Box<dyn FnOnce() + Send>) -> io::Result<()>;
}

/// A handle to a running task. Dropping it leaves the task running.
pub struct Task {
    abort: Box<dyn Fn() + Send + Sync>,
    done: tokio::sync::watch::Receiver<bool>,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("done", &self.done).finish_non_exhaustive()
    }
}

impl Task {
    /// Builds a handle; for implementations of [`Spawner`]. `abort` ends the
    /// task, and does nothing once it has ended.
    #[must_use]
    pub fn new(
        abort: impl Fn() + Send + Sync + 'static,
        done: tokio::sync::watch::Receiver<bool>,
    ) -> Self {
        Self { abort: Box::new(abort), done }
    }

    /// Ends the task at its next wait.
    pub fn abort(&self) {
        (self.abort)();
    }

    /// Waits until the task has ended, whichever way. Cancel safe.
    pub async fn finished(&mut self) {
        // An error means that the sender is gone, and so is the task.
        let _ = self.done.wait_for(|done| *done).await;
    }
}

/// A time limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no answer within {limit:?}")]
pub struct Elapsed {
    /// The limit.
    pub limit: Duration,
}

/// Blocking work that panicked or that was dropped with the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the work did not finish: it panicked or the process is shutting down")]
pub struct WorkLost;

/// Everything outside the process, cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtime {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    network: Arc<dyn Network>,
    files: Arc<dyn FileSystem>,
    spawner: Arc<dyn Spawner>,
}

impl Runtime {
    /// The operating system, by way of the tokio runtime that is current when a
    /// method is called.
    #[must_use]
    pub fn real() -> Self {
        Self {
            clock: Arc::new(real::RealClock),
            entropy: Arc::new(real::RealEntropy),
            network: Arc::new(network::TcpNetwork),
            files: Arc::new(files::RealFileSystem),
            spawner: Arc::new(real::TokioSpawner),
        }
    }

    /// The same with another clock.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The same with another source of randomness.
    #[must_use]
    pub fn with_entropy(self, entropy: Arc<dyn Entropy>) -> Self {
        Self { entropy, ..self }
    }

    /// The same with another network.
    #[must_use]
    pub fn with_network(self, network: Arc<dyn Network>) -> Self {
        Self { network, ..self }
    }

    /// The same with other files.
    #[must_use]
    pub fn with_files(self, files: Arc<dyn FileSystem>) -> Self {
        Self { files, ..self }
    }

    /// The same with other tasks.
    #[must_use]
    pub fn with_spawner(self, spawner: Arc<dyn Spawner>) -> Self {
        Self { spawner, ..self }
    }

    /// See [`Clock::now`].
    #[must_use]
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// See [`Clock::unix_millis`].
    #[must_use]
    pub fn unix_millis(&self) -> u64 {
        self.clock.unix_millis()
    }

    /// See [`Clock::sleep`].
    pub fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.clock.sleep(duration)
    }

    /// Waits for `future`, but no longer than `limit`; then it is dropped.
    ///
    /// # Errors
    /// [`Elapsed`] when the limit was reached first.
    pub async fn timeout<T>(
        &self,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Result<T, Elapsed> {
        let sleep = self.sleep(limit);
        tokio::select! {
            biased;
            value = future => Ok(value),
            () = sleep => Err(Elapsed { limit }),
        }
    }

    /// See [`Entropy::random_u64`].
    #[must_use]
    pub fn random_u64(&self) -> u64 {
        self.entropy.random_u64()
    }

    /// One hundred and twenty-eight random bits.
    #[must_use]
    pub fn random_u128(&self) -> u128 {
        (u128::from(self.random_u64()) << 64) | u128::from(self.random_u64())
    }

    /// `duration` times a random factor from 0.5 up to 1, so that many
    /// processes do not retry at the same moment.
    #[must_use]
    pub fn jittered(&self, duration: Duration) -> Duration {
        let thousandths = 500 + u32::try_from(self.random_u64() % 500).unwrap_or(0);
        duration.saturating_mul(thousandths) / 1000
    }

    /// See [`Network::connect`].
    ///
    /// # Errors
    /// As the network gives them.
    pub async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>> {
        self.network.connect(address).await
    }

    /// See [`Network::listen`].
    ///
    /// # Errors
    /// As the network gives them.
    pub async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        self.network.listen(address).await
    }

    /// See [`Network::resolve`].
    ///
    /// # Errors
    /// As the network gives them.
    pub async fn resolve(&self, host_port: &str) -> io::Result<Vec<String>> {
        self.network.resolve(host_port).await
    }

    /// The file system. Its calls block: use [`Self::blocking`].
    #[must_use]
    pub fn files(&self) -> Arc<dyn FileSystem> {
        Arc::clone(&self.files)
    }

    /// See [`Spawner::spawn`].
    pub fn spawn(
        &self,
        name: &'static str,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> Task {
        self.spawner.spawn(name, Box::pin(future))
    }

    /// Runs `work` where it may block on the disk, and waits for it. Dropping
    /// the future does not stop the work.
    ///
    /// # Errors
    /// [`WorkLost`] when it panicked.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, WorkLost> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.spawner.blocking(Box::new(move || {
            // Nobody waits any more: the work was still done.
            let _ = sender.send(work());
        }));
        receiver.await.map_err(|_| WorkLost)
    }

    /// See [`Spawner::thread`].
    ///
    /// # Errors
    /// When the operating system has no thread left.
    pub fn thread(
        &self,
        name: &'static str,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        self.spawner.thread(name, Box::new(work))
    }
}
