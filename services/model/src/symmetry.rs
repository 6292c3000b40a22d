//! States that differ only in the names of the members are one state.
//!
//! Members are sorted by all that is known of each of them. Nothing in a state
//! relates two members to each other, so this gives every state of a class the
//! same form. Should two members that differ hash to the same number, their
//! states are visited twice, no more.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::book::Place;
use crate::client::{Locating, Phase};
use crate::node::Packet;
use crate::world::State;

/// Names the members anew, in the order of what is known of them.
pub(crate) fn sort_members(state: &mut State) {
    let mut order: Vec<Place> = (0..state.nodes.len()).collect();
    let keys: Vec<u64> = order.iter().map(|place| key_of(state, *place)).collect();
    order.sort_by_key(|place| keys[*place]);
    if order.is_sorted() {
        return;
    }
    let mut renamed = vec![0; order.len()];
    for (new, old) in order.iter().enumerate() {
        renamed[*old] = new;
    }
    state.nodes = order.iter().map(|old| Arc::clone(&state.nodes[*old])).collect();
    for client in &mut state.clients {
        if client.phase == Phase::Idle {
            continue;
        }
        match &mut Arc::make_mut(client).phase {
            Phase::Idle => {}
            Phase::Locating(locating) => {
                let Locating { began: _, stamps, answers, ballot: _ } = locating;
                rename_keys(stamps, &renamed);
                rename_keys(answers, &renamed);
            }
            Phase::Writing(writing) => {
                rename_keys(&mut writing.replies, &renamed);
                writing.sent = writing.sent.iter().map(|place| renamed[*place]).collect();
                if let Some(stamps) = &mut writing.promised {
                    rename_keys(stamps, &renamed);
                }
            }
        }
    }
    let packets: BTreeSet<Arc<Packet>> = state
        .packets
        .iter()
        .map(|packet| Arc::new(Packet { to: renamed[packet.to], ..Packet::clone(packet) }))
        .collect();
    state.packets = packets;
}

fn rename_keys<T>(map: &mut BTreeMap<Place, T>, renamed: &[Place]) {
    *map = std::mem::take(map).into_iter().map(|(place, value)| (renamed[place], value)).collect();
}

/// All that is known of one member.
fn key_of(state: &State, place: Place) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.nodes[place].hash(&mut hasher);
    for client in &state.clients {
        match &client.phase {
            Phase::Idle => {}
            Phase::Locating(locating) => {
                locating.stamps.get(&place).hash(&mut hasher);
                locating.answers.get(&place).hash(&mut hasher);
            }
            Phase::Writing(writing) => {
                writing.replies.get(&place).hash(&mut hasher);
                writing.sent.contains(&place).hash(&mut hasher);
                let stamps = writing.promised.as_ref();
                stamps.and_then(|stamps| stamps.get(&place)).hash(&mut hasher);
            }
        }
    }
    for packet in state.packets.iter().filter(|packet| packet.to == place) {
        let Packet { to: _, stamp, held, write_back, settled, from } = &**packet;
        (stamp, held, write_back, settled, from).hash(&mut hasher);
    }
    hasher.finish()
}
