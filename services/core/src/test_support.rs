//! What tests of several modules begin with.

use crate::membership::{Hearing, Member};
use crate::node::{Generation, NodeId};
use crate::roster::MemberState;
use crate::wire::heartbeat::RepairReport;

/// The id with these bits.
pub(crate) fn id(bits: u128) -> NodeId {
    NodeId::from_bits(bits)
}

/// A member of the roster in its first run, without room and of weight 1.
pub(crate) fn member(bits: u128, state: MemberState, hearing: Hearing) -> Member {
    Member {
        id: id(bits),
        address: format!("ds-{bits}:80").parse().expect("an address"),
        generation: Generation(1),
        state,
        in_roster: true,
        hearing,
        last_heard: None,
        awaited_since: None,
        free_bytes: 0,
        total_bytes: 0,
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
