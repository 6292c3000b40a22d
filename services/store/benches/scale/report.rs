//! What a child is told and what it tells, as lines of JSON.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a child does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The volume.
    pub(crate) root: PathBuf,
    /// The objects in it.
    pub(crate) seed: u64,
    pub(crate) task: Task,
}

/// See [`Order`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Write the objects with these numbers and close the volume.
    Write { first: u64, end: u64 },
    /// Open the volume, which holds at least the objects below `count`, and ask
    /// for some of them.
    Read { count: u64 },
}

/// What a child says.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Message {
    /// So many writes have been answered.
    Acknowledged { count: u64 },
    /// It has written everything.
    Written(Written),
    /// It has read everything.
    Read(Read),
}

/// What writing took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Written {
    pub(crate) objects_per_second: f64,
    pub(crate) close_seconds: f64,
    pub(crate) memory: Memory,
}

/// What opening and reading took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Read {
    pub(crate) open_seconds: f64,
    /// Objects of the volume, as it counts them.
    pub(crate) object_count: u64,
    /// After opening it.
    pub(crate) opened: Memory,
    /// After everything.
    pub(crate) asked: Memory,
    /// Time of one name and of one page.
    pub(crate) stat_seconds: f64,
    pub(crate) list_seconds: f64,
}

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// The most it ever had, `VmHWM`.
    pub(crate) peak_bytes: u64,
    /// What it has, `VmRSS`.
    pub(crate) resident_bytes: u64,
}
