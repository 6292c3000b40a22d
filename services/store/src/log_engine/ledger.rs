//! The books of a volume: which record is in use and what they add up to. Kept
//! alike by who writes the log and by who reads it again.

use std::collections::{BTreeMap, HashMap};

use holdfast_core::name::ObjectName;

use super::index::{
    Checkpoint, Content, Counts, Entry, FileId, FileState, INDEX_VERSION, IndexBatch, Place,
    Position, SegmentUsage,
};

/// What the books say after the last batch that is in the index.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    pub(super) checkpoint: Checkpoint,
    segments: BTreeMap<u64, SegmentUsage>,
    sums: Sums,
}

/// What the segments add up to. Each batch asks for it, so it is kept: a large
/// volume has tens of thousands of segments.
#[derive(Debug, Clone, Default)]
struct Sums {
    total_bytes: u64,
    live_bytes: u64,
    /// Of forgets, by the segment in which each was first written.
    forget_bytes: BTreeMap<u64, u64>,
    /// Of the forgets that are needed as long as the oldest segment is there.
    needed_forget_bytes: u64,
}

impl Ledger {
    /// Books of these segments.
    pub(super) fn new(checkpoint: Checkpoint, segments: BTreeMap<u64, SegmentUsage>) -> Self {
        let mut ledger = Self { checkpoint, ..Self::default() };
        for (number, usage) in segments {
            ledger.set_segment(number, Some(usage));
        }
        ledger
    }

    /// The segments there are.
    pub(super) fn segments(&self) -> &BTreeMap<u64, SegmentUsage> {
        &self.segments
    }

    /// Bytes of all records, and of those in use.
    pub(super) fn log_bytes(&self) -> (u64, u64) {
        let Sums { total_bytes, live_bytes, needed_forget_bytes, .. } = self.sums;
        (total_bytes, live_bytes + needed_forget_bytes)
    }

    /// Bytes of the records of what there is; forgets left out.
    pub(super) fn live_bytes(&self) -> u64 {
        self.sums.live_bytes
    }

    /// Bytes of these segments that are not in use.
    pub(super) fn garbage_bytes<'n>(&self, numbers: impl IntoIterator<Item = &'n u64>) -> u64 {
        let oldest = self.oldest_segment();
        let usages = numbers.into_iter().filter_map(|number| self.segments.get(number));
        usages.map(|usage| usage.total_bytes.saturating_sub(usage.used_bytes(oldest))).sum()
    }

    pub(super) fn oldest_segment(&self) -> u64 {
        self.segments.keys().next().copied().unwrap_or(0)
    }

    /// What is in a segment from now on; `None` when it is gone. Gives what was in
    /// it before.
    fn set_segment(&mut self, number: u64, usage: Option<SegmentUsage>) -> Option<SegmentUsage> {
        let oldest = self.oldest_segment();
        if let Some(usage) = &usage {
            self.sums.add(usage, oldest);
        }
        let before = match usage {
            Some(usage) => self.segments.insert(number, usage),
            None => self.segments.remove(&number),
        };
        if let Some(before) = &before {
            self.sums.subtract(before, oldest);
        }
        let now_oldest = self.oldest_segment();
        if now_oldest != oldest {
            let needed = self.sums.forget_bytes.range(now_oldest..);
            self.sums.needed_forget_bytes = needed.map(|(_, bytes)| bytes).sum();
        }
        before
    }
}

impl Sums {
    fn add(&mut self, usage: &SegmentUsage, oldest: u64) {
        self.total_bytes += usage.total_bytes;
        self.live_bytes += usage.live_bytes;
        for (origin, bytes) in &usage.forget_bytes {
            *self.forget_bytes.entry(*origin).or_default() += bytes;
        }
        self.needed_forget_bytes += usage.needed_forget_bytes(oldest);
    }

    /// Takes back what was added for a segment.
    fn subtract(&mut self, usage: &SegmentUsage, oldest: u64) {
        self.total_bytes -= usage.total_bytes;
        self.live_bytes -= usage.live_bytes;
        for (origin, bytes) in &usage.forget_bytes {
            if let Some(sum) = self.forget_bytes.get_mut(origin) {
                *sum -= bytes;
                if *sum == 0 {
                    self.forget_bytes.remove(origin);
                }
            }
        }
        self.needed_forget_bytes -= usage.needed_forget_bytes(oldest);
    }
}

impl SegmentUsage {
    /// Bytes of records that must not be lost, when `oldest` is the oldest
    /// segment there is.
    pub(super) fn used_bytes(&self, oldest: u64) -> u64 {
        self.live_bytes + self.needed_forget_bytes(oldest)
    }

