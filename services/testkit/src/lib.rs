//! For tests: what they need of the world outside.
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "whatever is wrong here must end the test"
)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it starts real processes and breaks them; nothing here runs in a service"
)]

pub mod broker;
pub mod chaos;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod elastic;
pub mod history;
pub mod lists;
pub mod logs;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod seed;
pub mod wait;
pub mod watchdog;
pub mod workload;
