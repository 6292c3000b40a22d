//! Memory as it is on a machine that has run for a while: all of it in use, most
//! of it by the page cache.
//!
//! Else what is written takes pages that nobody has touched since the machine
//! started, or since they were given back. A virtual machine gets each of these
//! from its host at the first touch, which can cost several times what the disk
//! costs, on every side that is measured.

use std::fs::File;
use std::io::{Read, copy, sink};

use super::accounting::free_memory_bytes;
use super::directory::BenchDirectory;

/// Left free, or the kernel would have to look for room at once.
const SPARE_BYTES: u64 = 128 * 1024 * 1024;

/// Fills what is free with pages of a file that is one hole and takes no room on
/// the disk. They are the first to go when others are needed.
pub(crate) fn fill(directory: &BenchDirectory) {
    let path = directory.join("hole");
    // An earlier one goes with its pages.
    let hole = File::create(&path).expect("the directory is ours");
    let bytes = free_memory_bytes().saturating_sub(SPARE_BYTES);
    hole.set_len(bytes).expect("a hole takes no room");
    let hole = File::open(&path).expect("it was just made");
    copy(&mut hole.take(bytes), &mut sink()).expect("it can be read");
}
