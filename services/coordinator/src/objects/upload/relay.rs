//! What some owners have received of a payload, passed on to others: too few of
//! them were left at its end, and the client has sent it once.
//!
//! Nothing is committed before W members have all of it, so nobody can see a
//! version that is still on its way.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use futures_util::future::join_all;
use holdfast_core::name::ObjectName;
use holdfast_core::node::NodeId;
use tracing::{info, warn};

use super::Uploads;
use super::progress::Progress;
use crate::data_servers::{DataServerError, StagedBody, Upload};
use crate::error::ObjectError;
use crate::objects::Objects;
use crate::objects::replicate::Recipient;
use crate::objects::target::{Targets, choose_targets};
use crate::settings::STAGING_PATIENCE;

/// How many data servers are tried at most in the place of those that were lost.
const MOST_TRIED: usize = 8;

/// How long it waits for its turn where too many payloads are read, and how often.
const BUSY_WAIT: Duration = Duration::from_millis(500);
const MOST_WAITS: usize = 120;

/// Why a payload was not passed on.
enum Failed {
    /// Where it was to be read.
    Source(DataServerError),
    /// Where it was to go.
    Target(DataServerError),
}

impl Objects {
    /// Passes a payload on until W members that count have it. Who was left behind
    /// may have come back, and is asked last.
    ///
    /// # Errors
    /// [`ObjectError::NoQuorum`], [`ObjectError::NoSpace`], [`ObjectError::WriteFailed`]:
    /// too few take it, and nothing was stored.
    pub(in crate::objects) async fn relay(
        &self,
        name: &ObjectName,
        uploads: &mut Uploads,
    ) -> Result<(), ObjectError> {
        let mut tried = BTreeSet::new();
        while self.missing(name, uploads) > 0 {
            if let Err(error) = self.fill(name, uploads, &mut tried).await {
                self.metrics.quorum_failures.with_label_values(&["relay"]).inc();
                return Err(error);
            }
            // It took a while, and some may have lost it meanwhile.
            self.confirm(uploads).await;
        }
        Ok(())
    }

    /// Has those that say that they have the payload wait anew, and leaves the
    /// others out.
    pub(in crate::objects) async fn confirm(&self, uploads: &mut Uploads) {
        for (node, error) in self.keep_all(uploads).await {
            warn!(%node, %error, "a data server has lost an upload that waited there");
            uploads.lose(node);
        }
    }

    /// How many more must have it.
    fn missing(&self, name: &ObjectName, uploads: &Uploads) -> usize {
        let view = &self.cluster.snapshot().view;
        let counts = view.counting(name);
        let counting = uploads.usable(view).filter(|member| counts(member.id)).count();
        view.policy.write_quorum().saturating_sub(counting)
    }

    /// Passes it on to members that were not `tried` yet, until enough have it.
    async fn fill(
        &self,
        name: &ObjectName,
        uploads: &mut Uploads,
        tried: &mut BTreeSet<NodeId>,
    ) -> Result<(), ObjectError> {
        let mut refusal = None;
        for to in self.others(name, uploads, tried).await? {
            if tried.len() >= MOST_TRIED {
                break;
            }
            tried.insert(to.member.id);
            match self.relay_to(name, &to, uploads).await {
                Ok(()) if self.missing(name, uploads) == 0 => return Ok(()),
                Ok(()) => {}
                Err(error) => {
                    let is_no_space = error.is_no_space();
                    refusal = is_no_space.then_some(ObjectError::NoSpace).or(refusal);
                }
            }
        }
        Err(refusal.unwrap_or(ObjectError::WriteFailed))
    }

