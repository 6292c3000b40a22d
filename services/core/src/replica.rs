//! What one member decides about one name: whether it takes a version, what it
//! promises, and what it must not let go of.
//!
//! | type | remembers |
//! |---|---|
//! | [`Promises`] | below which version nothing is taken any more |
//! | [`Pins`] | which copies others rely on |
//!
//! Both are kept in memory. A restart forgets them, and that is safe: a write
//! that was located before the restart carries a stamp of another run and is
//! refused; one that is located afterwards is told a floor at or above every
//! promise of before; what was found, and may be below one of them, is not
//! taken unless it is settled; and a member that has just started lets nothing
//! go until every pin of its earlier run would have ended.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::membership::Moment;
use crate::name::ObjectName;
use crate::node::{Generation, NodeId};
use crate::object::Stat;
use crate::placement::name_hash;
use crate::version::Version;

/// How a version that is offered compares with what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It is newer: take it.
    Newer,
    /// It is there already.
    Same,
    /// Something newer is there.
    Older,
    /// This very version is there with another content: a fault, take nothing.
    Conflict,
}

/// Put-if-newer. Metadata is not compared: a retry of a write may carry another
/// wall clock, and the bytes are what two replicas must agree on.
#[must_use]
pub fn compare_offer(held: Option<&Stat>, offered: &Stat) -> Offer {
    let Some(held) = held else { return Offer::Newer };
    let content = |stat: &Stat| (stat.kind, stat.size_bytes, stat.digest);
    match offered.version.cmp(&held.version) {
        std::cmp::Ordering::Greater => Offer::Newer,
        std::cmp::Ordering::Less => Offer::Older,
        std::cmp::Ordering::Equal if content(held) == content(offered) => Offer::Same,
        std::cmp::Ordering::Equal => Offer::Conflict,
    }
}

/// How a version comes to be offered to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Offered {
    /// By its writer, for the first time. It goes above every floor of which the
    /// writer was told, and so above what earlier runs of this member promised; if
    /// not, the writer was told nothing of this run.
    #[default]
    Written,
    /// It was found, on fewer members than
    /// [`crate::locate::Located::is_accepted`] asks for: somebody who was promised
    /// something above it may have missed it.
    Found,
    /// It was found, and nobody can have missed it.
    Settled,
}

/// A promise stands in the way of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PromisedAbove {
    /// It is remembered.
    #[error("version {ballot} of this object was promised: nothing older is taken")]
    Kept {
        /// What was promised.
        ballot: Version,
    },
    /// It may have been one of those that are remembered no more.
    #[error(
        "version {ballot} may have been promised for this object: what is older and not known to \
         be settled is taken under a promise above that only"
    )]
    Forgotten {
        /// The highest version that may have been promised.
        ballot: Version,
    },
}

/// Why a promise was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPromise {
    /// Something at or above that version is there, or was promised.
    #[error("version {newest} is there or promised already")]
    Outranked {
        /// What it is.
        newest: Version,
    },
    /// As many promises as are remembered have been given.
    #[error("too many promises are remembered")]
    Full,
}

/// Most names with a promise at a time: each is short-lived.
pub const MAX_PROMISES: usize = 16_384;

/// For how many windows a promise or a pin is kept.
///
/// Who gave a promise `b` must refuse older versions until nobody can still act
/// on a locate that did not see `b`. The conditional write's own commits end one
/// window after its locate, whose answers lie within one window; a write-back
/// acts on a locate of the same spread and is good for one window more. A pin
/// must outlast letting go, which takes less than three.
pub(crate) const LIFETIME_WINDOWS: u32 = 4;

/// Below which version nothing is taken any more, name by name.
///
/// What was promised and is remembered no more goes on to bar what is not known
/// to be settled: a conditional write may have been judged without it, and be on
/// a member that nobody has heard since. That is kept for names together, in
/// [`GROUPS`] groups, and for all of them of what earlier runs have promised. What
/// was written here under a promise bars by itself, and is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Promises {
    lifetime: Duration,
    given: BTreeMap<ObjectName, Given>,
    forgotten: BTreeMap<u64, Version>,
    by_earlier_runs: Option<Version>,
}

