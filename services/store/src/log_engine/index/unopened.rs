//! What stands in for an index that was closed and could not be opened again,
//! because the disk is full. It knows nothing, and says so.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use holdfast_core::name::ObjectName;

use super::{
    Brief, Checkpoint, Entry, FileId, FileState, Index, IndexBatch, IndexError, SegmentUsage,
};

/// No index: every call is [`IndexError::NoSpace`].
#[derive(Debug)]
pub(crate) struct Unopened;

impl Index for Unopened {
    fn get(&self, _name: &ObjectName) -> Result<Option<Entry>, IndexError> {
        Err(IndexError::NoSpace)
    }

    fn scan(
        &self,
        _from: Bound<&ObjectName>,
        _visit: &mut dyn FnMut(ObjectName, Entry) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        Err(IndexError::NoSpace)
    }

    fn list(
        &self,
        _from: Bound<&ObjectName>,
        _visit: &mut dyn FnMut(&str, &str, Brief<'_>) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        Err(IndexError::NoSpace)
    }

    fn file(&self, _file: FileId) -> Result<Option<FileState>, IndexError> {
        Err(IndexError::NoSpace)
    }

    fn doomed_files(&self, _limit: usize) -> Result<Vec<FileId>, IndexError> {
        Err(IndexError::NoSpace)
    }

    fn checkpoint(&self) -> Result<Option<Checkpoint>, IndexError> {
        Err(IndexError::NoSpace)
    }

    fn segments(&self) -> Result<BTreeMap<u64, SegmentUsage>, IndexError> {
        Err(IndexError::NoSpace)
    }

    fn apply(&self, _batch: &IndexBatch) -> Result<(), IndexError> {
        Err(IndexError::NoSpace)
    }

    fn persist(&self) -> Result<(), IndexError> {
        Err(IndexError::NoSpace)
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}
