//! Payloads on their way in: gathered into large pieces, written to a file of
//! their own, and without a name until they are committed.

use std::any::Any;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt};
use holdfast_core::name::ObjectName;
use holdfast_core::object::{Digest, Stat};
use holdfast_runtime::File;

use super::Shared;
use crate::disk::{Disk, io_error};
use crate::payload_file::checksum::BlockSums;
use crate::payload_file::front::read_front;
use crate::payload_file::layout::{BLOCK_BYTES, encode_trailer};
use crate::{ByteStream, Staged, Staging, StoreError};

/// What is gathered before it is written: a multiple of the block, large enough
/// that the way to a blocking thread does not count.
const PIECE_BYTES: usize = 8 * BLOCK_BYTES;

/// How much is written between two looks at the room that is left.
const ROOM_CHECK_BYTES: u64 = 8 * 1024 * 1024;

/// What a write may use of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// All but the reserve.
    AboveReserve,
    /// The reserve too: what gives room in the end, or is tiny.
    All,
}

/// A file in the staging area; dropped before it has a name, it is removed.
pub(super) struct StagedFile {
    disk: Arc<Disk>,
    path: PathBuf,
    room: Room,
    file: Option<Box<dyn File>>,
    written_bytes: u64,
    /// How far the file may grow before the room is looked at again.
    checked_bytes: u64,
}

impl StagedFile {
    pub(super) fn new(shared: &Shared, room: Room) -> Self {
        let number = shared.staged_count.fetch_add(1, Ordering::Relaxed);
        let path = shared.disk.path(format!("staging/{:016x}-{number:016x}", shared.opened));
        let disk = Arc::clone(&shared.disk);
        Self { disk, path, room, file: None, written_bytes: 0, checked_bytes: 0 }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.disk.writable()?;
        self.check_room(bytes.len() as u64)?;
        let file = match self.file.take() {
            Some(file) => file,
            None => self.disk.create(&self.path)?,
        };
        let file = self.file.insert(file);
        self.disk.write(&**file, &self.path, bytes, self.written_bytes)?;
        self.written_bytes += bytes.len() as u64;
        Ok(())
    }

    fn check_room(&mut self, more_bytes: u64) -> Result<(), StoreError> {
        let end = self.written_bytes + more_bytes;
        if self.room == Room::All || end <= self.checked_bytes {
            return Ok(());
        }
        self.disk.check_room(more_bytes)?;
        self.checked_bytes = end + ROOM_CHECK_BYTES;
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        match &self.file {
            Some(file) => self.disk.sync_file(&**file, &self.path),
            None => Ok(()),
        }
    }

    /// Gives the file its name. Not durable before the directory is synced.
    pub(super) fn rename(&mut self, to: &Path) -> Result<(), StoreError> {
        self.disk.rename(&self.path, to)?;
        // From here on there is nothing in the staging area to remove.
        self.file = None;
        Ok(())
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            self.disk.remove_in_background(std::mem::take(&mut self.path));
        }
    }
}

/// The file and the checksums of what is in it.
pub(super) struct Content {
    file: StagedFile,
    sums: BlockSums,
}

impl Content {
    pub(super) fn new(file: StagedFile) -> Self {
        Self { file, sums: BlockSums::new() }
    }

    fn append(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        self.sums.update(piece);
        self.file.append(piece)
    }

    /// Writes what is left of the payload, then the trailer, and makes the file
    /// durable. `rest` is in the checksums already. Blocks.
    pub(super) fn complete(
        mut self,
        rest: &[u8],
        name: &ObjectName,
        stat: &Stat,
    ) -> Result<StagedFile, StoreError> {
        let trailer = encode_trailer(name, stat, self.sums.sums())
            .map_err(io_error("describe the object in", &self.file.path))?;
        self.file.append(&[rest, &trailer].concat())?;
        self.file.sync()?;
        Ok(self.file)
    }
}

/// The [`Staging`] of this engine.
pub(super) struct FileStaging {
    shared: Arc<Shared>,
    gathered: BytesMut,
    /// Gone while a piece is being written, and after one could not be.
    content: Option<Content>,
}

impl FileStaging {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let file = StagedFile::new(shared, Room::AboveReserve);
        let content = Some(Content::new(file));
        Self { shared: Arc::clone(shared), gathered: BytesMut::new(), content }
    }

    async fn write_piece(&mut self, piece: Bytes) -> Result<(), StoreError> {
        let mut content = self.content.take().ok_or(StoreError::WorkLost)?;
        let written = self.shared.disk.run(move |_| {
            content.append(&piece)?;
            Ok(content)
        });
        self.content = Some(written.await?);
        Ok(())
    }
}

impl fmt::Debug for FileStaging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStaging")
            .field("gathered", &self.gathered.len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Staging for FileStaging {
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        while self.gathered.len() + bytes.len() >= PIECE_BYTES {
            let rest = bytes.split_to(PIECE_BYTES - self.gathered.len());
            let piece = if self.gathered.is_empty() {
                rest
            } else {
                self.gathered.extend_from_slice(&rest);
                self.gathered.split().freeze()
            };
            self.write_piece(piece).await?;
        }
        self.gathered.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Box<dyn Staged>, StoreError> {
        let Self { shared, gathered, content } = *self;
        let mut content = content.ok_or(StoreError::WorkLost)?;
        let rest = gathered.freeze();
        content.sums.update(&rest);
        Ok(Box::new(FileStaged { shared, rest, content }))
    }
}

/// The [`Staged`] of this engine. A payload of less than a piece is in memory
/// until it is committed.
pub(super) struct FileStaged {
    pub(super) shared: Arc<Shared>,
    pub(super) rest: Bytes,
    pub(super) content: Content,
}

impl fmt::Debug for FileStaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStaged").field("size_bytes", &self.size_bytes()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Staged for FileStaged {
    fn size_bytes(&self) -> u64 {
        self.content.sums.size_bytes()
    }

    fn digest(&self) -> Digest {
        self.content.sums.digest()
    }

    async fn read(&mut self) -> Result<ByteStream, StoreError> {
        let rest = self.rest.clone();
        let rest = stream::once(async move { Ok(rest) });
        let StagedFile { path, written_bytes, file, .. } = &self.content.file;
        if file.is_none() {
            return Ok(rest.boxed());
        }
        let (disk, path) = (Arc::clone(&self.shared.disk), path.clone());
        Ok(read_front(disk, path, *written_bytes).await?.chain(rest).boxed())
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}
