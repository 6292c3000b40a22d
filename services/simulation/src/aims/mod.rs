//! Runs that are about one thing: an interleaving that chance alone would take
//! thousands of runs to bring about is made on purpose, again and again, with
//! its moments drawn from the seed.

mod between;
mod deaf;
mod deletes;
mod drains;
mod forgetful;
mod full;
mod join;
mod late;
mod lonely;
mod lost;
mod moves;
mod stage;
mod unanswered;
mod voters;
mod writers;

use std::sync::Arc;

use crate::cluster::Cluster;
use crate::load::Load;
use crate::plan::Plan;
use stage::Stage;

/// What a run is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// Apis die in the middle of writes, and others read what they left.
    WritersDie,
    /// Writes arrive long after they were located.
    LateWrites,
    /// Members forget what they promised, while clocks go back.
    ForgottenPromises,
    /// A member joins while an api stands still.
    UnheardJoin,
    /// Copies move while somebody asks here early and there late.
    MovingCopies,
    /// Members are drained and taken back, one after the other.
    DrainsToAndFro,
    /// A version is on one member alone, for long.
    LonelyVersions,
    /// A member is lost, and two others cannot copy to each other.
    LostMember,
    /// Deletes come between a promise and what is judged by it.
    DeletesBetween,
    /// Some know only that voters answer for names, others that they do not any
    /// more.
    FallingVoters,
    /// Members that run do not hear each other.
    DeafMembers,
    /// Writes that nobody answered, judged without each other.
    UnansweredWrites,
    /// Whoever has a tombstone loses its disk.
    LostTombstones,
    /// A member drains while the disk of another one is full.
    FullDisk,
}

impl Aim {
    /// Every aim.
    pub const ALL: [Self; 14] = [
        Self::WritersDie,
        Self::LateWrites,
        Self::ForgottenPromises,
        Self::UnheardJoin,
        Self::MovingCopies,
        Self::DrainsToAndFro,
        Self::LonelyVersions,
        Self::LostMember,
        Self::DeletesBetween,
        Self::FallingVoters,
        Self::DeafMembers,
        Self::UnansweredWrites,
        Self::LostTombstones,
        Self::FullDisk,
    ];

    /// What the run of a seed is about; every second one is about nothing but
    /// chance.
    #[must_use]
    pub fn of(seed: u64) -> Option<Self> {
        let aimed = seed.is_multiple_of(2).then_some(seed / 2)?;
        let place = usize::try_from(aimed % Self::ALL.len() as u64).unwrap_or(0);
        Self::ALL.get(place).copied()
    }

    /// Its name on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WritersDie => "writers-die",
            Self::LateWrites => "late-writes",
            Self::ForgottenPromises => "forgotten-promises",
            Self::UnheardJoin => "unheard-join",
            Self::MovingCopies => "moving-copies",
            Self::DrainsToAndFro => "drains-to-and-fro",
            Self::LonelyVersions => "lonely-versions",
            Self::LostMember => "lost-member",
            Self::DeletesBetween => "deletes-between",
            Self::FallingVoters => "falling-voters",
            Self::DeafMembers => "deaf-members",
            Self::UnansweredWrites => "unanswered-writes",
            Self::LostTombstones => "lost-tombstones",
            Self::FullDisk => "full-disk",
        }
    }

    /// Makes it happen. What is broken is mended in the end, but for processes
    /// that do not run.
    pub async fn play(
        self,
        plan: &Plan,
        cluster: &mut Cluster,
        load: &Arc<Load>,
        violations: &mut Vec<String>,
    ) {
        let mut stage = Stage::new(plan, cluster, load, violations);
        match self {
            Self::WritersDie => writers::play(&mut stage).await,
            Self::LateWrites => late::play(&mut stage).await,
            Self::ForgottenPromises => forgetful::play(&mut stage).await,
            Self::UnheardJoin => join::play(&mut stage).await,
            Self::MovingCopies => moves::play(&mut stage).await,
            Self::DrainsToAndFro => drains::play(&mut stage).await,
            Self::LonelyVersions => lonely::play(&mut stage).await,
            Self::LostMember => lost::play(&mut stage).await,
            Self::DeletesBetween => between::play(&mut stage).await,
            Self::FallingVoters => voters::play(&mut stage).await,
            Self::DeafMembers => deaf::play(&mut stage).await,
            Self::UnansweredWrites => unanswered::play(&mut stage).await,
            Self::LostTombstones => deletes::play(&mut stage).await,
            Self::FullDisk => full::play(&mut stage).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_aim_has_its_seeds_and_chance_has_as_many() {
        let all = Aim::ALL.len();
        let aims: Vec<Option<Aim>> = (0..2 * all as u64).map(Aim::of).collect();
        assert!(Aim::ALL.iter().all(|aim| aims.contains(&Some(*aim))));
        assert_eq!(aims.iter().filter(|aim| aim.is_none()).count(), all);
    }
}
