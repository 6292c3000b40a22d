//! Building the index of a stopped volume anew.

use std::path::Path;
use std::sync::Arc;

use holdfast_runtime::Runtime;

use super::options::LogStoreOptions;
use super::recovery::{OpenReport, recover};
use super::replay::Progress;
use super::shared::mark_for_rebuild;
use crate::StoreError;
use crate::disk::Disk;
use crate::volume::open_existing;

/// Removes the index of the volume in `root` and builds it from the log, as a
/// start does that finds none. Cut short, the next start does it.
///
/// What only the index remembers of damage in the log goes with it: the names
/// concerned are then in doubt. [`super::fsck`] with a repair keeps it. Blocks.
///
/// # Errors
/// [`StoreError::InUse`], [`StoreError::Format`] when there is no volume of this
/// engine and release, [`StoreError::Index`], [`StoreError::Poisoned`],
/// [`StoreError::NoSpace`], [`StoreError::Io`].
pub fn rebuild_index(
    runtime: &Runtime,
    root: &Path,
    options: &LogStoreOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<OpenReport, StoreError> {
    let disk = Arc::new(Disk::new(runtime.clone(), root.to_owned(), options.reserve_bytes));
    let _lock = open_existing(&disk, &super::volume::spec())?;
    mark_for_rebuild(&disk)?;
    let recovered = recover(&disk, options, progress)?;
    recovered.index.persist()?;
    Ok(recovered.report)
}
