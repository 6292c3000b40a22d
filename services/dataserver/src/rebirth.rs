//! A volume whose member has retired becomes that of a new one.
//!
//! What the retired member held must not be answered with any more: it may have
//! been deleted while that member was away. So everything of it is set aside,
//! into `retired-<id>/`, where an operator may look at it or delete it. The
//! roster stays, for it remembers who has retired, and so does the floor.

use std::io;
use std::path::{Path, PathBuf};

use holdfast_core::node::NodeId;
use holdfast_core::roster::{MemberState, Roster};
use holdfast_runtime::{FileSystem, Runtime};

use crate::floor::FLOOR_FILE;
use crate::identity::{IdentityError, NODE_FILE, NodeFile, ROSTER_FILE, read_json};

/// What directories with the records of a retired member are called.
pub const SET_ASIDE_PREFIX: &str = "retired-";

/// What belongs to the volume and not to the member.
const KEPT: [&str; 4] = [ROSTER_FILE, FLOOR_FILE, "lock", "lost+found"];

/// Sets aside what a retired member left in this volume; gives its id if there
/// was one. Before the volume is opened. Cut short, it is done again.
///
/// # Errors
/// [`IdentityError`].
pub async fn set_aside(runtime: &Runtime, root: &Path) -> Result<Option<NodeId>, IdentityError> {
    let (files, root) = (runtime.files(), root.to_owned());
    let done = runtime.blocking(move || set_aside_retired(files.as_ref(), &root)).await;
    done.map_err(|_| IdentityError::Closed)?
}

fn set_aside_retired(files: &dyn FileSystem, root: &Path) -> Result<Option<NodeId>, IdentityError> {
    let Some(retired) = retired_node(files, root)? else { return Ok(None) };
    let lock = root.join("lock");
    let failed = |path: &Path, source| IdentityError::Io { path: path.to_owned(), source };
    // Who uses it is found again when the volume is opened.
    let locked = files.try_lock(&lock).map_err(|source| failed(&lock, source))?;
    if locked.is_none() || retired_node(files, root)?.is_none() {
        return Ok(None);
    }
    let aside = root.join(format!("{SET_ASIDE_PREFIX}{retired}"));
    move_all(files, root, &aside).map_err(|source| failed(&aside, source))?;
    Ok(Some(retired))
}

/// The member of this volume, if it has retired.
fn retired_node(files: &dyn FileSystem, root: &Path) -> Result<Option<NodeId>, IdentityError> {
    let node: Option<NodeFile> = read_json(files, &root.join(NODE_FILE))?;
    let Some(NodeFile { node, .. }) = node else { return Ok(None) };
    let roster: Option<Roster> = read_json(files, &root.join(ROSTER_FILE))?;
    let entry = roster.as_ref().and_then(|roster| roster.get(node));
    Ok(entry.filter(|entry| entry.state == MemberState::Retired).map(|_| node))
}

/// `node.json` goes last: while it is there, this is to be done.
fn move_all(files: &dyn FileSystem, root: &Path, aside: &Path) -> io::Result<()> {
    files.create_directories(aside)?;
    files.sync_directory(root)?;
    for path in files.list(root)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name != NODE_FILE && !KEPT.contains(&name) && !name.starts_with(SET_ASIDE_PREFIX) {
            move_one(files, &path, aside)?;
        }
    }
    files.sync_directory(aside)?;
    files.sync_directory(root)?;
    move_one(files, &root.join(NODE_FILE), aside)?;
    files.sync_directory(aside)?;
    files.sync_directory(root)
}

fn move_one(files: &dyn FileSystem, path: &Path, aside: &Path) -> io::Result<()> {
    let Some(name) = path.file_name() else { return Ok(()) };
    files.rename(path, &aside.join(name))
}

/// Directories of this volume with the records of retired members. Blocks.
///
/// # Errors
/// What the file system says.
pub fn list_set_aside(files: &dyn FileSystem, root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = files.list(root)?;
    paths.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(SET_ASIDE_PREFIX))
    });
    paths.sort();
    Ok(paths)
}
