//! A model gone step by step.

use std::sync::Arc;

use holdfast_model::node::Packet;
use holdfast_model::setup::Setup;
use holdfast_model::world::{Action, State, World};
use stateright::{Expectation, Model};

/// Where one is.
pub(crate) struct Way {
    pub(crate) world: World,
    pub(crate) state: State,
}

impl Way {
    /// At the beginning.
    pub(crate) fn new(setup: Setup) -> Self {
        let world = World::new(setup);
        let state = world.init_states().remove(0);
        Self { world, state }
    }

    pub(crate) fn go(&mut self, action: Action) {
        self.state = self.world.next_state(&self.state, action).expect("it may happen");
    }

    /// What a client has under way to a member arrives, and is answered or not.
    pub(crate) fn deliver(&mut self, to: usize, from: usize, heard: bool) {
        let under_way = |packet: &&Arc<Packet>| packet.to == to && packet.from == Some(from);
        let packet = self.state.packets.iter().find(under_way).expect("it was sent").clone();
        self.go(Action::Deliver(packet, heard));
    }

    /// Whether this holds here, of what must always hold.
    pub(crate) fn holds(&self, property: &str) -> bool {
        let properties = self.world.properties();
        let always = properties.iter().filter(|one| one.expectation == Expectation::Always);
        let property = always.into_iter().find(|one| one.name == property).expect("there is one");
        (property.condition)(&self.world, &self.state)
    }
}