/// Groups of names for which promises are kept together once they are forgotten.
pub const GROUPS: u64 = 4_096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Given {
    ballot: Version,
    since: Moment,
    /// Whether what was promised may still come: nothing else hangs on it but
    /// whether others are kept waiting a little.
    is_awaited: bool,
    /// Whether it was promised to somebody. What bars older versions because a
    /// tombstone is to be forgotten need not outlast its time: there is nothing
    /// older anywhere.
    is_promise: bool,
}

impl Promises {
    /// No promises yet, in a run before which nothing above `by_earlier_runs` was
    /// promised, for whichever name.
    #[must_use]
    pub fn new(window: Duration, by_earlier_runs: Option<Version>) -> Self {
        Self {
            lifetime: window * LIFETIME_WINDOWS,
            given: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            by_earlier_runs,
        }
    }

    /// Takes others' promises for its own: what others promised, up to
    /// `version`, while they did not know of this member, it bars as if earlier runs of
    /// its own had promised it.
    pub fn inherit(&mut self, version: Version) {
        self.by_earlier_runs = self.by_earlier_runs.max(Some(version));
    }

    /// Promises to take nothing below `ballot` for `name`, where `held` is what
    /// is there. The same ballot may be promised again.
    ///
    /// The caller must look up `held`, and call this, while no write for that
    /// name can come in between; and must have raised its floor first.
    ///
    /// # Errors
    /// [`NoPromise`]; nothing was promised then.
    pub fn promise(
        &mut self,
        name: &ObjectName,
        ballot: Version,
        held: Option<Version>,
        now: Moment,
    ) -> Result<(), NoPromise> {
        let given = self.get(name, now);
        // Of a promise only a higher one outranks; of a version, the same too.
        if let Some(newest) = given.filter(|given| *given > ballot) {
            return Err(NoPromise::Outranked { newest });
        }
        if let Some(newest) = held.filter(|held| *held >= ballot) {
            return Err(NoPromise::Outranked { newest });
        }
        // What it may have promised and remembers no more may be written by now, where
        // whoever asks for less does not see it.
        let may_have = self.may_have_promised(name).max(self.by_earlier_runs);
        if let Some(newest) = may_have.filter(|may_have| *may_have > ballot) {
            return Err(NoPromise::Outranked { newest });
        }
        if self.given.len() >= MAX_PROMISES && !self.given.contains_key(name) {
            self.expire(now);
            if self.given.len() >= MAX_PROMISES {
                return Err(NoPromise::Full);
            }
        }
        self.insert(name, Given { ballot, since: now, is_awaited: true, is_promise: true });
        Ok(())
    }

    /// Takes nothing below `version` for `name` from now on, whatever was promised
    /// before: a tombstone of this version is about to be forgotten. The caller
    /// must have raised its floor, and nothing older may be here.
    ///
    /// # Errors
    /// [`NoPromise::Full`].
    pub fn bar(
        &mut self,
        name: &ObjectName,
        version: Version,
        now: Moment,
    ) -> Result<(), NoPromise> {
        let given = self.get(name, now);
        if self.given.len() >= MAX_PROMISES && !self.given.contains_key(name) {
            self.expire(now);
            if self.given.len() >= MAX_PROMISES {
                return Err(NoPromise::Full);
            }
        }
        // A promise of something newer bars this too, and lasts longer for it.
        let is_promise = given.is_some_and(|given| given > version);
        let ballot = given.map_or(version, |given| given.max(version));
        self.insert(name, Given { ballot, since: now, is_awaited: false, is_promise });
        Ok(())
    }

    /// Whether everything below `version` is barred for `name`.
    #[must_use]
    pub fn bars(&self, name: &ObjectName, version: Version, now: Moment) -> bool {
        self.get(name, now).is_some_and(|given| given >= version)
    }

    /// Whether `version` may be taken.
    ///
    /// # Errors
    /// [`PromisedAbove`]; it must not be taken then, by whatever way it came.
    pub fn check(
        &self,
        name: &ObjectName,
        version: Version,
        offered: Offered,
        now: Moment,
    ) -> Result<(), PromisedAbove> {
        if let Some(ballot) = self.get(name, now).filter(|given| *given > version) {
            return Err(PromisedAbove::Kept { ballot });
        }
        // What is settled, or written, under a promise of this very name goes on when
        // others end.
        let is_of = |ballot: Version| ballot == version || ballot.right_above() == version;
        let is_promised = self.given.get(name).is_some_and(|given| is_of(given.ballot));
        let forgotten = self.may_have_promised(name).filter(|_| !is_promised);
        let promised = match offered {
            Offered::Settled => None,
            // The version of a conditional write may be older than the answers that
            // it is sent on: this member may have refused to promise it.
            Offered::Written | Offered::Found => forgotten.max(self.by_earlier_runs),
        };
        match promised.filter(|ballot| *ballot > version) {
            Some(ballot) => Err(PromisedAbove::Forgotten { ballot }),
            None => Ok(()),
        }
    }

