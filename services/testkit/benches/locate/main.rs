//! How much faster a lookup is than with the seed's own pattern.
//!
//! ```sh
//! cargo bench -p holdfast-testkit --bench locate           # 5 rounds, about 3 minutes
//! cargo bench -p holdfast-testkit --bench locate -- 1      # 1 round
//! ```
//!
//! It needs RabbitMQ installed and takes nothing else of the machine: it starts
//! a broker of its own, three data servers and one api as release processes,
//! stores some objects, measures, and leaves neither a process nor a file
//! behind. It is not part of continuous integration: the numbers are worth
//! nothing on a machine that does other things meanwhile.
//!
//! The seed opens a connection and a queue for each lookup, publishes one name
//! and waits a second before it calls it a miss ([`seed`]). Holdfast's data
//! servers answer such messages too, so both sides ask the same three
//! processes, over the same broker, by turns: the seed's pattern, Holdfast, the
//! seed's pattern, and so on, through every round. A ratio is taken within a
//! round; the median of the rounds is compared with its target. The exit status
//! is 1 when a target is missed.
//!
//! A lookup writes nothing, so there is no durability mode to choose.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    reason = "it starts real processes, measures real time and prints a table"
)]

mod cluster;
mod http;
mod load;
mod locators;
mod rounds;
mod seed;
mod table;

use std::process::ExitCode;

const ROUNDS: usize = 5;

fn main() -> ExitCode {
    // cargo adds `--bench`.
    let rounds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(ROUNDS);
    cluster::build();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("threads to run on").block_on(measure(rounds))
}

async fn measure(rounds: usize) -> ExitCode {
    let mut cluster = cluster::Cluster::start().await;
    let sides = rounds::Sides::connect(&cluster).await;
    let mut table = table::Table::default();
    for round in 1..=rounds {
        println!("round {round} of {rounds}");
        sides.compare_with_seed(&mut table).await;
        sides.compare_transports(&mut table).await;
    }
    cluster.broker.stop().await;
    sides.measure_outage(&mut table).await;
    if table.print() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
