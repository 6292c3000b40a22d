//! Seeds in the form for CI.

use holdfast_simulation::aims::Aim;
use holdfast_simulation::many::run_many;
use holdfast_simulation::run::run;

/// How many seeds are run each time, always the same: two of each aim, and as many
/// of chance.
const SEEDS: u64 = 4 * Aim::ALL.len() as u64;

#[test]
fn no_seed_finds_anything_wrong() {
    let seeds: Vec<u64> = (1..=SEEDS).collect();
    let failed = run_many(&seeds, 2, |_| {});
    let told: Vec<String> = failed.iter().map(ToString::to_string).collect();
    assert!(
        failed.is_empty(),
        "{}\nagain with: cargo run --release -p holdfast-simulation -- --seed <seed> --trace",
        told.join("\n")
    );
}

#[test]
fn a_seed_always_gives_the_same_run() {
    // One of each aim, and chance.
    let aims = Aim::ALL.len() as u64;
    for seed in (1..=aims).map(|aim| 2 * aim).chain([3, 11]) {
        assert_eq!(run(seed, false), run(seed, false));
    }
}
