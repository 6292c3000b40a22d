//! PUT: a new content for a name.

use std::sync::Arc;

use holdfast_core::name::ObjectName;
use holdfast_core::object::{Kind, Metadata};
use holdfast_core::version::Version;

use super::body::{self, Beginning, Incoming};
use super::target::{Targets, check_enough, choose_targets};
use super::upload::Needed;
use super::write::{Condition, Content, Write, Written};
use super::{Objects, SMALL_BYTES};
use crate::error::ObjectError;

/// What a client wants stored.
#[derive(Debug)]
pub struct Put {
    /// Under which name.
    pub name: ObjectName,
    /// With which words.
    pub metadata: Metadata,
    /// Its bytes.
    pub body: Incoming,
    /// What the name must be like.
    pub condition: Option<Condition>,
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
    /// Stores an object. When this returned `Ok`, W members have it durably, and
    /// every later read sees it or something newer. Dropping the future leaves
    /// it open whether the write happens.
    ///
    /// # Errors
    /// [`ObjectError`]. Nothing was stored, except after
    /// [`ObjectError::OutcomeUnknown`].
    pub async fn put(&self, put: Put) -> Result<PutDone, ObjectError> {
        let Put { name, metadata, body, condition } = put;
        // What is known to be large waits for nobody.
        let may_be_small = body.size_bytes.is_none_or(|size| size <= SMALL_BYTES as u64);
        let permit = if may_be_small { Some(self.small_writes.try_acquire()) } else { None };
        let permit = permit.transpose().map_err(|_| ObjectError::Overloaded)?;
        match body::begin(body, self.config.max_object_bytes).await? {
            Beginning::Whole { payload, digest } => {
                let content = Content::Small(payload.clone());
                let write = Write { name, kind: Kind::Object, metadata, digest, content };
                match self.write_when(&write, condition.as_ref()).await? {
                    Written::Stored(version) => Ok(PutDone::Stored(version)),
                    Written::OnlyGuests => self.put_guest(&write.name, payload.into()).await,
                }
            }
            Beginning::Large(incoming) => {
                drop(permit);
                self.put_large(name, metadata, incoming, condition).await
            }
        }
    }

    async fn put_large(
        &self,
        name: ObjectName,
        metadata: Metadata,
        incoming: Incoming,
        condition: Option<Condition>,
    ) -> Result<PutDone, ObjectError> {
        // Only to choose where the bytes go; the version is chosen after them. Who
        // does not answer would keep all of the upload waiting.
        let before = self.locate_all(&name).await?;
        let view = self.cluster.snapshot();
        let room = incoming.size_bytes.unwrap_or(0);
        let recipients = match choose_targets(&view.view, &before, &name, room)? {
            Targets::Members(mut recipients) => {
                recipients.retain(|to| before.stamp(to.member.id).is_some());
                recipients
            }
            Targets::Guests if condition.is_some() => return Err(ObjectError::NoDataServers),
            Targets::Guests => return self.put_guest(&name, incoming).await,
        };
        let policy = view.view.policy;
        let quorum = policy.write_quorum();
        check_enough(&view.view, &before, &name, &recipients, room)?;
        let counts = view.view.counting(&name);
        let mut recipients: Vec<_> =
            recipients.into_iter().map(|to| (counts(to.member.id), to)).collect();
        drop(counts);
        // The others take the place of who is lost on the way.
        let spare = recipients.split_off(recipients.len().min(policy.replicas()));
        let spare_count = spare.iter().filter(|(counts, _)| *counts).count();
        let needed = Needed::new(quorum, spare_count);
        let (mut uploads, digest) = self.upload(recipients, needed, incoming).await?;
        let mut refused = None;
        loop {
            self.relay(&name, &mut uploads)
                .await
                .map_err(|error| refused.take().unwrap_or(error))?;
            let staged = Arc::new(uploads);
            let (name, metadata) = (name.clone(), metadata.clone());
            let content = Content::Staged(Arc::clone(&staged));
            let write = Write { name, kind: Kind::Object, metadata, digest, content };
            let written = self.write_when(&write, condition.as_ref()).await;
            drop(write);
            match written {
                Ok(Written::Stored(version)) => return Ok(PutDone::Stored(version)),
                Ok(Written::OnlyGuests) => return Err(ObjectError::WriteFailed),
                // Somebody may have left between the last look and the write, which
                // nobody took: once, others may take the place.
                Err(error @ ObjectError::NoQuorum { .. }) if refused.is_none() => {
                    let Ok(back) = Arc::try_unwrap(staged) else { return Err(error) };
                    (uploads, refused) = (back, Some(error));
                }
                Err(error) => return Err(error),
            }
            self.confirm(&mut uploads).await;
        }
    }

    async fn write_when(
        &self,
        write: &Write,
        condition: Option<&Condition>,
    ) -> Result<Written, ObjectError> {
        match condition {
            None => self.write(write, None).await,
            // Only a delete may find nothing to do.
            Some(condition) => {
                self.write_if(write, condition).await?.ok_or(ObjectError::WriteFailed)
            }
        }
    }
}
