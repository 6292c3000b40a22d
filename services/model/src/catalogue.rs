//! The models, and what each of them must notice.

use holdfast_core::policy::{Policy, Wanted};

use crate::history::Ask;
use crate::mutation::Mutation;
use crate::setup::Setup;

/// A write and a read of what is there already.
#[must_use]
pub fn writes_and_reads() -> Setup {
    Setup {
        clients: vec![vec![Ask::Put(1)], vec![Ask::Read]],
        initial: vec![0, 1],
        duplicates: true,
        ..Setup::new("writes and reads", 3, 3)
    }
}

/// Two writers and a reader of a key that is not there.
#[must_use]
pub fn two_writers() -> Setup {
    Setup {
        clients: vec![vec![Ask::Put(1)], vec![Ask::Put(2)], vec![Ask::Read]],
        ..Setup::new("two writers and a reader", 3, 3)
    }
}

/// The same with two members, one of which is enough for a locate.
#[must_use]
pub fn two_writers_two_members() -> Setup {
    Setup {
        name: "two writers and two members",
        members: 2,
        policy: Policy::settled(1, 2),
        ..two_writers()
    }
}

/// Deletes of what is there, and a reader.
#[must_use]
pub fn deletes() -> Setup {
    Setup {
        clients: vec![vec![Ask::Delete], vec![Ask::Delete]],
        initial: vec![0, 1, 2],
        ..Setup::new("deletes", 3, 3)
    }
}

/// A member cannot read its copy.
#[must_use]
pub fn damage() -> Setup {
    Setup {
        clients: vec![vec![Ask::Read], vec![Ask::Put(1)]],
        initial: vec![0, 1],
        damaged: Some(0),
        ..Setup::new("a copy that cannot be read", 3, 3)
    }
}

/// A clock that is ahead, and two writers.
#[must_use]
pub fn clocks() -> Setup {
    Setup {
        clients: vec![vec![Ask::Put(1), Ask::Put(2)], vec![Ask::Put(3)]],
        clocks: vec![0, 50, 0],
        ..Setup::new("a clock that is ahead", 3, 3)
    }
}

/// Two clients create the same key.
#[must_use]
pub fn create_twice() -> Setup {
    Setup {
        clients: vec![vec![Ask::Create(1)], vec![Ask::Create(2)]],
        restarts: 1,
        ..Setup::new("create twice", 3, 3)
    }
}

/// One client creates a key while another one writes it; a member restarts.
#[must_use]
pub fn create_and_put() -> Setup {
    Setup {
        clients: vec![vec![Ask::Put(1)], vec![Ask::Create(2)]],
        restarts: 1,
        ..Setup::new("create and put", 3, 3)
    }
}

/// The same with a reader, which writes back what it finds.
#[must_use]
pub fn create_put_read() -> Setup {
    Setup {
        clients: vec![vec![Ask::Put(1)], vec![Ask::Create(2)], vec![Ask::Read]],
        ..Setup::new("create, put and read", 3, 3)
    }
}

/// Two clients replace the same content.
#[must_use]
pub fn replace_twice() -> Setup {
    Setup {
        clients: vec![vec![Ask::Replace(9, 1)], vec![Ask::Replace(9, 2)]],
        initial: vec![0, 1],
        ..Setup::new("replace twice", 3, 3)
    }
}

/// A write arrives late, while time passes and a member restarts.
#[must_use]
pub fn late() -> Setup {
    Setup {
        clients: vec![vec![Ask::Put(1)], vec![Ask::Create(2)]],
        ticks: 5,
        window: 1,
        duplicates: true,
        ..Setup::new("late messages", 3, 3)
    }
}

/// The same with four members, where a member that did not promise may take
/// what is older than the promise.
#[must_use]
pub fn forgetful() -> Setup {
    Setup {
        clients: vec![vec![Ask::Put(1)], vec![Ask::Create(2)]],
        restarts: 1,
        everywhere: true,
        replies_arrive: true,
        ..Setup::new("a member that restarts between a promise and a write", 4, 3)
    }
}

