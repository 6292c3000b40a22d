//! DELETE: a tombstone becomes the newest content of a name.

use holdfast_core::name::ObjectName;
use holdfast_core::object::{Digest, Kind, Metadata};

use super::Objects;
use super::write::{Condition, Content, Write, Written};
use crate::error::ObjectError;

impl Objects {
    /// Deletes an object; fine if there is none. When this returned `Ok`, the
    /// delete survives a power cut.
    ///
    /// Nothing is written when it is certain that nobody has the name. With one
    /// copy of each object, a tombstone is written also while a member is
    /// silent: it outranks whatever that member may bring back.
    ///
    /// # Errors
    /// [`ObjectError`]. Nothing was deleted, except after
    /// [`ObjectError::OutcomeUnknown`].
    pub async fn delete(
        &self,
        name: &ObjectName,
        condition: Option<&Condition>,
    ) -> Result<(), ObjectError> {
        let write = Write {
            name: name.clone(),
            kind: Kind::Tombstone,
            metadata: Metadata::default(),
            // The digest of nothing.
            digest: Digest(0),
            content: Content::Nothing,
        };
        if let Some(condition) = condition {
            return self.write_if(&write, condition).await.map(|_| ());
        }
        let located = self.locate(name).await?;
        let nothing = match located.newest() {
            None => true,
            // One that is not settled may be lost to who reads next.
            Some(newest) => newest.stat.kind == Kind::Tombstone && located.settled,
        };
        if nothing && located.complete && self.cluster.snapshot().view.guests.is_empty() {
            self.forget_superseded(name, &located);
            return Ok(());
        }
        match self.write(&write, Some(located)).await? {
            Written::Stored(_) => Ok(()),
            Written::OnlyGuests => Err(ObjectError::NoDataServers),
        }
    }
}
