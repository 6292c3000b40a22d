//! A machine on which everything happens in one order: work that blocks is done
//! at once by who asks for it, sleeping takes no time, and nothing runs in the
//! background but the writer, which acts only while its client waits.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use holdfast_runtime::{BoxFuture, Clock, Entropy, FileSystem, Runtime, Spawner, Task};

/// `seed` decides the salts; runs that follow each other need different ones.
pub fn runtime(files: Arc<dyn FileSystem>, seed: u64) -> Runtime {
    Runtime::real()
        .with_clock(Arc::new(Still))
        .with_entropy(Arc::new(Counted(AtomicU64::new(seed << 32))))
        .with_spawner(Arc::new(Inline))
        .with_files(files)
}

/// Where a store is opened and asked.
pub fn executor() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("it needs nothing")
}

#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn unix_millis(&self) -> u64 {
        0
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Numbers that look random and come in the same order each time.
#[derive(Debug)]
struct Counted(AtomicU64);

impl Entropy for Counted {
    fn random_u64(&self) -> u64 {
        let count = self.0.fetch_add(1, Ordering::Relaxed);
        crate::common::index::Numbers(count).below(u64::MAX)
    }
}

#[derive(Debug)]
struct Inline;

impl Spawner for Inline {
    /// Compaction is not begun: tests do its work when they want it. Everything
    /// else ends at once, because all it waits for does.
    fn spawn(&self, name: &'static str, future: BoxFuture<'static, ()>) -> Task {
        if name != "compaction" {
            future.now_or_never().expect("it waits for nothing but blocking work");
        }
        let (_, done) = tokio::sync::watch::channel(true);
        Task::new(|| {}, done)
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }

    fn thread(&self, name: &'static str, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        let executor = tokio::runtime::Handle::current();
        let work = move || {
            let _entered = executor.enter();
            work();
        };
        std::thread::Builder::new().name(name.into()).spawn(work).map(drop)
    }
}
