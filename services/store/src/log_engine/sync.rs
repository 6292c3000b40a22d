//! The thread that waits for the disk: it writes one batch at a time and makes
//! it durable, while the next one is planned.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use holdfast_runtime::File;

use super::handover::{Handover, Write};
use super::segment::SegmentId;
use super::shared::Shared;
use crate::StoreError;
use crate::disk::io_error;

/// What became of a batch; the bytes come back for their capacity.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) bytes: Vec<u8>,
    /// When it was taken, on the clock of the runtime.
    pub(super) began: Duration,
    /// [`StoreError::NoSpace`] when nothing of it is left in the file;
    /// [`StoreError::Poisoned`] when it is unknown what is; any other when it was
    /// not written at all.
    pub(super) result: Result<(), StoreError>,
}

/// Writes batches until the place where they are left is closed.
#[derive(Debug)]
pub(super) struct Syncer {
    shared: Arc<Shared>,
    handover: Arc<Handover>,
    active: Option<Active>,
}

/// The segment that is written to.
#[derive(Debug)]
struct Active {
    id: SegmentId,
    path: PathBuf,
    file: Arc<dyn File>,
}

/// Tells the writer when this thread is gone.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.queue.wake_writer();
    }
}

impl Syncer {
    pub(super) fn new(shared: Arc<Shared>, handover: Arc<Handover>) -> Self {
        Self { shared, handover, active: None }
    }

    /// Tells the queue after each batch, where the writer waits, and before each
    /// one that is full: then the next one can be planned.
    pub(super) fn run(mut self, done: Sender<Written>) {
        // Wakes the writer, which then finds the channel closed, if this panics.
        let _ending = Ending(Arc::clone(&self.shared));
        let done = done;
        while let Some(write) = self.handover.take() {
            if write.is_full {
                self.shared.queue.wake_writer();
            }
            let began = self.shared.disk.runtime().now();
            let result = self.write(&write);
            if result.is_err() {
                self.handover.halt();
            }
            // The writer outlives this thread, but for a panic of its own. Told
            // before the next batch is taken: who sees that, finds this.
            let _ = done.send(Written { bytes: write.bytes, began, result });
            self.shared.queue.wake_writer();
        }
    }

    /// In this order: the names of payload files, the records.
    fn write(&mut self, write: &Write) -> Result<(), StoreError> {
        for directory in &write.directories {
            self.shared.large.sync_directory(*directory)?;
        }
        let is_new = self.active.as_ref().is_none_or(|active| active.id != write.segment);
        if is_new {
            self.active = None;
            self.begin_segment(write.segment)?;
        }
        let active = self.active.as_ref().ok_or(StoreError::WorkLost)?;
        let written = self.append(active, write.start.into(), &write.bytes);
        if is_new && matches!(written, Err(StoreError::NoSpace { .. })) {
            self.active = None;
            self.shared.segments.remove(write.segment.number);
            self.remove_new(write.segment)?;
        }
        written
    }

    /// All of the segment before is durable, since its last batch was. The name
    /// of the new file is durable when this returns; its header is synced with
    /// the first batch.
    fn begin_segment(&mut self, id: SegmentId) -> Result<(), StoreError> {
        let disk = &self.shared.disk;
        let path = self.shared.segments.path(id);
        let file: Arc<dyn File> = disk.create(&path)?.into();
        if let Err(error) = disk.write(&*file, &path, &id.header(), 0) {
            if !matches!(error, StoreError::NoSpace { .. }) {
                return Err(disk.poison_with(error.to_string()));
            }
            self.remove_new(id)?;
            return Err(error);
        }
        disk.sync_directory(&disk.path("log"))?;
        self.shared.segments.add(id, Arc::clone(&file));
        self.active = Some(Active { id, path, file });
        Ok(())
    }

    /// A segment without records that stayed would not be known to the index, which
    /// the next start would then build anew.
    fn remove_new(&self, id: SegmentId) -> Result<(), StoreError> {
        let disk = &self.shared.disk;
        match disk.remove(&self.shared.segments.path(id)) {
            Ok(()) => disk.sync_directory(&disk.path("log")),
            Err(error) => {
                tracing::warn!(%error, "a segment without records stays");
                Ok(())
            }
        }
    }

    fn append(&self, active: &Active, start: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let disk = &self.shared.disk;
        let Active { path, file, .. } = active;
        if let Err(error) = disk.write(&**file, path, bytes, start) {
            if !matches!(error, StoreError::NoSpace { .. }) {
                return Err(disk.poison_with(error.to_string()));
            }
            // What is left of it must not be found behind a later record, nor
            // before a later segment.
            let cut = file.set_len(start).map_err(io_error("cut", path));
            cut.map_err(|error| disk.poison_with(error.to_string()))?;
            disk.sync_file(&**file, path)?;
            return Err(error);
        }
        disk.sync_file(&**file, path)
    }
}
