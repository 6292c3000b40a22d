//! Entries that were looked up lately, kept in memory and never older than the
//! index.
//!
//! What is looked up again is told without the way to a thread that may block.
//! Names that are not there are kept, too: a request asks every data server, and
//! most of them do not have the object.
//!
//! Who looks up finds nothing, takes a [`Ticket`], asks the index, and keeps the
//! answer. Meanwhile the writer may change the name, so it announces what it
//! changes before it does, and says when it is done. An answer is kept only if
//! no change was going on when the ticket was taken, and none since: else an
//! answer from before a change could be given out after it, even to one who saw
//! the new one already.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_core::name::ObjectName;
use quick_cache::Weighter;
use quick_cache::unsync::{Cache, DefaultLifecycle};
use xxhash_rust::xxh3::Xxh3Builder;

use super::index::Entry;

/// Locks, so that readers seldom meet.
const SHARDS: usize = 16;

/// Changes are told apart by this many names of a shard, taken together: with
/// one for all of them, a busy writer would let nothing be kept.
const SLOTS: usize = 256;

/// About what an entry takes beside its texts: its numbers, the name's, the
/// cache's own.
const OVERHEAD_BYTES: usize = 400;

/// What names need nothing else is right for.
const EXPECTED_ENTRY_BYTES: u64 = 600;

/// See the module. All methods are short and do not touch the disk.
pub(super) struct EntryCache {
    hasher: Xxh3Builder,
    shards: Vec<Mutex<Shard>>,
}

/// What is known of a name.
#[derive(Debug)]
pub(super) enum Looked {
    /// The newest there is in the index; `None` when there is none.
    Known(Option<Entry>),
    /// The index has to be asked.
    Unknown(Ticket),
}

/// The right to keep an answer that the index gives from now on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    /// Changes of the slot that had ended; `None` while one was going on.
    changes: Option<u64>,
}

/// A change of names that is going on. It has ended when this is dropped.
#[derive(Debug)]
pub(super) struct Change<'a> {
    cache: &'a EntryCache,
    places: Vec<At>,
}

/// Where a name belongs.
#[derive(Debug, Clone, Copy)]
struct At {
    shard: usize,
    slot: usize,
}

struct Shard {
    entries: Cache<ObjectName, Option<Arc<Entry>>, Weight, Xxh3Builder>,
    slots: Vec<Slot>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// Changes that are going on.
    open: u32,
    /// Changes that have ended.
    ended: u64,
}

/// Bytes of memory, about.
#[derive(Debug, Clone)]
struct Weight;

impl Weighter<ObjectName, Option<Arc<Entry>>> for Weight {
    fn weight(&self, name: &ObjectName, entry: &Option<Arc<Entry>>) -> u64 {
        let texts = |entry: &Arc<Entry>| {
            let metadata = &entry.stat.metadata;
            let headers = metadata.headers.iter().map(|(name, value)| name.len() + value.len());
            headers.sum::<usize>() + metadata.content_type.as_ref().map_or(0, String::len)
        };
        let name = name.bucket.as_str().len() + name.key.as_str().len();
        (OVERHEAD_BYTES + name + entry.as_ref().map_or(0, texts)) as u64
    }
}

impl fmt::Debug for EntryCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntryCache").finish_non_exhaustive()
    }
}

impl EntryCache {
    /// A cache that takes about this much memory. A random `seed` keeps clients
    /// from choosing names that meet.
    pub(super) fn new(bytes: u64, seed: u64) -> Self {
        let hasher = Xxh3Builder::new().with_seed(seed);
        let bytes = bytes / SHARDS as u64;
        let expected = usize::try_from(bytes / EXPECTED_ENTRY_BYTES).unwrap_or(usize::MAX);
        let shard = || Shard {
            entries: Cache::with(expected, bytes, Weight, hasher, DefaultLifecycle::default()),
            slots: vec![Slot::default(); SLOTS],
        };
        let shards = (0..SHARDS).map(|_| Mutex::new(shard())).collect();
        Self { hasher, shards }
    }

    /// What is known of a name.
    pub(super) fn look(&self, name: &ObjectName) -> Looked {
        let at = self.at(name);
        let Some(shard) = self.lock(at) else { return Looked::Unknown(Ticket { changes: None }) };
        match shard.entries.get(name) {
            Some(entry) => {
                // Copied after the lock is given back.
                let entry = entry.clone();
                drop(shard);
                Looked::Known(entry.as_deref().cloned())
            }
            None => {
                let slot = shard.slots.get(at.slot).filter(|slot| slot.open == 0);
                Looked::Unknown(Ticket { changes: slot.map(|slot| slot.ended) })
            }
        }
    }

    /// Keeps what the index said after the ticket was taken.
    pub(super) fn keep(&self, name: &ObjectName, ticket: Ticket, entry: Option<&Entry>) {
        let at = self.at(name);
        let Some(mut shard) = self.lock(at) else { return };
        let unchanged = shard
            .slots
            .get(at.slot)
            .is_some_and(|slot| slot.open == 0 && Some(slot.ended) == ticket.changes);
        if unchanged {
            shard.entries.insert(name.clone(), entry.cloned().map(Arc::new));
        }
    }

    /// To be called before the index is changed: the names are forgotten, and
    /// nothing is kept of them until the change has ended.
    pub(super) fn change<'a>(&self, names: impl Iterator<Item = &'a ObjectName>) -> Change<'_> {
        let places = names.map(|name| self.begin(name)).collect();
        Change { cache: self, places }
    }

    /// Forgets every name, and lets nothing be kept that the index said before.
    pub(super) fn forget_all(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.entries.clear();
            shard.slots.iter_mut().for_each(|slot| slot.ended += 1);
        }
    }

    fn begin(&self, name: &ObjectName) -> At {
        let at = self.at(name);
        if let Some(mut shard) = self.lock(at) {
            shard.entries.remove(name);
            if let Some(slot) = shard.slots.get_mut(at.slot) {
                slot.open += 1;
            }
        }
        at
    }

    fn end(&self, at: At) {
        if let Some(mut shard) = self.lock(at)
            && let Some(slot) = shard.slots.get_mut(at.slot)
        {
            slot.open -= 1;
            slot.ended += 1;
        }
    }

    fn at(&self, name: &ObjectName) -> At {
        let hash = usize::try_from(self.hasher.hash_one(name) >> 32).unwrap_or(0);
        At { shard: hash % SHARDS, slot: hash / SHARDS % SLOTS }
    }

    /// Always there: a place is below the number of shards.
    fn lock(&self, at: At) -> Option<MutexGuard<'_, Shard>> {
        let shard = self.shards.get(at.shard)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.places.iter().for_each(|at| self.cache.end(*at));
    }
}

#[cfg(test)]
#[path = "entry_cache_tests.rs"]
mod tests;
