//! Who this data server is: kept in the volume, so that an emptied disk is a
//! new member.
//!
//! | file | content |
//! |---|---|
//! | `node.json` | the node id and the number of its starts |
//! | `roster.json` | every member that this one has heard of |
//! | `floor.json` | see [`crate::floor`] |
//!
//! All are replaced whole: written beside, synced, renamed, the directory
//! synced.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use holdfast_coordinator::cluster::RosterKeeper;
use holdfast_core::node::{Generation, NodeId};
use holdfast_core::roster::Roster;
use holdfast_runtime::{FileSystem, OpenMode, Runtime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::floor::{FLOOR_FILE, FloorFile};

pub(crate) const NODE_FILE: &str = "node.json";
pub(crate) const ROSTER_FILE: &str = "roster.json";

/// Largest of these files that is read.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Why a volume has no usable identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be. It is never replaced by a new one: a
    /// member that forgets who it is makes what it holds unreachable.
    #[error("{path} is damaged ({source}); restore it, or empty the volume to make a new member")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The process shuts down.
    #[error("the process is shutting down")]
    Closed,
}

/// `node.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeFile {
    pub(crate) node: NodeId,
    pub(crate) generation: Generation,
}

/// Who this data server is, in this run.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The volume's id.
    pub node: NodeId,
    /// Counts the volume's starts; this one included.
    pub generation: Generation,
    /// The roster as it was persisted last.
    pub roster: Roster,
}

impl Identity {
    /// Reads the identity of a volume, or makes one, and counts this start.
    /// Durable when this returned.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub async fn open(runtime: &Runtime, root: &Path) -> Result<Self, IdentityError> {
        let (files, root) = (runtime.files(), root.to_owned());
        let fresh = NodeId::from_bits(runtime.random_u128());
        let opened = runtime.blocking(move || {
            let read: Option<NodeFile> = read_json(files.as_ref(), &root.join(NODE_FILE))?;
            let file = read.map_or(NodeFile { node: fresh, generation: Generation(1) }, |file| {
                NodeFile { generation: Generation(file.generation.0 + 1), ..file }
            });
            write_json(files.as_ref(), &root, NODE_FILE, &file)?;
            let roster = read_json(files.as_ref(), &root.join(ROSTER_FILE))?;
            let (node, generation) = (file.node, file.generation);
            Ok(Self { node, generation, roster: roster.unwrap_or_default() })
        });
        opened.await.map_err(|_| IdentityError::Closed)?
    }
}

/// What is wrong with the identity of a volume. Changes nothing. Blocks.
#[must_use]
pub fn check(runtime: &Runtime, root: &Path) -> Vec<IdentityError> {
    let files = runtime.files();
    let node = read_json::<NodeFile>(files.as_ref(), &root.join(NODE_FILE)).err();
    let roster = read_json::<Roster>(files.as_ref(), &root.join(ROSTER_FILE)).err();
    let floor = read_json::<FloorFile>(files.as_ref(), &root.join(FLOOR_FILE)).err();
    [node, roster, floor].into_iter().flatten().collect()
}

/// Keeps the roster in the volume.
#[derive(Debug)]
pub struct VolumeRoster {
    runtime: Runtime,
    root: PathBuf,
}

impl VolumeRoster {
    /// Keeps it in `root`.
    #[must_use]
    pub fn new(runtime: Runtime, root: PathBuf) -> Self {
        Self { runtime, root }
    }
}

#[async_trait]
impl RosterKeeper for VolumeRoster {
    async fn persist(&self, roster: &Roster) -> Result<(), String> {
        let (files, root, roster) = (self.runtime.files(), self.root.clone(), roster.clone());
        let written =
            self.runtime.blocking(move || write_json(files.as_ref(), &root, ROSTER_FILE, &roster));
        match written.await {
            Ok(written) => written.map_err(|error| error.to_string()),
            Err(lost) => Err(lost.to_string()),
        }
    }
}

/// Reads one of these files; `None` when it is not there. Blocks.
pub(crate) fn read_json<T: DeserializeOwned>(
    files: &dyn FileSystem,
    path: &Path,
) -> Result<Option<T>, IdentityError> {
    let io_error = |source| IdentityError::Io { path: path.to_owned(), source };
    let file = match files.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(error)),
    };
    let length = file.len().map_err(io_error)?.min(MAX_FILE_BYTES);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let read = file.read_at(&mut bytes, 0).map_err(io_error)?;
    bytes.truncate(read);
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|source| IdentityError::Damaged { path: path.to_owned(), source })
}

/// Replaces one of these files; durable when it returned. Blocks, and must not
/// run twice at once for one file.
pub(crate) fn write_json<T: Serialize>(
    files: &dyn FileSystem,
    root: &Path,
    name: &str,
    value: &T,
) -> Result<(), IdentityError> {
    let path = root.join(name);
    let beside = root.join(format!("{name}.tmp"));
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|source| IdentityError::Damaged { path: path.clone(), source })?;
    let write = || -> io::Result<()> {
        match files.remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = files.open(&beside, OpenMode::CreateNew)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_data()?;
        files.rename(&beside, &path)?;
        files.sync_directory(root)
    };
    write().map_err(|source| IdentityError::Io { path: path.clone(), source })
}
