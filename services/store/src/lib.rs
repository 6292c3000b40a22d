//! Bytes on disk.
//!
//! [`Store`] is what a data server keeps its objects in: one volume, used by one
//! process. Engines differ in how they lay bytes out; what they guarantee is the
//! same, and `conformance` holds every engine to it.

pub mod conformance;
mod decide;
mod disk;
mod error;
pub mod file_engine;
mod index;
pub mod log_engine;
pub mod memory;
pub mod metrics;
mod payload_file;
mod volume;

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
pub use error::StoreError;
pub use file_engine::{FileStore, FileStoreOptions};
use futures_util::stream::BoxStream;
use holdfast_core::name::{Bucket, Key, ObjectName};
use holdfast_core::object::{Digest, Metadata, Stat};
use holdfast_core::version::Version;
use holdfast_core::wire::list::ListEntry;
use holdfast_runtime::Space;
pub use index::MAX_PAGE_ENTRIES;
pub use log_engine::{LogStore, LogStoreOptions};
pub use memory::MemoryStore;
pub use metrics::StoreMetrics;

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutOutcome {
    /// It is stored, and survives a power cut.
    Stored,
    /// This very version with this very content was there already, durably.
    AlreadyStored,
    /// Something newer is there, durably; nothing was changed.
    Superseded {
        /// What is there.
        newest: Stat,
    },
}

/// The stamp and the words that go with a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// Which content this is.
    pub version: Version,
    /// What the client said about it.
    pub metadata: Metadata,
}

/// A payload that is on its way in. Dropping it takes everything back.
#[async_trait]
pub trait Staging: Send + fmt::Debug {
    /// Appends bytes. Not cancel safe: after a write that did not end, only
    /// dropping is allowed.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], [`StoreError::Io`].
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError>;

    /// Ends the payload. It is not visible before [`Store::commit`], and need
    /// not be durable before.
    ///
    /// # Errors
    /// As [`Self::write`].
    async fn finish(self: Box<Self>) -> Result<Box<dyn Staged>, StoreError>;
}

/// The bytes of a payload, in chunks of bounded size.
pub type ByteStream = BoxStream<'static, Result<Bytes, StoreError>>;

/// A payload that is complete and waits for its name and version. Dropping it
/// takes it back.
#[async_trait]
pub trait Staged: Send + Sync + fmt::Debug {
    /// Length in bytes.
    fn size_bytes(&self) -> u64;

    /// Digest of all of it.
    fn digest(&self) -> Digest;

    /// All of its bytes, to pass them on. They are not verified: who takes them
    /// compares the digest. What was opened can be read to its end, also when the
    /// payload is committed or dropped meanwhile. Not cancel safe: after a call that
    /// did not end, only dropping is allowed.
    ///
    /// # Errors
    /// Those of the writes before; [`StoreError::Io`].
    async fn read(&mut self) -> Result<ByteStream, StoreError>;

    /// For the engine that made it.
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send>;
}

/// A payload on its way out: the version it belongs to, and its bytes.
pub struct Payload {
    /// The version that is read.
    pub stat: Stat,
    /// The bytes of the range, in chunks of bounded size. An error ends it;
    /// bytes that fail their checksum are never part of it.
    pub bytes: ByteStream,
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload").field("stat", &self.stat).finish_non_exhaustive()
    }
}

/// What is here of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its newest version, tombstones too.
    pub stat: Stat,
    /// Whether a read has found that the payload is not what was written. Such
    /// a version still counts, but somebody else must give the bytes; writing
    /// it again with the same content mends it.
    pub is_damaged: bool,
}

/// Which part of a bucket to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRequest {
    /// The bucket.
    pub bucket: Bucket,
    /// Only keys that begin with this; may be empty.
    pub prefix: String,
    /// Only keys after this one, in byte order.
    pub start_after: Option<Key>,
    /// At most this many entries, and at most [`MAX_PAGE_ENTRIES`].
    pub limit: usize,
}

/// Part of a bucket, in byte order of the keys, tombstones included: who merges
/// pages of several members needs them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListPage {
    /// The entries: of each name what [`Store::inspect`] says, as much of it as a
    /// list shows.
    pub entries: Vec<ListEntry>,
    /// Whether more follow.
    pub more: bool,
    /// How many names of the volume, of whichever bucket, are known to be
    /// damaged beyond reading: when it is not 0, one of them may be missing
    /// here, and only another replica can tell. [`Store::stat`] of such a name
    /// is an error.
    pub unreadable_count: u64,
}

/// One name of a volume, as a walk meets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walked {
    /// The name.
    pub name: ObjectName,
    /// Its newest version here, a tombstone too.
    pub stat: Stat,
    /// Whether its payload is known to be damaged: a copy of the same version
    /// that is written anew mends it.
    pub is_damaged: bool,
}

