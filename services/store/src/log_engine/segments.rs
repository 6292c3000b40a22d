//! The segments there are, and the few of them that are open for reading.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use holdfast_runtime::File;

use super::segment::SegmentId;
use crate::StoreError;
use crate::disk::Disk;

/// Segments that are kept open: reads of 32 GiB of log need no `open`, and a
/// volume of any size stays far below a process's limit of open files.
const OPEN_SEGMENTS: usize = 128;

/// Which segments there are. A segment that is gone may still be read by who
/// opened it before.
#[derive(Debug)]
pub(super) struct Segments {
    disk: Arc<Disk>,
    known: RwLock<BTreeMap<u64, SegmentId>>,
    open: Mutex<OpenFiles>,
}

/// A segment that can be read.
pub(super) type OpenSegment = (SegmentId, Arc<dyn File>);

#[derive(Debug, Default)]
struct OpenFiles {
    files: BTreeMap<u64, Arc<dyn File>>,
    /// In the order in which they were opened.
    order: VecDeque<u64>,
}

impl Segments {
    pub(super) fn new(disk: Arc<Disk>, known: BTreeMap<u64, SegmentId>) -> Self {
        Self { disk, known: RwLock::new(known), open: Mutex::default() }
    }

    pub(super) fn get(&self, number: u64) -> Option<SegmentId> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&number).copied()
    }

    pub(super) fn numbers(&self) -> Vec<u64> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    pub(super) fn path(&self, id: SegmentId) -> PathBuf {
        self.disk.path(id.path())
    }

    pub(super) fn add(&self, id: SegmentId, file: Arc<dyn File>) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(id.number, id);
        self.open_files().keep(id.number, file);
    }

    pub(super) fn remove(&self, number: u64) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
        self.open_files().drop_file(number);
    }

    /// Opens a segment for reading; `None` when there is none of this number.
    /// Blocks.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(super) fn open(&self, number: u64) -> Result<Option<OpenSegment>, StoreError> {
        let Some(id) = self.get(number) else { return Ok(None) };
        if let Some(file) = self.open_files().files.get(&number) {
            return Ok(Some((id, Arc::clone(file))));
        }
        let file: Arc<dyn File> = self.disk.open(&self.path(id))?.into();
        self.open_files().keep(number, Arc::clone(&file));
        Ok(Some((id, file)))
    }

    fn open_files(&self) -> MutexGuard<'_, OpenFiles> {
        // Each change is complete before anything can panic.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenFiles {
    fn keep(&mut self, number: u64, file: Arc<dyn File>) {
        if self.files.insert(number, file).is_none() {
            self.order.push_back(number);
        }
        if self.order.len() > OPEN_SEGMENTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.files.remove(&oldest);
        }
    }

    fn drop_file(&mut self, number: u64) {
        self.files.remove(&number);
        self.order.retain(|kept| *kept != number);
    }
}
