//! Large payloads on their way in.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use holdfast_core::name::ObjectName;
use holdfast_core::object::{Digest, Stat};

use super::LargeFiles;
use super::new_file::DurableFile;
use super::piece::Piece;
use super::pipeline::Pipeline;
use crate::disk::io_error;
use crate::payload_file::checksum::BlockSums;
use crate::payload_file::front::read_front;
use crate::payload_file::layout::encode_trailer;
use crate::{ByteStream, StoreError};

/// A payload that comes in pieces and goes to a file of its own. Holds up to
/// 2 MiB in memory. Dropping it takes everything back.
pub(crate) struct LargeStaging {
    pipeline: Pipeline,
    gathered: Option<Piece>,
    sums: BlockSums,
}

impl LargeStaging {
    /// Begins a payload; the file is made when there is something to write.
    pub(crate) fn new(files: &Arc<LargeFiles>) -> Self {
        let pipeline = Pipeline::new(Arc::clone(files));
        Self { pipeline, gathered: None, sums: BlockSums::new() }
    }

    /// Appends bytes. Waits only while the disk is slower than who calls. Not
    /// cancel safe: after a write that did not end, only dropping is allowed.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], [`StoreError::Poisoned`], [`StoreError::Io`]: of
    /// this write or of one before.
    pub(crate) async fn write(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let mut piece = match self.gathered.take() {
                Some(piece) => piece,
                None => self.pipeline.spare().await?,
            };
            piece.fill(&mut bytes);
            if piece.is_full() {
                self.sums.update(piece.filled());
                self.pipeline.write(piece).await?;
            } else {
                self.gathered = Some(piece);
            }
        }
        Ok(())
    }

    /// Ends the payload. What a direct write can take is on its way to the disk
    /// afterwards, and less than 4 KiB and the block table stay in memory.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(crate) async fn finish(mut self) -> Result<LargeStaged, StoreError> {
        let mut rest = Vec::new();
        if let Some(mut piece) = self.gathered.take() {
            self.sums.update(piece.filled());
            rest = piece.split_unaligned();
            if !piece.is_empty() {
                self.pipeline.write(piece).await?;
            }
        }
        self.pipeline.close();
        Ok(LargeStaged { pipeline: self.pipeline, rest, sums: self.sums })
    }
}

impl fmt::Debug for LargeStaging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LargeStaging")
            .field("summed_bytes", &self.sums.size_bytes())
            .finish_non_exhaustive()
    }
}

/// A large payload that is complete and waits for its name. Dropping it takes it
/// back.
pub(crate) struct LargeStaged {
    pipeline: Pipeline,
    /// The end of the payload, not written yet.
    rest: Vec<u8>,
    sums: BlockSums,
}

impl LargeStaged {
    /// Length in bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.sums.size_bytes()
    }

    /// Digest of all of it.
    pub(crate) fn digest(&self) -> Digest {
        self.sums.digest()
    }

    /// Its bytes, as they are in the file and in memory.
    ///
    /// # Errors
    /// As [`LargeStaging::write`].
    pub(crate) async fn read(&mut self) -> Result<ByteStream, StoreError> {
        let written = self.pipeline.written().await?;
        let rest = Bytes::copy_from_slice(&self.rest);
        let rest = stream::once(async move { Ok(rest) });
        let Some((path, written_bytes)) = written else { return Ok(rest.boxed()) };
        let disk = Arc::clone(&self.pipeline.files().disk);
        Ok(read_front(disk, path, written_bytes).await?.chain(rest).boxed())
    }

    /// Writes the end of the payload and the trailer, and makes the file durable
    /// but for its name in its directory. `stat` has the length and the digest of
    /// this payload. Dropping the future removes the file.
    ///
    /// # Errors
    /// As [`LargeStaging::write`].
    pub(crate) async fn complete(
        self,
        name: ObjectName,
        stat: Stat,
    ) -> Result<DurableFile, StoreError> {
        let Self { pipeline, rest: mut end, sums } = self;
        let disk = Arc::clone(&pipeline.files().disk);
        let file = pipeline.end().await?;
        let completed = disk.run(move |disk| {
            let trailer = encode_trailer(&name, &stat, sums.sums())
                .map_err(io_error("describe an object in", &disk.path(super::DIRECTORY)))?;
            end.extend_from_slice(&trailer);
            file.complete(end)
        });
        completed.await
    }
}

impl fmt::Debug for LargeStaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LargeStaged")
            .field("size_bytes", &self.size_bytes())
            .finish_non_exhaustive()
    }
}
