//! How long a promise must be kept: one schedule, gone step by step.
//!
//! Member 0 alone has a write that was never answered. A client creates the key;
//! it does not hear member 0, and member 1 promises at once. Its other answers,
//! its commits, a reader's answers and the reader's write-back to member 1 each
//! come as late as the window lets them: just under four windows after the
//! promise.

use holdfast_model::catalogue::promise_lifetime;
use holdfast_model::world::{Action, State, World};
use stateright::Model;

struct Way {
    world: World,
    state: State,
}

impl Way {
    fn go(&mut self, action: Action) {
        self.state = self.world.next_state(&self.state, action).expect("it may happen");
    }

    fn wait_until(&mut self, tick: u64) {
        while self.state.tick < tick {
            self.go(Action::Tick);
        }
    }

    fn deliver(&mut self, to: usize, from: usize) {
        let under_way = |packet: &&std::sync::Arc<holdfast_model::node::Packet>| {
            packet.to == to && packet.from == Some(from)
        };
        let packet = self.state.packets.iter().find(under_way).expect("it was sent").clone();
        self.go(Action::Deliver(packet, true));
    }

    fn holds(&self) -> bool {
        let properties = self.world.properties();
        let always = properties.iter().filter(|p| p.expectation == stateright::Expectation::Always);
        always.into_iter().all(|property| (property.condition)(&self.world, &self.state))
    }
}

fn holds_with(windows: u64) -> bool {
    let world = World::new(promise_lifetime(windows));
    let state = world.init_states().remove(0);
    let most = world.setup.window - 1;
    let mut way = Way { world, state };
    let (creator, reader) = (0, 1);
    way.go(Action::Begin(creator));
    way.go(Action::Answer(creator, 1, true));
    way.wait_until(most);
    way.go(Action::Answer(creator, 2, true));
    way.go(Action::Answer(creator, 3, true));
    way.go(Action::Conclude(creator));
    way.wait_until(2 * most);
    way.go(Action::Begin(reader));
    way.go(Action::Answer(reader, 0, true));
    way.go(Action::Answer(reader, 2, true));
    way.deliver(2, creator);
    way.deliver(3, creator);
    way.wait_until(3 * most);
    way.go(Action::Answer(reader, 1, true));
    way.go(Action::Conclude(reader));
    way.wait_until(4 * most);
    way.deliver(1, reader);
    way.holds()
}

#[test]
fn four_windows_are_the_least() {
    assert!(!holds_with(1));
    assert!(!holds_with(2));
    assert!(!holds_with(3));
    assert!(holds_with(4));
}
