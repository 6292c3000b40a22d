//! The ordered index of a volume: a cache of the log that is never more than
//! that. It may lag behind the log and never leads it, and deleted it is built
//! again from the log alone.
//!
//! [`Index`] is what the engine asks for; `fjall` is what it is kept in,
//! [`MemoryIndex`] what tests cut and tear.

mod entry;
mod fjall;
mod memory;
mod unopened;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::path::Path;

use holdfast_core::name::ObjectName;
use holdfast_core::object::{Digest, Kind, Stat};
use holdfast_core::version::Version;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::fjall::FjallIndexEngine;
pub use self::memory::{MemoryIndex, MemoryIndexEngine};
pub(crate) use self::unopened::Unopened;
pub use crate::index::Counts;

/// Version of what is kept in the index. Another one is rebuilt from the log,
/// so it may change at will.
pub const INDEX_VERSION: u32 = 2;

/// A place in the log: everything before it has been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Position {
    /// Number of the segment.
    pub segment: u64,
    /// Offset in it, in bytes.
    pub offset: u64,
}

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Number of the segment.
    pub segment: u64,
    /// Where it begins, in bytes.
    pub offset: u32,
    /// Its length in bytes, padding included.
    pub length: u32,
}

/// Which payload file: `large/<directory>/<number>`, each 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// The directory.
    pub directory: u64,
    /// The file in it.
    pub number: u64,
}

/// Where the payload of an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A tombstone has none.
    Nothing,
    /// In the record.
    Inline,
    /// In a file of its own.
    File(FileId),
    /// It was damaged beyond reading; only what is known of it is left.
    Lost,
}

/// The newest version of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What is known of it.
    pub stat: Stat,
    /// Where its payload is.
    pub content: Content,
    /// Its record in the log.
    pub place: Place,
    /// Number of the write that made it; a record that compaction moved keeps
    /// the number of the first.
    pub origin: u64,
    /// Whether a read or a scrub found its payload damaged. A copy that is
    /// written anew clears it.
    pub is_damaged: bool,
}

impl Entry {
    /// Whether another copy of the same version is welcome.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        is_unreadable(self.is_damaged, self.content)
    }
}

fn is_unreadable(is_damaged: bool, content: Content) -> bool {
    is_damaged || content == Content::Lost
}

/// How much of a segment is in use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SegmentUsage {
    /// Bytes of all its records.
    pub total_bytes: u64,
    /// Bytes of the records that entries point to.
    pub live_bytes: u64,
    /// Bytes of the forget records in it, by the segment in which each was
    /// first written: they are needed while that segment or an older one is
    /// there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub forget_bytes: BTreeMap<u64, u64>,
}

/// What becomes of a payload file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileState {
    /// An entry points to it.
    Live,
    /// Nothing points to it any more; it is to be removed.
    Doomed,
}

/// A part of the log of which no name can be read. What it held may be newer
/// than anything that was written before `bound`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoubtfulRegion {
    /// The segment.
    pub segment: u64,
    /// Where it begins.
    pub start: u64,
    /// Where it ends; `u64::MAX` when all of the segment is missing.
    pub end: u64,
    /// The first write that is known to be later than all of it.
    pub bound: u64,
}

/// What the index holds beside entries, always written together with them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Checkpoint {
    /// [`INDEX_VERSION`] of who wrote it.
    pub version: u32,
    /// Every record before this is in the index.
    pub covered: Position,
    /// Number of the next write.
    pub next_sequence: u64,
    /// What the entries add up to.
    pub counts: Counts,
    /// Directories of payload files below this number hold no file that nobody
    /// points to, apart from those that are doomed.
    pub swept_below: u64,
    /// What cannot be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubt: Vec<DoubtfulRegion>,
}

impl Checkpoint {
    /// Refuses what another version wrote, so that it is built again.
    pub(super) fn check_version(&self) -> Result<(), IndexError> {
        if self.version == INDEX_VERSION {
            return Ok(());
        }
        Err(IndexError::OtherVersion { version: self.version })
    }
}

/// Changes that become visible and durable together or not at all.
#[derive(Debug, Clone, Default)]
pub struct IndexBatch {
    /// New entries, and `None` for those that are gone. A name comes once.
    pub entries: Vec<(ObjectName, Option<Entry>)>,
    /// Payload files; `None` when the file is gone.
    pub files: Vec<(FileId, Option<FileState>)>,
    /// Segments whose usage changed; `None` when the segment is gone.
    pub segments: Vec<(u64, Option<SegmentUsage>)>,
    /// Everything else.
    pub checkpoint: Checkpoint,
}

