//! What a volume of many objects takes: memory, disk, and time to open.
//!
//! ```sh
//! cargo bench -p holdfast-store --bench scale
//! ```
//!
//! | variable | is | unless set |
//! |---|---|---|
//! | `HOLDFAST_BENCH_DIR` | where volumes are made; must be on a disk | `target/bench-volume` |
//! | `HOLDFAST_BENCH_OBJECTS` | objects of the full volume | 5000000 |
//!
//! Everything is done twice, for a tenth of the objects and for all of them:
//! what grows with the number of objects is seen by comparing the columns. A
//! process writes the volume and closes it; another one opens it and asks for
//! names and pages; a third one writes on, is killed with SIGKILL in the middle
//! of it, after as many objects for both volumes; a last one opens what that
//! left. Each of them is this program, started with a hidden argument, so that
//! the kernel counts its memory alone.
//!
//! Objects are empty and have 300 bytes of metadata. What was written is in the
//! page cache when a volume is opened: the times are those of a restart of the
//! process, not of the machine.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "it starts processes, measures real time and prints a table"
)]

mod child;
#[path = "../common/mod.rs"]
mod common;
mod parent;
mod report;

/// The hidden argument; what the child is to do follows it.
const CHILD: &str = "--child";

fn main() {
    let mut arguments = std::env::args().skip_while(|argument| argument != CHILD).skip(1);
    match arguments.next() {
        Some(order) => child::run(&order),
        None => parent::run(),
    }
}
