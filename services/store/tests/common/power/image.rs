//! What is on a disk at one moment: files, directories and their names.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;

use super::content::Content;

/// Number of a file or directory.
pub type Ino = u64;

/// Number of the topmost directory.
pub const ROOT: Ino = 1;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub directory: Ino,
    pub name: Arc<OsStr>,
}

/// A change of names. Each is on disk whole or not at all.
#[derive(Debug, Clone)]
pub enum EntryChange {
    /// Create or mkdir.
    Add { at: Entry, ino: Ino },
    /// Unlink or rmdir.
    Remove { at: Entry, ino: Ino },
    /// Rename.
    Move { from: Entry, to: Entry, ino: Ino },
}

impl EntryChange {
    pub fn ino(&self) -> Ino {
        match self {
            Self::Add { ino, .. } | Self::Remove { ino, .. } | Self::Move { ino, .. } => *ino,
        }
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        let (first, second) = match self {
            Self::Add { at, .. } | Self::Remove { at, .. } => (at, None),
            Self::Move { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(first).chain(second)
    }
}

/// What a number stands for.
#[derive(Debug, Clone)]
pub enum Body {
    File(Content),
    Directory(BTreeMap<Arc<OsStr>, Ino>),
}

/// A file or a directory, and its name. There are no hard links.
#[derive(Debug, Clone)]
pub struct Node {
    pub body: Body,
    pub name: Option<Entry>,
}

/// All of a disk. A clone costs a pointer for each file.
#[derive(Debug, Clone)]
pub struct Image {
    nodes: BTreeMap<Ino, Arc<Node>>,
}

impl Default for Image {
    fn default() -> Self {
        let mut image = Self { nodes: BTreeMap::new() };
        image.insert(ROOT, Body::Directory(BTreeMap::new()));
        image
    }
}

impl Image {
    /// Adds something that has no name yet.
    pub fn insert(&mut self, ino: Ino, body: Body) {
        self.nodes.insert(ino, Arc::new(Node { body, name: None }));
    }

    pub fn remove(&mut self, ino: Ino) {
        self.nodes.remove(&ino);
    }

    pub fn node(&self, ino: Ino) -> Option<&Node> {
        self.nodes.get(&ino).map(AsRef::as_ref)
    }

    pub fn content(&self, ino: Ino) -> Option<&Content> {
        match &self.node(ino)?.body {
            Body::File(content) => Some(content),
            Body::Directory(_) => None,
        }
    }

    pub fn content_mut(&mut self, ino: Ino) -> Option<&mut Content> {
        match &mut self.node_mut(ino)?.body {
            Body::File(content) => Some(content),
            Body::Directory(_) => None,
        }
    }

    pub fn directory(&self, ino: Ino) -> Option<&BTreeMap<Arc<OsStr>, Ino>> {
        match &self.node(ino)?.body {
            Body::Directory(entries) => Some(entries),
            Body::File(_) => None,
        }
    }

    pub fn find(&self, at: &Entry) -> Option<Ino> {
        self.directory(at.directory)?.get(&at.name).copied()
    }

    /// Where it is; `None` when it has no name.
    pub fn path(&self, ino: Ino) -> Option<PathBuf> {
        if ino == ROOT {
            return Some(PathBuf::from("/"));
        }
        let entry = self.node(ino)?.name.as_ref()?;
        Some(self.path(entry.directory)?.join(&*entry.name))
    }

    /// What all files take of the disk, in bytes.
    pub fn allocated_bytes(&self) -> u64 {
        self.nodes.keys().filter_map(|ino| self.content(*ino)).map(Content::allocated_bytes).sum()
    }

    pub fn highest(&self) -> Ino {
        self.nodes.last_key_value().map_or(ROOT, |(ino, _)| *ino)
    }

    /// Everything that has a path, files and directories.
    pub fn named(&self) -> Vec<(PathBuf, Ino)> {
        let paths = self.nodes.keys().filter_map(|ino| Some((self.path(*ino)?, *ino)));
        let mut paths: Vec<_> = paths.collect();
        paths.sort_unstable();
        paths
    }

    /// Makes a change of names. Those it does not find it leaves: another
    /// change, which would have made them, did not reach the disk.
    pub fn change_entry(&mut self, change: &EntryChange) {
        match change {
            EntryChange::Add { at, ino } => self.name(at, *ino),
            EntryChange::Remove { at, .. } => self.unname(at),
            // It may be elsewhere than the rename found it, if the one before
            // did not reach the disk. It never has two names.
            EntryChange::Move { to, ino, .. } => {
                let name = self.node(*ino).and_then(|node| node.name.clone());
                name.iter().for_each(|name| self.unname(name));
                self.name(to, *ino);
            }
        }
    }

    /// Drops what no path leads to, as a check of the file system does.
    pub fn drop_unreachable(&mut self) {
        let mut reachable = BTreeSet::from([ROOT]);
        let mut unvisited = vec![ROOT];
        while let Some(directory) = unvisited.pop() {
            for ino in self.directory(directory).into_iter().flat_map(BTreeMap::values) {
                if reachable.insert(*ino) {
                    unvisited.push(*ino);
                }
            }
        }
        self.nodes.retain(|ino, _| reachable.contains(ino));
    }

    /// Drops what has no name, apart from those that may still get one.
    pub fn drop_unnamed(&mut self, except: &BTreeSet<Ino>) {
        self.nodes.retain(|ino, node| node.name.is_some() || *ino == ROOT || except.contains(ino));
    }

    fn name(&mut self, at: &Entry, ino: Ino) {
        if !self.nodes.contains_key(&ino) || self.directory(at.directory).is_none() {
            return;
        }
        self.unname(at);
        self.edit_directory(at.directory, |entries| {
            entries.insert(at.name.clone(), ino);
        });
        if let Some(node) = self.node_mut(ino) {
            node.name = Some(at.clone());
        }
    }

    fn unname(&mut self, at: &Entry) {
        let Some(ino) = self.find(at) else { return };
        self.edit_directory(at.directory, |entries| {
            entries.remove(&at.name);
        });
        if let Some(node) = self.node_mut(ino) {
            node.name = None;
        }
    }

    fn edit_directory(&mut self, ino: Ino, edit: impl FnOnce(&mut BTreeMap<Arc<OsStr>, Ino>)) {
        if let Some(Node { body: Body::Directory(entries), .. }) = self.node_mut(ino) {
            edit(entries);
        }
    }

    fn node_mut(&mut self, ino: Ino) -> Option<&mut Node> {
        self.nodes.get_mut(&ino).map(Arc::make_mut)
    }
}
