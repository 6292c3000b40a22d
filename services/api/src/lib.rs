//! The api service: takes clients' requests and keeps no state that a restart
//! would lose.
//!
//! A request's way is `holdfast_coordinator::routes` → `handlers` → `objects`;
//! this crate reads the settings and puts the parts together.

pub mod config;
pub mod server;