    /// The highest version that this run has promised, or may have promised, for
    /// `name`, if that was not written here.
    #[must_use]
    pub fn may_have_promised(&self, name: &ObjectName) -> Option<Version> {
        if self.given.is_empty() && self.forgotten.is_empty() {
            return None;
        }
        let given = self.given.get(name).filter(|given| given.is_promise);
        given.map(|given| given.ballot).max(self.forgotten.get(&group(name)).copied())
    }

    /// The highest version that earlier runs may have promised, for whichever name.
    #[must_use]
    pub fn by_earlier_runs(&self) -> Option<Version> {
        self.by_earlier_runs
    }

    /// Whether something above `version` was promised for `name`: then
    /// "superseded" is no acknowledgement.
    #[must_use]
    pub fn is_above(&self, name: &ObjectName, version: Version, now: Moment) -> bool {
        self.get(name, now).is_some_and(|given| given > version)
    }

    /// Whether another writer than that of `ballot` was promised something older
    /// less than `patience` ago, and has not written it yet. Who promises
    /// `ballot` then takes that write no more: it is better to wait a little.
    #[must_use]
    pub fn is_awaited(
        &self,
        name: &ObjectName,
        ballot: Version,
        patience: Duration,
        now: Moment,
    ) -> bool {
        self.given.get(name).is_some_and(|given| {
            let is_of_another = given.ballot.writer() != ballot.writer();
            let is_young = now.saturating_sub(given.since) < patience;
            given.is_awaited && given.ballot < ballot && is_of_another && is_young
        })
    }

    /// This version has come: nobody need wait for the write that it was promised
    /// to, and what is below it is barred by what is here.
    pub fn came(&mut self, name: &ObjectName, version: Version) {
        let is_of =
            |given: &Given| given.ballot == version || given.ballot.right_above() == version;
        if let Some(given) = self.given.get_mut(name).filter(|given| is_of(given)) {
            (given.is_awaited, given.is_promise) = (false, false);
        }
    }

    /// Promises that are remembered.
    #[must_use]
    pub fn count(&self) -> usize {
        self.given.len()
    }

    /// Forgets promises that nobody can need any more. Looks at all of them.
    pub fn expire(&mut self, now: Moment) {
        let (lifetime, forgotten) = (self.lifetime, &mut self.forgotten);
        self.given.retain(|name, given| {
            let lasts = now.saturating_sub(given.since) < lifetime;
            if !lasts && given.is_promise {
                let kept = forgotten.entry(group(name)).or_insert(given.ballot);
                *kept = (*kept).max(given.ballot);
            }
            lasts
        });
    }

    fn insert(&mut self, name: &ObjectName, given: Given) {
        let before = self.given.insert(name.clone(), given).filter(|before| before.is_promise);
        // One that had ended may have been above, and what bars does not promise.
        let is_kept = |ballot: &Version| given.is_promise && *ballot <= given.ballot;
        let replaced = before.map(|before| before.ballot).filter(|ballot| !is_kept(ballot));
        if let Some(ballot) = replaced {
            let kept = self.forgotten.entry(group(name)).or_insert(ballot);
            *kept = (*kept).max(ballot);
        }
    }

    fn get(&self, name: &ObjectName, now: Moment) -> Option<Version> {
        let Given { ballot, since, .. } = self.given.get(name)?;
        (now.saturating_sub(*since) < self.lifetime).then_some(*ballot)
    }
}

fn group(name: &ObjectName) -> u64 {
    name_hash(name) % GROUPS
}

/// Why a copy was not pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPin {
    /// The version, or a newer one, is not here, or cannot be read.
    #[error("this version is not here")]
    NotHeld,
    /// This member is letting go of it itself.
    #[error("this data server is letting go of it itself")]
    LettingGo,
    /// As many pins as are remembered have been given.
    #[error("too many pins are remembered")]
    Full,
}

