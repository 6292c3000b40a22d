//! What a file holds: chunks that snapshots share, and holes that take no room.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// How disk space is handed out, in bytes.
pub const CHUNK_BYTES: u64 = 4096;

/// The same, for lengths in memory.
pub const CHUNK: usize = 4096;

/// The bytes of a file. A clone costs a pointer for each chunk.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Content {
    chunks: BTreeMap<u64, Arc<[u8; CHUNK]>>,
    len: u64,
}

impl fmt::Debug for Content {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Content({} bytes)", self.len)
    }
}

impl Content {
    pub fn len(&self) -> u64 {
        self.len
    }

    /// What it takes of the disk, in bytes.
    pub fn allocated_bytes(&self) -> u64 {
        self.chunks.len() as u64 * CHUNK_BYTES
    }

    /// What a write would take of the disk beyond what the file has.
    pub fn growth_bytes(&self, offset: u64, length: u64) -> u64 {
        if length == 0 {
            return 0;
        }
        let (first, last) = (offset / CHUNK_BYTES, (offset + length - 1) / CHUNK_BYTES);
        let present = self.chunks.range(first..=last).count() as u64;
        (last - first + 1 - present) * CHUNK_BYTES
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut written = 0;
        while written < bytes.len() {
            let at = offset + written as u64;
            let start = within(at);
            let length = (CHUNK - start).min(bytes.len() - written);
            let chunk = self.chunks.entry(at / CHUNK_BYTES).or_insert_with(zeros);
            let target = &mut Arc::make_mut(chunk)[start..start + length];
            target.copy_from_slice(&bytes[written..written + length]);
            written += length;
        }
        if !bytes.is_empty() {
            self.grow_to(offset + bytes.len() as u64);
        }
    }

    /// Extends the file with zeros, if it is shorter.
    pub fn grow_to(&mut self, len: u64) {
        self.len = self.len.max(len);
    }

    pub fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.chunks.split_off(&len.div_ceil(CHUNK_BYTES));
            if let Some(chunk) = self.chunks.get_mut(&(len / CHUNK_BYTES)) {
                Arc::make_mut(chunk)[within(len)..].fill(0);
            }
        }
        self.len = len;
    }

    /// Fills the buffer as far as the file goes; returns how far.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let available = self.len.saturating_sub(offset).min(buffer.len() as u64);
        let available = usize::try_from(available).expect("no more than the buffer");
        let mut done = 0;
        while done < available {
            let at = offset + done as u64;
            let start = within(at);
            let length = (CHUNK - start).min(available - done);
            let target = &mut buffer[done..done + length];
            match self.chunks.get(&(at / CHUNK_BYTES)) {
                Some(chunk) => target.copy_from_slice(&chunk[start..start + length]),
                None => target.fill(0),
            }
            done += length;
        }
        available
    }

    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.len).expect("it is in memory")];
        self.read(0, &mut bytes);
        bytes
    }

    /// Turns bits of one byte; nothing happens beyond the end.
    pub fn flip(&mut self, offset: u64, mask: u8) {
        let mut byte = [0];
        if self.read(offset, &mut byte) == 1 {
            self.write(offset, &[byte[0] ^ mask]);
        }
    }
}

fn zeros() -> Arc<[u8; CHUNK]> {
    Arc::new([0; CHUNK])
}

fn within(offset: u64) -> usize {
    usize::try_from(offset % CHUNK_BYTES).expect("less than a chunk")
}
