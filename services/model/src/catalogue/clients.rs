//! Clients that write, read, delete and compare, while members stay what they
//! are.

use holdfast_core::policy::Policy;

use super::rosters::all_of_three;
use crate::history::Ask;
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

/// The same, where a client finds out what became of a write that was not
/// acknowledged.
#[must_use]
pub fn find_out() -> Setup {
    Setup {
        name: "find out what became of it",
        finds_out: true,
        replies_arrive: true,
        ..replace_twice()
    }
}

/// The same with a key that is not there.
#[must_use]
pub fn create_and_find_out() -> Setup {
    Setup {
        name: "create and find out",
        finds_out: true,
        replies_arrive: true,
        restarts: 0,
        ..create_twice()
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

/// A write was never answered, and another one is judged without it by members of
/// which one forgets that it promised; a reader who cannot settle what it found
/// asks for a promise of its own.
#[must_use]
pub fn forgotten_promise() -> Setup {
    Setup {
        clients: vec![vec![Ask::Create(2)], vec![Ask::Read]],
        unacknowledged: Some(0),
        restarts: 1,
        outbids: true,
        replies_arrive: true,
        ..Setup::new("a promise that is forgotten", 3, 3)
    }
}

/// The same with two reads, one after the other.
#[must_use]
pub fn forgotten_promise_read_twice() -> Setup {
    Setup {
        name: "a promise that is forgotten, and two reads",
        clients: vec![vec![Ask::Create(2)], vec![Ask::Read, Ask::Read]],
        outbids: false,
        ..forgotten_promise()
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