/// A key is deleted while it is created; one of four members need not promise.
#[must_use]
pub fn create_and_delete() -> Setup {
    Setup {
        clients: vec![vec![Ask::Delete], vec![Ask::Create(2)]],
        initial: vec![0, 1, 2],
        everywhere: true,
        replies_arrive: true,
        ..Setup::new("create and delete", 4, 3)
    }
}

/// A promise must outlast whoever acts on a round that did not see what was
/// written under it: a reader here, who found a write that nobody promised to
/// refuse. Too large to be explored; one way through it is gone by a test.
#[must_use]
pub fn promise_lifetime(windows: u64) -> Setup {
    let window = 4;
    Setup {
        clients: vec![vec![Ask::Create(2)], vec![Ask::Read]],
        unacknowledged: Some(0),
        ticks: 4 * window,
        window,
        promise_ticks: Some(windows * window),
        everywhere: true,
        named: true,
        ..Setup::new("how long a promise is kept", 4, 3)
    }
}

/// A copy moves from one member to another while somebody reads.
#[must_use]
pub fn letting_go() -> Setup {
    Setup {
        clients: vec![vec![Ask::Read]],
        initial: vec![0, 1],
        repairers: vec![0, 1],
        homes: vec![vec![1, 2]; 3],
        ticks: 3,
        window: 2,
        ..Setup::new("letting go", 3, 2)
    }
}

/// A copy that is not where it belongs is superseded while somebody reads.
#[must_use]
pub fn superseding() -> Setup {
    Setup {
        clients: vec![vec![Ask::Put(1)], vec![Ask::Read]],
        initial: vec![0, 1],
        repairers: vec![1],
        ticks: 1,
        window: 1,
        replies_arrive: true,
        ..Setup::new("a copy is superseded", 3, 2)
    }
}

/// Two members that do not agree where copies belong let go at once.
#[must_use]
pub fn two_droppers() -> Setup {
    Setup {
        initial: vec![0, 1, 2],
        repairers: vec![0, 1],
        homes: vec![vec![1, 2], vec![0, 2], vec![0, 1]],
        ticks: 3,
        window: 2,
        restarts: 1,
        ..Setup::new("two that let go", 3, 2)
    }
}

/// A newcomer joins while somebody writes and somebody reads.
#[must_use]
pub fn join() -> Setup {
    Setup {
        clients: vec![vec![Ask::Put(1)], vec![Ask::Read]],
        joins: true,
        ..Setup::new("a join", 2, 2)
    }
}

/// A member drains and retires.
#[must_use]
pub fn drain() -> Setup {
    Setup {
        clients: vec![vec![Ask::Put(1)]],
        initial: vec![0, 1],
        repairers: vec![0, 1],
        drains: Some((0, false)),
        ticks: 1,
        window: 1,
        ..Setup::new("a drain", 3, 2)
    }
}

/// A member is lost, and retired by the others.
#[must_use]
pub fn lost() -> Setup {
    Setup {
        clients: vec![vec![Ask::Put(1)]],
        initial: vec![0, 1],
        repairers: vec![1, 2],
        drains: Some((0, true)),
        ..Setup::new("a lost member", 3, 2)
    }
}

/// A member is lost and retired while somebody reads.
#[must_use]
pub fn lost_read() -> Setup {
    Setup { clients: vec![vec![Ask::Read]], name: "a lost member and a reader", ..lost() }
}

/// A member drains and retires while somebody reads.
#[must_use]
pub fn drain_read() -> Setup {
    Setup { clients: vec![vec![Ask::Read]], name: "a drain and a reader", ..drain() }
}

/// One copy of everything becomes two.
#[must_use]
pub fn raise() -> Setup {
    Setup {
        clients: vec![vec![Ask::Put(1)], vec![Ask::Read]],
        goal: Some(Wanted::copies(2)),
        repairers: vec![0, 1],
        ..Setup::new("from one copy to two", 2, 1)
    }
}

/// Three copies, all of which a write makes before it is acknowledged.
fn all_of_three() -> Wanted {
    Wanted::new(3, Some(3)).expect("W is R")
}

/// A write and a read, where every copy is made first, so that one member is
/// enough for a read.
#[must_use]
pub fn every_copy_first() -> Setup {
    Setup {
        name: "every copy first",
        policy: Policy::settled_at(1, all_of_three()),
        initial: vec![0, 1, 2],
        ..writes_and_reads()
    }
}

