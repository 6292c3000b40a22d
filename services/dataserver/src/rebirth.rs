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

#[cfg(test)]
mod tests {
    #![allow(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        reason = "tests look behind the seam"
    )]

    use std::fs;

    use holdfast_core::policy::Policy;
    use holdfast_core::roster::Entry;

    use super::*;
    use crate::identity::Identity;

    struct Root(PathBuf);

    impl Drop for Root {
        fn drop(&mut self) {
            // What stays is in the temporary directory, where nobody minds.
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    async fn volume(state: MemberState) -> (Root, NodeId) {
        let runtime = Runtime::real();
        let root = std::env::temp_dir().join(format!("holdfast-{:032x}", runtime.random_u128()));
        fs::create_dir_all(root.join("log")).expect("a new directory");
        let root = Root(root);
        let own = Identity::open(&runtime, &root.0).await.expect("a new volume");
        let entry = Entry {
            id: own.node,
            epoch: 0,
            lost: false,
            state,
            generation: own.generation,
            address: "h:1".parse().expect("an address"),
            weight: 1,
            zone: None,
        };
        let roster = Roster::found(NodeId::from_bits(9), Policy::settled(0, 2), entry);
        let json = serde_json::to_vec(&roster).expect("plain");
        fs::write(root.0.join(ROSTER_FILE), json).expect("it can be written");
        for name in ["format", "floor.json", "log/1.seg"] {
            fs::write(root.0.join(name), name).expect("it can be written");
        }
        (root, own.node)
    }

    fn names(root: &Path) -> Vec<String> {
        let entries = fs::read_dir(root).expect("a directory");
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut names: Vec<_> = entries.map(|entry| name(entry.expect("an entry"))).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn what_a_retired_member_held_is_set_aside_whole() {
        let runtime = Runtime::real();
        let (root, node) = volume(MemberState::Retired).await;
        let aside = root.0.join(format!("retired-{node}"));
        // Cut short after the first files.
        fs::create_dir(&aside).expect("it is not there");
        fs::rename(root.0.join("format"), aside.join("format")).expect("one volume");
        assert_eq!(set_aside(&runtime, &root.0).await.expect("it can be done"), Some(node));
        assert_eq!(names(&aside), ["format", "log", "node.json"]);
        assert!(aside.join("log/1.seg").exists());
        let left =
            ["floor.json".to_owned(), "lock".into(), format!("retired-{node}"), ROSTER_FILE.into()];
        assert_eq!(names(&root.0), left);
        let reborn = Identity::open(&runtime, &root.0).await.expect("a new member");
        assert_ne!(reborn.node, node);
        assert!(reborn.roster.get(node).is_some(), "it remembers who has retired");
        assert_eq!(set_aside(&runtime, &root.0).await.expect("nothing to do"), None);
        let listed = list_set_aside(runtime.files().as_ref(), &root.0).expect("a directory");
        assert_eq!(listed, [aside]);
    }

    #[tokio::test]
    async fn a_member_that_has_not_retired_stays_as_it_is() {
        let (root, node) = volume(MemberState::Draining).await;
        let before = names(&root.0);
        assert_eq!(set_aside(&Runtime::real(), &root.0).await.expect("nothing to do"), None);
        assert_eq!(names(&root.0), before);
        let again = Identity::open(&Runtime::real(), &root.0).await.expect("its volume");
        assert_eq!(again.node, node);
        let nowhere = root.0.join("nowhere");
        assert_eq!(set_aside(&Runtime::real(), &nowhere).await.expect("nothing there"), None);
    }
}
