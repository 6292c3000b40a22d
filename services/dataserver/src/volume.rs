//! Opening the volume.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_coordinator::service::StartError;
use holdfast_runtime::Runtime;
use holdfast_store::log_engine::{LogStore, OpenReport, Progress};
use holdfast_store::{Store, StoreError};
use holdfast_telemetry::metrics::Metrics;
use tracing::{error, info, warn};

use crate::config::VolumeSettings;
use crate::health::Opening;

/// How often it is told how far reading the log has come.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// Opens the volume in this directory.
pub type OpenVolume = Box<dyn FnOnce(&Path) -> Result<Arc<dyn Store>, StoreError> + Send>;

/// What a data server keeps its objects in.
pub enum Volume {
    /// The log, below `STORAGE_ROOT`.
    Log,
    /// Whatever this opens, once what a retired member left was set aside.
    Given(OpenVolume),
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Log => "Log",
            Self::Given(_) => "Given",
        })
    }
}

impl Volume {
    pub(crate) async fn open(
        self,
        runtime: &Runtime,
        settings: &VolumeSettings,
        metrics: &Metrics,
        opening: Arc<Opening>,
    ) -> Result<Arc<dyn Store>, StartError> {
        match self {
            Self::Log => open_log(runtime, settings, metrics, opening).await,
            Self::Given(open) => open(&settings.storage_root).map_err(volume_error),
        }
    }
}

async fn open_log(
    runtime: &Runtime,
    settings: &VolumeSettings,
    metrics: &Metrics,
    opening: Arc<Opening>,
) -> Result<Arc<dyn Store>, StartError> {
    let (root, options) = (settings.storage_root.clone(), settings.options());
    if options.reserve_bytes < 4 * u64::from(options.segment_bytes) {
        warn!(
            reserve_bytes = options.reserve_bytes,
            segment_bytes = options.segment_bytes,
            "RESERVE_BYTES is less than four times SEGMENT_BYTES: when the disk is full, there may be \
             no room to write again what is in use of a segment, and nothing is given back"
        );
    }
    let progress = tell_progress(runtime.clone(), opening);
    let opened = LogStore::open_with_progress(runtime.clone(), root, options, progress);
    let store = opened.await.map_err(volume_error)?;
    tell_report(store.report());
    store.metrics().register(metrics.registry())?;
    Ok(Arc::new(store))
}

fn volume_error(error: StoreError) -> StartError {
    match error {
        StoreError::Poisoned { reason } => StartError::VolumeFailed { reason },
        error => StartError::Volume(Box::new(error)),
    }
}

/// A log that takes long to read says so.
fn tell_progress(runtime: Runtime, opening: Arc<Opening>) -> impl FnMut(Progress) + Send + 'static {
    let mut told = runtime.now();
    move |Progress { done_bytes, total_bytes }| {
        opening.done_bytes.store(done_bytes, Ordering::Relaxed);
        opening.total_bytes.store(total_bytes, Ordering::Relaxed);
        if runtime.now().saturating_sub(told) >= PROGRESS_INTERVAL {
            told = runtime.now();
            info!(done_bytes, total_bytes, "reading the log");
        }
    }
}

fn tell_report(report: &OpenReport) {
    let OpenReport { replayed_bytes, damaged_count, doubtful_count, .. } = *report;
    info!(replayed_bytes, "the volume is open");
    if damaged_count > 0 || doubtful_count > 0 {
        error!(
            damaged_count,
            doubtful_count,
            "the log is damaged: what cannot be told is answered with an error; stop this data \
             server and run holdfast-dataserver fsck"
        );
    }
}
