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
    pub(super) segments: BTreeMap<u64, SegmentUsage>,
}

impl Ledger {
    /// Bytes of all records, and of those in use.
    pub(super) fn log_bytes(&self) -> (u64, u64) {
        let oldest = self.oldest_segment();
        let sum = |(total, live): (u64, u64), usage: &SegmentUsage| {
            (total + usage.total_bytes, live + usage.used_bytes(oldest))
        };
        self.segments.values().fold((0, 0), sum)
    }

    /// Bytes of the records of what there is; forgets left out.
    pub(super) fn live_bytes(&self) -> u64 {
        self.segments.values().map(|usage| usage.live_bytes).sum()
    }

    pub(super) fn oldest_segment(&self) -> u64 {
        self.segments.keys().next().copied().unwrap_or(0)
    }
}

impl SegmentUsage {
    /// Bytes of records that must not be lost, when `oldest` is the oldest
    /// segment there is.
    pub(super) fn used_bytes(&self, oldest: u64) -> u64 {
        let forgets: u64 = self.forget_bytes.range(oldest..).map(|(_, bytes)| bytes).sum();
        self.live_bytes + forgets
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
        let undo = |(number, usage): (u64, Option<SegmentUsage>)| {
            let before = match usage {
                Some(usage) => self.segments.insert(number, usage),
                None => self.segments.remove(&number),
            };
            (number, before)
        };
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
