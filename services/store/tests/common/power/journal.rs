//! The operations in the order in which they were done, and what each leaves
//! undecided until a sync.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::content::Content;
use super::image::{Body, Entry, EntryChange, Image, Ino};

/// How a sync ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// As it should.
    Done,
    /// It said that it was done and did nothing.
    Lied,
    /// With an error. What it was to write stays undecided for good, whatever
    /// is synced later: the kernel has forgotten that it is dirty.
    Failed,
}

/// One operation that changes a disk or makes changes durable.
#[derive(Debug, Clone)]
pub enum Operation {
    Create {
        at: Entry,
        ino: Ino,
    },
    MakeDirectory {
        at: Entry,
        ino: Ino,
    },
    Write {
        ino: Ino,
        offset: u64,
        bytes: Arc<[u8]>,
    },
    SetLen {
        ino: Ino,
        len: u64,
    },
    Rename {
        from: Entry,
        to: Entry,
        ino: Ino,
    },
    /// Of a file or an empty directory.
    Remove {
        at: Entry,
        ino: Ino,
    },
    SyncData {
        ino: Ino,
        sync: Sync,
    },
    SyncDirectory {
        ino: Ino,
        sync: Sync,
    },
    /// Damage on the disk itself, which no sync waits for.
    Rot {
        ino: Ino,
        offset: u64,
        mask: u8,
    },
    /// New content that is durable at once.
    Replace {
        ino: Ino,
        content: Content,
    },
}

/// What may or may not be on disk.
#[derive(Debug, Clone)]
pub enum Change {
    Write { ino: Ino, offset: u64, bytes: Arc<[u8]> },
    SetLen { ino: Ino, len: u64 },
    Entry(EntryChange),
}

/// What is known of a change that is not in the durable image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The next sync makes it durable.
    Unsynced,
    /// A sync failed on it; no later one helps.
    Forsaken,
    /// Durable, and kept apart only because it comes after a forsaken one.
    Certain,
}

/// A change that waits.
#[derive(Debug, Clone)]
pub struct Pending {
    pub change: Change,
    pub standing: Standing,
}

/// In which order names reach the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Names {
    /// In any, each made durable by the sync of its directory and nothing else:
    /// all that POSIX promises.
    #[default]
    Independent,
    /// In that of the changes, and any sync makes all so far durable: the one
    /// journal of ext4 and XFS. A change that is lost takes the later ones along.
    Journaled,
}

/// What is surely on disk, and what may be.
#[derive(Debug, Clone)]
pub struct Replay {
    pub names: Names,
    pub durable: Image,
    pub pending: Vec<Pending>,
}

impl Change {
    /// Puts all of it into an image.
    pub fn apply(&self, image: &mut Image) {
        match self {
            Self::Entry(change) => image.change_entry(change),
            Self::Write { ino, offset, bytes } => {
                image.content_mut(*ino).into_iter().for_each(|file| file.write(*offset, bytes));
            }
            Self::SetLen { ino, len } => {
                image.content_mut(*ino).into_iter().for_each(|file| file.set_len(*len));
            }
        }
    }

    fn is_data_of(&self, file: Ino) -> bool {
        matches!(self, Self::Write { ino, .. } | Self::SetLen { ino, .. } if *ino == file)
    }
}

impl Operation {
    /// What it leaves undecided.
    pub fn change(&self) -> Option<Change> {
        Some(match self.clone() {
            Self::Create { at, ino } | Self::MakeDirectory { at, ino } => {
                Change::Entry(EntryChange::Add { at, ino })
            }
            Self::Remove { at, ino } => Change::Entry(EntryChange::Remove { at, ino }),
            Self::Rename { from, to, ino } => Change::Entry(EntryChange::Move { from, to, ino }),
            Self::Write { ino, offset, bytes } => Change::Write { ino, offset, bytes },
            Self::SetLen { ino, len } => Change::SetLen { ino, len },
            _ => return None,
        })
    }

    /// What is so at once for everyone who reads: all of it.
    pub fn apply(&self, image: &mut Image) {
        self.prepare(image);
        if let Some(change) = self.change() {
            change.apply(image);
        }
    }

