//! The ordered index in memory that both engines answer `stat` and `list` from.

use std::collections::BTreeMap;
use std::ops::Bound;

use holdfast_core::name::{Key, ObjectName};
use holdfast_core::object::{Kind, Stat};
use holdfast_core::wire::list::ListEntry;

use serde::{Deserialize, Serialize};

use crate::{ListPage, ListRequest, WalkPage, Walked};

/// Most entries of one page, whatever was asked for: a page is built while the
/// index is locked, and is held in memory.
pub const MAX_PAGE_ENTRIES: usize = 4096;

/// The newest version of each name, in order, and how much there is of them.
#[derive(Debug, Default)]
pub(crate) struct Index {
    newest: BTreeMap<ObjectName, Stat>,
    counts: Counts,
}

/// What the newest versions add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Versions that are objects.
    pub object_count: u64,
    /// Versions that are tombstones.
    pub tombstone_count: u64,
    /// Payload bytes.
    pub live_bytes: u64,
}

impl Counts {
    pub(crate) fn of(stat: &Stat) -> Self {
        let object_count = u64::from(stat.kind == Kind::Object);
        Self { object_count, tombstone_count: 1 - object_count, live_bytes: stat.size_bytes }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.object_count += other.object_count;
        self.tombstone_count += other.tombstone_count;
        self.live_bytes += other.live_bytes;
    }

    pub(crate) fn subtract(&mut self, other: Self) {
        self.object_count = self.object_count.saturating_sub(other.object_count);
        self.tombstone_count = self.tombstone_count.saturating_sub(other.tombstone_count);
        self.live_bytes = self.live_bytes.saturating_sub(other.live_bytes);
    }
}

impl Index {
    pub(crate) fn get(&self, name: &ObjectName) -> Option<&Stat> {
        self.newest.get(name)
    }

    pub(crate) fn insert(&mut self, name: ObjectName, stat: Stat) {
        self.counts.add(Counts::of(&stat));
        if let Some(old) = self.newest.insert(name, stat) {
            self.counts.subtract(Counts::of(&old));
        }
    }

    pub(crate) fn remove(&mut self, name: &ObjectName) {
        if let Some(old) = self.newest.remove(name) {
            self.counts.subtract(Counts::of(&old));
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// At most [`MAX_PAGE_ENTRIES`] entries; `more` says whether others follow.
    /// `is_damaged` says it of a name.
    pub(crate) fn page(
        &self,
        request: &ListRequest,
        is_damaged: impl Fn(&ObjectName) -> bool,
    ) -> ListPage {
        let Some(start) = first_after(request) else { return ListPage::default() };
        let mut matching = self.newest.range((start, Bound::Unbounded)).take_while(|(name, _)| {
            name.bucket == request.bucket && name.key.as_str().starts_with(&request.prefix)
        });
        let limit = request.limit.min(MAX_PAGE_ENTRIES);
        let mut page = ListPage::default();
        for (name, stat) in matching.by_ref().take(limit) {
            let entry = ListEntry::new(name.key.clone(), stat);
            page.entries.push(ListEntry { is_damaged: is_damaged(name), ..entry });
        }
        // `take` stops without looking at the next one.
        page.more = matching.next().is_some();
        page
    }

    /// See [`crate::Store::walk`]; `is_damaged` says it of a name.
    pub(crate) fn walk(
        &self,
        after: Option<&ObjectName>,
        limit: usize,
        is_damaged: impl Fn(&ObjectName) -> bool,
    ) -> WalkPage {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.newest.range((start, Bound::Unbounded));
        let walked = rest.by_ref().take(limit.min(MAX_PAGE_ENTRIES)).map(|(name, stat)| Walked {
            name: name.clone(),
            stat: stat.clone(),
            is_damaged: is_damaged(name),
        });
        let entries = walked.collect();
        WalkPage { entries, more: rest.next().is_some(), unreadable_count: 0 }
    }
}

/// Where the walk begins: at the prefix or after `start_after`, whichever is
/// later. `None` when no key can begin with the prefix.
pub(crate) fn first_after(request: &ListRequest) -> Option<Bound<ObjectName>> {
    let in_bucket = |key: Key| ObjectName::new(request.bucket.clone(), key);
    // NUL alone is the smallest key there is.
    let first = if request.prefix.is_empty() { "\0" } else { &request.prefix };
    let first = Key::new(first).ok()?;
    Some(match &request.start_after {
        Some(after) if *after >= first => Bound::Excluded(in_bucket(after.clone())),
        _ => Bound::Included(in_bucket(first)),
    })
}
