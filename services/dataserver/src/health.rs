//! Whether this data server is ready, and why not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_coordinator::cluster::Cluster;
use holdfast_core::roster::MemberState;
use holdfast_store::Store;
use holdfast_telemetry::admin::Health;
use holdfast_telemetry::shutdown::{Phase, Shutdown};

use crate::admission::is_admitted;
use crate::report::Own;

/// How far a volume that is being opened has come.
#[derive(Debug, Default)]
pub(crate) struct Opening {
    pub(crate) done_bytes: AtomicU64,
    /// 0 while it is not known.
    pub(crate) total_bytes: AtomicU64,
}

impl Health for Opening {
    fn readiness(&self) -> Result<(), Vec<String>> {
        let done_bytes = self.done_bytes.load(Ordering::Relaxed);
        let reason = match self.total_bytes.load(Ordering::Relaxed) {
            0 => "opening the volume".to_owned(),
            total_bytes => format!(
                "opening the volume: {done_bytes} of {total_bytes} bytes of the log are read"
            ),
        };
        Err(vec![reason])
    }
}

/// A data server is ready once it is a member and its volume takes writes. A
/// lost broker does not make it unready: it is reached over HTTP.
#[derive(Debug)]
pub(crate) struct Readiness {
    pub(crate) cluster: Cluster,
    pub(crate) own: Own,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) shutdown: Shutdown,
}

impl Health for Readiness {
    fn readiness(&self) -> Result<(), Vec<String>> {
        let mut reasons = Vec::new();
        if self.shutdown.phase() != Phase::Running {
            reasons.push("shutting down".to_owned());
        }
        let snapshot = self.cluster.snapshot();
        let state = snapshot.roster.get(self.own.node).map(|entry| entry.state);
        if state == Some(MemberState::Retired) {
            reasons.push(
                "retired: remove this data server, or restart it to join as a new member"
                    .to_owned(),
            );
        } else if !is_admitted(&snapshot, self.own.node) {
            reasons.push("not a member of a cluster yet".to_owned());
        }
        if let Some(reason) = self.store.poisoned() {
            reasons.push(format!("the volume takes no writes: {reason}"));
        }
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }
}
