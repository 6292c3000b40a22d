//! Reading everything once in a while, so that damage is found while another
//! copy is there to mend it.
//!
//! `scrub.json` in the volume says how far it is, so that a restart does not
//! begin again. It is not synced more than now and then: what is lost of it is
//! read once more.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use holdfast_core::name::ObjectName;
use holdfast_core::object::Kind;
use holdfast_runtime::{Runtime, Task};
use holdfast_store::{Store, StoreError, Walked};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use crate::identity::{IdentityError, read_json, write_json};
use crate::repair::hints::Hints;
use crate::repair::metrics::RepairMetrics;

const SCRUB_FILE: &str = "scrub.json";

/// Names that are read between two looks at the index.
const PAGE: usize = 64;

/// It is never slower than this, however little there is.
const LEAST_RATE_BYTES: u64 = 1 << 20;

/// How often it is noted how far it is.
const NOTE_INTERVAL: Duration = Duration::from_secs(60);

/// `scrub.json`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Progress {
    /// When the scrub that is under way, or the last one, began.
    began_unix_millis: u64,
    /// Everything up to this name was read; `None` at the beginning.
    after: Option<ObjectName>,
    /// Whether it has come to the end.
    is_done: bool,
    /// When the last one came to the end, 0 before the first.
    #[serde(default)]
    ended_unix_millis: u64,
}

impl Progress {
    /// How long until the next scrub begins or goes on.
    fn pause(&self, interval: Duration, now_unix_millis: u64) -> Duration {
        if !self.is_done {
            return Duration::ZERO;
        }
        let passed = now_unix_millis.saturating_sub(self.began_unix_millis);
        interval.saturating_sub(Duration::from_millis(passed))
    }
}

/// What the task needs.
#[derive(Debug)]
pub struct ScrubParts {
    /// The seam.
    pub runtime: Runtime,
    /// The volume.
    pub store: Arc<dyn Store>,
    /// The volume's directory.
    pub root: PathBuf,
    /// `SCRUB_INTERVAL`; zero is never.
    pub interval: Duration,
    /// How many bytes a scrub on demand reads in a second.
    pub rate_bytes: u64,
    /// Where damage is told.
    pub hints: Hints,
    /// Where it is counted.
    pub metrics: RepairMetrics,
}

/// Begins scrubs on demand. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ScrubHandle {
    asked: Arc<Notify>,
}

impl ScrubHandle {
    /// Reads everything from the beginning, without waiting for its time.
    pub fn start_now(&self) {
        self.asked.notify_one();
    }
}

/// Scrubs until the task is aborted.
#[must_use]
pub fn start(parts: ScrubParts) -> (ScrubHandle, Task) {
    let handle = ScrubHandle::default();
    let (runtime, asked) = (parts.runtime.clone(), Arc::clone(&handle.asked));
    let task = runtime.spawn("scrub", Scrub { parts, asked, progress: Progress::default() }.run());
    (handle, task)
}

struct Scrub {
    parts: ScrubParts,
    asked: Arc<Notify>,
    progress: Progress,
}

impl Scrub {
    async fn run(mut self) {
        self.progress = self.load().await.unwrap_or_else(|error| {
            // It is only ever a hint.
            warn!(%error, "how far the last scrub came cannot be told; it begins again");
            Progress::default()
        });
        self.parts.metrics.scrub_interval.set(self.parts.interval.as_secs_f64());
        self.tell_end();
        loop {
            let is_asked = self.wait().await;
            if is_asked || self.progress.is_done {
                let began_unix_millis = self.parts.runtime.unix_millis();
                let ended_unix_millis = self.progress.ended_unix_millis;
                let fresh = Progress::default();
                self.progress = Progress { began_unix_millis, ended_unix_millis, ..fresh };
                info!(on_demand = is_asked, "a scrub begins");
            }
            let rate_bytes = if is_asked { self.parts.rate_bytes } else { self.rate().await };
            self.scrub(rate_bytes).await;
        }
    }

