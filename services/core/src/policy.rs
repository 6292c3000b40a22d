//! How many copies of each object there are, and how many of them answer for
//! it.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most copies of one object.
pub const MAX_REPLICAS: u32 = 5;

/// What a data server asks for: how many copies, and how many of them a write
/// makes before it is acknowledged. More than half of R, and no more than R.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wanted {
    replicas: u32,
    write_quorum: u32,
}

/// Why a number of copies, or a write quorum, makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Senseless {
    /// There are not so many copies.
    #[error("{replicas} is not a number of copies from 1 to {MAX_REPLICAS}")]
    Replicas {
        /// How many were asked for.
        replicas: u32,
    },
    /// Half of the copies, or less.
    #[error(
        "{asked} is less than {least}, more than half of {replicas} copies: whatever fewer members \
         have is lost with them, and a lookup would have to hear more of the others"
    )]
    TooFew {
        /// W that was asked for.
        asked: u32,
        /// The least that makes sense.
        least: u32,
        /// R.
        replicas: u32,
    },
    /// More than there are to be.
    #[error(
        "{asked} is more than the number of copies, {replicas}: repair would let go of what reads count on"
    )]
    TooMany {
        /// W that was asked for.
        asked: u32,
        /// R.
        replicas: u32,
    },
}

impl Wanted {
    /// So many copies, acknowledged when more than half are durable, or when
    /// `write_quorum` are.
    ///
    /// # Errors
    /// [`Senseless`].
    pub fn new(replicas: u32, write_quorum: Option<u32>) -> Result<Self, Senseless> {
        if !(1..=MAX_REPLICAS).contains(&replicas) {
            return Err(Senseless::Replicas { replicas });
        }
        let least = write_quorum_of(replicas);
        let asked = write_quorum.unwrap_or(least);
        if asked < least {
            return Err(Senseless::TooFew { asked, least, replicas });
        }
        if asked > replicas {
            return Err(Senseless::TooMany { asked, replicas });
        }
        Ok(Self { replicas, write_quorum: asked })
    }

    /// So many copies, within bounds, acknowledged when more than half are
    /// durable.
    #[must_use]
    pub fn copies(replicas: u32) -> Self {
        let replicas = replicas.clamp(1, MAX_REPLICAS);
        Self { replicas, write_quorum: write_quorum_of(replicas) }
    }

    /// What a data server said. It says 0 for a write quorum if its release
    /// knows of none; what makes no sense is as good as nothing.
    #[must_use]
    pub fn heard(replicas: u32, write_quorum: u32) -> Option<Self> {
        Self::new(replicas, (write_quorum > 0).then_some(write_quorum)).ok()
    }

    /// R.
    #[must_use]
    pub fn replicas(self) -> u32 {
        self.replicas
    }

    /// W.
    #[must_use]
    pub fn write_quorum(self) -> u32 {
        self.write_quorum
    }
}

/// The numbers that every member must agree on, so the roster carries them.
///
/// They are changed one step at a time, each under the next epoch, and the next
/// step begins when the one before it counts. Going up, writes come first, then
/// a full repair, then reads; going down, reads come first. So a read never
/// counts on copies that an older write did not make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Policy {
    /// Counts the changes; the higher one wins a merge.
    pub epoch: u32,
    /// R: how many members placement names for each object.
    pub replicas: u32,
    /// W of writes: how many members must have a version before it is
    /// acknowledged.
    pub write_quorum: u32,
    /// W of reads: how many members are known to have every acknowledged
    /// version. A locate is complete when fewer than this are unheard. 0 after a
    /// member was given up that may have had one of two copies: then all must be
    /// heard, as with one copy, and what is found is not served before.
    pub read_quorum: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self::settled(0, 1)
    }
}

/// ⌊R/2⌋ + 1: the least number of copies that is more than half of them.
fn write_quorum_of(replicas: u32) -> u32 {
    replicas / 2 + 1
}