impl IndexBatch {
    /// Whether it changes nothing but, perhaps, the checkpoint's number of the
    /// next write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.files.is_empty() && self.segments.is_empty()
    }
}

/// Why an index cannot be used. The log is not affected: drop the index and
/// rebuild it.
#[derive(Debug, Error)]
pub enum IndexError {
    /// What is in it is not what was put into it.
    #[error("the index is damaged: {reason}")]
    Damaged {
        /// What was found.
        reason: String,
    },
    /// Another release wrote it: see [`INDEX_VERSION`].
    #[error("the index is of version {version}, not {INDEX_VERSION}")]
    OtherVersion {
        /// Whose it is.
        version: u32,
    },
    /// The disk is full.
    #[error(
        "no space for the index: free room on the disk of this volume, and it goes on by itself"
    )]
    NoSpace,
    /// Its engine failed.
    #[error("the index failed: {reason}")]
    Failed {
        /// What it said.
        reason: String,
    },
}

impl IndexError {
    /// What is in the place of a name is none.
    pub(crate) fn not_a_name() -> Self {
        Self::Damaged { reason: "the key of an entry is no name".to_owned() }
    }

    /// The same error for one more caller.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Damaged { reason } => Self::Damaged { reason: reason.clone() },
            Self::OtherVersion { version } => Self::OtherVersion { version: *version },
            Self::NoSpace => Self::NoSpace,
            Self::Failed { reason } => Self::Failed { reason: reason.clone() },
        }
    }
}

/// What a list shows of an entry. Its texts are those of the index, so that who
/// looks at a thousand of them copies no more than it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Brief<'a> {
    /// The version.
    pub version: Version,
    /// See [`holdfast_core::object::Metadata::written_as`].
    pub written_as: Option<Version>,
    /// Content or tombstone.
    pub kind: Kind,
    /// Payload length in bytes.
    pub size_bytes: u64,
    /// Digest of the payload.
    pub digest: Digest,
    /// The `Content-Type` of the PUT.
    pub content_type: Option<&'a str>,
    /// When the writer took the object, in Unix milliseconds.
    pub modified_unix_millis: u64,
    /// See [`Entry::is_unreadable`].
    pub is_unreadable: bool,
}

impl<'a> From<&'a Entry> for Brief<'a> {
    fn from(entry: &'a Entry) -> Self {
        let Stat { version, kind, size_bytes, digest, metadata } = &entry.stat;
        Self {
            version: *version,
            written_as: metadata.written_as,
            kind: *kind,
            size_bytes: *size_bytes,
            digest: *digest,
            content_type: metadata.content_type.as_deref(),
            modified_unix_millis: metadata.modified_unix_millis,
            is_unreadable: entry.is_unreadable(),
        }
    }
}

/// An ordered map from names to entries, with a checkpoint. All methods block.
pub trait Index: Send + Sync + fmt::Debug {
    /// The entry of a name.
    ///
    /// # Errors
    /// [`IndexError`]; a damaged entry is never "none".
    fn get(&self, name: &ObjectName) -> Result<Option<Entry>, IndexError>;

    /// Visits entries in byte order of bucket and key, until told to stop. In
    /// bounded memory, and while others write.
    ///
    /// # Errors
    /// [`IndexError`].
    fn scan(
        &self,
        from: Bound<&ObjectName>,
        visit: &mut dyn FnMut(ObjectName, Entry) -> ControlFlow<()>,
    ) -> Result<(), IndexError>;

