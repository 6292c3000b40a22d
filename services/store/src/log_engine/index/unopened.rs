//! What stands in for an index that was closed and could not be opened again,
//! because the disk is full or the process has no descriptor left. It knows
//! nothing, and says so.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use holdfast_core::name::ObjectName;

use super::{
    Brief, Checkpoint, Entry, FileId, FileState, Index, IndexBatch, IndexError, SegmentUsage,
};

/// No index: every call says why there is none.
#[derive(Debug)]
pub(crate) struct Unopened {
    why: IndexError,
}

impl Unopened {
    /// That it is damaged was found by who opened it, who sees to it.
    pub(crate) fn new(why: &IndexError) -> Self {
        let why = match why {
            IndexError::Damaged { reason } => IndexError::Failed { reason: reason.clone() },
            why => why.again(),
        };
        Self { why }
    }
}

impl Index for Unopened {
    fn get(&self, _name: &ObjectName) -> Result<Option<Entry>, IndexError> {
        Err(self.why.again())
    }

    fn scan(
        &self,
        _from: Bound<&ObjectName>,
        _visit: &mut dyn FnMut(ObjectName, Entry) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        Err(self.why.again())
    }

    fn list(
        &self,
        _from: Bound<&ObjectName>,
        _visit: &mut dyn FnMut(&str, &str, Brief<'_>) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        Err(self.why.again())
    }

    fn file(&self, _file: FileId) -> Result<Option<FileState>, IndexError> {
        Err(self.why.again())
    }

    fn doomed_files(&self, _limit: usize) -> Result<Vec<FileId>, IndexError> {
        Err(self.why.again())
    }

    fn checkpoint(&self) -> Result<Option<Checkpoint>, IndexError> {
        Err(self.why.again())
    }

    fn segments(&self) -> Result<BTreeMap<u64, SegmentUsage>, IndexError> {
        Err(self.why.again())
    }

    fn apply(&self, _batch: &IndexBatch) -> Result<(), IndexError> {
        Err(self.why.again())
    }

    fn takes_batches(&self) -> Result<(), IndexError> {
        Err(self.why.again())
    }

    fn persist(&self) -> Result<(), IndexError> {
        Err(self.why.again())
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}
