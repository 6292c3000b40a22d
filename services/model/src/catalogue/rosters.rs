//! Members that come and go, and other numbers of copies.

use holdfast_core::electorate::Phase;
use holdfast_core::policy::{Policy, Wanted};

use crate::book::{Book, place};
use crate::history::Ask;
use crate::node::key;
use crate::setup::Setup;

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

/// A member that has nothing drains, so it can retire without handing over.
#[must_use]
pub fn drain_empty() -> Setup {
    Setup {
        name: "a drain of a member without a copy",
        drains: Some((2, false)),
        repairers: vec![2],
        ..drain()
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
pub(super) fn all_of_three() -> Wanted {
    Wanted::new(3, Some(3)).expect("W is R")
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

/// The voters of the key among so many members, with one copy: one. With more the
/// rules are the same and the states too many.
fn voter(members: usize) -> usize {
    let book = Book::active(Policy::settled(1, 1), members, members);
    let voters = book.convene(Phase::Reading).voters(&key());
    place(*voters.first().expect("one of them"))
}

/// An electorate comes, while the only copy is on a member that does not vote.
#[must_use]
pub fn electorate_comes() -> Setup {
    let voter = voter(2);
    Setup {
        clients: vec![vec![Ask::Put(1)]],
        initial: vec![1 - voter],
        electorate: (None, Some(Some(Phase::Reading))),
        phase_ticks: Some(0),
        everywhere: true,
        repairers: vec![0, 1],
        ..Setup::new("an electorate comes", 2, 1)
    }
}

/// The same with a reader, who finds a copy where it does not count.
#[must_use]
pub fn electorate_comes_read() -> Setup {
    Setup {
        name: "an electorate comes, and a reader",
        clients: vec![vec![Ask::Read]],
        ..electorate_comes()
    }
}

/// An electorate comes, while a member that votes takes the other one for the
/// home of its copy.
#[must_use]
pub fn electorate_comes_astray() -> Setup {
    Setup {
        name: "an electorate comes, and members differ about homes",
        clients: vec![vec![Ask::Read]],
        initial: vec![0, 1],
        // Each takes the other one for it.
        homes: vec![vec![1], vec![0]],
        ticks: 1,
        window: 1,
        ..electorate_comes()
    }
}

/// An electorate goes, while somebody writes and somebody reads.
#[must_use]
pub fn electorate_goes() -> Setup {
    Setup {
        name: "an electorate goes",
        clients: vec![vec![Ask::Put(1)], vec![Ask::Read]],
        initial: vec![voter(2)],
        electorate: (Some(Phase::Reading), Some(None)),
        repairers: Vec::new(),
        ..electorate_comes()
    }
}

/// The same with two conditional writes.
#[must_use]
pub fn electorate_goes_create() -> Setup {
    Setup {
        name: "an electorate goes, and one creates, one puts",
        clients: vec![vec![Ask::Create(1)], vec![Ask::Put(2)]],
        initial: Vec::new(),
        ticks: 4,
        window: 1,
        phase_ticks: None,
        replies_arrive: true,
        ..electorate_goes()
    }
}

/// A voter answers for a key whose write was never answered, and reached only
/// the other member.
#[must_use]
pub fn voters_read() -> Setup {
    Setup {
        clients: vec![vec![Ask::Read, Ask::Read], vec![Ask::Put(1)]],
        initial: vec![voter(2)],
        unacknowledged: Some(1 - voter(2)),
        electorate: (Some(Phase::Reading), None),
        everywhere: true,
        ..Setup::new("voters answer", 2, 1)
    }
}
