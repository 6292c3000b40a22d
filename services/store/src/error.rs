//! What can go wrong with a volume.

use std::io;
use std::path::PathBuf;

use holdfast_core::name::ObjectName;
use holdfast_core::version::Version;
use thiserror::Error;

use crate::log_engine::index::IndexError;

/// What can go wrong with a volume. An I/O error is never "absent".
#[derive(Debug, Error)]
pub enum StoreError {
    /// The name has no such version here, or it is a tombstone.
    #[error("{name} is not here in the version asked for")]
    NotFound {
        /// What was asked for.
        name: ObjectName,
    },
    /// The range does not lie within the payload.
    #[error("bytes {start}..{end} do not lie within the {size_bytes} bytes of the object")]
    BadRange {
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
        /// What there is.
        size_bytes: u64,
    },
    /// This very version is here with another content.
    #[error("version {version} of {name} is here with another content")]
    VersionConflict {
        /// The object.
        name: ObjectName,
        /// The version that is there twice.
        version: Version,
    },
    /// What was read is not what was written.
    #[error("{path}: {what} is damaged (expected {expected}, found {actual})")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Which part of it.
        what: &'static str,
        /// The checksum or value that was recorded.
        expected: String,
        /// What was found.
        actual: String,
    },
    /// Part of the log cannot be read, and no index remembers what it held: it
    /// may have been this name, in a newer version than any that is known.
    #[error(
        "it is unknown whether {name} is here: part of segment {segment} of the log cannot be \
         read; run holdfast-dataserver fsck"
    )]
    Doubtful {
        /// What was asked for.
        name: ObjectName,
        /// Number of the segment.
        segment: u64,
    },
    /// The metadata is longer than a reader would accept.
    #[error("the metadata is too long")]
    MetadataTooLong,
    /// A segment still holds records that are in use.
    #[error("segment {segment} still holds {live_bytes} bytes that are in use")]
    SegmentInUse {
        /// Number of the segment.
        segment: u64,
        /// Bytes in use.
        live_bytes: u64,
    },
    /// The index cannot be used. Nothing is lost with it: it can be built again
    /// from the log.
    #[error(transparent)]
    Index {
        /// What is wrong with it.
        #[from]
        source: IndexError,
    },
    /// The disk is full, or nearly so.
    #[error("no space: {needed_bytes} bytes asked for, {free_bytes} bytes free above the reserve")]
    NoSpace {
        /// What the write needs.
        needed_bytes: u64,
        /// What is left for writes.
        free_bytes: u64,
    },
    /// A sync failed earlier: nothing more is written by this process.
    #[error("the volume takes no more writes ({reason}); restart to recover")]
    Poisoned {
        /// The failure.
        reason: String,
    },
    /// Another process uses the volume.
    #[error("{path}: the volume is in use by another process")]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// The volume was written by another engine, or by a newer release.
    #[error("{path}: {reason}")]
    Format {
        /// The format file.
        path: PathBuf,
        /// What does not fit, and what to do.
        reason: String,
    },
    /// The operating system refused.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The work was lost: the process shuts down, or a bug made it panic.
    #[error("the work on the volume did not finish: it panicked or the process shuts down")]
    WorkLost,
}

/// What Linux says when the bytes themselves cannot be had: the medium gave nothing,
/// or a checksum of the disk or of the file system did not fit. What else keeps a
/// file from being read, as too many open ones or too little memory, says nothing
/// about them.
const MEDIUM_ERRORS: [i32; 5] = [
    5,   // EIO
    61,  // ENODATA
    74,  // EBADMSG
    84,  // EILSEQ
    117, // EUCLEAN
];

impl StoreError {
    /// Whether a read has shown that this copy is no good: its bytes are not what
    /// was written, or the disk does not give them. Writing the same version again
    /// mends it.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt { .. }) || self.is_of_the_medium()
    }

    /// Whether there is no such file.
    pub(crate) fn is_no_such_file(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the disk does not give the bytes.
    pub(crate) fn is_of_the_medium(&self) -> bool {
        let is_known = |source: &io::Error| {
            source.raw_os_error().is_some_and(|number| MEDIUM_ERRORS.contains(&number))
        };
        matches!(self, Self::Io { source, .. } if is_known(source))
    }
}

impl StoreError {
    /// The same error for one more caller: an I/O error cannot be cloned.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::NotFound { name } => Self::NotFound { name: name.clone() },
            Self::BadRange { start, end, size_bytes } => {
                Self::BadRange { start: *start, end: *end, size_bytes: *size_bytes }
            }
            Self::VersionConflict { name, version } => {
                Self::VersionConflict { name: name.clone(), version: *version }
            }
            Self::Corrupt { path, what, expected, actual } => Self::Corrupt {
                path: path.clone(),
                what,
                expected: expected.clone(),
                actual: actual.clone(),
            },
            Self::Doubtful { name, segment } => {
                Self::Doubtful { name: name.clone(), segment: *segment }
            }
            Self::MetadataTooLong => Self::MetadataTooLong,
            Self::SegmentInUse { segment, live_bytes } => {
                Self::SegmentInUse { segment: *segment, live_bytes: *live_bytes }
            }
            Self::Index { source } => Self::Index { source: source.again() },
            Self::NoSpace { needed_bytes, free_bytes } => {
                Self::NoSpace { needed_bytes: *needed_bytes, free_bytes: *free_bytes }
            }
            Self::Poisoned { reason } => Self::Poisoned { reason: reason.clone() },
            Self::InUse { path } => Self::InUse { path: path.clone() },
            Self::Format { path, reason } => {
                Self::Format { path: path.clone(), reason: reason.clone() }
            }
            Self::Io { action, path, source } => Self::Io {
                action,
                path: path.clone(),
                source: io::Error::new(source.kind(), source.to_string()),
            },
            Self::WorkLost => Self::WorkLost,
        }
    }

    /// A payload was handed to another volume than the one it was staged on.
    pub(crate) fn foreign_staged(path: PathBuf) -> Self {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "it was staged on another volume");
        Self::Io { action: "commit a payload to", path, source }
    }
}
