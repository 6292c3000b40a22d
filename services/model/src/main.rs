//! Explores models and prints what it finds.
//!
//! Without arguments: all of those that the tests explore. With `--deep`: larger
//! ones as well, for minutes. With `--mutants`: those in which a rule is broken.
//! Any other argument chooses the models whose name contains it.

use std::io::Write;
use std::process::ExitCode;

use holdfast_model::catalogue;
use holdfast_model::explore::explore;

fn main() -> ExitCode {
    let (flags, names): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let has = |flag: &str| flags.iter().any(|given| given == flag);
    let mut setups = if has("--mutants") { catalogue::mutants() } else { catalogue::models() };
    setups.retain(|setup| names.is_empty() || names.iter().any(|name| setup.name.contains(name)));
    let mut out = std::io::stdout().lock();
    let mut unexpected = false;
    for mut setup in setups {
        setup.named |= has("--named");
        let mutation = setup.mutation;
        let explored = explore(setup, 2);
        unexpected |= explored.counterexamples.is_empty() == mutation.is_some();
        let rule = mutation.map_or(String::new(), |mutation| format!("{mutation:?}: "));
        let told = if has("--brief") { explored.summary() } else { explored.to_string() };
        if writeln!(out, "{rule}{told}").is_err() {
            return ExitCode::FAILURE;
        }
    }
    if unexpected { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