/// Two conditional writes, where every copy is made first.
#[must_use]
pub fn create_twice_every_copy_first() -> Setup {
    Setup {
        name: "create twice, every copy first",
        policy: Policy::settled_at(1, all_of_three()),
        ..create_twice()
    }
}

/// Two of three copies in each write become all three, while somebody writes.
#[must_use]
pub fn raise_quorum() -> Setup {
    Setup {
        clients: vec![vec![Ask::Put(1)]],
        initial: vec![0, 1],
        goal: Some(all_of_three()),
        repairers: vec![0, 1, 2],
        ..Setup::new("from two of three copies to all", 3, 3)
    }
}

/// The same while somebody reads, and a write that was never answered is on one
/// member. Reads and writes together are too much to be visited whole.
#[must_use]
pub fn raise_quorum_read() -> Setup {
    Setup {
        name: "from two of three copies to all, and a reader",
        clients: vec![vec![Ask::Read]],
        unacknowledged: Some(2),
        ..raise_quorum()
    }
}

/// The other way round.
#[must_use]
pub fn lower_quorum() -> Setup {
    Setup {
        name: "from all of three copies to two",
        policy: Policy::settled_at(1, all_of_three()),
        initial: vec![0, 1, 2],
        goal: Some(Wanted::copies(3)),
        repairers: Vec::new(),
        ..raise_quorum()
    }
}

/// Three members that do not agree where copies belong let go, each relying on
/// the next ones.
#[must_use]
pub fn three_droppers() -> Setup {
    Setup {
        initial: vec![0, 1, 2, 3],
        repairers: vec![0, 1, 2],
        homes: vec![vec![1, 2], vec![2, 3], vec![3, 0], vec![0, 1]],
        ticks: 3,
        window: 1,
        ..Setup::new("three that let go", 4, 2)
    }
}

/// A tombstone that all members have, but for one that slept through the delete
/// and has the object, while somebody writes.
#[must_use]
pub fn collecting() -> Setup {
    Setup {
        clients: vec![vec![Ask::Put(1)]],
        initial: vec![0],
        tombstones: vec![1, 2],
        repairers: vec![1],
        homes: vec![vec![1, 2, 0]; 3],
        ..Setup::new("a tombstone is collected", 3, 3)
    }
}

/// The same with a reader.
#[must_use]
pub fn collecting_read() -> Setup {
    Setup {
        clients: vec![vec![Ask::Put(1)], vec![Ask::Read]],
        name: "a tombstone is collected, with a reader",
        ..collecting()
    }
}

/// A delete that was never answered reached one member, long ago; it is brought
/// to the others while a write is under way that was located without it.
#[must_use]
pub fn collecting_late() -> Setup {
    Setup {
        clients: vec![vec![Ask::Put(1)]],
        initial: vec![0, 1],
        tombstones: vec![2],
        repairers: vec![2],
        homes: vec![vec![2, 0, 1]; 3],
        restarts: 1,
        replies_arrive: true,
        ..Setup::new("a tombstone that nobody knew of", 3, 3)
    }
}

/// The same with a reader.
#[must_use]
pub fn collecting_late_read() -> Setup {
    Setup {
        clients: vec![vec![Ask::Put(1)], vec![Ask::Read]],
        name: "a tombstone that nobody knew of, with a reader",
        restarts: 0,
        ..collecting_late()
    }
}

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
        create_and_delete(),
        forgetful(),
        letting_go(),
        superseding(),
        two_droppers(),
        join(),
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
    ]
}

/// Larger ones.
#[must_use]
pub fn deep() -> Vec<Setup> {
    vec![
        clocks(),
        create_put_read(),
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
        collecting_read().with(Mutation::CollectUnasked),
        collecting_late_read().with(Mutation::CollectWithoutBar),
    ]
}

/// Those that take longer to notice.
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
        lost().with(Mutation::DrainUnnoticed),
        raise().with(Mutation::NoticeByNewPolicy),
        collecting_late().with(Mutation::CollectInOneRound),
        collecting_late().with(Mutation::AgreeToAnything),
        collecting_late().with(Mutation::CollectWithoutFloor),
    ]
}
