//! How many copies of each object there are, and how many of them answer for
//! it.

use serde::{Deserialize, Serialize};

/// Most copies of one object.
pub const MAX_REPLICAS: u32 = 5;

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
    /// version. A locate is complete when fewer than this are unheard.
    pub read_quorum: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self::settled(0, 1)
    }
}

/// ⌊R/2⌋ + 1: the least number of copies that is more than half of them.
#[must_use]
pub fn write_quorum_of(replicas: u32) -> u32 {
    replicas / 2 + 1
}

impl Policy {
    /// The numbers for `replicas` copies once all older objects have them.
    #[must_use]
    pub fn settled(epoch: u32, replicas: u32) -> Self {
        let replicas = replicas.clamp(1, MAX_REPLICAS);
        let quorum = if replicas == 1 { 1 } else { write_quorum_of(replicas) };
        Self { epoch, replicas, write_quorum: quorum, read_quorum: quorum }
    }

    /// What is below every policy, for messages that say nothing of it.
    #[must_use]
    pub fn unsaid() -> Self {
        Self { epoch: 0, replicas: 0, write_quorum: 0, read_quorum: 0 }
    }

    /// Whether nothing is left to be changed on the way to `replicas`.
    #[must_use]
    pub fn is_settled_at(&self, replicas: u32) -> bool {
        *self == Self::settled(self.epoch, replicas)
    }

    /// The next step on the way to `replicas`, or `None` at its end.
    ///
    /// `repaired` says that a full repair pass, begun after this policy
    /// counted, has found or made [`Self::replicas`] copies of everything.
    #[must_use]
    pub fn next(&self, replicas: u32, repaired: bool) -> Option<PolicyStep> {
        let goal = Self::settled(self.epoch + 1, replicas);
        if self.is_settled_at(replicas) {
            return None;
        }
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
mod tests {
    use super::*;

    /// The steps from one settled policy to another.
    fn way(from: u32, to: u32) -> Vec<(u32, u32, u32)> {
        let mut policy = Policy::settled(7, from);
        let mut steps = Vec::new();
        while let Some(step) = policy.next(to, true) {
            match step {
                PolicyStep::Take(next) => {
                    assert_eq!(next.epoch, policy.epoch + 1);
                    policy = next;
                }
                PolicyStep::Repair => panic!("everything is repaired"),
            }
            steps.push((policy.replicas, policy.write_quorum, policy.read_quorum));
            assert!(steps.len() < 5, "{steps:?}");
        }
        steps
    }

    #[test]
    fn quorums_overlap_by_more_than_half() {
        let quorums: Vec<u32> = (1..=5).map(|r| Policy::settled(0, r).write_quorum).collect();
        assert_eq!(quorums, [1, 2, 2, 3, 3]);
    }

    #[test]
    fn going_up_reads_come_last_and_going_down_first() {
        assert_eq!(way(1, 3), [(3, 2, 1), (3, 2, 2)]);
        assert_eq!(way(3, 1), [(3, 2, 1), (1, 1, 1)]);
        assert_eq!(way(2, 3), [(3, 2, 2)]);
        assert_eq!(way(3, 2), [(2, 2, 2)]);
        assert_eq!(way(3, 5), [(5, 3, 2), (5, 3, 3)]);
        assert!(way(4, 4).is_empty());
    }

    #[test]
    fn reads_wait_for_the_repair() {
        let halfway = Policy { epoch: 1, replicas: 3, write_quorum: 2, read_quorum: 1 };
        assert_eq!(halfway.next(3, false), Some(PolicyStep::Repair));
    }

    /// In every state on every way, what reads count on is no more than what
    /// writes made, before and after each step.
    #[test]
    fn a_read_never_counts_on_more_than_a_write_made() {
        for (from, to) in (1..=5).flat_map(|from| (1..=5).map(move |to| (from, to))) {
            let start = Policy::settled(0, from);
            let mut written = start.write_quorum;
            for (_, write, read) in way(from, to) {
                // Until the end of the way older objects have only what the
                // start made, unless the repair pass came in between.
                let repaired = (write, read) == (write, write) && read > start.read_quorum;
                assert!(read <= if repaired { write } else { written }, "{from} to {to}");
                written = written.min(write).max(read);
            }
        }
    }

    #[test]
    fn a_change_is_noticed_by_every_writer_and_every_reader() {
        for (members, replicas) in (1..=9).flat_map(|n| (1..=5).map(move |r| (n, r))) {
            let policy = Policy::settled(0, replicas);
            let noticed = policy.notice_quorum(members);
            if members >= policy.write_quorum() {
                assert!(noticed + policy.write_quorum() > members, "{members} {replicas}");
                assert!(noticed >= policy.write_quorum());
            }
        }
    }
}
