//! A limit that docs/protocol.md names, gone step by step: should it hold one
//! day, the limit is to be taken out there.
//!
//! Two clients create one key. Each write is on one member, judged on nothing, and
//! not answered. The member that promised both restarts. A reader that hears the
//! older one settles it; the next one hears the younger one and settles that.

mod common;

use common::Way;
use holdfast_model::catalogue::create_twice;
use holdfast_model::history::Ask;
use holdfast_model::setup::Setup;
use holdfast_model::world::{Action, LINEARIZABLE};

fn hear(way: &mut Way, client: usize, members: [usize; 2]) {
    way.go(Action::Begin(client));
    for member in members {
        way.go(Action::Answer(client, member, true));
    }
    way.go(Action::Conclude(client));
}

#[test]
fn two_creations_without_an_answer_may_both_take_effect() {
    let clients = vec![vec![Ask::Create(1)], vec![Ask::Create(2)], vec![Ask::Read, Ask::Read]];
    let mut way = Way::new(Setup { clients, named: true, ..create_twice() });
    let (older, younger, reader) = (0, 1, 2);
    hear(&mut way, older, [0, 1]);
    hear(&mut way, younger, [1, 2]);
    way.deliver(0, older, false);
    way.deliver(2, younger, false);
    way.go(Action::Restart(1));
    hear(&mut way, reader, [0, 1]);
    way.deliver(1, reader, true);
    assert!(way.holds(LINEARIZABLE), "one of them may");
    hear(&mut way, reader, [1, 2]);
    way.deliver(1, reader, true);
    assert!(!way.holds(LINEARIZABLE), "the limit is gone: docs/protocol.md must say so");
}
