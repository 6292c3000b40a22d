//! What can be set of a volume.

use std::sync::Arc;

use super::index::IndexEngine;

/// The most that [`LogStoreOptions::inline_limit_bytes`] may be: what a reader
/// accepts in a record.
pub const MAX_INLINE_LIMIT_BYTES: u32 = 16 * 1024 * 1024;

/// Free bytes that payloads do not use, unless set.
const DEFAULT_RESERVE_BYTES: u64 = 512 * 1024 * 1024;

/// Largest payload that lies in the log, unless set.
const DEFAULT_INLINE_LIMIT_BYTES: u32 = 128 * 1024;

/// Length of a segment, unless set.
const DEFAULT_SEGMENT_BYTES: u32 = 128 * 1024 * 1024;

/// Rate of compaction while there is little to gain, unless set.
const DEFAULT_COMPACTION_RATE_BYTES: u64 = 32 * 1024 * 1024;

/// What can be set of a [`super::LogStore`].
#[derive(Debug, Clone)]
pub struct LogStoreOptions {
    /// Free bytes that payloads do not use: room for tombstones on a disk that
    /// is full, and for the index, so that it does not meet a full disk. 512 MiB
    /// unless set.
    pub reserve_bytes: u64,
    /// Payloads up to this length lie in the log, longer ones in files of their
    /// own. 128 KiB unless set, at most 16 MiB.
    pub inline_limit_bytes: u32,
    /// A new segment is begun when the last one has this length. 128 MiB unless
    /// set.
    pub segment_bytes: u32,
    /// Bytes a second that compaction reads, at most, as long as garbage is
    /// scarce; the more there is, the faster it goes. 32 MiB unless set.
    pub compaction_rate_bytes: u64,
    /// What the index is kept in. fjall unless set.
    pub index: Option<Arc<dyn IndexEngine>>,
}

impl Default for LogStoreOptions {
    fn default() -> Self {
        Self {
            reserve_bytes: DEFAULT_RESERVE_BYTES,
            inline_limit_bytes: DEFAULT_INLINE_LIMIT_BYTES,
            segment_bytes: DEFAULT_SEGMENT_BYTES,
            compaction_rate_bytes: DEFAULT_COMPACTION_RATE_BYTES,
            index: None,
        }
    }
}