    fn needed_forget_bytes(&self, oldest: u64) -> u64 {
        self.forget_bytes.range(oldest..).map(|(_, bytes)| bytes).sum()
    }
}

/// Changes to the books that are not in the index yet.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) checkpoint: Checkpoint,
    segments: BTreeMap<u64, Option<SegmentUsage>>,
    entries: HashMap<ObjectName, Option<Entry>>,
    files: Vec<(FileId, Option<FileState>)>,
}

impl Draft {
    /// Changes to these books, which must be the same for every call.
    pub(super) fn new(ledger: &Ledger) -> Self {
        Self {
            checkpoint: ledger.checkpoint.clone(),
            segments: BTreeMap::new(),
            entries: HashMap::new(),
            files: Vec::new(),
        }
    }

    /// What this draft says of a name; `None` when it says nothing.
    pub(super) fn entry(&self, name: &ObjectName) -> Option<Option<&Entry>> {
        self.entries.get(name).map(Option::as_ref)
    }

    pub(super) fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// The number of the next record.
    pub(super) fn next_sequence(&mut self) -> u64 {
        let sequence = self.checkpoint.next_sequence;
        self.checkpoint.next_sequence = sequence.saturating_add(1);
        sequence
    }

    /// A record was read whose number is `sequence`.
    pub(super) fn saw_sequence(&mut self, sequence: u64) {
        let next = sequence.saturating_add(1);
        self.checkpoint.next_sequence = self.checkpoint.next_sequence.max(next);
    }

    /// The log has records up to here.
    pub(super) fn covers(&mut self, covered: Position) {
        self.checkpoint.covered = covered;
    }

    /// The segment is there, though it may hold nothing.
    pub(super) fn touch_segment(&mut self, ledger: &Ledger, number: u64) {
        self.segment(ledger, number);
    }

    /// A record that is about no name, or whose name is of no more use.
    pub(super) fn add_record(&mut self, ledger: &Ledger, place: Place) {
        self.segment(ledger, place.segment).total_bytes += u64::from(place.length);
    }

    /// `entry` is now what there is of `name`, instead of `old`; its record is
    /// new.
    pub(super) fn put(
        &mut self,
        ledger: &Ledger,
        name: ObjectName,
        old: Option<&Entry>,
        entry: Entry,
    ) {
        self.add_record(ledger, entry.place);
        let usage = self.segment(ledger, entry.place.segment);
        usage.live_bytes += u64::from(entry.place.length);
        self.retire(ledger, old, Some(&entry));
        self.checkpoint.counts.add(Counts::of(&entry.stat));
        if let Content::File(file) = entry.content {
            self.files.push((file, Some(FileState::Live)));
        }
        self.entries.insert(name, Some(entry));
    }

    /// Nothing of `name` is kept; the record at `place` says so, and is needed
    /// while segment `origin` or an older one is there.
    pub(super) fn forget(
        &mut self,
        ledger: &Ledger,
        name: ObjectName,
        old: Option<&Entry>,
        place: Place,
        origin: u64,
    ) {
        self.add_record(ledger, place);
        let usage = self.segment(ledger, place.segment);
        *usage.forget_bytes.entry(origin).or_default() += u64::from(place.length);
        self.retire(ledger, old, None);
        self.entries.insert(name, None);
    }

    /// An entry changes in place, without a record.
    pub(super) fn revise(&mut self, name: ObjectName, entry: Entry) {
        self.entries.insert(name, Some(entry));
    }

    /// Payload files are gone.
    pub(super) fn drop_files(&mut self, files: Vec<FileId>) {
        self.files.extend(files.into_iter().map(|file| (file, None)));
    }

    /// What was forgotten in a segment is forgotten elsewhere, or needs not be any
    /// more.
    pub(super) fn drop_forgets(&mut self, ledger: &Ledger, number: u64) {
        if self.usage(ledger, number).is_some() {
            self.segment(ledger, number).forget_bytes.clear();
        }
    }

    /// A segment is gone, and whatever was in it.
    pub(super) fn drop_segment(&mut self, number: u64) {
        self.segments.insert(number, None);
    }

    /// What is in use of a segment, as far as this draft knows.
    pub(super) fn usage<'l>(&'l self, ledger: &'l Ledger, number: u64) -> Option<&'l SegmentUsage> {
        match self.segments.get(&number) {
            Some(changed) => changed.as_ref(),
            None => ledger.segments.get(&number),
        }
    }

