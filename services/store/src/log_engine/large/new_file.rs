//! A payload file that is being written.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_runtime::DIRECT_ALIGNMENT_BYTES;

use super::piece::Piece;
use super::{Created, LargeFiles};
use crate::StoreError;
use crate::disk::io_error;
use crate::log_engine::index::FileId;

/// A file without a name in the log; dropped, it is removed. All methods block.
#[derive(Debug)]
pub(super) struct NewFile {
    files: Arc<LargeFiles>,
    /// Made with the first write.
    created: Option<Created>,
    written_bytes: u64,
}

impl NewFile {
    pub(super) fn new(files: Arc<LargeFiles>) -> Self {
        Self { files, created: None, written_bytes: 0 }
    }

    /// Appends a whole number of aligned blocks.
    pub(super) fn append(&mut self, piece: &Piece) -> Result<(), StoreError> {
        self.write(piece.filled())
    }

    /// Appends the end of the payload and its trailer, and makes the file
    /// durable but for its name in its directory.
    pub(super) fn complete(mut self, end: Vec<u8>) -> Result<DurableFile, StoreError> {
        let file_bytes = self.written_bytes + end.len() as u64;
        let disk = Arc::clone(&self.files.disk);
        let Created { is_direct, .. } = *self.created()?;
        if is_direct {
            let padded = end.len().next_multiple_of(DIRECT_ALIGNMENT_BYTES);
            let mut piece = Piece::new(padded);
            piece.fill(&mut Bytes::from(end));
            piece.fill(&mut Bytes::from(vec![0; DIRECT_ALIGNMENT_BYTES]));
            self.append(&piece)?;
        } else {
            self.write(&end)?;
        }
        let Created { id, path, file, .. } = self.created()?;
        let id = *id;
        if is_direct {
            file.set_len(file_bytes).map_err(io_error("cut", path))?;
        }
        disk.sync_file(&**file, path)?;
        Ok(DurableFile { id, file: self })
    }

    /// Where it is and how much is in it, if it was made.
    pub(super) fn written(&self) -> Option<(PathBuf, u64)> {
        self.created.as_ref().map(|created| (created.path.clone(), self.written_bytes))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.files.disk.writable()?;
        self.check_room(bytes.len() as u64)?;
        let (disk, offset) = (Arc::clone(&self.files.disk), self.written_bytes);
        let Created { path, file, .. } = self.created()?;
        disk.write(&**file, path, bytes, offset)?;
        self.written_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Looked at before each piece: many files grow at once.
    fn check_room(&self, more_bytes: u64) -> Result<(), StoreError> {
        self.files.disk.check_room(more_bytes)
    }

    fn created(&mut self) -> Result<&mut Created, StoreError> {
        let created = match self.created.take() {
            Some(created) => created,
            None => self.files.create()?,
        };
        Ok(self.created.insert(created))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(created) = self.created.take() {
            let Created { path, .. } = created;
            self.files.disk.remove_in_background(path);
        }
    }
}

/// A complete file. It and its length survive a power cut once its directory is
/// synced ([`LargeFiles::sync_directory`]); dropped before it is kept, it is
/// removed.
#[derive(Debug)]
pub(crate) struct DurableFile {
    id: FileId,
    file: NewFile,
}

impl DurableFile {
    /// Which file it is.
    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    /// From now on it stays. To be called before a record that points to it is
    /// written, or is in doubt: a file too many is swept later, one too few is a
    /// lost payload.
    pub(crate) fn keep(mut self) -> FileId {
        self.file.created = None;
        self.id
    }
}