    /// As [`Self::scan`], for a list: visits bucket and key, as texts that may be
    /// no name, and what a list shows. What a list shows is verified; headers are not.
    ///
    /// # Errors
    /// [`IndexError`].
    fn list(
        &self,
        from: Bound<&ObjectName>,
        visit: &mut dyn FnMut(&str, &str, Brief<'_>) -> ControlFlow<()>,
    ) -> Result<(), IndexError>;

    /// Whether a payload file is known, and as what.
    ///
    /// # Errors
    /// [`IndexError`].
    fn file(&self, file: FileId) -> Result<Option<FileState>, IndexError>;

    /// Payload files that are to be removed, at most `limit`.
    ///
    /// # Errors
    /// [`IndexError`].
    fn doomed_files(&self, limit: usize) -> Result<Vec<FileId>, IndexError>;

    /// The newest checkpoint; `None` for an index that was just made.
    ///
    /// # Errors
    /// [`IndexError`].
    fn checkpoint(&self) -> Result<Option<Checkpoint>, IndexError>;

    /// How much of each segment is in use.
    ///
    /// # Errors
    /// [`IndexError`].
    fn segments(&self) -> Result<BTreeMap<u64, SegmentUsage>, IndexError>;

    /// Makes a batch visible, whole. Not durable before [`Self::persist`]; after
    /// a crash any prefix of the batches is there. Survives the end of the
    /// process without it.
    ///
    /// # Errors
    /// [`IndexError`].
    fn apply(&self, batch: &IndexBatch) -> Result<(), IndexError>;

    /// Whether it takes batches still: an engine that failed, be it on a thread of
    /// its own, takes none until it is opened again.
    ///
    /// # Errors
    /// [`IndexError`].
    fn takes_batches(&self) -> Result<(), IndexError>;

    /// Removes what was replaced and is kept for nobody any more. Changes nothing
    /// that can be read.
    ///
    /// # Errors
    /// [`IndexError`].
    fn tidy(&self) -> Result<(), IndexError> {
        Ok(())
    }

    /// Makes every batch so far durable.
    ///
    /// # Errors
    /// [`IndexError`].
    fn persist(&self) -> Result<(), IndexError>;

    /// Bytes on disk, as far as the engine knows.
    fn disk_bytes(&self) -> u64;
}

/// What takes in the records of a log, in their order. All methods block.
pub trait Intake: fmt::Debug {
    /// The entry of a name, after all that was applied.
    ///
    /// # Errors
    /// As [`Index::get`].
    fn get(&self, name: &ObjectName) -> Result<Option<Entry>, IndexError>;

    /// Takes in a batch.
    ///
    /// # Errors
    /// [`IndexError`].
    fn apply(&mut self, batch: &IndexBatch) -> Result<(), IndexError>;
}

/// An index that is being built from nothing. Until it is finished it need not
/// survive anything: what is left of it has no checkpoint then.
pub trait IndexBuilder: Intake {
    /// Makes an index of it, durably.
    ///
    /// # Errors
    /// [`IndexError`].
    fn finish(self: Box<Self>) -> Result<Box<dyn Index>, IndexError>;
}

impl Intake for Box<dyn Index> {
    fn get(&self, name: &ObjectName) -> Result<Option<Entry>, IndexError> {
        (**self).get(name)
    }

    fn apply(&mut self, batch: &IndexBatch) -> Result<(), IndexError> {
        (**self).apply(batch)
    }
}

/// One that is built batch by batch, as it is written later.
impl IndexBuilder for Box<dyn Index> {
    fn finish(self: Box<Self>) -> Result<Box<dyn Index>, IndexError> {
        self.persist()?;
        Ok(*self)
    }
}

/// Opens indexes.
pub trait IndexEngine: Send + Sync + fmt::Debug {
    /// Opens the index in a directory, or makes an empty one if there is none.
    ///
    /// # Errors
    /// [`IndexError`]. Never panics, whatever is in the directory.
    fn open(&self, directory: &Path) -> Result<Box<dyn Index>, IndexError>;

    /// Makes an index in a directory in which there is none.
    ///
    /// # Errors
    /// As [`Self::open`].
    fn build(&self, directory: &Path) -> Result<Box<dyn IndexBuilder>, IndexError> {
        Ok(Box::new(self.open(directory)?))
    }

    /// Finds out whether the disk takes what the engine writes at once, by
    /// writing as much: an engine that writes on threads of its own may not say
    /// why it failed, and of a quota the free space of a disk tells nothing. The
    /// index may be open.
    ///
    /// # Errors
    /// [`IndexError::NoSpace`], and whatever else writing came to.
    fn try_room(&self, directory: &Path) -> Result<(), IndexError> {
        let _ = directory;
        Ok(())
    }

    /// Removes whatever is in the directory, so that [`Self::open`] makes an
    /// empty index. Nobody has it open.
    ///
    /// # Errors
    /// [`IndexError`].
    fn remove(&self, directory: &Path) -> Result<(), IndexError>;
}