/// Part of a volume, in byte order of bucket and key, tombstones included.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WalkPage {
    /// The names.
    pub entries: Vec<Walked>,
    /// Whether more follow.
    pub more: bool,
    /// As in [`ListPage`]: when it is not 0, a name may be missing here.
    pub unreadable_count: u64,
}

/// How full a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The disk.
    pub space: Space,
    /// Newest versions that are objects.
    pub object_count: u64,
    /// Newest versions that are tombstones.
    pub tombstone_count: u64,
    /// Payload bytes of the newest versions.
    pub live_bytes: u64,
}

/// One volume of objects.
///
/// # Guarantees
/// - What a write method answered with `Ok` survives a power cut: payload,
///   metadata and directory entries are synced first.
/// - A write is seen whole or not at all, by readers and after a crash.
/// - Of each name the newest version is kept; an older one never replaces it,
///   whatever the order in which they come (put-if-newer).
/// - A read gives the bytes that were written or an error, never other bytes.
/// - "Absent" is an answer; whatever could not be read is an error.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// Begins a payload of any size. `size_bytes` is a hint; when it is given
    /// and the disk has no room for it, the refusal comes at once.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], [`StoreError::Poisoned`], [`StoreError::Io`].
    async fn stage(&self, size_bytes: Option<u64>) -> Result<Box<dyn Staging>, StoreError>;

    /// Makes a staged payload the content of `name`, if it is newer than what
    /// is there, or the same and what is there is known to be damaged. Dropping the future leaves it open whether the write happens.
    ///
    /// # Errors
    /// [`StoreError::VersionConflict`] when this version is there with another
    /// content, [`StoreError::Corrupt`] when what is there cannot be read and
    /// may be newer, and as [`Self::stage`]. After [`StoreError::Poisoned`] it is
    /// unknown whether the write happened.
    async fn commit(
        &self,
        name: ObjectName,
        stamp: Stamp,
        staged: Box<dyn Staged>,
    ) -> Result<PutOutcome, StoreError>;

    /// Stages and commits a payload that is in memory.
    ///
    /// # Errors
    /// As [`Self::commit`].
    async fn put(
        &self,
        name: ObjectName,
        stamp: Stamp,
        payload: Bytes,
    ) -> Result<PutOutcome, StoreError> {
        let mut staging = self.stage(Some(payload.len() as u64)).await?;
        staging.write(payload).await?;
        let staged = staging.finish().await?;
        self.commit(name, stamp, staged).await
    }

    /// Makes a tombstone the content of `name`, if it is newer than what is
    /// there. Works on a full disk as long as there is room for the tombstone.
    ///
    /// # Errors
    /// As [`Self::commit`].
    async fn delete(&self, name: ObjectName, stamp: Stamp) -> Result<PutOutcome, StoreError>;

    /// Forgets exactly `version` of `name`, because the caller knows that a newer
    /// one is durable elsewhere; false when something else is here, which is
    /// kept. After `Ok` this holds after a power cut too.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`], [`StoreError::Io`].
    async fn forget(&self, name: &ObjectName, version: Version) -> Result<bool, StoreError>;

    /// The newest version of each name, tombstones too, in the order of the
    /// names. One that cannot be read does not spoil the others.
    async fn stat(&self, names: &[ObjectName]) -> Vec<Result<Option<Stat>, StoreError>>;

    /// As [`Self::stat`], and whether the payload can be read as far as is
    /// known: nothing is read for it.
    async fn inspect(&self, names: &[ObjectName]) -> Vec<Result<Option<Held>, StoreError>>;

    /// Reads one version of a name: exactly `version`, or the newest. The whole
    /// payload, or `range` of it, which must lie within it.
    ///
    /// A reader keeps what it opened, also when a newer version is written
    /// meanwhile.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when that version is not here or is a tombstone,
    /// [`StoreError::BadRange`], [`StoreError::Corrupt`], [`StoreError::Io`].
    async fn read(
        &self,
        name: &ObjectName,
        version: Option<Version>,
        range: Option<Range<u64>>,
    ) -> Result<Payload, StoreError>;

    /// Lists part of a bucket, in bounded memory.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    async fn list(&self, request: &ListRequest) -> Result<ListPage, StoreError>;

    /// The names after `after` in all buckets, in order and in bounded memory:
    /// at most `limit` of them, and at most [`MAX_PAGE_ENTRIES`]. What is
    /// written meanwhile may or may not be met; what is there all along is.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    async fn walk(&self, after: Option<&ObjectName>, limit: usize) -> Result<WalkPage, StoreError>;

    /// How full the volume is.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    async fn usage(&self) -> Result<Usage, StoreError>;

    /// Why the volume takes no more writes, if so: once it does not, it never
    /// will again in this process.
    fn poisoned(&self) -> Option<String>;

    /// Ends the volume in order: what was accepted is finished, and what comes
    /// later is refused. Afterwards it can be opened again at once. Dropping the
    /// future does not stop it.
    async fn close(&self) {}
}
