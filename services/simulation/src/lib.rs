//! For tests: whole clusters in one process and in virtual time.
//!
//! A seed stands for a cluster, what its clients ask for, what goes wrong, and
//! the order in which everything happens. The api and the data server run as
//! they are; what differs is behind the seam of `holdfast-runtime`, and the
//! volume is one in memory. The same seed always gives the same run.
//!
//! | room | purpose |
//! |---|---|
//! | [`executor`] | tasks and time |
//! | [`network`] | hosts, connections, cuts |
//! | [`files`], [`volume`] | what outlives a process |
//! | [`process`] | the seam of one process |
//! | [`cluster`] | processes that start, die and stand still |
//! | [`plan`], [`faults`] | what goes wrong by chance |
//! | [`aims`] | what goes wrong on purpose |
//! | [`client`], [`load`] | what clients ask for, and what they saw |
//! | [`run`], [`many`] | one run, and many |
//! | [`trace`], [`random`] | what happened; chance |
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it is the other side of the seam; nothing here runs in a service"
)]

pub mod aims;
pub mod client;
pub mod cluster;
pub mod executor;
pub mod faults;
pub mod files;
pub mod load;
pub mod many;
pub mod network;
mod pipe;
pub mod plan;
pub mod process;
pub mod random;
pub mod run;
pub mod trace;
pub mod volume;
