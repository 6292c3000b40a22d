//! PUT: a payload becomes the newest content of a name.

use std::collections::BTreeSet;

use bytes::Bytes;
use holdfast_core::locate::{Located, Replica};
use holdfast_core::membership::Member;
use holdfast_core::name::ObjectName;
use holdfast_core::node::NodeId;
use holdfast_core::object::{Digest, Kind, Metadata, Stat};
use holdfast_core::version::Version;
use holdfast_core::wire::transfer::{WriteAnswer, WriteOutcome};
use tracing::warn;

use super::Objects;
use super::body::{self, Beginning, Incoming};
use super::target::{Target, choose_target};
use crate::data_servers::{DataServerError, Upload, WriteRequest};
use crate::error::ObjectError;

/// Data servers that are tried before a write is given up.
const ATTEMPTS: usize = 3;

/// Members that refused a write, and what the last of them said.
#[derive(Debug, Default)]
pub(super) struct Tried {
    pub(super) excluded: BTreeSet<NodeId>,
    refusal: Option<ObjectError>,
}

impl Tried {
    /// Why nobody took it: what the last one said, or `error` if none was asked.
    pub(super) fn or(&mut self, error: ObjectError) -> ObjectError {
        self.refusal.take().unwrap_or(error)
    }
}

/// What a client wants stored.
#[derive(Debug)]
pub struct Put {
    /// Under which name.
    pub name: ObjectName,
    /// With which words.
    pub metadata: Metadata,
    /// Its bytes.
    pub body: Incoming,
}

/// What was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutDone {
    /// This version; it survives a power cut.
    Stored(Version),
    /// On a data server written for the seed, which knows no versions.
    OnGuest,
}

impl Objects {
    /// Stores an object. When this returned `Ok`, it survives a power cut, and
    /// every later read sees it or something newer. Dropping the future leaves
    /// it open whether the write happens.
    ///
    /// # Errors
    /// [`ObjectError`]. Nothing was stored, except after
    /// [`ObjectError::OutcomeUnknown`].
    pub async fn put(&self, put: Put) -> Result<PutDone, ObjectError> {
        let Put { name, mut metadata, body } = put;
        metadata.modified_unix_millis = self.runtime.unix_millis();
        let permit = self.small_writes.try_acquire().map_err(|_| ObjectError::Overloaded)?;
        match body::begin(body, self.config.max_object_bytes).await? {
            Beginning::Whole { payload, digest } => {
                self.put_small(name, metadata, payload, digest).await
            }
            Beginning::Large(incoming) => {
                drop(permit);
                self.put_large(name, metadata, incoming).await
            }
        }
    }

    async fn put_small(
        &self,
        name: ObjectName,
        metadata: Metadata,
        payload: Bytes,
        digest: Digest,
    ) -> Result<PutDone, ObjectError> {
        // The body is complete: what this locate finds is older than this write.
        let located = self.locate(&name).await?;
        let mut tried = Tried::default();
        for _ in 0..ATTEMPTS {
            let view = &self.cluster.snapshot().view;
            let size_bytes = payload.len() as u64;
            let chosen = choose_target(view, &located, &name, size_bytes, &tried.excluded);
            let member = match chosen.map_err(|error| tried.or(error))? {
                Target::Member(member) => member,
                Target::Guests => return self.put_guest(&name, payload.into()).await,
            };
            let write = self.write_request(&name, &located, Kind::Object, &metadata, digest);
            let (address, limit) = (&member.address, self.config.write_timeout);
            let sent = self.data_servers.write(address, member.id, &write, payload.clone(), limit);
            match self.settle(&member, sent.await, &mut tried)? {
                Some(outcome) => return Ok(self.stored(&write, &located, &member, &outcome)),
                None => continue,
            }
        }
        Err(tried.or(ObjectError::WriteFailed))
    }

    async fn put_large(
        &self,
        name: ObjectName,
        metadata: Metadata,
        incoming: Incoming,
    ) -> Result<PutDone, ObjectError> {
        // Only to choose where the bytes go; the version is chosen after them.
        let before = self.locate(&name).await?;
        let view = self.cluster.snapshot();
        let size_bytes = incoming.size_bytes;
        let room = size_bytes.unwrap_or(0);
        let target = choose_target(&view.view, &before, &name, room, &BTreeSet::new())?;
        let Target::Member(member) = target else {
            return self.put_guest(&name, incoming).await;
        };
        let (upload, digest) = self.upload(&member, incoming).await?;
        // After the last byte: everything acknowledged before is seen.
        let located = self.locate(&name).await?;
        let write = self.write_request(&name, &located, Kind::Object, &metadata, digest);
        let upload = upload.disarm();
        let committed = self.data_servers.commit(&upload, &write, self.config.write_timeout).await;
        let mut tried = Tried::default();
        match self.settle(&member, committed, &mut tried)? {
            Some(outcome) => Ok(self.stored(&write, &located, &member, &outcome)),
            None => Err(tried.or(ObjectError::WriteFailed)),
        }
    }

