//! A limit that docs/protocol.md names, gone step by step: should it hold one
//! day, the limit is to be taken out there.
//!
//! Two clients create one key. Each write is on one member, judged on nothing, and
//! not answered. The member that promised both restarts. A reader that hears the
//! older one settles it; the next one hears the younger one and settles that.

use holdfast_model::catalogue::create_twice;
use holdfast_model::history::Ask;
use holdfast_model::setup::Setup;
use holdfast_model::world::{Action, LINEARIZABLE, State, World};
use stateright::Model;

struct Way {
    world: World,
    state: State,
}

impl Way {
    fn go(&mut self, action: Action) {
        self.state = self.world.next_state(&self.state, action).expect("it may happen");
    }

    fn hear(&mut self, client: usize, members: [usize; 2]) {
        self.go(Action::Begin(client));
        for member in members {
            self.go(Action::Answer(client, member, true));
        }
        self.go(Action::Conclude(client));
    }

    fn deliver(&mut self, to: usize, from: usize, heard: bool) {
        let under_way = |packet: &&std::sync::Arc<holdfast_model::node::Packet>| {
            packet.to == to && packet.from == Some(from)
        };
        let packet = self.state.packets.iter().find(under_way).expect("it was sent").clone();
        self.go(Action::Deliver(packet, heard));
    }

    fn is_linearizable(&self) -> bool {
        let properties = self.world.properties();
        let property = properties.iter().find(|p| p.name == LINEARIZABLE).expect("it has one");
        (property.condition)(&self.world, &self.state)
    }
}

#[test]
fn two_creations_without_an_answer_may_both_take_effect() {
    let clients = vec![vec![Ask::Create(1)], vec![Ask::Create(2)], vec![Ask::Read, Ask::Read]];
    let world = World::new(Setup { clients, named: true, ..create_twice() });
    let state = world.init_states().remove(0);
    let mut way = Way { world, state };
    let (older, younger, reader) = (0, 1, 2);
    way.hear(older, [0, 1]);
    way.hear(younger, [1, 2]);
    way.deliver(0, older, false);
    way.deliver(2, younger, false);
    way.go(Action::Restart(1));
    way.hear(reader, [0, 1]);
    way.deliver(1, reader, true);
    assert!(way.is_linearizable(), "one of them may");
    way.hear(reader, [1, 2]);
    way.deliver(1, reader, true);
    assert!(!way.is_linearizable(), "the limit is gone: docs/protocol.md must say so");
}
