//! Answering "what do you have there?": one page of this volume, in order.

use std::sync::Arc;

use holdfast_coordinator::cluster::Cluster;
use holdfast_core::stamp::Stamp;
use holdfast_core::wire::list::{
    ListAnswer, ListEntry, ListRequest, MAX_LIST_ENTRIES, MAX_LIST_ENTRY_BYTES,
};
use holdfast_runtime::Runtime;
use holdfast_store::{ListRequest as StoreRequest, Store, StoreError};
use prometheus::IntCounter;
use tokio::sync::Semaphore;
use tracing::{Instrument, debug, info_span};

use crate::gate::Gate;
use crate::report::Own;

/// Pages that are made at once, each of which is held in memory; more wait.
const CONCURRENT: usize = 16;

/// What the lister is made of.
#[derive(Debug)]
pub struct ListerParts {
    /// The seam.
    pub runtime: Runtime,
    /// Who this is.
    pub own: Own,
    /// The volume.
    pub store: Arc<dyn Store>,
    /// The judge of stamps.
    pub gate: Gate,
    /// What is known of the cluster.
    pub cluster: Cluster,
    /// Counts questions that came too late.
    pub late: IntCounter,
}

/// Answers lists. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lister {
    parts: Arc<ListerParts>,
    turns: Arc<Semaphore>,
}

/// What was found of one page.
#[derive(Debug, Default)]
struct Found {
    entries: Vec<ListEntry>,
    more: bool,
    unknown: bool,
}

impl Lister {
    /// Lists this store.
    #[must_use]
    pub fn new(parts: ListerParts) -> Self {
        Self { parts: Arc::new(parts), turns: Arc::new(Semaphore::new(CONCURRENT)) }
    }

    /// One page.
    ///
    /// The order of the steps is that of a locate, for the same reasons, see
    /// [`crate::locate::Answerer::answer`]: the time is taken before the volume
    /// is asked, whether the question came in time is judged after it, and the
    /// roster digest is read last. Cancel safe.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is known then.
    pub async fn answer(&self, request: ListRequest) -> Result<ListAnswer, StoreError> {
        let ListerParts { runtime, own, cluster, late: late_count, .. } = &*self.parts;
        let span = info_span!("list_answer", limit = request.limit);
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await.map_err(|_| StoreError::WorkLost)?;
        let stamp = request.stamp;
        let mut found = Found::default();
        let asked_at = runtime.now();
        let mut late = self.is_late(stamp);
        if !late {
            found = self.look_up(request).instrument(span).await?;
            late = self.is_late(stamp);
        }
        if late {
            found = Found::default();
            late_count.inc();
        }
        let at = if late { runtime.now() } else { asked_at };
        Ok(ListAnswer {
            node: own.node,
            generation: own.generation,
            address: own.address.clone(),
            mono_millis: Stamp::at(own.generation, at).mono_millis,
            entries: found.entries,
            more: found.more,
            unknown: found.unknown,
            late,
            roster_digest: cluster.snapshot().view.digest,
        })
    }

    /// Whether the asker heard of this run too long ago, or never.
    fn is_late(&self, stamp: Option<Stamp>) -> bool {
        stamp.is_none_or(|stamp| self.parts.gate.check_stamp(stamp).is_err())
    }

    async fn look_up(&self, request: ListRequest) -> Result<Found, StoreError> {
        let ListRequest { bucket, prefix, start_after, limit, .. } = request;
        let limit = limit.min(MAX_LIST_ENTRIES);
        let request = StoreRequest { bucket, prefix, start_after, limit };
        let page = self.parts.store.list(&request).await?;
        if page.unreadable_count > 0 {
            debug!(unreadable = page.unreadable_count, "this volume may lack names of a list");
            return Ok(Found { unknown: true, ..Found::default() });
        }
        let listed = page.entries.len();
        let entries = within_bounds(page.entries);
        let more = page.more || entries.len() < listed;
        Ok(Found { entries, more, unknown: false })
    }
}

/// As many entries as an answer may carry, one at least.
fn within_bounds(mut entries: Vec<ListEntry>) -> Vec<ListEntry> {
    let mut bytes = 0;
    let fits = |entry: &&ListEntry| {
        bytes += serde_json::to_vec(entry).map_or(0, |json| json.len() + 1);
        bytes <= MAX_LIST_ENTRY_BYTES
    };
    let count = entries.iter().take_while(fits).count();
    entries.truncate(count.max(1));
    entries
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
