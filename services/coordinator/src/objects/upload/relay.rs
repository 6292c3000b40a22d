//! What some owners have received of a payload, passed on to others: too few of
//! them were left at its end, and the client has sent it once.
//!
//! Nothing is committed before W members have all of it, so nobody can see a
//! version that is still on its way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{Stream, StreamExt};
use holdfast_core::name::ObjectName;
use holdfast_core::node::{Address, NodeId};
use tracing::{info, warn};

use super::{LONG_STALL, Uploads};
use crate::data_servers::{DataServerError, Upload};
use crate::error::ObjectError;
use crate::objects::Objects;
use crate::objects::target::{Targets, choose_targets};
use crate::settings::STAGING_PATIENCE;

impl Objects {
    /// Passes a payload on until W members that count have it. Who was left behind
    /// may have come back, and is asked last.
    ///
    /// # Errors
    /// [`ObjectError::NoSpace`], [`ObjectError::WriteFailed`]: too few take it, and
    /// nothing was stored.
    pub(in crate::objects) async fn relay(
        &self,
        name: &ObjectName,
        uploads: &mut Uploads,
    ) -> Result<(), ObjectError> {
        if self.missing(name, uploads) == 0 {
            return Ok(());
        }
        // Time has passed: who answers now has a chance.
        let located = self.locate_all(name).await?;
        let view = self.cluster.snapshot();
        let targets = choose_targets(&view.view, &located, name, uploads.size_bytes())?;
        let Targets::Members(mut others) = targets else { return Err(ObjectError::WriteFailed) };
        let counts = view.view.counting(name);
        others.retain(|to| {
            let is_answering = located.stamp(to.member.id).is_some();
            is_answering && counts(to.member.id) && !uploads.has(to.member.id)
        });
        drop(counts);
        others.sort_by_key(|to| uploads.was_left_behind(to.member.id));
        let mut refusal = None;
        for (turn, to) in others.into_iter().enumerate() {
            self.metrics.uploads_relayed.inc();
            let node = to.member.id;
            match self.relay_to(&to.member.address, node, uploads, turn).await {
                Ok(upload) => {
                    if uploads.add(node, upload) {
                        info!(key = %name, %node, "an upload was passed on in the place of an owner");
                    }
                }
                Err(error) => {
                    warn!(key = %name, %node, %error, "an upload could not be passed on");
                    refusal = error.is_no_space().then_some(ObjectError::NoSpace).or(refusal);
                }
            }
            if self.missing(name, uploads) == 0 {
                return Ok(());
            }
        }
        Err(refusal.unwrap_or(ObjectError::WriteFailed))
    }

    /// How many more must have it.
    fn missing(&self, name: &ObjectName, uploads: &Uploads) -> usize {
        let view = &self.cluster.snapshot().view;
        let counts = view.counting(name);
        let counting = uploads.nodes().filter(|node| counts(**node)).count();
        view.policy.write_quorum().saturating_sub(counting)
    }

    /// From one of those that have it, another one with each turn.
    async fn relay_to(
        &self,
        address: &Address,
        node: NodeId,
        uploads: &Uploads,
        turn: usize,
    ) -> Result<Upload, DataServerError> {
        let sources: Vec<&Upload> = uploads.all().collect();
        let source = sources.get(turn % sources.len().max(1)).ok_or(DataServerError::Source)?;
        let limit = self.config.read_timeout;
        let passed = Arc::new(AtomicU64::new(0));
        let body = self.data_servers.read_staged(source, limit).await?;
        let payload = counted(body, Arc::clone(&passed));
        let staging = self.data_servers.stage(address, node, Some(uploads.size_bytes()), payload);
        let mut staging = std::pin::pin!(staging);
        let mut keeping = std::pin::pin!(self.keep(&sources));
        let mut seen = 0;
        loop {
            tokio::select! {
                biased;
                staged = &mut staging => return staged,
                () = &mut keeping => {}
                () = self.runtime.sleep(LONG_STALL) => {
                    let now = passed.load(Ordering::Relaxed);
                    if now == seen {
                        return Err(DataServerError::Stalled);
                    }
                    seen = now;
                }
            }
        }
    }

    /// Has those that wait not given up, for ever.
    async fn keep(&self, uploads: &[&Upload]) {
        loop {
            self.runtime.sleep(STAGING_PATIENCE / 4).await;
            let limit = self.config.read_timeout;
            // If one is gone, its commit will tell.
            let kept = uploads.iter().map(|upload| self.data_servers.keep_staged(upload, limit));
            drop(join_all(kept).await);
        }
    }
}

fn counted(
    body: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    passed: Arc<AtomicU64>,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    body.inspect(move |chunk| {
        let length = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        passed.fetch_add(length, Ordering::Relaxed);
    })
}