/// Why a copy must stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MustStay {
    /// Another member relies on it.
    #[error("another data server relies on this copy")]
    Pinned,
    /// This run is too young to know what others rely on.
    #[error("this data server has just started and does not know who relies on its copies")]
    JustStarted,
    /// As many copies as are remembered are being let go of.
    #[error("too many copies are being let go of")]
    Busy,
}

/// Most names with a pin, and most that are being let go of.
pub const MAX_PINS: usize = 65_536;

/// Which copies others rely on, and which ones this member is letting go of.
///
/// A member that lets go of a copy asks R others to pin theirs, waits for the
/// window, asks again, and drops. Whoever gave a pin keeps the copy; whoever is
/// letting go gives none. So of two members neither can drop because of the
/// other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pins {
    window: Duration,
    started: Moment,
    pinned: BTreeMap<ObjectName, BTreeMap<(NodeId, Generation), Moment>>,
    letting_go: BTreeMap<ObjectName, Moment>,
}

impl Pins {
    /// No pins yet, in a run that began at `now`.
    #[must_use]
    pub fn new(window: Duration, now: Moment) -> Self {
        Self { window, started: now, pinned: BTreeMap::new(), letting_go: BTreeMap::new() }
    }

    /// How long a pin lasts after it was last asked for. Longer than letting go
    /// may take, see [`Self::may_drop`].
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.window * LIFETIME_WINDOWS
    }

    /// Pins what is here for `asker`, which lets go of `version`.
    ///
    /// # Errors
    /// [`NoPin`]; the asker must not rely on this copy.
    pub fn pin(
        &mut self,
        name: &ObjectName,
        version: Version,
        held: Option<Version>,
        asker: (NodeId, Generation),
        now: Moment,
    ) -> Result<(), NoPin> {
        if held.is_none_or(|held| held < version) {
            return Err(NoPin::NotHeld);
        }
        if self.letting_go.contains_key(name) {
            return Err(NoPin::LettingGo);
        }
        if self.pinned.len() >= MAX_PINS && !self.pinned.contains_key(name) {
            self.expire(now);
            if self.pinned.len() >= MAX_PINS {
                return Err(NoPin::Full);
            }
        }
        self.pinned.entry(name.clone()).or_default().insert(asker, now);
        Ok(())
    }

    /// Begins to let go of a copy: from now on no pins are given for it.
    ///
    /// # Errors
    /// [`MustStay`].
    pub fn begin(&mut self, name: &ObjectName, now: Moment) -> Result<(), MustStay> {
        if now.saturating_sub(self.started) < self.lifetime() {
            return Err(MustStay::JustStarted);
        }
        if self.is_pinned(name, now) {
            return Err(MustStay::Pinned);
        }
        if self.letting_go.len() >= MAX_PINS {
            return Err(MustStay::Busy);
        }
        self.letting_go.insert(name.clone(), now);
        Ok(())
    }

    /// Whether a copy that this member began to let go of at [`Self::begin`] may
    /// be dropped at `now`. `confirmed_at` is when the second round of pins was
    /// asked for; all of them must have been given.
    #[must_use]
    pub fn may_drop(&self, name: &ObjectName, confirmed_at: Moment, now: Moment) -> bool {
        let Some(since) = self.letting_go.get(name) else { return false };
        let waited = confirmed_at.saturating_sub(*since) >= self.window;
        let fresh = now.saturating_sub(confirmed_at) < self.window;
        waited && fresh
    }

    /// Ends letting go, whether the copy was dropped or kept.
    pub fn end(&mut self, name: &ObjectName) {
        self.letting_go.remove(name);
    }

    /// Names that are pinned now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.pinned.len()
    }

    fn is_pinned(&self, name: &ObjectName, now: Moment) -> bool {
        let lifetime = self.lifetime();
        let lasts = |since: &Moment| now.saturating_sub(*since) < lifetime;
        self.pinned.get(name).is_some_and(|askers| askers.values().any(lasts))
    }

    /// Forgets pins that were not asked for again. Looks at all of them.
    pub fn expire(&mut self, now: Moment) {
        let lifetime = self.lifetime();
        self.pinned.retain(|_, askers| {
            askers.retain(|_, since| now.saturating_sub(*since) < lifetime);
            !askers.is_empty()
        });
    }
}

#[cfg(test)]
#[path = "replica_tests.rs"]
mod tests;
