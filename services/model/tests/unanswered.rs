//! What became of two writes that nobody answered, gone step by step.
//!
//! Two clients create one key. Each write is on one member, judged on nothing, and
//! not answered. The member that promised both restarts. A reader that hears the
//! older one settles it; the next one hears the younger one, which was judged
//! without the older one, and must not be told of it. The same where the member
//! that promised is still there, and another one has joined that did not.

mod common;

use common::Way;
use holdfast_model::catalogue::create_twice;
use holdfast_model::history::Ask;
use holdfast_model::mutation::Mutation;
use holdfast_model::setup::Setup;
use holdfast_model::world::{Action, LINEARIZABLE, READABLE};
use stateright::Model;

const OLDER: usize = 0;
const YOUNGER: usize = 1;
const READER: usize = 2;

fn ask(way: &mut Way, client: usize, members: &[usize]) {
    for member in members {
        way.go(Action::Answer(client, *member, true));
    }
}

fn hear(way: &mut Way, client: usize, members: &[usize]) {
    way.go(Action::Begin(client));
    ask(way, client, members);
    way.go(Action::Conclude(client));
}

/// Two clients create the key, each on one member.
fn create_both(mutation: Option<Mutation>, joins: bool) -> Way {
    let clients = vec![vec![Ask::Create(1)], vec![Ask::Create(2)], vec![Ask::Read, Ask::Read]];
    let setup = Setup { clients, named: true, outbids: true, joins, mutation, ..create_twice() };
    let mut way = Way::new(setup);
    hear(&mut way, OLDER, &[0, 1]);
    hear(&mut way, YOUNGER, &[1, 2]);
    way.deliver(0, OLDER, false);
    way.deliver(2, YOUNGER, false);
    way
}

/// The reader hears these members, of which member 0 has the older write, and
/// settles it there and on `other`.
fn read_older(way: &mut Way, members: &[usize], other: usize) {
    way.go(Action::Begin(READER));
    ask(way, READER, members);
    if way.world.setup.mutation.is_none() {
        let plain = way.world.next_state(&way.state, Action::Conclude(READER));
        assert!(plain.is_none(), "a promise of before may be above it");
        way.go(Action::Again(READER));
        ask(way, READER, members);
    }
    way.go(Action::Conclude(READER));
    if way.world.setup.mutation.is_none() {
        way.deliver(0, READER, true);
    }
    way.deliver(other, READER, true);
    assert!(way.holds(LINEARIZABLE), "one of them may take effect");
}

fn after_a_restart(mutation: Option<Mutation>) -> Way {
    let mut way = create_both(mutation, false);
    way.go(Action::Restart(1));
    read_older(&mut way, &[0, 1], 1);
    hear(&mut way, READER, &[1, 2]);
    way.deliver(if mutation.is_none() { 2 } else { 1 }, READER, true);
    way
}

fn after_a_join(mutation: Option<Mutation>) -> Way {
    let mut way = create_both(mutation, true);
    way.go(Action::Enter);
    way.go(Action::Tell(0, true));
    way.go(Action::Tell(1, true));
    way.go(Action::Activate);
    way.go(Action::Hear(READER, 3));
    read_older(&mut way, &[0, 1, 3], 3);
    hear(&mut way, READER, &[1, 2, 3]);
    way.deliver(if mutation.is_none() { 2 } else { 3 }, READER, true);
    way
}

#[test]
fn what_was_settled_outranks_what_was_judged_without_it() {
    for way in [after_a_restart(None), after_a_join(None)] {
        let told = way.state.nodes[2].held.map(|held| held.content);
        assert_eq!(told, Some(Some(1)), "the older write, settled above the younger one");
        assert!(way.holds(LINEARIZABLE) && way.holds(READABLE));
    }
}

#[test]
fn what_a_member_has_promised_counts_whoever_takes_the_copy() {
    let mutation = Some(Mutation::ForgetPromised);
    assert!(!after_a_restart(mutation).holds(LINEARIZABLE));
    assert!(!after_a_join(mutation).holds(LINEARIZABLE));
}
