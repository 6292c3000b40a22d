//! The replication protocol of Holdfast, explored exhaustively in small
//! clusters.
//!
//! Core decides and does no I/O; so a model checker can call the very functions
//! that the services call. This crate adds what lies between them: members that
//! restart, clients that pause, messages that are lost, late or doubled, and
//! time. stateright then visits every state that can be reached, and in each of
//! them looks whether clients were told what one register could have told them.
//!
//! | module | what it is |
//! |---|---|
//! | [`setup`] | what a model consists of |
//! | [`world`] | all that can happen, as one state machine |
//! | [`client`], `coordinate` | locating, writing and judging |
//! | [`upkeep`] | repair: copying, forgetting, letting go |
//! | [`collecting`] | tombstones that all members forget together |
//! | `rosters` | joining, draining, retiring, another number of copies |
//! | [`node`] | a member |
//! | [`book`] | a roster, small enough for a state |
//! | [`catalogue`] | the models, and what each of them must notice |
//! | [`explore`] | running a model |
//! | [`history`] | what clients were told, and whether it fits |
//! | `symmetry` | states that differ only in the names of members are one |
//! | [`mutation`] | rules that can be broken, to see that it is noticed |
//!
//! docs/protocol.md tells what is modelled and what is left out.

#![allow(
    clippy::indexing_slicing,
    reason = "places and lengths come from one setup, and a model that is wrong must stop"
)]

pub mod book;
pub mod catalogue;
pub mod client;
pub mod collecting;
mod coordinate;
pub mod explore;
pub mod history;
pub mod mutation;
pub mod node;
mod rosters;
pub mod setup;
mod symmetry;
pub mod upkeep;
pub mod world;
