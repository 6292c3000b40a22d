//! Explores models and prints what it finds.
//!
//! Without arguments: all of those that the tests explore. `--deep` takes larger
//! ones as well, for minutes. `--mutants` takes those in which a rule is broken,
//! and `--guarded` those in which nobody notices. `--brief` leaves out the way
//! to a counterexample, `--named` keeps the names of members the same along it.
//! Any other argument chooses the models whose name contains it.

use std::io::Write;
use std::process::ExitCode;

use holdfast_model::catalogue;
use holdfast_model::explore::explore;

fn main() -> ExitCode {
    let (flags, names): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let has = |flag: &str| flags.iter().any(|given| given == flag);
    let broken = has("--mutants");
    let mut setups = match (broken, has("--guarded")) {
        (_, true) => catalogue::doubly_guarded(),
        (true, false) => catalogue::mutants(),
        (false, false) => catalogue::models(),
    };
    if has("--deep") {
        setups.extend(if broken { catalogue::deep_mutants() } else { catalogue::deep() });
    }
    setups.retain(|setup| names.is_empty() || names.iter().any(|name| setup.name.contains(name)));
    let mut out = std::io::stdout().lock();
    let mut unexpected = false;
    for mut setup in setups {
        setup.named |= has("--named");
        let mutation = setup.mutation;
        let explored = explore(setup, 2);
        unexpected |= explored.counterexamples.is_empty() == broken;
        unexpected |= !broken && !explored.exhausted;
        let rule = mutation.map_or(String::new(), |mutation| format!("{mutation:?}: "));
        let told = if has("--brief") { explored.summary() } else { explored.to_string() };
        if writeln!(out, "{rule}{told}").is_err() {
            return ExitCode::FAILURE;
        }
    }
    if unexpected { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
