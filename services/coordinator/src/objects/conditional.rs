//! Writes with a condition: `If-None-Match`, `If-Match` and their friends.
//!
//! Nothing may come between the judging of the condition and the write. So the
//! members are asked to promise the version that is to be written: who promised
//! takes nothing older any more. What they then show is the newest that there
//! will ever be below that version; once W of them have it, the condition is
//! judged on it, and the write counts only where nothing newer came.

use std::time::Duration;

use holdfast_core::locate::Located;
use holdfast_core::name::ObjectName;
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
        let turn = self.runtime.timeout(PATIENCE, self.turns.take(&write.name)).await;
        let Ok(_turn) = turn else {
            debug!(name = %write.name, "a conditional write had no turn for too long");
            return Err(ObjectError::Contended);
        };
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
            match self.attempt(write, condition, &located, deadline).await? {
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
        deadline: Duration,
    ) -> Result<Attempt, ObjectError> {
        let ballot = self.next_version(before);
        let promised = self.locator.promise(&write.name, ballot).await?;
        let Some(version) = self.stand(&write.name, ballot, &promised).await? else {
            return Ok(Attempt::Again);
        };
        if !condition.holds(&promised) {
            return Err(ObjectError::PreconditionFailed);
        }
        self.commit_if_promised(write, version, &promised, deadline).await
    }

    /// Makes sure that the newest that `promised` shows is the newest that there
    /// will ever be below `ballot`, and is settled: under `ballot`, if it was not.
    /// Gives the version under which a write may follow; `None` if others came in
    /// between.
    ///
    /// # Errors
    /// [`ObjectError::NoQuorum`], [`ObjectError::NoDataServers`].
    async fn stand(
        &self,
        name: &ObjectName,
        ballot: Version,
        promised: &Located,
    ) -> Result<Option<Version>, ObjectError> {
        if !promised.complete {
            // Who answered and did not promise has seen something newer.
            let outbid = promised.unheard.iter().any(|node| promised.stamp(*node).is_some());
            if !outbid {
                return Err(self.no_quorum(promised));
            }
        }
        if !promised.complete || promised.shows_above(ballot) {
            // The next one goes above what they told, also when the next locate
            // does not wait for them.
            let _ = self.next_version(promised);
            return Ok(None);
        }
        if promised.newest().is_none() || promised.is_certain() {
            return Ok(Some(ballot));
        }
        let limit = self.config.copy_timeout;
        if let Err(error) = self.write_back(name, promised, Some(ballot), limit).await {
            debug!(%name, %error, "what a condition is judged on could not be settled");
            return Ok(None);
        }
        Ok(Some(ballot.right_above()))
    }

    async fn commit_if_promised(
        &self,
        write: &Write,
        version: Version,
        promised: &Located,
        deadline: Duration,
    ) -> Result<Attempt, ObjectError> {
        let recipients = match self.recipients(write, promised)? {
            Targets::Members(recipients) => recipients,
            // A data server written for the seed cannot keep a condition.
            Targets::Guests => return Err(ObjectError::NoDataServers),
        };
        match self.send(write, version, Purpose::Conditional, recipients, promised).await {
            Ok(()) => Ok(Attempt::Over(Written::Stored(version))),
            Err(Failure::Nothing(ObjectError::NoSpace)) => Err(ObjectError::NoSpace),
            Err(Failure::Nothing(_)) => Ok(Attempt::Again),
            Err(Failure::NeedsPromise | Failure::Unknown) => {
                // Whatever keeps it from being found out.
                let found = self.find_out(&write.name, version, deadline).await;
                let written = found.map_err(|_| ObjectError::OutcomeUnknown)?;
                Ok(Attempt::Over(written))
            }
        }
    }

    /// Some may have taken this version, and some had promised more to another
    /// write meanwhile. Whoever finds it brings it to W members. So this asks for a
    /// promise of its own, settles the newest that is shown above everything that
    /// was judged without it, and sees whether that is it.
    ///
    /// It is never made again under another version, also where only something
    /// older is found: docs/protocol.md tells why.
    async fn find_out(
        &self,
        name: &ObjectName,
        version: Version,
        deadline: Duration,
    ) -> Result<Written, ObjectError> {
        loop {
            let before = self.locate(name).await?;
            let newest = before.newest().filter(|_| before.complete && before.settled);
            if newest.is_some_and(|newest| newest.stat.written_as() == version) {
                return Ok(Written::Stored(version));
            }
            if newest.is_some_and(|newest| newest.stat.version > version) {
                return Err(ObjectError::OutcomeUnknown);
            }
            match self.settle_promised(name, &before, version).await? {
                Some(true) => return Ok(Written::Stored(version)),
                // It may have happened before that, or not.
                Some(false) => return Err(ObjectError::OutcomeUnknown),
                None => {}
            }
            if self.runtime.now() >= deadline {
                return Err(ObjectError::OutcomeUnknown);
            }
            self.pause().await;
        }
    }

    /// Settles the newest of a name under a promise above what `before` found, and
    /// says whether that was written as `version`. `None` if others came in between.
    async fn settle_promised(
        &self,
        name: &ObjectName,
        before: &Located,
        version: Version,
    ) -> Result<Option<bool>, ObjectError> {
        let ballot = self.next_version(before);
        let promised = self.locator.promise(name, ballot).await?;
        let is_it = promised.newest().is_some_and(|newest| newest.stat.written_as() == version);
        Ok(self.stand(name, ballot, &promised).await?.map(|_| is_it))
    }

    /// Why nothing can be proven now.
    pub(super) fn no_quorum(&self, located: &Located) -> ObjectError {
        if located.unheard.is_empty() && located.answered.is_empty() {
            return ObjectError::NoDataServers;
        }
        ObjectError::NoQuorum { silent: located.unheard.clone() }
    }
}
