//! What became of two writes that nobody answered, gone step by step.
//!
//! Two clients create one key. Each write is on one member, judged on nothing, and
//! not answered. The member that promised both restarts. A reader that hears the
//! older one settles it; the next one hears the younger one, which was judged
//! without the older one, and must not be told of it.

mod common;

use common::Way;
use holdfast_model::catalogue::create_twice;
use holdfast_model::history::Ask;
use holdfast_model::mutation::Mutation;
use holdfast_model::setup::Setup;
use holdfast_model::world::{Action, LINEARIZABLE, READABLE};

fn hear(way: &mut Way, client: usize, members: [usize; 2]) {
    way.go(Action::Begin(client));
    for member in members {
        way.go(Action::Answer(client, member, true));
    }
    way.go(Action::Conclude(client));
}

/// The reader has settled the older write, and hears the younger one.
fn read_twice(mutation: Option<Mutation>) -> Way {
    let clients = vec![vec![Ask::Create(1)], vec![Ask::Create(2)], vec![Ask::Read, Ask::Read]];
    let setup = Setup { clients, named: true, outbids: true, mutation, ..create_twice() };
    let mut way = Way::new(setup);
    let (older, younger, reader) = (0, 1, 2);
    hear(&mut way, older, [0, 1]);
    hear(&mut way, younger, [1, 2]);
    way.deliver(0, older, false);
    way.deliver(2, younger, false);
    way.go(Action::Restart(1));
    hear(&mut way, reader, [0, 1]);
    way.deliver(1, reader, true);
    if mutation.is_none() {
        assert_eq!(way.state.nodes[1].held, None, "a promise of before may be above it");
        way.go(Action::Again(reader));
        for member in [0, 1] {
            way.go(Action::Answer(reader, member, true));
        }
        way.go(Action::Conclude(reader));
        way.deliver(0, reader, true);
        way.deliver(1, reader, true);
    }
    assert!(way.holds(LINEARIZABLE), "one of them may take effect");
    hear(&mut way, reader, [1, 2]);
    way.deliver(if mutation.is_none() { 2 } else { 1 }, reader, true);
    way
}

#[test]
fn what_was_settled_outranks_what_was_judged_without_it() {
    let way = read_twice(None);
    let told = way.state.nodes[2].held.map(|held| held.content);
    assert_eq!(told, Some(Some(1)), "the older write, settled above the younger one");
    assert!(way.holds(LINEARIZABLE) && way.holds(READABLE));
}

#[test]
fn what_a_member_forgot_to_have_promised_must_count() {
    assert!(!read_twice(Some(Mutation::ForgetPromised)).holds(LINEARIZABLE));
}
