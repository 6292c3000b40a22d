//! What every bench of clusters begins with: how many rounds, and threads to run on.

use std::process::ExitCode;

/// Runs `measure` for as many rounds as the command line says, or `rounds`. It tells
/// whether all goals were met.
pub(crate) fn run(rounds: usize, measure: impl AsyncFnOnce(usize) -> bool) -> ExitCode {
    // cargo adds `--bench`.
    let rounds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(rounds);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let met = runtime.expect("threads to run on").block_on(measure(rounds));
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
