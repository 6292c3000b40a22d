//! What tests of several modules begin with.

use holdfast_core::membership::{Hearing, Member};
use holdfast_core::node::{Generation, NodeId};
use holdfast_core::roster::MemberState;
use holdfast_core::wire::heartbeat::RepairReport;

/// The id with these bits.
pub(crate) fn id(bits: u128) -> NodeId {
    NodeId::from_bits(bits)
}

/// An active member of the roster in its first run, with a disk of 100 bytes.
pub(crate) fn member(bits: u128, hearing: Hearing, free_bytes: u64) -> Member {
    Member {
        id: id(bits),
        address: format!("ds-{bits}:80").parse().expect("an address"),
        generation: Generation(1),
        state: MemberState::Active,
        in_roster: true,
        hearing,
        last_heard: None,
        awaited_since: None,
        free_bytes,
        total_bytes: 100,
        weight: 1,
        zone: None,
        lost: false,
        epoch: 0,
        founded: true,
        newcomers_seen: 0,
        stamp: None,
        floor: None,
        wanted: None,
        repair: RepairReport::default(),
    }
}
