//! The order of a write: locate after the last byte, choose a version above all
//! that was found, replicate.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use holdfast_core::locate::{Located, Replica};
use holdfast_core::name::ObjectName;
use holdfast_core::object::{Digest, Kind, Metadata, Stat};
use holdfast_core::quorum::Purpose;
use holdfast_core::version::Version;

use super::Objects;
use super::replicate::{Failure, Recipient, Replication, Send};
use super::target::{Targets, check_enough, choose_targets};
use super::upload::Uploads;
use crate::data_servers::WriteRequest;
use crate::error::ObjectError;

/// How often a write that certainly changed nothing is made again, under a new
/// version: a promise of a conditional write stood in its way, or its locate
/// was too old.
const ATTEMPTS: usize = 4;

/// What a name must be like for a write to happen; judged on the newest content,
/// `None` when there is none.
#[derive(Clone)]
pub struct Condition(Arc<Judge>);

/// Whether a condition holds for what is there.
type Judge = dyn Fn(Option<&Stat>) -> bool + std::marker::Send + Sync;

impl Condition {
    /// A condition that holds when `holds` says so.
    #[must_use]
    pub fn new(holds: impl Fn(Option<&Stat>) -> bool + std::marker::Send + Sync + 'static) -> Self {
        Self(Arc::new(holds))
    }

    /// Judges what is there; a tombstone is nothing.
    #[must_use]
    pub fn judge(&self, newest: Option<&Stat>) -> bool {
        (self.0)(newest.filter(|stat| stat.kind == Kind::Object))
    }

    /// Judges what `located` found to be the newest.
    pub(super) fn holds(&self, located: &Located) -> bool {
        self.judge(located.newest().map(|replica| &replica.stat))
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Condition")
    }
}

/// Where the bytes of a write are.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// A tombstone has none.
    Nothing,
    /// In memory.
    Small(Bytes),
    /// Staged at the members that are to have them.
    Staged(Arc<Uploads>),
}

/// A write whose version is still to be chosen.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) name: ObjectName,
    pub(super) kind: Kind,
    pub(super) metadata: Metadata,
    pub(super) digest: Digest,
    pub(super) content: Content,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// It is durable under this version.
    Stored(Version),
    /// Only data servers written for the seed are there to take it.
    OnlyGuests,
}

