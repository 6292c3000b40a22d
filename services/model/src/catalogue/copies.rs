//! Members that look after their copies: letting go, forgetting, collecting.

use crate::history::Ask;
use crate::setup::Setup;

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