    /// Waits until it is time; true when somebody asked for it.
    async fn wait(&self) -> bool {
        let runtime = &self.parts.runtime;
        let (interval, now) = (self.parts.interval, runtime.unix_millis());
        let due = async {
            if interval.is_zero() {
                return std::future::pending().await;
            }
            runtime.sleep(self.progress.pause(interval, now)).await;
        };
        tokio::select! {
            biased;
            () = self.asked.notified() => true,
            () = due => false,
        }
    }

    /// What it takes to read everything within the interval, with some room.
    async fn rate(&self) -> u64 {
        let live = self.parts.store.usage().await.map_or(0, |usage| usage.live_bytes);
        let seconds = (self.parts.interval.as_secs() * 9 / 10).max(1);
        (live / seconds).max(LEAST_RATE_BYTES)
    }

    /// Goes on to the end, unless somebody asks to begin again.
    async fn scrub(&mut self, rate_bytes: u64) {
        let mut noted = self.parts.runtime.now();
        loop {
            let page = match self.parts.store.walk(self.progress.after.as_ref(), PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    warn!(%error, "the scrub cannot read the index");
                    self.parts.runtime.sleep(NOTE_INTERVAL).await;
                    continue;
                }
            };
            for walked in &page.entries {
                let pace = async {
                    let bytes = self.read(walked).await;
                    let pause = Duration::from_secs_f64(bytes as f64 / rate_bytes.max(1) as f64);
                    self.parts.runtime.sleep(pause).await;
                };
                tokio::select! {
                    biased;
                    () = pace => {}
                    () = self.asked.notified() => {
                        // Whoever waits next takes it.
                        self.asked.notify_one();
                        return;
                    }
                }
            }
            self.progress.after = page.entries.last().map(|walked| walked.name.clone());
            self.progress.is_done = !page.more;
            if self.progress.is_done {
                self.progress.ended_unix_millis = self.parts.runtime.unix_millis();
            }
            let now = self.parts.runtime.now();
            if self.progress.is_done || now.saturating_sub(noted) >= NOTE_INTERVAL {
                noted = now;
                self.note().await;
            }
            if self.progress.is_done {
                self.tell_end();
                info!("a scrub has read everything");
                return;
            }
        }
    }

    /// Reads one payload to its end; gives how many bytes it had.
    async fn read(&self, walked: &Walked) -> u64 {
        if walked.stat.kind == Kind::Tombstone {
            return 0;
        }
        let (bytes, result) = self.read_all(walked).await;
        self.parts.metrics.scrubbed_bytes.inc_by(bytes);
        // A disk that fails for a while must not be asked for everything meanwhile.
        let charged = if result.is_ok() { bytes } else { bytes.max(walked.stat.size_bytes) };
        self.count(&walked.name, result);
        charged
    }

    /// Takes note of how a read ended, and has damage mended.
    fn count(&self, name: &ObjectName, result: Result<(), StoreError>) {
        let count = |result| self.parts.metrics.scrubbed_objects.with_label_values(&[result]).inc();
        match result {
            Ok(()) => count("ok"),
            // It was overwritten or forgotten meanwhile.
            Err(StoreError::NotFound { .. }) => {}
            Err(error) if error.is_damage() => {
                debug!(key = %name, %error, "the scrub has found damage");
                self.parts.hints.add([name.clone()]);
                count("damaged");
            }
            Err(error) => {
                warn!(key = %name, %error, "the scrub cannot read an object");
                count("failed");
            }
        }
    }

    async fn read_all(&self, walked: &Walked) -> (u64, Result<(), StoreError>) {
        let read = self.parts.store.read(&walked.name, Some(walked.stat.version), None).await;
        let mut payload = match read {
            Ok(payload) => payload,
            Err(error) => return (0, Err(error)),
        };
        let mut bytes = 0;
        while let Some(chunk) = payload.bytes.next().await {
            match chunk {
                Ok(chunk) => bytes += chunk.len() as u64,
                Err(error) => return (bytes, Err(error)),
            }
        }
        (bytes, Ok(()))
    }

    fn tell_end(&self) {
        let ended = Duration::from_millis(self.progress.ended_unix_millis);
        self.parts.metrics.last_scrub.set(ended.as_secs_f64());
    }

    async fn load(&self) -> Result<Progress, IdentityError> {
        let (files, path) = (self.parts.runtime.files(), self.parts.root.join(SCRUB_FILE));
        let read = self.parts.runtime.blocking(move || read_json(files.as_ref(), &path)).await;
        Ok(read.map_err(|_| IdentityError::Closed)??.unwrap_or_default())
    }

    async fn note(&self) {
        let (files, root) = (self.parts.runtime.files(), self.parts.root.clone());
        let progress = self.progress.clone();
        let written = self
            .parts
            .runtime
            .blocking(move || write_json(files.as_ref(), &root, SCRUB_FILE, &progress))
            .await;
        if let Ok(Err(error)) = written {
            warn!(%error, "how far the scrub is was not noted");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use holdfast_core::name::Key;
    use holdfast_store::MemoryStore;
    use holdfast_telemetry::metrics::Metrics;

    use super::*;

    /// A scrub of nothing, and where it tells of damage.
    fn scrub() -> (Scrub, Hints) {
        let metrics = RepairMetrics::new(&Metrics::new("test").expect("new")).expect("new");
        let hints = Hints::new(metrics.clone());
        let parts = ScrubParts {
            runtime: Runtime::real(),
            store: Arc::new(MemoryStore::new()),
            root: PathBuf::new(),
            interval: Duration::ZERO,
            rate_bytes: 1,
            hints: hints.clone(),
            metrics,
        };
        (Scrub { parts, asked: Arc::default(), progress: Progress::default() }, hints)
    }

    #[test]
    fn what_is_damaged_is_hinted_and_what_could_not_be_tried_is_not() {
        let (scrub, hints) = scrub();
        let of = |key: &str| ObjectName::seed(Key::new(key).expect("short"));
        let counted =
            |label| scrub.parts.metrics.scrubbed_objects.with_label_values(&[label]).get();
        let refused = |number| {
            let source = io::Error::from_raw_os_error(number);
            Err(StoreError::Io { action: "read", path: PathBuf::new(), source })
        };
        let (path, what) = (PathBuf::new(), "a block");
        let (expected, actual) = ("0".to_owned(), "1".to_owned());
        scrub.count(&of("sound"), Ok(()));
        scrub.count(&of("corrupt"), Err(StoreError::Corrupt { path, what, expected, actual }));
        // EIO, EMFILE, ENOMEM.
        scrub.count(&of("bad-sector"), refused(5));
        scrub.count(&of("files"), refused(24));
        scrub.count(&of("memory"), refused(12));
        scrub.count(&of("gone"), Err(StoreError::NotFound { name: of("gone") }));
        assert_eq!(hints.take(9), [of("corrupt"), of("bad-sector")]);
        assert_eq!(["ok", "damaged", "failed"].map(counted), [1, 2, 2]);
    }

    #[test]
    fn a_scrub_goes_on_at_once_and_begins_again_after_the_interval() {
        let interval = Duration::from_secs(100);
        let under_way = Progress { began_unix_millis: 1_000, ..Progress::default() };
        assert_eq!(under_way.pause(interval, 2_000), Duration::ZERO);
        let done = Progress { is_done: true, ..under_way };
        assert_eq!(done.pause(interval, 41_000), Duration::from_secs(60));
        assert_eq!(done.pause(interval, 500_000), Duration::ZERO);
        assert_eq!(Progress::default().pause(interval, 500_000), Duration::ZERO);
    }
}