impl Policy {
    /// The numbers for `replicas` copies once all older objects have them.
    #[must_use]
    pub fn settled(epoch: u32, replicas: u32) -> Self {
        Self::settled_at(epoch, Wanted::copies(replicas))
    }

    /// The numbers that were asked for, once all older objects have as many
    /// copies as reads then count on.
    #[must_use]
    pub fn settled_at(epoch: u32, wanted: Wanted) -> Self {
        let Wanted { replicas, write_quorum } = wanted;
        Self { epoch, replicas, write_quorum, read_quorum: write_quorum }
    }

    /// What is below every policy, for messages that say nothing of it.
    #[must_use]
    pub fn unsaid() -> Self {
        Self { epoch: 0, replicas: 0, write_quorum: 0, read_quorum: 0 }
    }

    /// Whether nothing is left to be changed on the way to what is wanted.
    #[must_use]
    pub fn is_settled_at(&self, wanted: Wanted) -> bool {
        *self == Self::settled_at(self.epoch, wanted)
    }

    /// The next step on the way to what is wanted, or `None` at its end.
    ///
    /// `repaired` says that a full repair pass, begun after this policy
    /// counted, has found or made as many copies of everything as
    /// [`Self::write_quorum`] says.
    #[must_use]
    pub fn next(&self, wanted: Wanted, repaired: bool) -> Option<PolicyStep> {
        if self.is_settled_at(wanted) {
            return None;
        }
        let goal = Self::settled_at(self.epoch.saturating_add(1), wanted);
        // What reads count on goes down first, and up last.
        let read_quorum = self.read_quorum.min(goal.write_quorum);
        if read_quorum < self.read_quorum {
            return Some(PolicyStep::Take(Self { epoch: goal.epoch, read_quorum, ..*self }));
        }
        if (self.replicas, self.write_quorum) != (goal.replicas, goal.write_quorum) {
            return Some(PolicyStep::Take(Self { read_quorum, ..goal }));
        }
        Some(if repaired { PolicyStep::Take(goal) } else { PolicyStep::Repair })
    }

    /// The numbers once a member was given up of which it is not proven that others
    /// have what it had: an acknowledged version may be on one member less than reads
    /// counted on. They rise again when all is repaired. `None` where reads count on
    /// one copy: then nothing but what that member had is in question.
    #[must_use]
    pub fn after_loss(&self) -> Option<Self> {
        let read_quorum = match self.read_quorum {
            0 | 1 => return None,
            2 => 0,
            more => more - 1,
        };
        Some(Self { epoch: self.epoch.saturating_add(1), read_quorum, ..*self })
    }

    /// Whether reads serve what is found although somebody did not say: objects may
    /// have but one copy, and nothing was lost.
    #[must_use]
    pub fn serves_single_copies(&self) -> bool {
        self.read_quorum == 1
    }

    /// W of writes, as a count.
    #[must_use]
    pub fn write_quorum(&self) -> usize {
        as_count(self.write_quorum)
    }

    /// W of reads, as a count.
    #[must_use]
    pub fn read_quorum(&self) -> usize {
        as_count(self.read_quorum)
    }

    /// R, as a count.
    #[must_use]
    pub fn replicas(&self) -> usize {
        as_count(self.replicas)
    }

    /// How many of `members` must have persisted a change that writers must
    /// notice from whichever members they reach: max(W, N − W + 1).
    #[must_use]
    pub fn notice_quorum(&self, members: usize) -> usize {
        let quorum = self.write_quorum();
        quorum.max((members + 1).saturating_sub(quorum)).min(members.max(1))
    }
}

/// What is to be done next about the number of copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyStep {
    /// Make this the policy; the next step waits until it counts.
    Take(Policy),
    /// Repair everything first.
    Repair,
}

fn as_count(number: u32) -> usize {
    usize::try_from(number.max(1)).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
