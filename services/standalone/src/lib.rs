//! The embedded default: an api and one data server in one process, over the
//! in-process bus. Everything but the bus is what runs in a cluster.

pub mod config;
pub mod run;
