//! Data servers written for the seed: they take writes only when no member
//! does, and are asked only for what no member has.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use holdfast_core::name::ObjectName;
use holdfast_core::node::Address;

use super::Objects;
use tracing::warn;

use super::body::{self, Expected, Incoming};
use super::put::PutDone;
use crate::data_servers::GuestRead;
use crate::error::ObjectError;

impl From<Bytes> for Incoming {
    fn from(payload: Bytes) -> Self {
        Self {
            size_bytes: Some(payload.len() as u64),
            bytes: stream::iter([Ok(payload)]).boxed(),
            expected: Expected::default(),
        }
    }
}

impl Objects {
    /// Stores an object on a guest that is chosen at random, as the seed does.
    pub(super) async fn put_guest(
        &self,
        name: &ObjectName,
        incoming: Incoming,
    ) -> Result<PutDone, ObjectError> {
        let guests = self.cluster.snapshot().view.guests.clone();
        let choice = self.runtime.random_u64() % (guests.len().max(1) as u64);
        let guest = usize::try_from(choice).ok().and_then(|choice| guests.get(choice));
        let guest: &Address = guest.ok_or(ObjectError::NoDataServers)?;
        let size_bytes = incoming.size_bytes;
        let limit = self.config.max_object_bytes;
        let (stream, outcome) = body::meter(self.runtime.clone(), incoming, limit);
        let stored = self.data_servers.put_guest(guest, &name.key, size_bytes, stream).await;
        if let Some(refused) = body::take_outcome(&outcome).refused {
            return Err(refused);
        }
        match stored {
            Ok(()) => Ok(PutDone::OnGuest),
            Err(error) if error.changed_nothing() => Err(ObjectError::WriteFailed),
            Err(_) => Err(ObjectError::OutcomeUnknown),
        }
    }

    /// Which guest has an object that no member has. That guest was asked for
    /// the object: what it says on the bus may be the late answer to another
    /// question.
    ///
    /// # Errors
    /// [`ObjectError::Overloaded`], [`ObjectError::ReadFailed`].
    pub async fn locate_guest(&self, name: &ObjectName) -> Result<Option<Address>, ObjectError> {
        Ok(self.find_guest(name).await?.map(|(guest, _)| guest))
    }

    /// Begins to read an object from a guest, if one has it.
    pub(super) async fn read_guest(
        &self,
        name: &ObjectName,
    ) -> Result<Option<GuestRead>, ObjectError> {
        Ok(self.find_guest(name).await?.map(|(_, read)| read))
    }

    async fn find_guest(
        &self,
        name: &ObjectName,
    ) -> Result<Option<(Address, GuestRead)>, ObjectError> {
        if self.cluster.snapshot().view.guests.is_empty() {
            return Ok(None);
        }
        let Some(guest) = self.locator.locate_guest(&name.key.to_seed_path()).await? else {
            return Ok(None);
        };
        let limit = self.config.read_timeout;
        match self.data_servers.read_guest(&guest, &name.key, limit).await {
            Ok(read) => Ok(read.map(|read| (guest, read))),
            Err(error) => {
                warn!(%guest, %name, %error, "an object could not be read from a guest");
                Err(ObjectError::ReadFailed)
            }
        }
    }
}
