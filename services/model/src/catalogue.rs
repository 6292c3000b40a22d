//! The models, and what each of them must notice.
//!
//! | room | models of |
//! |---|---|
//! | `clients` | writes, reads, deletes and conditions |
//! | `copies` | letting go, forgetting, collecting |
//! | `rosters` | joins, drains, lost members, other numbers of copies |

mod clients;
mod copies;
mod rosters;

pub use clients::*;
pub use copies::*;
pub use rosters::*;

use crate::mutation::Mutation;
use crate::setup::Setup;

/// Every model that is explored in each run of the tests.
#[must_use]
pub fn models() -> Vec<Setup> {
    vec![
        writes_and_reads(),
        two_writers(),
        two_writers_two_members(),
        deletes(),
        damage(),
        create_twice(),
        create_and_put(),
        replace_twice(),
        create_and_find_out(),
        create_and_delete(),
        forgetful(),
        forgotten_promise(),
        letting_go(),
        superseding(),
        two_droppers(),
        join(),
        drain_empty(),
        lost(),
        lost_read(),
        raise(),
        every_copy_first(),
        create_twice_every_copy_first(),
        raise_quorum(),
        raise_quorum_read(),
        lower_quorum(),
        collecting(),
        collecting_late(),
        electorate_comes(),
        electorate_comes_read(),
        electorate_comes_astray(),
        electorate_goes(),
        electorate_goes_create(),
        voters_read(),
    ]
}

/// Larger ones.
#[must_use]
pub fn deep() -> Vec<Setup> {
    vec![
        clocks(),
        find_out(),
        create_put_read(),
        forgotten_promise_read_twice(),
        late(),
        drain(),
        drain_read(),
        three_droppers(),
        collecting_read(),
        collecting_late_read(),
        Setup { replies_arrive: false, ..forgetful() },
    ]
}

/// Each rule that can be broken, with a model that must notice.
#[must_use]
pub fn mutants() -> Vec<Setup> {
    vec![
        writes_and_reads().with(Mutation::AcknowledgeEarly),
        writes_and_reads().with(Mutation::AbsentWhenIncomplete),
        writes_and_reads().with(Mutation::NoWriteBack),
        Setup { replies_arrive: true, ..two_writers_two_members() }.with(Mutation::RetryUnknown),
        deletes().with(Mutation::TrustLoneTombstone),
        damage().with(Mutation::UnreadableIsAbsent),
        create_twice().with(Mutation::CountSuperseded),
        create_twice().with(Mutation::NoPromise),
        forgotten_promise_read_twice().with(Mutation::ForgetPromised),
        create_and_find_out().with(Mutation::SettleBelowBallot),
        forgotten_promise().with(Mutation::WriteBackIgnoresPromises),
        create_and_put().with(Mutation::AcceptOldStamp),
        forgetful().with(Mutation::DropFloor),
        create_and_delete().with(Mutation::JudgeAboveBallot),
        letting_go().with(Mutation::DropAtOnce),
        superseding().with(Mutation::ForgetAtOnce),
        letting_go().with(Mutation::AnswerOldQuestion),
        letting_go().with(Mutation::AskAgainInTheRound),
        two_droppers().with(Mutation::PinWhileLettingGo),
        join().with(Mutation::IgnoreDigest),
        join().with(Mutation::NoAdmission),
        drain_empty().with(Mutation::RetireAtOnceAndCount),
        lost().with(Mutation::CountDraining),
        lost().with(Mutation::ReviveRetired),
        lost().with(Mutation::RetireWithoutPass),
        lost_read().with(Mutation::JudgeByLastRoster),
        raise().with(Mutation::JudgeByLastRoster),
        raise().with(Mutation::ReadQuorumBeforePass),
        raise().with(Mutation::SettleByReadQuorum),
        every_copy_first().with(Mutation::AcknowledgeEarly),
        raise_quorum().with(Mutation::ReadQuorumBeforePass),
        raise_quorum_read().with(Mutation::NoWriteBack),
        lower_quorum().with(Mutation::WriteQuorumDownFirst),
        electorate_comes().with(Mutation::CountAnybody),
        voters_read().with(Mutation::SettleOnAnybody),
        voters_read().with(Mutation::CountAnybody),
        electorate_comes().with(Mutation::ReadVotersAtOnce),
        electorate_comes().with(Mutation::PassOnAnybody),
        electorate_comes_read().with(Mutation::JudgeByLastRoster),
        electorate_comes_astray().with(Mutation::RelyOnAnybody),
        electorate_goes().with(Mutation::CountAnybody),
        electorate_goes().with(Mutation::FallUnnoticed),
        electorate_goes().with(Mutation::IgnoreDigest),
        Setup { ticks: 0, ..electorate_goes_create() }.with(Mutation::FallAtOnce),
        collecting_read().with(Mutation::CollectUnasked),
        collecting_late_read().with(Mutation::CollectWithoutBar),
    ]
}

/// The same in larger models, which take longer to notice.
#[must_use]
pub fn deep_mutants() -> Vec<Setup> {
    vec![
        create_put_read().with(Mutation::WriteBackIgnoresPromises),
        late().with(Mutation::AcceptOldStamp),
        drain_read().with(Mutation::JudgeByLastRoster),
    ]
}

/// Rules that can be broken without any of these models noticing: another rule
/// sees to the same.
#[must_use]
pub fn doubly_guarded() -> Vec<Setup> {
    vec![
        two_droppers().with(Mutation::NoPins),
        two_droppers().with(Mutation::LetGoWhenYoung),
        create_and_put().with(Mutation::WriteBelowEarlierRuns),
        drain_empty().with(Mutation::RetireAtOnce),
        lost().with(Mutation::DrainUnnoticed),
        raise().with(Mutation::NoticeByNewPolicy),
        electorate_comes_astray().with(Mutation::RiseAtOnce),
        collecting_late().with(Mutation::CollectInOneRound),
        collecting_late().with(Mutation::AgreeToAnything),
        collecting_late().with(Mutation::CollectWithoutFloor),
    ]
}