    /// Streams a payload to a data server and checks that both sides saw the
    /// same bytes.
    async fn upload(
        &self,
        member: &Member,
        incoming: Incoming,
    ) -> Result<(AbandonOnDrop, Digest), ObjectError> {
        let size_bytes = incoming.size_bytes;
        let limit = self.config.max_object_bytes;
        let (stream, outcome) = body::meter(self.runtime.clone(), incoming, limit);
        let staged = self.data_servers.stage(&member.address, member.id, size_bytes, stream).await;
        let metered = body::take_outcome(&outcome);
        if let Some(refused) = metered.refused {
            return Err(refused);
        }
        let upload = staged.map_err(|error| self.write_failed(member, &error))?;
        let received = (upload.received.size_bytes, upload.received.digest);
        let upload = AbandonOnDrop { objects: self.clone(), upload: Some(upload) };
        let (size_bytes, digest) = metered.complete.ok_or(ObjectError::BodyIncomplete)?;
        if received != (size_bytes, digest) {
            warn!(node = %member.id, "a payload changed on its way to the data server");
            return Err(ObjectError::WriteFailed);
        }
        Ok((upload, digest))
    }

    pub(super) fn write_request(
        &self,
        name: &ObjectName,
        located: &Located,
        kind: Kind,
        metadata: &Metadata,
        digest: Digest,
    ) -> WriteRequest {
        let version = self.next_version(located);
        let (name, metadata) = (name.clone(), metadata.clone());
        WriteRequest { name, version, kind, metadata, digest, stamp: None, ballot: None }
    }

    /// What to make of a data server's answer to a write: done, or to be tried
    /// elsewhere (`None`), or over.
    pub(super) fn settle(
        &self,
        member: &Member,
        answer: Result<WriteAnswer, DataServerError>,
        tried: &mut Tried,
    ) -> Result<Option<WriteOutcome>, ObjectError> {
        match answer {
            Ok(answer) => Ok(Some(answer.outcome)),
            Err(error) if error.changed_nothing() => {
                tried.excluded.insert(member.id);
                tried.refusal = Some(self.write_failed(member, &error));
                Ok(None)
            }
            Err(error) => {
                // It may have been written; a second try under another version
                // could then overwrite what was written after it.
                warn!(node = %member.id, %error, "a data server did not confirm a write");
                Err(ObjectError::OutcomeUnknown)
            }
        }
    }

    fn write_failed(&self, member: &Member, error: &DataServerError) -> ObjectError {
        if error.is_no_space() {
            return ObjectError::NoSpace;
        }
        warn!(node = %member.id, address = %member.address, %error, "a data server refused a write");
        ObjectError::WriteFailed
    }

    fn stored(
        &self,
        write: &WriteRequest,
        located: &Located,
        member: &Member,
        outcome: &WriteOutcome,
    ) -> PutDone {
        // Superseded: a concurrent write is newer and durable, so this one came
        // before it.
        if matches!(outcome, WriteOutcome::Stored | WriteOutcome::AlreadyStored) {
            let kept = replica(write, member);
            self.forget_others(&write.name, located, &kept);
        }
        PutDone::Stored(write.version)
    }
}

/// What a member holds after it took `write`.
pub(super) fn replica(write: &WriteRequest, member: &Member) -> Replica {
    Replica {
        node: member.id,
        address: member.address.clone(),
        stat: Stat {
            version: write.version,
            kind: write.kind,
            size_bytes: 0,
            digest: write.digest,
            metadata: write.metadata.clone(),
        },
    }
}

/// Takes a staged payload back when the request ends before its commit.
struct AbandonOnDrop {
    objects: Objects,
    upload: Option<Upload>,
}

impl AbandonOnDrop {
    fn disarm(mut self) -> Upload {
        self.upload.take().expect("set when made, taken here or on drop only")
    }
}

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        let Some(upload) = self.upload.take() else { return };
        let objects = self.objects.clone();
        self.objects.runtime.spawn("abandon", async move {
            // If this fails the data server drops the payload by itself later.
            let _ = objects.data_servers.abandon(&upload, objects.config.read_timeout).await;
        });
    }
}
