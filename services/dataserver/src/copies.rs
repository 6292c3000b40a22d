//! Copies that this data server takes from other members.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use holdfast_coordinator::cluster::Cluster;
use holdfast_coordinator::data_servers::{DataServerError, DataServers, ReadStart};
use holdfast_coordinator::objects::Objects;
use holdfast_core::name::ObjectName;
use holdfast_core::node::{Address, NodeId};
use holdfast_core::object::{Kind, Stat};
use holdfast_core::replica::{Offer, Offered, compare_offer};
use holdfast_core::version::Version;
use holdfast_core::wire::transfer::{CopyRequest, WriteOutcome};
use holdfast_store::{Held, Staged, Stamp as Content, Store, StoreError};
use http_body_util::BodyExt;
use thiserror::Error;
use tokio::sync::Semaphore;
use tracing::debug;

use crate::admission::takes_data;
use crate::error::InternalError;
use crate::gate::{Basis, Gate};
use crate::metrics::DataServerMetrics;
use crate::repair::beside::LARGE_BYTES;
use crate::report::Reporter;

/// Copies that are received at once: each holds a connection, and up to 1 MiB
/// of memory.
const MAX_COPIES: usize = 16;

/// How many of them may be large: those of every other data server together must
/// not keep small ones out for hours.
const MAX_LARGE: usize = MAX_COPIES / 2;

/// How long another member may take to begin its answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What the receiving side of copies is made of.
#[derive(Debug)]
pub struct CopierParts {
    /// Where they are staged.
    pub store: Arc<dyn Store>,
    /// How they are kept.
    pub gate: Gate,
    /// Who is a member.
    pub cluster: Cluster,
    /// The way to the others.
    pub data_servers: DataServers,
    /// Who this is, and whether it takes data.
    pub reporter: Arc<Reporter>,
    /// How a version is looked up again after a transfer that took long; `None`
    /// refuses it then.
    pub objects: Option<Objects>,
    /// Where it is counted.
    pub metrics: DataServerMetrics,
}

/// Takes copies. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Copier {
    parts: Arc<CopierParts>,
    permits: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

/// Why one source did not give what was asked for.
#[derive(Debug, Error)]
enum SourceError {
    #[error(transparent)]
    DataServer(#[from] DataServerError),
    #[error("it has another content under this version")]
    AnotherContent,
    #[error("its bytes did not come whole: {0}")]
    Body(#[from] holdfast_http::body::BodyError),
    #[error("its bytes are not what was announced")]
    Digest,
}

/// Why a transfer ended.
enum Failed {
    /// Another source may do better.
    Source(SourceError),
    /// This volume does not take it, wherever it comes from.
    Volume(StoreError),
}

impl<E: Into<SourceError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Source(error.into())
    }
}

impl Copier {
    /// Receives nothing yet.
    #[must_use]
    pub fn new(parts: CopierParts) -> Self {
        let [permits, large] = [MAX_COPIES, MAX_LARGE].map(|most| Arc::new(Semaphore::new(most)));
        Self { parts: Arc::new(parts), permits, large }
    }

    /// Makes one version, which others have, durable here too. What is here and
    /// can be read is not fetched again. Dropping the future ends the transfer;
    /// a commit that has begun is not stopped.
    ///
    /// # Errors
    /// [`InternalError`]; with a status of 4xx, [`InternalError::NotAdmitted`]
    /// and [`InternalError::Busy`] nothing was changed.
    pub async fn copy(&self, request: CopyRequest) -> Result<WriteOutcome, InternalError> {
        let outcome = self.admit(request).await;
        let result = match &outcome {
            Ok(WriteOutcome::Stored) => "stored",
            Ok(WriteOutcome::AlreadyStored) => "already-stored",
            Ok(WriteOutcome::Superseded { .. }) => "superseded",
            Err(InternalError::NoSource { .. }) => "no-source",
            Err(error) if error.is_refusal() => "refused",
            Err(_) => "failed",
        };
        self.parts.metrics.copies_received.with_label_values(&[result]).inc();
        outcome
    }

