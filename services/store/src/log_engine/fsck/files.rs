//! Payload files: every one that an entry points to must be there and be what
//! was written.

use std::sync::Arc;

use super::entries::visit_entries;
use super::finding::{Finding, FindingKind};
use super::{Event, OnEvent};
use crate::StoreError;
use crate::disk::Disk;
use crate::log_engine::index::{Content, Entry, FileId, Index};
use crate::log_engine::large::{self, LargeFiles};
use crate::log_engine::replay::Progress;
use crate::payload_file::checksum::JoinedDigest;
use crate::payload_file::damage::Damage;
use crate::payload_file::object_file::{CHUNK_BYTES, ObjectFile, SCAN_TAIL_BYTES};
use holdfast_core::name::ObjectName;

/// Told of each version whose payload cannot be read.
pub(super) type OnDamaged<'a> = dyn FnMut(&ObjectName, &Entry) -> Result<(), StoreError> + 'a;

/// Looks at payload files.
pub(super) struct Files<'a> {
    disk: Arc<Disk>,
    large: LargeFiles,
    is_quick: bool,
    progress: Progress,
    on: &'a mut OnEvent<'a>,
}

impl<'a> Files<'a> {
    /// A quick look leaves payloads out.
    pub(super) fn new(disk: &Arc<Disk>, is_quick: bool, on: &'a mut OnEvent<'a>) -> Self {
        let large = LargeFiles::new(Arc::clone(disk), 0);
        Self { disk: Arc::clone(disk), large, is_quick, progress: Progress::default(), on }
    }

    /// Checks the file of each entry, then looks for files without one; gives
    /// the number of files. Blocks.
    pub(super) fn check(
        &mut self,
        index: &dyn Index,
        on_damaged: &mut OnDamaged<'_>,
    ) -> Result<u64, StoreError> {
        self.progress.total_bytes = self.total_bytes()?;
        let mut count = 0;
        visit_entries(index, &mut |name, entry| {
            let Content::File(file) = entry.content else { return Ok(()) };
            count += 1;
            let opened = large::open(&self.large, file, name, &entry.stat);
            let Err(error) = opened.and_then(|file| self.check_payload(&file)) else {
                return Ok(());
            };
            self.on_error(file, error, Some((name, entry)))?;
            on_damaged(name, entry)
        })?;
        self.look_for_orphans(index)?;
        Ok(count)
    }

    /// Checks every file that is there by what it says of itself, when there is
    /// no index to tell which are needed. Blocks.
    pub(super) fn check_all(&mut self) -> Result<u64, StoreError> {
        self.progress.total_bytes = self.total_bytes()?;
        let mut count = 0;
        for directory in self.large.list_directories()? {
            for file in self.list(directory)? {
                count += 1;
                let path = self.large.path(file);
                let checked = match ObjectFile::open(&self.disk, path.clone(), SCAN_TAIL_BYTES) {
                    Ok(file) => self.check_payload(&file),
                    Err(error) if error.is_no_such_file() => Ok(()),
                    // Only the index tells whether it is needed.
                    Err(error) => {
                        let finding = Finding::new(FindingKind::UnfinishedFile, path);
                        (self.on)(Event::Finding(finding.because(error)));
                        continue;
                    }
                };
                if let Err(error) = checked {
                    self.on_error(file, error, None)?;
                }
            }
        }
        Ok(count)
    }

    fn list(&self, directory: u64) -> Result<Vec<FileId>, StoreError> {
        match self.large.list(directory) {
            Err(error) if error.is_no_such_file() => Ok(Vec::new()),
            listed => listed,
        }
    }

    /// What there is to read.
    fn total_bytes(&self) -> Result<u64, StoreError> {
        let mut bytes = 0;
        if self.is_quick {
            return Ok(bytes);
        }
        for directory in self.large.list_directories()? {
            for file in self.list(directory)? {
                // Whoever reads it says what is wrong with it.
                let opened = self.disk.open(&self.large.path(file));
                bytes += opened.ok().and_then(|file| file.len().ok()).unwrap_or(0);
            }
        }
        Ok(bytes)
    }

    fn check_payload(&mut self, file: &ObjectFile) -> Result<(), StoreError> {
        let size_bytes = file.stat().size_bytes;
        if self.is_quick {
            return Ok(());
        }
        let mut joined = JoinedDigest::default();
        while joined.size_bytes() < size_bytes {
            let start = joined.size_bytes();
            let chunk = file.chunk(start..size_bytes.min(start + CHUNK_BYTES))?;
            joined.append(chunk.digest, chunk.bytes.len() as u64);
            self.progress.done_bytes += chunk.bytes.len() as u64;
            (self.on)(Event::Progress(self.progress));
        }
        Damage::unless_equal("the whole payload", file.stat().digest, joined.digest())
            .map_err(|damage| damage.at(file.path().to_owned()))
    }

    fn on_error(
        &mut self,
        file: FileId,
        error: StoreError,
        of: Option<(&ObjectName, &Entry)>,
    ) -> Result<(), StoreError> {
        let path = self.large.path(file);
        let is_there = self.list(file.directory)?.contains(&file);
        let kind = match error {
            StoreError::Corrupt { .. } | StoreError::Io { .. } if !is_there => {
                FindingKind::PayloadFileMissing
            }
            StoreError::Corrupt { .. } | StoreError::Io { .. } => FindingKind::PayloadFileDamaged,
            error => return Err(error),
        };
        let mut finding = Finding::new(kind, path);
        if is_there {
            finding = finding.because(&error);
        }
        if let Some((name, entry)) = of {
            finding = finding.of(name, entry.stat.version);
        }
        (self.on)(Event::Finding(finding));
        Ok(())
    }

    fn look_for_orphans(&mut self, index: &dyn Index) -> Result<(), StoreError> {
        for directory in self.large.list_directories()? {
            for file in self.list(directory)? {
                if index.file(file)?.is_none() {
                    let path = self.large.path(file);
                    (self.on)(Event::Finding(Finding::new(FindingKind::OrphanFile, path)));
                }
            }
        }
        Ok(())
    }
}