    /// Who could take it, best first: those that answer now and count.
    async fn others(
        &self,
        name: &ObjectName,
        uploads: &Uploads,
        tried: &BTreeSet<NodeId>,
    ) -> Result<Vec<Recipient>, ObjectError> {
        let located = self.locate_all(name).await?;
        let view = &self.cluster.snapshot().view;
        let targets = choose_targets(view, &located, name, uploads.size_bytes())?;
        let Targets::Members(mut others) = targets else { return Err(ObjectError::WriteFailed) };
        let counts = view.counting(name);
        others.retain(|to| {
            let node = to.member.id;
            let is_answering = located.stamp(node).is_some();
            is_answering && counts(node) && !uploads.has(node) && !tried.contains(&node)
        });
        drop(counts);
        if others.is_empty() {
            return Err(ObjectError::NoQuorum { silent: located.unheard });
        }
        others.sort_by_key(|to| uploads.was_left_behind(to.member.id));
        Ok(others)
    }

    /// Passes it on to one, from the first that can give it.
    async fn relay_to(
        &self,
        name: &ObjectName,
        to: &Recipient,
        uploads: &mut Uploads,
    ) -> Result<(), DataServerError> {
        let node = to.member.id;
        loop {
            let source = uploads.source().ok_or(DataServerError::Source)?;
            let from = source.node;
            let passed = tokio::select! {
                biased;
                passed = self.pass(source, to, uploads.size_bytes()) => passed,
                never = self.keep(uploads) => match never {},
            };
            match passed {
                Ok(upload) => {
                    if !uploads.add(node, upload) {
                        uploads.doubt(from);
                        return Err(DataServerError::Source);
                    }
                    self.metrics.uploads_relayed.inc();
                    info!(key = %name, %from, to = %node, "an upload was passed on in the place of an owner");
                    return Ok(());
                }
                Err(Failed::Target(error)) => {
                    warn!(key = %name, %node, %error, "an upload could not be passed on");
                    return Err(error);
                }
                Err(Failed::Source(error)) => {
                    warn!(key = %name, node = %from, %error, "an upload could not be read where it waits");
                    if error.is_gone() {
                        uploads.lose(from);
                    } else {
                        uploads.doubt(from);
                    }
                    self.pause().await;
                }
            }
        }
    }

    async fn pass(&self, from: &Upload, to: &Recipient, bytes: u64) -> Result<Upload, Failed> {
        let body = self.read_staged(from).await.map_err(Failed::Source)?;
        let progress = Progress::new(bytes);
        let payload = progress.watch(body);
        let (address, node) = (&to.member.address, to.member.id);
        let staging = self.data_servers.stage(address, node, Some(bytes), payload);
        let error = tokio::select! {
            biased;
            staged = staging => match staged {
                Ok(upload) => return Ok(upload),
                Err(error) => error,
            },
            () = progress.stalled(&self.runtime) => DataServerError::Stalled,
        };
        Err(if progress.is_source_to_blame() {
            Failed::Source(error)
        } else {
            Failed::Target(error)
        })
    }

    /// Waits for a while if too many read there.
    async fn read_staged(&self, from: &Upload) -> Result<StagedBody, DataServerError> {
        let mut waits = 0..MOST_WAITS;
        loop {
            // What is queued there is written first.
            match self.data_servers.read_staged(from, self.config.write_timeout).await {
                Err(error) if error.is_busy() && waits.next().is_some() => {
                    self.runtime.sleep(self.runtime.jittered(BUSY_WAIT)).await;
                }
                read => return read,
            }
        }
    }

    /// Has those that wait not give up, for ever.
    async fn keep(&self, uploads: &Uploads) -> Infallible {
        loop {
            // Who has lost it is found out at the end.
            drop(self.keep_all(uploads).await);
            self.runtime.sleep(STAGING_PATIENCE / 4).await;
        }
    }

    async fn keep_all(&self, uploads: &Uploads) -> Vec<(NodeId, DataServerError)> {
        let limit = self.config.read_timeout;
        let kept = uploads.all().map(async |upload| {
            let kept = self.data_servers.keep_staged(upload, limit).await;
            kept.err().map(|error| (upload.node, error))
        });
        join_all(kept).await.into_iter().flatten().collect()
    }
}
