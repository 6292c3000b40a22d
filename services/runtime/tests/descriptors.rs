//! A process that has used up its file descriptors for a moment. The limit is the
//! whole process's, so this is a test binary of its own.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "it looks behind the seam")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::File;
use std::thread;
use std::time::Duration;

use holdfast_runtime::Runtime;
use rustix::process::{Resource, getrlimit, setrlimit};

const LIMIT: u64 = 64;

#[test]
fn a_directory_is_synced_once_there_is_a_descriptor_again() {
    let files = Runtime::real().files();
    let directory = std::env::temp_dir();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: Some(LIMIT), ..limit }).unwrap();
    let held: Vec<File> = std::iter::from_fn(|| File::open(&directory).ok()).collect();
    assert!(!held.is_empty() && File::open(&directory).is_err(), "none is left");
    let giver = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        drop(held);
    });
    // A failed sync would end a data server: the disk may have lost what it was given.
    files.sync_directory(&directory).unwrap();
    giver.join().unwrap();
}
