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
use crate::data_servers::{DataServerError, Upload};
use crate::error::ObjectError;
use crate::objects::Objects;
use crate::objects::replicate::Recipient;
use crate::objects::target::{Targets, choose_targets};
use crate::settings::STAGING_PATIENCE;

/// How many data servers are tried at most in the place of those that were lost.
const MOST_TRIED: usize = 8;

/// How long it waits for its turn where too many payloads are read, and how often.
const BUSY_WAIT: Duration = Duration::from_secs(1);
const MOST_WAITS: usize = 60;

/// How often, and how long after each other, those that have a payload are asked
/// whether they still do: in all for less than [`STAGING_PATIENCE`].
const CONFIRMS: usize = 3;
const CONFIRM_WAIT: Duration = Duration::from_secs(1);

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
    /// others out. Who does not answer is asked again: that says nothing of what it
    /// has.
    pub(in crate::objects) async fn confirm(&self, uploads: &mut Uploads) {
        let mut failed = self.keep_all(uploads).await;
        for _ in 1..CONFIRMS {
            if failed.iter().all(|(_, error)| error.is_gone()) {
                break;
            }
            self.runtime.sleep(CONFIRM_WAIT).await;
            failed = self.keep_all(uploads).await;
        }
        for (node, error) in failed {
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
        // The write would be refused, after all that was passed on for it.
        self.check_ordered(&located)?;
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
        let (mut busy, mut waits, mut changed) = (BTreeSet::new(), 0..MOST_WAITS, false);
        loop {
            let source = uploads.source(&busy).ok_or(DataServerError::Source)?;
            let from = source.node;
            let passed = tokio::select! {
                biased;
                passed = self.pass(source, to, uploads.size_bytes()) => passed,
                never = self.keep(uploads) => match never {},
            };
            match passed {
                Ok(upload) => {
                    if uploads.add(node, upload) {
                        self.metrics.uploads_relayed.inc();
                        info!(key = %name, %from, to = %node, "an upload was passed on in the place of an owner");
                        return Ok(());
                    }
                    uploads.doubt(from);
                    // From another one, too: then it changes where it goes.
                    if std::mem::replace(&mut changed, true) {
                        return Err(DataServerError::Source);
                    }
                }
                Err(Failed::Target(error)) => {
                    warn!(key = %name, %node, %error, "an upload could not be passed on");
                    return Err(error);
                }
                Err(Failed::Source(error)) if error.is_busy() => {
                    busy.insert(from);
                    if uploads.nodes().all(|node| busy.contains(node)) {
                        waits.next().ok_or(error)?;
                        let waiting = self.runtime.sleep(self.runtime.jittered(BUSY_WAIT));
                        tokio::select! {
                            biased;
                            () = waiting => busy.clear(),
                            never = self.keep(uploads) => match never {},
                        }
                    }
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
        // What is queued there is written first.
        let limit = self.config.write_timeout;
        let body = self.data_servers.read_staged(from, limit).await.map_err(Failed::Source)?;
        let progress = Progress::new(bytes);
        let payload = progress.watch(body);
        let (address, node) = (&to.member.address, to.member.id);
        let staging = self.data_servers.stage(address, node, Some(bytes), payload);
        tokio::select! {
            biased;
            staged = staging => staged.map_err(|error| match progress.is_broken() {
                true => Failed::Source(error),
                false => Failed::Target(error),
            }),
            () = progress.stalled(&self.runtime) => Err(match progress.awaits_source() {
                true => Failed::Source(DataServerError::Stalled),
                false => Failed::Target(DataServerError::Stalled),
            }),
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
