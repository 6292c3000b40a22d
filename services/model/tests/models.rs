//! Every rule as it is: no counterexample in any small cluster.
#![allow(clippy::print_stdout, reason = "how much was explored is worth knowing")]

use holdfast_model::history::Ask;
use holdfast_model::setup::Setup;
use holdfast_model::world::World;
use stateright::{Checker, Model};

#[test]
fn writes_and_reads() {
    let setup = Setup {
        clients: vec![vec![Ask::Put(1)], vec![Ask::Read]],
        ..Setup::new("writes and reads", 3, 3)
    };
    let checker = World::new(setup).checker().threads(2).spawn_bfs().join();
    println!(
        "unique {} total {} depth {}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth()
    );
    for (name, path) in checker.discoveries() {
        println!("{name}: {:?}", path.into_actions());
    }
    checker.assert_properties();
}
