//! Members that come and go, and other numbers of copies.

use holdfast_core::policy::{Policy, Wanted};

use crate::history::Ask;
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
