//! What the log engine is worth, against the file engine and against the least
//! that the disk and the index have to do.
//!
//! ```sh
//! cargo bench -p holdfast-store --bench engine              # all rows, some 7 minutes
//! cargo bench -p holdfast-store --bench engine -- puts      # 4 KiB objects
//! cargo bench -p holdfast-store --bench engine -- medium    # 64 KiB objects
//! cargo bench -p holdfast-store --bench engine -- large     # 64 MiB objects
//! cargo bench -p holdfast-store --bench engine -- amplification
//! cargo bench -p holdfast-store --bench engine -- index     # stat and list
//! cargo bench -p holdfast-store --bench engine -- rebuild   # the index from the log
//! ```
//!
//! With `--check` the exit status is 1 when a target is missed. It is not part
//! of continuous integration: the numbers are worth nothing on a machine that
//! does other things meanwhile.
//!
//! | variable | is | unless set |
//! |---|---|---|
//! | `HOLDFAST_BENCH_DIR` | where volumes are made; must be on a disk | `target/bench-volume` |
//! | `HOLDFAST_BENCH_ROUNDS` | rounds | 5 |
//! | `HOLDFAST_BENCH_SECONDS` | length of one measurement | 1.5 |
//! | `HOLDFAST_BENCH_LARGE` | 64 MiB objects of one measurement | 8 |
//! | `HOLDFAST_BENCH_OBJECTS` | objects of the amplification row | 400000 |
//! | `HOLDFAST_BENCH_KEYS` | names of the index rows | 2000000 |
//! | `HOLDFAST_BENCH_RECORDS` | records of the rebuild row | 1000000 |
//!
//! Whatever is compared takes turns through every round of one run, on one
//! disk. A ratio is taken within a round; the median of the rounds is compared
//! with its target. No absolute number decides anything.
//!
//! Before each row free memory is filled with page cache, as on a machine that
//! has run for a while: `common/page_cache.rs` says why.
//!
//! Every write is durable before it is answered, on every side: `fdatasync`
//! comes first. Payloads cannot be compressed and are different for each
//! object. Clients are tasks on two worker threads.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "it uses the disk beside the seam, measures real time and prints a table"
)]

mod amplification;
mod bare_index;
mod bare_log;
#[path = "../common/mod.rs"]
mod common;
mod direct;
mod index;
mod large;
mod load;
mod puts;
mod rebuild;
mod table;

use std::process::ExitCode;

use crate::common::accounting::file_system;
use crate::common::directory::BenchDirectory;
use crate::common::page_cache;
use crate::common::settings::number;
use crate::table::Table;

const ALL: [&str; 6] = ["puts", "medium", "large", "amplification", "index", "rebuild"];

fn main() -> ExitCode {
    // cargo adds `--bench`.
    let arguments: Vec<_> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (flags, chosen): (Vec<_>, Vec<_>) =
        arguments.iter().map(String::as_str).partition(|argument| argument.starts_with("--"));
    let unknown = chosen.iter().find(|row| !ALL.contains(row));
    let unknown = unknown.or_else(|| flags.iter().find(|flag| **flag != "--check"));
    if let Some(unknown) = unknown {
        println!("{unknown}: not known; there are --check and {ALL:?}");
        return ExitCode::from(2);
    }
    let chosen = if chosen.is_empty() { ALL.to_vec() } else { chosen };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().expect("threads to run on");
    let passed = runtime.block_on(measure(&chosen));
    if passed || flags.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn measure(chosen: &[&str]) -> bool {
    let rounds = number("HOLDFAST_BENCH_ROUNDS", 5).max(1);
    let directory = BenchDirectory::new();
    println!("file system: {}", file_system(directory.path()));
    let mut table = Table::new(rounds);
    for row in chosen {
        page_cache::fill(&directory);
        match *row {
            "puts" => puts::measure(&directory, rounds, &mut table).await,
            "medium" => puts::measure_medium(&directory, rounds, &mut table).await,
            "large" => large::measure(&directory, rounds, &mut table).await,
            "amplification" => amplification::measure(&directory, &mut table).await,
            "rebuild" => rebuild::measure(&directory, rounds, &mut table).await,
            _ => index::measure(&directory, rounds, &mut table).await,
        }
    }
    table.print()
}