    fn segment(&mut self, ledger: &Ledger, number: u64) -> &mut SegmentUsage {
        let known = &ledger.segments;
        let slot = self
            .segments
            .entry(number)
            .or_insert_with(|| Some(known.get(&number).cloned().unwrap_or_default()));
        slot.get_or_insert_default()
    }

    fn retire(&mut self, ledger: &Ledger, old: Option<&Entry>, new: Option<&Entry>) {
        let Some(old) = old else { return };
        self.checkpoint.counts.subtract(Counts::of(&old.stat));
        // The usage of a segment that is gone is not made anew.
        if self.usage(ledger, old.place.segment).is_some() {
            let usage = self.segment(ledger, old.place.segment);
            usage.live_bytes = usage.live_bytes.saturating_sub(u64::from(old.place.length));
        }
        if let Content::File(file) = old.content
            && new.is_none_or(|new| new.content != old.content)
        {
            self.files.push((file, Some(FileState::Doomed)));
        }
    }

    /// What it changes in the books.
    pub(super) fn changes(&self) -> Changes {
        Changes { checkpoint: self.checkpoint.clone(), segments: self.segments.clone() }
    }

    /// What goes into the index.
    pub(super) fn into_batch(self) -> IndexBatch {
        let Self { checkpoint, segments, entries, files } = self;
        IndexBatch {
            entries: entries.into_iter().collect(),
            files: last_of_each(files),
            segments: segments.into_iter().collect(),
            checkpoint: Checkpoint { version: INDEX_VERSION, ..checkpoint },
        }
    }
}

/// Later statements about a file win.
fn last_of_each(files: Vec<(FileId, Option<FileState>)>) -> Vec<(FileId, Option<FileState>)> {
    files.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect()
}

/// What a draft changes in the books.
#[derive(Debug)]
pub(super) struct Changes {
    checkpoint: Checkpoint,
    segments: BTreeMap<u64, Option<SegmentUsage>>,
}

impl Ledger {
    /// Applies changes, and returns those that take them back.
    pub(super) fn absorb(&mut self, changes: Changes) -> Changes {
        let checkpoint = std::mem::replace(&mut self.checkpoint, changes.checkpoint);
        let undo = |(number, usage)| (number, self.set_segment(number, usage));
        let segments = changes.segments.into_iter().map(undo).collect();
        Changes { checkpoint, segments }
    }

    /// Takes a batch back that was not written. Numbers are never used again:
    /// what is left of it must not be taken for part of a later one.
    pub(super) fn take_back(&mut self, undo: Changes) {
        let next_sequence = self.checkpoint.next_sequence;
        self.absorb(undo);
        self.checkpoint.next_sequence = next_sequence;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usage() -> impl Strategy<Value = SegmentUsage> {
        let forgets = proptest::collection::btree_map(0..8_u64, 0..100_u64, 0..3);
        (0..1_000_u64, 0..1_000_u64, forgets).prop_map(|(total_bytes, live_bytes, forget_bytes)| {
            SegmentUsage { total_bytes, live_bytes, forget_bytes }
        })
    }

    fn counted(ledger: &Ledger) -> (u64, u64) {
        let oldest = ledger.oldest_segment();
        let usages = ledger.segments.values();
        usages.fold((0, 0), |(total, used), usage| {
            (total + usage.total_bytes, used + usage.used_bytes(oldest))
        })
    }

    proptest! {
        #[test]
        fn the_sums_are_what_the_segments_add_up_to(
            batches in proptest::collection::vec(
                proptest::collection::btree_map(0..8_u64, proptest::option::of(usage()), 0..4),
                1..20,
            ),
            taken_back in any::<u32>(),
        ) {
            let mut ledger = Ledger::default();
            for (place, segments) in batches.into_iter().enumerate() {
                let before = ledger.clone();
                let checkpoint = ledger.checkpoint.clone();
                let undo = ledger.absorb(Changes { checkpoint, segments });
                prop_assert_eq!(ledger.log_bytes(), counted(&ledger));
                if taken_back >> place & 1 == 1 {
                    ledger.take_back(undo);
                    prop_assert_eq!(&ledger.segments, &before.segments);
                    prop_assert_eq!(ledger.log_bytes(), before.log_bytes());
                }
            }
            let again = Ledger::new(ledger.checkpoint.clone(), ledger.segments.clone());
            prop_assert_eq!(again.log_bytes(), ledger.log_bytes());
            prop_assert_eq!(again.live_bytes(), ledger.live_bytes());
        }
    }
}
