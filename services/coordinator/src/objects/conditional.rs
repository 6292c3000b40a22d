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
        if !self.stands(&write.name, ballot, &promised).await? {
            return Ok(Attempt::Again);
        }
        if !condition.holds(&promised) {
            return Err(ObjectError::PreconditionFailed);
        }
        self.commit_if_promised(write, ballot, &promised, deadline).await
    }

    /// Whether the newest that `promised` shows is the newest that there will ever
    /// be below `ballot`, and is settled. False if others came in between.
    ///
    /// # Errors
    /// [`ObjectError::NoQuorum`], [`ObjectError::NoDataServers`].
    async fn stands(
        &self,
        name: &ObjectName,
        ballot: Version,
        promised: &Located,
    ) -> Result<bool, ObjectError> {
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
            return Ok(false);
        }
        if promised.newest().is_some() && !promised.is_certain() {
            let settled = self.write_back(name, promised, Some(ballot)).await;
            if let Err(error) = settled {
                debug!(%name, %error, "what a condition is judged on could not be settled");
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn commit_if_promised(
        &self,
        write: &Write,
        ballot: Version,
        promised: &Located,
        deadline: Duration,
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
            Err(Failure::Unknown) => {
                // Whatever keeps it from being found out.
                let found = self.find_out(&write.name, ballot, deadline).await;
                let written = found.map_err(|_| ObjectError::OutcomeUnknown)?;
                Ok(Attempt::Over(written))
            }
        }
    }

    /// Some may have taken this version, and some had promised more to another
    /// write meanwhile. Whoever finds it brings it to W members. So this asks all
    /// of them, in a round with a promise of its own, settles the newest that they
    /// show, and sees whether that is it.
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
            if newest.is_some_and(|newest| newest.stat.version > version) {
                return Err(ObjectError::OutcomeUnknown);
            }
            if let Some(found) = self.settle_all(name, &before).await? {
                return match happened(version, &found) {
                    true => Ok(Written::Stored(version)),
                    false => Err(ObjectError::OutcomeUnknown),
                };
            }
            if self.runtime.now() >= deadline {
                return Err(ObjectError::OutcomeUnknown);
            }
            self.pause().await;
        }
    }

    /// Settles the newest that any member shows, under a promise above what
    /// `before` found. `None` if others came in between.
    async fn settle_all(
        &self,
        name: &ObjectName,
        before: &Located,
    ) -> Result<Option<Located>, ObjectError> {
        let ballot = self.next_version(before);
        let promised = self.locator.promise_all(name, ballot).await?;
        Ok(self.stands(name, ballot, &promised).await?.then_some(promised))
    }

    /// Why nothing can be proven now.
    pub(super) fn no_quorum(&self, located: &Located) -> ObjectError {
        if located.unheard.is_empty() && located.answered.is_empty() {
            return ObjectError::NoDataServers;
        }
        ObjectError::NoQuorum { silent: located.unheard.clone() }
    }
}

/// Whether `version` is what is there, where `found` has been settled under a
/// promise. Everybody must have been heard: somebody else may have something that
/// is newer, was judged on something older, and is settled by the next who sees
/// it.
fn happened(version: Version, found: &Located) -> bool {
    let newest = found.newest().map(|newest| newest.stat.version);
    found.unheard.is_empty() && newest == Some(version)
}

#[cfg(test)]
mod tests {
    use holdfast_core::locate::Replica;
    use holdfast_core::node::NodeId;
    use holdfast_core::object::{Digest, Metadata, Stat};

    use super::*;

    fn found(newest: Option<u64>, unheard: &[u128]) -> Located {
        let replica = |clock| Replica {
            node: NodeId::from_bits(1),
            address: "ds-1:80".parse().expect("an address"),
            stat: Stat {
                version: Version::from_parts(clock, 1),
                kind: Kind::Object,
                size_bytes: 0,
                digest: Digest(0),
                metadata: Metadata::default(),
            },
        };
        Located {
            replicas: newest.map(replica).into_iter().collect(),
            unheard: unheard.iter().copied().map(NodeId::from_bits).collect(),
            complete: true,
            ..Located::default()
        }
    }

    #[test]
    fn a_write_happened_if_all_say_that_nothing_is_newer() {
        let version = Version::from_parts(5, 1);
        assert!(happened(version, &found(Some(5), &[])));
        assert!(!happened(version, &found(Some(5), &[3])), "it may have something newer");
        assert!(!happened(version, &found(Some(6), &[])), "it was replaced, or never was");
        assert!(!happened(version, &found(Some(4), &[])), "nobody has it now");
        assert!(!happened(version, &found(None, &[])));
    }
}
