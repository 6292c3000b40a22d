//! Writes one piece while the next is gathered.
//!
//! A job on the blocking pool writes what is queued and ends when nothing is; so
//! no thread is held by a client that is slow, and none is waited for between
//! two pieces of one that is fast. Of one file at most one write is in flight.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::LargeFiles;
use super::new_file::NewFile;
use super::piece::Piece;
use crate::StoreError;

/// What is written at once: a multiple of the block, large enough that the way
/// to a blocking thread does not count.
pub(super) const PIECE_BYTES: usize = 1024 * 1024;

/// One that is gathered and one that is written.
const MAX_PIECES: usize = 2;

/// What the job and who feeds it share.
#[derive(Debug, Default)]
struct Lane {
    state: Mutex<State>,
    /// A piece has been written.
    written: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Piece>,
    spares: Vec<Piece>,
    /// Whether a job will look at the queue once more.
    is_running: bool,
    /// Whether spares are of no use any more.
    is_closed: bool,
}

impl Lane {
    // What is changed under the lock cannot panic halfway.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a piece; true when a job must be begun to write it.
    fn queue(&self, piece: Piece) -> bool {
        let mut state = self.state();
        state.queue.push_back(piece);
        !std::mem::replace(&mut state.is_running, true)
    }

    /// For the job: what to write next, if anything.
    fn next(&self) -> Option<Piece> {
        let mut state = self.state();
        let next = state.queue.pop_front();
        state.is_running = next.is_some();
        next
    }

    fn give_back(&self, mut piece: Piece) {
        piece.clear();
        let mut state = self.state();
        if !state.is_closed {
            state.spares.push(piece);
        }
        drop(state);
        self.written.notify_one();
    }

    fn take_spare(&self) -> Option<Piece> {
        self.state().spares.pop()
    }

    fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        state.spares.clear();
    }

    /// The job. Blocks.
    fn write_queued(&self, mut file: NewFile) -> Result<NewFile, StoreError> {
        while let Some(piece) = self.next() {
            file.append(&piece)?;
            self.give_back(piece);
        }
        Ok(file)
    }
}

/// The way of pieces into one file. Dropping it removes the file when the write
/// that is in flight has ended.
#[derive(Debug)]
pub(super) struct Pipeline {
    files: Arc<LargeFiles>,
    lane: Arc<Lane>,
    writer: Writer,
    piece_count: usize,
}

/// Who has the file.
#[derive(Debug)]
enum Writer {
    Idle(NewFile),
    Job(oneshot::Receiver<Result<NewFile, StoreError>>),
    /// A write failed, and the file is gone.
    Failed,
}

impl Writer {
    /// Waits until the job has ended, which it does when nothing is queued.
    async fn idle(&mut self) -> Result<NewFile, StoreError> {
        if let Self::Job(job) = self {
            let ended = job.await.unwrap_or(Err(StoreError::WorkLost));
            *self = Self::Failed;
            return ended;
        }
        match std::mem::replace(self, Self::Failed) {
            Self::Idle(file) => Ok(file),
            Self::Job(_) | Self::Failed => Err(StoreError::WorkLost),
        }
    }
}

impl Pipeline {
    pub(super) fn new(files: Arc<LargeFiles>) -> Self {
        let writer = Writer::Idle(NewFile::new(Arc::clone(&files)));
        Self { files, lane: Arc::default(), writer, piece_count: 0 }
    }

    pub(super) fn files(&self) -> &Arc<LargeFiles> {
        &self.files
    }

    /// An empty piece, as soon as there is one.
    ///
    /// # Errors
    /// Those of the writes before.
    pub(super) async fn spare(&mut self) -> Result<Piece, StoreError> {
        loop {
            if let Some(piece) = self.lane.take_spare() {
                return Ok(piece);
            }
            if self.piece_count < MAX_PIECES {
                self.piece_count += 1;
                return Ok(Piece::new(PIECE_BYTES));
            }
            if !matches!(self.writer, Writer::Job(_)) {
                // A piece was lost with a call that did not end, or with a write.
                return Err(StoreError::WorkLost);
            }
            tokio::select! {
                biased;
                () = self.lane.written.notified() => {}
                idle = self.writer.idle() => self.writer = Writer::Idle(idle?),
            }
        }
    }

    /// Writes a piece in the background.
    ///
    /// # Errors
    /// Those of the writes before.
    pub(super) async fn write(&mut self, piece: Piece) -> Result<(), StoreError> {
        if self.lane.queue(piece) {
            let (file, lane) = (self.writer.idle().await?, Arc::clone(&self.lane));
            self.writer = Writer::Job(self.files.disk.begin(move |_| lane.write_queued(file)));
        }
        Ok(())
    }

    /// Gives memory back as soon as what it holds is written.
    pub(super) fn close(&mut self) {
        self.lane.close();
    }

    /// Waits until everything is written, and says where it is and how much; `None`
    /// if nothing was. Not cancel safe.
    ///
    /// # Errors
    /// Those of the writes.
    pub(super) async fn written(&mut self) -> Result<Option<(PathBuf, u64)>, StoreError> {
        let file = self.writer.idle().await?;
        let written = file.written();
        self.writer = Writer::Idle(file);
        Ok(written)
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// Those of the writes.
    pub(super) async fn end(mut self) -> Result<NewFile, StoreError> {
        self.writer.idle().await
    }
}