impl Objects {
    /// Makes a write without a condition. `located` is what a locate after the
    /// last byte has found, if there was one.
    pub(super) async fn write(
        &self,
        write: &Write,
        mut located: Option<Located>,
    ) -> Result<Written, ObjectError> {
        for attempt in 1.. {
            let located = match located.take() {
                Some(located) => located,
                None => self.locate(&write.name).await?,
            };
            self.check_ordered(&located)?;
            let recipients = match self.recipients(write, &located)? {
                Targets::Members(recipients) => recipients,
                Targets::Guests => return Ok(Written::OnlyGuests),
            };
            let version = self.next_version(&located);
            match self.send(write, version, Purpose::Write, recipients, &located).await {
                Ok(()) => return Ok(Written::Stored(version)),
                Err(Failure::Nothing(ObjectError::WriteFailed)) if attempt < ATTEMPTS => {
                    self.pause().await;
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(ObjectError::WriteFailed)
    }

    /// A write must go above whatever was acknowledged. With one copy nobody
    /// else can say what a silent member has, and the write goes on.
    pub(super) fn check_ordered(&self, located: &Located) -> Result<(), ObjectError> {
        let nobody = located.stamps.is_empty() && located.unheard.is_empty();
        if located.complete || located.quorum.is_single_copy() || nobody {
            return Ok(());
        }
        Err(ObjectError::NoQuorum { silent: located.unheard.clone() })
    }

    /// Waits a little, so that whoever is in the way can finish.
    pub(super) async fn pause(&self) {
        self.runtime.sleep(self.runtime.jittered(Duration::from_millis(60))).await;
    }

    /// Who is to get a write: W members at least, or it is refused before any of
    /// them has it.
    pub(super) fn recipients(
        &self,
        write: &Write,
        located: &Located,
    ) -> Result<Targets, ObjectError> {
        let view = &self.cluster.snapshot().view;
        // A full disk still has room for a tombstone.
        let size_bytes = match &write.content {
            Content::Small(payload) => payload.len() as u64,
            Content::Nothing | Content::Staged(_) => 0,
        };
        let targets = match &write.content {
            Content::Staged(uploads) => Targets::Members(uploads.recipients(view, located)),
            _ => choose_targets(view, located, &write.name, size_bytes)?,
        };
        match &targets {
            Targets::Members(recipients) => {
                check_enough(view, located, &write.name, recipients, size_bytes)?;
            }
            Targets::Guests => {}
        }
        Ok(targets)
    }

    /// Sends a version to its recipients until it is acknowledged.
    pub(super) async fn send(
        &self,
        write: &Write,
        version: Version,
        purpose: Purpose,
        recipients: Vec<Recipient>,
        located: &Located,
    ) -> Result<(), Failure> {
        let policy = self.cluster.snapshot().view.policy;
        let holders = self
            .replicate(Replication {
                name: write.name.clone(),
                version,
                purpose,
                recipients,
                copies: policy.replicas().max(policy.write_quorum()),
                holders: Vec::new(),
                replaces_stalled: true,
                send: self.sender(write, version),
            })
            .await?;
        if policy.replicas() == 1
            && let Some(holder) = holders.first()
        {
            self.forget_others(&write.name, located, *holder, version);
        }
        Ok(())
    }

    fn sender(&self, write: &Write, version: Version) -> Send {
        let (data_servers, limit) = (self.data_servers.clone(), self.config.write_timeout);
        // That of the version: it only goes up, whoever wrote it, and whichever of two
        // uploads began first. Who has the newer date has the newer content.
        let modified_unix_millis = version.unix_millis();
        let request = WriteRequest {
            name: write.name.clone(),
            version,
            kind: write.kind,
            metadata: Metadata { modified_unix_millis, ..write.metadata.clone() },
            digest: write.digest,
            stamp: None,
        };
        let content = write.content.clone();
        Arc::new(move |recipient| {
            let (data_servers, content) = (data_servers.clone(), content.clone());
            let request = WriteRequest { stamp: Some(recipient.stamp), ..request.clone() };
            async move {
                let Recipient { member, .. } = recipient;
                let payload = match content {
                    Content::Staged(uploads) => {
                        return uploads.commit(&data_servers, member.id, &request, limit).await;
                    }
                    Content::Small(payload) => payload,
                    Content::Nothing => Bytes::new(),
                };
                data_servers.write(&member.address, member.id, &request, payload, limit).await
            }
            .boxed()
        })
    }

    /// Makes the holders of older copies forget them, in the background, now
    /// that `version` is durable on `kept`: with one copy of each object, an old
    /// one must not be taken for the newest while the new holder is silent. With
    /// more copies than one, repair does it.
    fn forget_others(
        &self,
        name: &ObjectName,
        located: &Located,
        kept: holdfast_core::node::NodeId,
        version: Version,
    ) {
        let stale = located
            .replicas
            .iter()
            .filter(|replica| replica.node != kept && replica.stat.version < version);
        stale.for_each(|replica| self.forget(name, replica));
    }

    /// The same for what the newest copy that was found superseded.
    pub(super) fn forget_superseded(&self, name: &ObjectName, located: &Located) {
        if located.quorum.is_single_copy()
            && let Some(newest) = located.newest()
        {
            self.forget_others(name, located, newest.node, newest.stat.version);
        }
    }

    fn forget(&self, name: &ObjectName, replica: &Replica) {
        let (objects, name, replica) = (self.clone(), name.clone(), replica.clone());
        self.runtime.spawn("forget", async move {
            let Replica { node, address, stat } = replica;
            let (limit, version) = (objects.config.write_timeout, stat.version);
            let forgotten =
                objects.data_servers.forget(&address, node, &name, version, limit).await;
            if let Err(error) = forgotten {
                tracing::debug!(%node, %name, %version, %error, "a superseded copy was not forgotten");
            }
        });
    }
}
