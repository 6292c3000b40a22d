//! The least that a large object has to do: its bytes written past the page
//! cache into a new file, one write at a time, then made durable.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use rustix::fs::OFlags;

use crate::common::names::fill;

/// Bytes of one write.
pub(crate) const WRITE_BYTES: usize = 1024 * 1024;

/// What direct writes have to be aligned to: no disk asks for more.
const ALIGNMENT: usize = 4096;

/// A buffer of aligned bytes.
pub(crate) struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    pub(crate) fn new(length: usize) -> Self {
        let bytes = vec![0; length + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        Self { bytes, start, length }
    }

    pub(crate) fn fill(&mut self, seed: u64) {
        fill(seed, &mut self.bytes[self.start..self.start + self.length]);
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }
}

/// A directory with one file for each object.
pub(crate) struct DirectFiles {
    directory: PathBuf,
}

impl DirectFiles {
    pub(crate) fn new(directory: PathBuf) -> Self {
        std::fs::create_dir_all(&directory).expect("the directory is ours");
        Self { directory }
    }

    /// Writes one object; returns once it is durable. Blocks.
    pub(crate) fn put(&self, number: u64, payload: &Aligned) {
        let path = self.directory.join(number.to_string());
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).custom_flags(direct_flag());
        let mut file = options.open(path).expect("the file system takes direct writes");
        for piece in payload.as_slice().chunks(WRITE_BYTES) {
            file.write_all(piece).expect("the disk has room");
        }
        file.sync_data().expect("the disk works");
        let directory = File::open(&self.directory).expect("the directory is ours");
        directory.sync_all().expect("the disk works");
    }
}

fn direct_flag() -> i32 {
    i32::try_from(OFlags::DIRECT.bits()).expect("open(2) takes an int")
}
