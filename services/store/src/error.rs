//! What can go wrong with a volume.

use std::io;
use std::path::PathBuf;

use holdfast_core::name::ObjectName;
use holdfast_core::version::Version;
use thiserror::Error;

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
    /// The disk is full, or nearly so.
    #[error("no space: {needed_bytes} bytes asked for, {free_bytes} bytes free above the reserve")]
    NoSpace {
        /// What the write needs.
        needed_bytes: u64,
        /// What is left for writes.
        free_bytes: u64,
    },
    /// A sync failed earlier: nothing more is written by this process.
    #[error("the volume takes no more writes since a sync failed ({reason}); restart to recover")]
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

impl StoreError {
    /// A payload was handed to another volume than the one it was staged on.
    pub(crate) fn foreign_staged(path: PathBuf) -> Self {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "it was staged on another volume");
        Self::Io { action: "commit a payload to", path, source }
    }
}
