//! What the two benchmarks share.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

pub(crate) mod accounting;
pub(crate) mod directory;
pub(crate) mod engines;
pub(crate) mod names;
pub(crate) mod page_cache;
pub(crate) mod settings;
