//! Clusters that keep more than one copy of each object: under load, under
//! faults, growing and shrinking. The tests mostly wait, so they run beside each
//! other.

#![allow(clippy::disallowed_methods, reason = "faults last for real time")]
#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "a test may panic")]
#![allow(clippy::print_stderr, reason = "the reports are worth a look")]

mod chaos;
mod elastic;
mod full;
mod replicas;
mod replication;
mod stalled;
mod two;
mod uploads;

/// Of those that keep the machine busy, or must not be kept waiting by it, one runs at
/// a time.
static BUSY: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
