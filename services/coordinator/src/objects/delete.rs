//! DELETE: a tombstone becomes the newest content of a name.

use bytes::Bytes;
use holdfast_core::locate::Located;
use holdfast_core::name::ObjectName;
use holdfast_core::object::{Digest, Kind, Metadata};

use super::Objects;
use super::put::{Tried, replica};
use super::target::{Target, choose_target};
use crate::error::ObjectError;

impl Objects {
    /// Deletes an object; fine if there is none. When this returned `Ok`, the
    /// delete survives a power cut.
    ///
    /// Nothing is written when it is certain that nobody has the name. While a
    /// member is silent a tombstone is written all the same: it outranks
    /// whatever that member may bring back.
    ///
    /// # Errors
    /// [`ObjectError`]. Nothing was deleted, except after
    /// [`ObjectError::OutcomeUnknown`].
    pub async fn delete(&self, name: &ObjectName) -> Result<(), ObjectError> {
        let located = self.locate(name).await?;
        let snapshot = self.cluster.snapshot();
        let deleted = located.newest().is_none_or(|newest| newest.stat.kind == Kind::Tombstone);
        if deleted && located.complete && snapshot.view.guests.is_empty() {
            self.forget_superseded(name, &located);
            return Ok(());
        }
        self.write_tombstone(name, &located).await
    }

    async fn write_tombstone(
        &self,
        name: &ObjectName,
        located: &Located,
    ) -> Result<(), ObjectError> {
        let metadata =
            Metadata { modified_unix_millis: self.runtime.unix_millis(), ..Metadata::default() };
        // The digest of nothing.
        let write = self.write_request(name, located, Kind::Tombstone, &metadata, Digest(0));
        let mut tried = Tried::default();
        loop {
            let snapshot = self.cluster.snapshot();
            // A full disk still has room for a tombstone.
            let target = choose_target(&snapshot.view, located, name, 0, &tried.excluded);
            let Target::Member(member) = target.map_err(|error| tried.or(error))? else {
                return Err(ObjectError::NoDataServers);
            };
            let limit = self.config.write_timeout;
            let sent =
                self.data_servers.write(&member.address, member.id, &write, Bytes::new(), limit);
            if self.settle(&member, sent.await, &mut tried)?.is_some() {
                self.forget_others(name, located, &replica(&write, &member));
                return Ok(());
            }
        }
    }
}