    async fn admit(&self, request: CopyRequest) -> Result<WriteOutcome, InternalError> {
        let parts = &self.parts;
        let _permit = self.permits.try_acquire().map_err(|_| InternalError::Busy)?;
        let _large = match request.stat.size_bytes >= LARGE_BYTES {
            true => Some(self.large.try_acquire().map_err(|_| InternalError::Busy)?),
            false => None,
        };
        self.check_takes_data()?;
        let CopyRequest { name, stat, from, held_as, stamp, is_settled } = request;
        let held_as = held_as.unwrap_or(stat.version);
        let offered = if is_settled { Offered::Settled } else { Offered::Found };
        let basis = Basis { stamp: Some(stamp), offered };
        parts.gate.check(&name, stat.version, basis)?;
        let content = Content { version: stat.version, metadata: stat.metadata.clone() };
        if stat.kind == Kind::Tombstone {
            return Ok(parts.gate.delete(name, basis, content).await?);
        }
        if let Some(outcome) = self.settled(&name, &stat).await? {
            return Ok(outcome);
        }
        let staged = match self.own(&name, &stat, held_as).await? {
            Some(staged) => staged,
            None => self.fetch(&name, &stat, held_as, &self.sources(&from)?).await?,
        };
        // It may have taken hours.
        self.check_takes_data()?;
        let basis = self.renew(&name, held_as, basis).await;
        Ok(parts.gate.commit(name, basis, content, staged).await?)
    }

    /// What the commit builds on after a transfer. When the answer that the
    /// request built on is too old by now, the name is looked up again: if this
    /// still is its newest version, the request might as well be made now.
    async fn renew(&self, name: &ObjectName, held_as: Version, basis: Basis) -> Basis {
        let is_stale = basis.stamp.is_some_and(|stamp| self.parts.gate.check_stamp(stamp).is_err());
        let Some(objects) = self.parts.objects.as_ref().filter(|_| is_stale) else { return basis };
        // Of all: an answer that is complete without this member has no stamp of it.
        let Ok(located) = objects.locate_all(name).await else { return basis };
        // Others may have it under a later version already.
        let is_newest = located.newest().is_some_and(|newest| newest.stat.is_known_as(held_as));
        let stamp = located.stamp(self.parts.reporter.own().node);
        match stamp.filter(|_| located.complete && is_newest) {
            Some(stamp) => Basis {
                stamp: Some(stamp),
                offered: if located.is_accepted { Offered::Settled } else { basis.offered },
            },
            None => basis,
        }
    }

    fn check_takes_data(&self) -> Result<(), InternalError> {
        let takes_data = takes_data(self.parts.reporter.state());
        if takes_data { Ok(()) } else { Err(InternalError::NotAdmitted) }
    }

    /// The members among those that are named, and where they are reached. A
    /// retired one may hold what was deleted since.
    fn sources(&self, from: &[NodeId]) -> Result<Vec<(NodeId, Address)>, InternalError> {
        let own = self.parts.reporter.own().node;
        let view = &self.parts.cluster.snapshot().view;
        let members: Vec<_> = from
            .iter()
            .filter(|node| **node != own)
            .filter_map(|node| view.member(*node).filter(|member| member.in_roster))
            .map(|member| (member.id, member.address.clone()))
            .collect();
        if members.is_empty() { Err(InternalError::ForeignSource) } else { Ok(members) }
    }

