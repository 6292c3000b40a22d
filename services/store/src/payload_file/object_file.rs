//! An object file that is open for reading. It never changes: a newer version
//! is another file under the same name, so a reader keeps what it opened.

use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use crc_fast::crc32_iscsi;
use holdfast_core::name::ObjectName;
use holdfast_core::object::{Digest, Stat};
use holdfast_runtime::File;

use super::checksum::digest_of;
use super::damage::Damage;
use super::layout::{FOOTER_BYTES, Footer, SUM_BYTES, hex_crc};
use crate::StoreError;
use crate::disk::{Disk, io_error};

/// Most payload bytes that are read and verified at once. A multiple of every
/// allowed block length.
pub(crate) const CHUNK_BYTES: u64 = 1024 * 1024;

/// The end of a file that a reader takes in first: all of a small object, in
/// one system call.
pub(crate) const READER_TAIL_BYTES: u64 = 64 * 1024;

/// The same for who only wants the trailer, which has a few hundred bytes.
pub(crate) const SCAN_TAIL_BYTES: u64 = 4 * 1024;

/// An open object file with its verified description.
#[derive(Debug)]
pub(crate) struct ObjectFile {
    content: Content,
    footer: Footer,
    name: ObjectName,
    stat: Stat,
}

/// Verified bytes of a payload.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// What was asked for.
    pub(crate) bytes: Bytes,
    /// Digest of just these.
    pub(crate) digest: Digest,
}

impl ObjectFile {
    /// Opens a file and verifies its trailer.
    pub(crate) fn open(disk: &Disk, path: PathBuf, tail_bytes: u64) -> Result<Self, StoreError> {
        let content = Content::open(disk, path, tail_bytes)?;
        let (footer, name, stat) = content.trailer()?;
        Ok(Self { content, footer, name, stat })
    }

    pub(crate) fn name(&self) -> &ObjectName {
        &self.name
    }

    pub(crate) fn stat(&self) -> &Stat {
        &self.stat
    }

    pub(crate) fn path(&self) -> &Path {
        &self.content.path
    }

    /// Reads `range`, which lies within the payload and within one multiple of
    /// [`CHUNK_BYTES`]. Every block that it touches is verified whole.
    pub(crate) fn chunk(&self, range: Range<u64>) -> Result<Chunk, StoreError> {
        let block_bytes = u64::from(self.footer.block_bytes);
        let blocks = range.start / block_bytes..range.end.div_ceil(block_bytes);
        let start = blocks.start * block_bytes;
        let end = (blocks.end * block_bytes).min(self.footer.payload_bytes);
        let data = self.content.read(start..end)?;
        self.verify(&data, blocks)?;
        let within = clamped(range.start - start)..clamped(range.end - start);
        let bytes = data.slice(within);
        Ok(Chunk { digest: digest_of(&bytes), bytes })
    }

    fn verify(&self, data: &Bytes, blocks: Range<u64>) -> Result<(), StoreError> {
        let table = self.footer.payload_bytes;
        let entries = table + blocks.start * SUM_BYTES..table + blocks.end * SUM_BYTES;
        let entries = self.content.read(entries)?;
        let (sums, _) = entries.as_chunks::<4>();
        for (block, sum) in data.chunks(clamped(self.footer.block_bytes.into())).zip(sums) {
            let (expected, actual) = (u32::from_le_bytes(*sum), crc32_iscsi(block));
            Damage::unless_equal("a payload block", hex_crc(expected), hex_crc(actual))
                .map_err(|damage| damage.at(self.content.path.clone()))?;
        }
        Ok(())
    }
}

/// The bytes of a file, the last of which are in memory.
#[derive(Debug)]
struct Content {
    file: Box<dyn File>,
    path: PathBuf,
    file_bytes: u64,
    tail: Bytes,
}

impl Content {
    fn open(disk: &Disk, path: PathBuf, tail_bytes: u64) -> Result<Self, StoreError> {
        let file = disk.open(&path)?;
        let file_bytes = file.len().map_err(io_error("look at the length of", &path))?;
        let mut content = Self { file, path, file_bytes, tail: Bytes::new() };
        content.tail = content.read(file_bytes.saturating_sub(tail_bytes)..file_bytes)?;
        Ok(content)
    }

    fn trailer(&self) -> Result<(Footer, ObjectName, Stat), StoreError> {
        let damaged = |damage: Damage| damage.at(self.path.clone());
        let Some(footer_start) = self.file_bytes.checked_sub(FOOTER_BYTES as u64) else {
            let expected = format!("{FOOTER_BYTES} or more");
            return Err(damaged(Damage::new("the file length", expected, self.file_bytes)));
        };
        let footer = self.read(footer_start..self.file_bytes)?;
        let footer = Footer::decode(self.file_bytes, &footer).map_err(damaged)?;
        // The footer's lengths add up to that of the file: this cannot underflow.
        let start = footer_start.saturating_sub(footer.description_bytes.into());
        let description = self.read(start..footer_start)?;
        let (name, stat) = footer.description(&description).map_err(damaged)?;
        Ok((footer, name, stat))
    }

    /// Reads a range that the length of the file promises.
    fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        let tail_start = self.file_bytes - self.tail.len() as u64;
        if range.start >= tail_start && range.end <= self.file_bytes {
            return Ok(self
                .tail
                .slice(clamped(range.start - tail_start)..clamped(range.end - tail_start)));
        }
        let mut bytes = vec![0; clamped(range.end.saturating_sub(range.start))];
        let read =
            self.file.read_at(&mut bytes, range.start).map_err(io_error("read", &self.path))?;
        Damage::unless_equal("the length of a read", bytes.len(), read)
            .map_err(|damage| damage.at(self.path.clone()))?;
        Ok(bytes.into())
    }
}

/// For lengths within a few chunks, which fit any `usize`.
fn clamped(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
