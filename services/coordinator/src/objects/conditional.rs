//! Writes with a condition: `If-None-Match`, `If-Match` and their friends.
//!
//! Nothing may come between the judging of the condition and the write. So the
//! members are asked to promise the version that is to be written: who promised
//! takes nothing older any more. What they then show is the newest that there
//! will ever be below that version; once W of them have it, the condition is
//! judged on it, and the write counts only where nothing newer came.

use std::time::Duration;

use holdfast_core::locate::Located;
use holdfast_core::object::Kind;
use holdfast_core::quorum::Purpose;
use holdfast_core::version::Version;
use tracing::debug;

use super::Objects;
use super::replicate::Failure;
use super::target::Targets;
use super::write::{Condition, Write, Written};
use crate::error::ObjectError;

/// How long a conditional write is tried anew when others come in between.
const PATIENCE: Duration = Duration::from_secs(10);

enum Attempt {
    Over(Written),
    /// Others came in between; nothing was changed.
    Again,
}

impl Objects {
    /// Makes a write if `condition` holds, and nothing if not. `None` when there
    /// was nothing to delete.
    ///
    /// # Errors
    /// [`ObjectError::PreconditionFailed`]: nothing was written. And as
    /// [`Self::write`].
    pub(super) async fn write_if(
        &self,
        write: &Write,
        condition: &Condition,
    ) -> Result<Option<Written>, ObjectError> {
        // Requests of this process take turns: they would only outbid each other.
        let _turn = self.turns.take(&write.name).await;
        let deadline = self.runtime.now() + PATIENCE;
        while self.runtime.now() < deadline {
            let located = self.locate(&write.name).await?;
            if !located.complete {
                return Err(self.no_quorum(&located));
            }
            if located.newest().is_none() || located.is_certain() {
                if !condition.holds(&located) {
                    return Err(ObjectError::PreconditionFailed);
                }
                let deleted =
                    located.newest().is_none_or(|newest| newest.stat.kind == Kind::Tombstone);
                if write.kind == Kind::Tombstone && deleted {
                    return Ok(None);
                }
            }
            match self.attempt(write, condition, &located).await? {
                Attempt::Over(written) => return Ok(Some(written)),
                Attempt::Again => self.pause().await,
            }
        }
        debug!(name = %write.name, "a conditional write was outbid for too long");
        Err(ObjectError::Contended)
    }

    async fn attempt(
        &self,
        write: &Write,
        condition: &Condition,
        before: &Located,
    ) -> Result<Attempt, ObjectError> {
        let ballot = self.next_version(before);
        let promised = self.locator.promise(&write.name, ballot).await?;
        if !promised.complete {
            // Who answered and did not promise has seen something newer.
            let outbid = promised.unheard.iter().any(|node| promised.stamp(*node).is_some());
            if !outbid {
                return Err(self.no_quorum(&promised));
            }
            // The next one goes above what they told, also when the next locate
            // does not wait for them.
            let _ = self.next_version(&promised);
            return Ok(Attempt::Again);
        }
        if promised.shows_above(ballot) {
            let _ = self.next_version(&promised);
            return Ok(Attempt::Again);
        }
        if promised.newest().is_some() && !promised.is_certain() {
            let settled = self.write_back(&write.name, &promised, Some(ballot)).await;
            if let Err(error) = settled {
                debug!(name = %write.name, %error, "what a condition is judged on could not be settled");
                return Ok(Attempt::Again);
            }
        }
        if !condition.holds(&promised) {
            return Err(ObjectError::PreconditionFailed);
        }
        self.commit_if_promised(write, ballot, &promised).await
    }

    async fn commit_if_promised(
        &self,
        write: &Write,
        ballot: Version,
        promised: &Located,
    ) -> Result<Attempt, ObjectError> {
        let recipients = match self.recipients(write, promised)? {
            Targets::Members(recipients) => recipients,
            // A data server written for the seed cannot keep a condition.
            Targets::Guests => return Err(ObjectError::NoDataServers),
        };
        match self.send(write, ballot, Purpose::Conditional, recipients, promised).await {
            Ok(()) => Ok(Attempt::Over(Written::Stored(ballot))),
            Err(Failure::Nothing(ObjectError::NoSpace)) => Err(ObjectError::NoSpace),
            Err(Failure::Nothing(_)) => Ok(Attempt::Again),
            Err(Failure::Unknown) => self.find_out(write, ballot).await,
        }
    }

    /// Some took it and some had promised more to another write meanwhile. That
    /// one brings what it finds to W members before it goes on, so what is found
    /// settled now may be this very version.
    async fn find_out(&self, write: &Write, version: Version) -> Result<Attempt, ObjectError> {
        let located = self.locate_settled(&write.name).await;
        let settled = located.ok().filter(|located| located.complete && located.settled);
        match settled.and_then(|located| Some(located.newest()?.stat.version)) {
            Some(newest) if newest == version => Ok(Attempt::Over(Written::Stored(version))),
            _ => Err(ObjectError::OutcomeUnknown),
        }
    }

    /// Why nothing can be proven now.
    pub(super) fn no_quorum(&self, located: &Located) -> ObjectError {
        if located.unheard.is_empty() && located.answered.is_empty() {
            return ObjectError::NoDataServers;
        }
        ObjectError::NoQuorum { silent: located.unheard.clone() }
    }
}