    /// What is answered without a transfer: this version, or a newer one, is
    /// here. One that is known to be damaged is fetched again.
    async fn settled(
        &self,
        name: &ObjectName,
        stat: &Stat,
    ) -> Result<Option<WriteOutcome>, InternalError> {
        let held = self.parts.store.inspect(std::slice::from_ref(name)).await.pop();
        let Some(Ok(Some(Held { stat: held, is_damaged }))) = held else { return Ok(None) };
        match compare_offer(Some(&held), stat) {
            Offer::Newer => Ok(None),
            Offer::Same if is_damaged => Ok(None),
            Offer::Same => Ok(Some(WriteOutcome::AlreadyStored)),
            Offer::Older => Ok(Some(self.parts.gate.superseded(name, stat.version, held))),
            Offer::Conflict => {
                let (name, version) = (name.clone(), stat.version);
                Err(StoreError::VersionConflict { name, version }.into())
            }
        }
    }

    /// Stages the payload that is here under another version: nothing has to come
    /// over the network. `None` when it is not here, or cannot be read.
    async fn own(
        &self,
        name: &ObjectName,
        stat: &Stat,
        held_as: Version,
    ) -> Result<Option<Box<dyn Staged>>, InternalError> {
        if held_as == stat.version {
            return Ok(None);
        }
        let Ok(mut payload) = self.parts.store.read(name, Some(held_as), None).await else {
            return Ok(None);
        };
        let mut staging = self.parts.store.stage(Some(stat.size_bytes)).await?;
        while let Some(chunk) = payload.bytes.next().await {
            // Others have it, too.
            let Ok(chunk) = chunk else { return Ok(None) };
            staging.write(chunk).await?;
        }
        let staged = staging.finish().await?;
        let is_same = (staged.size_bytes(), staged.digest()) == (stat.size_bytes, stat.digest);
        Ok(is_same.then_some(staged))
    }

    /// Stages the payload from the first source that gives it whole.
    async fn fetch(
        &self,
        name: &ObjectName,
        stat: &Stat,
        held_as: Version,
        sources: &[(NodeId, Address)],
    ) -> Result<Box<dyn Staged>, InternalError> {
        let mut reasons = Vec::new();
        for (node, address) in sources {
            match self.fetch_from(name, stat, held_as, *node, address).await {
                Ok(staged) => return Ok(staged),
                Err(Failed::Volume(error)) => return Err(error.into()),
                Err(Failed::Source(error)) => {
                    debug!(%node, %error, "a copy was not received");
                    reasons.push(format!("{node}: {error}"));
                }
            }
        }
        Err(InternalError::NoSource { reasons: reasons.join("; ") })
    }

    async fn fetch_from(
        &self,
        name: &ObjectName,
        stat: &Stat,
        held_as: Version,
        node: NodeId,
        address: &Address,
    ) -> Result<Box<dyn Staged>, Failed> {
        let servers = &self.parts.data_servers;
        let read = servers.read(address, node, name, held_as, None, HEAD_TIMEOUT).await?;
        let ReadStart { stat: theirs, mut body } = read;
        let theirs = Stat { version: stat.version, ..theirs };
        if compare_offer(Some(&theirs), stat) != Offer::Same {
            return Err(SourceError::AnotherContent.into());
        }
        let staging = self.parts.store.stage(Some(stat.size_bytes)).await;
        let mut staging = staging.map_err(Failed::Volume)?;
        let mut size_bytes = 0u64;
        while let Some(frame) = body.frame().await {
            let Ok(chunk) = frame?.into_data() else { continue };
            let length = chunk.len() as u64;
            size_bytes += length;
            if size_bytes > stat.size_bytes {
                return Err(SourceError::Digest.into());
            }
            staging.write(chunk).await.map_err(Failed::Volume)?;
            self.parts.metrics.copies_received_bytes.inc_by(length);
        }
        let staged = staging.finish().await.map_err(Failed::Volume)?;
        if (staged.size_bytes(), staged.digest()) != (stat.size_bytes, stat.digest) {
            return Err(SourceError::Digest.into());
        }
        Ok(staged)
    }
}

#[cfg(test)]
#[path = "copies_tests.rs"]
mod tests;
