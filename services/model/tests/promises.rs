//! How long a promise must be kept: one schedule, gone step by step.
//!
//! Member 0 alone has a write that was never answered. A client creates the key;
//! it does not hear member 0, and member 1 promises at once. Its other answers,
//! its commits, a reader's answers and the reader's write-back to member 1 each
//! come as late as the window lets them: just under four windows after the
//! promise.

mod common;

use common::Way;
use holdfast_model::catalogue::promise_lifetime;
use holdfast_model::mutation::Mutation;
use holdfast_model::setup::Setup;
use holdfast_model::world::{Action, KEPT, LINEARIZABLE, READABLE};
use stateright::Model;

fn wait_until(way: &mut Way, tick: u64) {
    while way.state.tick < tick {
        way.go(Action::Tick);
    }
}

fn holds_with(windows: u64, mutation: Option<Mutation>) -> bool {
    let mut way = Way::new(Setup { mutation, ..promise_lifetime(windows) });
    let most = way.world.setup.window - 1;
    let (creator, reader) = (0, 1);
    way.go(Action::Begin(creator));
    way.go(Action::Answer(creator, 1, true));
    wait_until(&mut way, most);
    way.go(Action::Answer(creator, 2, true));
    way.go(Action::Answer(creator, 3, true));
    way.go(Action::Conclude(creator));
    wait_until(&mut way, 2 * most);
    way.go(Action::Begin(reader));
    way.go(Action::Answer(reader, 0, true));
    way.go(Action::Answer(reader, 2, true));
    way.deliver(2, creator, true);
    way.deliver(3, creator, true);
    wait_until(&mut way, 3 * most);
    way.go(Action::Answer(reader, 1, true));
    if mutation.is_none() {
        // Member 1 says what it may have promised, so nothing is written back as it is.
        return way.world.next_state(&way.state, Action::Conclude(reader)).is_none();
    }
    way.go(Action::Conclude(reader));
    wait_until(&mut way, 4 * most);
    way.deliver(1, reader, true);
    [LINEARIZABLE, READABLE, KEPT].into_iter().all(|property| way.holds(property))
}

#[test]
fn four_windows_are_the_least_if_what_was_promised_is_forgotten() {
    let holds = |windows| holds_with(windows, Some(Mutation::ForgetPromised));
    assert!(!holds(1));
    assert!(!holds(2));
    assert!(!holds(3));
    assert!(holds(4));
}

#[test]
fn what_was_promised_counts_when_it_is_remembered_no_more() {
    (1..=4).for_each(|windows| assert!(holds_with(windows, None), "{windows} windows"));
}