    /// What needs no sync: that a new file can be written to, and damage.
    fn prepare(&self, image: &mut Image) {
        match self {
            Self::Create { ino, .. } => image.insert(*ino, Body::File(Content::default())),
            Self::MakeDirectory { ino, .. } => {
                image.insert(*ino, Body::Directory(Default::default()));
            }
            Self::Rot { ino, offset, mask } => {
                image.content_mut(*ino).into_iter().for_each(|file| file.flip(*offset, *mask));
            }
            Self::Replace { ino, content } => {
                image.content_mut(*ino).into_iter().for_each(|file| file.clone_from(content));
            }
            _ => {}
        }
    }
}

impl Replay {
    pub fn new(durable: Image, names: Names) -> Self {
        Self { names, durable, pending: Vec::new() }
    }

    pub fn apply(&mut self, operation: &Operation) {
        operation.prepare(&mut self.durable);
        match operation {
            Operation::SyncData { ino, sync } => {
                let changes = self.pending.iter().map(|pending| &pending.change);
                let chosen = changes.map(|change| change.is_data_of(*ino)).collect();
                self.settle(chosen, *sync);
            }
            Operation::SyncDirectory { ino, sync } => {
                let chosen = self.depends_on(*ino);
                self.settle(chosen, *sync);
            }
            Operation::Replace { ino, .. } => {
                self.pending.retain(|pending| !pending.change.is_data_of(*ino));
            }
            _ => self.defer(operation),
        }
    }

    /// How many changes a cut decides on.
    pub fn undecided(&self) -> usize {
        self.pending.iter().filter(|pending| pending.standing != Standing::Certain).count()
    }

    fn defer(&mut self, operation: &Operation) {
        let Some(change) = operation.change() else { return };
        let is_gone = match &change {
            Change::Write { ino, .. } | Change::SetLen { ino, .. } => {
                self.durable.node(*ino).is_none()
            }
            Change::Entry(_) => false,
        };
        if !is_gone {
            self.pending.push(Pending { change, standing: Standing::Unsynced });
        }
    }

    /// Changes of names in a directory, and those before them that they build
    /// on: a file that was moved here was made elsewhere first.
    fn depends_on(&self, directory: Ino) -> Vec<bool> {
        let mut entries = BTreeSet::new();
        let mut chosen = vec![false; self.pending.len()];
        for (pending, chosen) in self.pending.iter().zip(&mut chosen).rev() {
            let Change::Entry(change) = &pending.change else { continue };
            *chosen = change.entries().any(|at| at.directory == directory || entries.contains(at));
            if *chosen {
                entries.extend(change.entries());
            }
        }
        chosen
    }

    fn settle(&mut self, mut chosen: Vec<bool>, sync: Sync) {
        if self.names == Names::Journaled {
            let changes = self.pending.iter().map(|pending| &pending.change);
            let names = changes.map(|change| matches!(change, Change::Entry(_)));
            chosen.iter_mut().zip(names).for_each(|(chosen, is_name)| *chosen |= is_name);
        }
        let is_forsaken = |(pending, chosen): (&Pending, &bool)| {
            *chosen && pending.standing == Standing::Forsaken
        };
        match sync {
            Sync::Lied => {}
            Sync::Failed => self.set_standing(&chosen, Standing::Forsaken),
            Sync::Done if self.pending.iter().zip(&chosen).any(is_forsaken) => {
                self.set_standing(&chosen, Standing::Certain);
            }
            Sync::Done => self.make_durable(&chosen),
        }
        self.forget_unnamed();
    }

    fn set_standing(&mut self, chosen: &[bool], standing: Standing) {
        let chosen = self.pending.iter_mut().zip(chosen).filter(|(_, chosen)| **chosen);
        chosen
            .filter(|(pending, _)| pending.standing == Standing::Unsynced)
            .for_each(|(pending, _)| pending.standing = standing);
    }

    fn make_durable(&mut self, chosen: &[bool]) {
        let mut chosen = chosen.iter();
        self.pending.retain(|pending| {
            let is_chosen = *chosen.next().expect("one for each");
            if is_chosen {
                pending.change.apply(&mut self.durable);
            }
            !is_chosen
        });
    }

    /// What is written to a file that is surely gone is of no consequence.
    fn forget_unnamed(&mut self) {
        let mut named = BTreeSet::new();
        for pending in &self.pending {
            if let Change::Entry(change) = &pending.change {
                named.insert(change.ino());
            }
        }
        self.durable.drop_unnamed(&named);
        let durable = &self.durable;
        self.pending.retain(|pending| match &pending.change {
            Change::Write { ino, .. } | Change::SetLen { ino, .. } => durable.node(*ino).is_some(),
            Change::Entry(_) => true,
        });
    }
}
