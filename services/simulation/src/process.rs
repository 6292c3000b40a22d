//! What one process has of the world: its clocks, its randomness, its tasks.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use holdfast_runtime::{BoxFuture, Clock, Runtime, Spawner, Task};

use crate::executor::{Executor, ProcessId};
use crate::files::MemoryFiles;
use crate::network::{HostId, HostNetwork, Net};
use crate::random::{Random, mix};

/// Unix milliseconds at the beginning of every run: in the year 2026.
const EPOCH_MILLIS: u64 = 1_780_000_000_000;

/// How far the wall clock of a host is off, in milliseconds. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Skew(Arc<AtomicI64>);

impl Skew {
    /// Sets the clock.
    pub fn set(&self, millis: i64) {
        self.0.store(millis, Ordering::SeqCst);
    }
}

/// A run of a process on a host.
#[derive(Debug, Clone)]
pub struct Process {
    /// The run.
    pub id: ProcessId,
    /// Where it runs.
    pub host: HostId,
    /// What its files are.
    pub files: MemoryFiles,
    /// How wrong the host's clock is.
    pub skew: Skew,
}

impl Process {
    /// The seam to this process's world.
    #[must_use]
    pub fn runtime(&self, executor: &Executor, net: &Arc<Net>, seed: u64) -> Runtime {
        let random = Arc::new(Random::new(mix(seed, self.id.0)));
        let clock = SimClock {
            executor: executor.clone(),
            booted: Duration::from_millis(random.below(1_000_000)),
            skew: self.skew.clone(),
        };
        let spawner = SimSpawner {
            executor: executor.clone(),
            process: self.id,
            random: Arc::clone(&random),
        };
        Runtime::real()
            .with_clock(Arc::new(clock))
            .with_entropy(random)
            .with_network(Arc::new(HostNetwork::new(net, self.host)))
            .with_files(Arc::new(self.files.clone()))
            .with_spawner(Arc::new(spawner))
    }
}

#[derive(Debug)]
struct SimClock {
    executor: Executor,
    booted: Duration,
    skew: Skew,
}

impl Clock for SimClock {
    fn now(&self) -> Duration {
        self.booted + self.executor.now()
    }

    fn unix_millis(&self) -> u64 {
        let passed = u64::try_from(self.executor.now().as_millis()).unwrap_or(u64::MAX);
        (EPOCH_MILLIS + passed).saturating_add_signed(self.skew.0.load(Ordering::SeqCst))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(self.executor.sleep(duration))
    }
}

struct SimSpawner {
    executor: Executor,
    process: ProcessId,
    random: Arc<Random>,
}

impl fmt::Debug for SimSpawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimSpawner").field("process", &self.process).finish_non_exhaustive()
    }
}

impl Spawner for SimSpawner {
    fn spawn(&self, _name: &'static str, future: BoxFuture<'static, ()>) -> Task {
        self.executor.spawn(self.process, future)
    }

    /// The disk takes a moment: other tasks go on meanwhile, and a process that
    /// dies first has not done the work.
    fn blocking(&self, work: Box<dyn FnOnce() + Send>) {
        let pause = self.executor.sleep(Duration::from_micros(self.random.below(3_000)));
        let work = async move {
            pause.await;
            work();
        };
        self.executor.spawn(self.process, Box::pin(work));
    }

    fn thread(&self, name: &'static str, _work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, format!("no thread for {name}")))
    }
}
