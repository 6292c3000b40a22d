//! `holdfastctl`: what operators and charts do with a running Holdfast.
//!
//! | command | does |
//! |---|---|
//! | [`selftest`] | stores, reads, compares and deletes; looks at probes and metrics |
//! | [`load`] | does so all the time, and counts what goes wrong |
//! | [`volumes`] | lets the volumes of a StatefulSet grow |
//! | [`drain`] | empties the data servers that a StatefulSet is about to lose |
//!
//! | exit status | meaning |
//! |---|---|
//! | 0 | done; nothing went wrong |
//! | 1 | it could not be done, or something went wrong |
//! | 64 | wrong arguments |

pub mod arguments;
pub mod drain;
pub mod kubernetes;
pub mod load;
pub mod output;
pub mod selftest;
pub mod site;
pub mod volumes;
