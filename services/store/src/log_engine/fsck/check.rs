//! The log as it is, held against the index in both directions: each record in
//! use must be known to the index, and each entry must have its record.
//!
//! In bounded memory: an entry is looked up for each record, and those that were
//! met are counted. Only names that the index does not have are kept, until the
//! record is met that forgets them.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::name::ObjectName;
use xxhash_rust::xxh3::Xxh3Default;

use super::finding::{Finding, FindingKind};
use super::walk::{Listed, Segment};
use super::{Event, OnEvent};
use crate::StoreError;
use crate::disk::Disk;
use crate::log_engine::index::{
    Content, Counts, DoubtfulRegion, Entry, Index, Place, Position, SegmentUsage,
};
use crate::log_engine::ledger::Ledger;
use crate::log_engine::record::{Head, RecordKind, decode_segment};
use crate::log_engine::replay::{Progress, TornTail};
use crate::log_engine::scan::{Found, Item, Payload};

/// Names without an entry that are followed at once.
const MAX_PENDING: usize = 2_000_000;

/// Records between two words about how far it has come.
const RECORDS_PER_EVENT: u64 = 1024;

/// An index that can be read, and its books.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) index: &'a dyn Index,
    pub(super) ledger: &'a Ledger,
}

/// What was found in the log.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) record_count: u64,
    pub(super) log_bytes: u64,
    /// Records that an entry points to.
    pub(super) matched_count: u64,
    pub(super) torn: Option<TornTail>,
    pub(super) max_sequence: u64,
    /// Parts of the log without a record, apart from [`Self::torn`].
    pub(super) unreadable: Vec<DoubtfulRegion>,
    pub(super) bad_headers: Vec<u64>,
    /// Length of each segment.
    pub(super) lengths: BTreeMap<u64, u64>,
    pub(super) missing: BTreeSet<u64>,
    /// Records in use that are damaged, which the index does not say.
    pub(super) unmarked_count: u64,
    /// Records in use that refer to a payload file and do not say to which.
    pub(super) lost_reference_count: u64,
    /// Places of the last records of names that the index does not know and
    /// that nothing forgets, by the hash of the name.
    pub(super) pending: BTreeMap<u64, Place>,
    census: BTreeSet<u64>,
    removed: BTreeSet<u64>,
    usage: BTreeMap<u64, SegmentUsage>,
    counts: Counts,
    lag_bytes: u64,
    is_overfull: bool,
}

/// Goes through the log.
pub(super) struct Check<'a> {
    pub(super) disk: &'a Disk,
    pub(super) listed: &'a Listed,
    pub(super) known: Option<Known<'a>>,
    /// Whether a process uses the volume, so that files may vanish.
    pub(super) is_in_use: bool,
    pub(super) on: &'a mut OnEvent<'a>,
}

impl Check<'_> {
    /// Looks at every record. Blocks.
    pub(super) fn run(&mut self) -> Result<Checked, StoreError> {
        let mut checked = Checked::default();
        let last = self.listed.segments.keys().next_back().copied();
        let mut progress = Progress { done_bytes: 0, total_bytes: self.total_bytes()? };
        for id in &self.listed.duplicates {
            self.tell(Finding::new(FindingKind::DuplicateSegment, self.disk.path(id.path())));
        }
        for id in self.listed.segments.values() {
            let is_last = last == Some(id.number);
            if is_last && self.is_in_use {
                continue;
            }
            let torn_from = is_last.then(|| self.covered_bytes(id.number));
            let Some(segment) = Segment::open(self.disk, *id, torn_from)? else {
                if !self.is_in_use {
                    checked.missing.insert(id.number);
                }
                continue;
            };
            self.segment(&segment, &mut checked, progress)?;
            progress.done_bytes += segment.length;
            (self.on)(Event::Progress(progress));
        }
        if !self.is_in_use {
            self.conclude(&mut checked);
        }
        Ok(checked)
    }

    fn total_bytes(&self) -> Result<u64, StoreError> {
        let mut bytes = 0;
        for id in self.listed.segments.values() {
            bytes += Segment::open(self.disk, *id, None)?.map_or(0, |segment| segment.length);
        }
        Ok(bytes)
    }

    /// How much of a segment the index covers.
    fn covered_bytes(&self, segment: u64) -> u64 {
        let covered = self.known.map(|known| known.ledger.checkpoint.covered);
        covered.map_or(0, |covered| match covered.segment.cmp(&segment) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => covered.offset,
            std::cmp::Ordering::Greater => u64::MAX,
        })
    }

    fn tell(&mut self, finding: Finding) {
        (self.on)(Event::Finding(finding));
    }

    fn segment(
        &mut self,
        segment: &Segment<'_>,
        checked: &mut Checked,
        before: Progress,
    ) -> Result<(), StoreError> {
        let number = segment.id.number;
        checked.log_bytes += segment.length;
        checked.lengths.insert(number, segment.length);
        checked.usage.entry(number).or_default();
        if let Some(finding) = segment.check_header()? {
            checked.bad_headers.push(number);
            self.tell(finding);
        }
        let path = self.disk.path(segment.id.path());
        let torn = segment.visit(&mut |item| {
            match item {
                Item::Record(found) => {
                    if checked.record_count.is_multiple_of(RECORDS_PER_EVENT) {
                        let done_bytes = before.done_bytes + found.offset;
                        (self.on)(Event::Progress(Progress { done_bytes, ..before }));
                    }
                    self.record(segment, found, checked)?;
                }
                Item::Unreadable(range) => {
                    let bytes = range.end - range.start;
                    let finding = Finding::new(FindingKind::UnreadableRegion, path.clone());
                    self.tell(finding.at(range.start, bytes));
                    let (start, end, bound) = (range.start, range.end, u64::MAX);
                    let region = DoubtfulRegion { segment: number, start, end, bound };
                    checked.unreadable.push(region);
                }
            }
            Ok(())
        })?;
        if let Some(TornTail { offset, bytes, .. }) = torn {
            self.tell(Finding::new(FindingKind::TornTail, path).at(offset, bytes));
            checked.torn = torn;
        }
        Ok(())
    }

    fn record(
        &mut self,
        segment: &Segment<'_>,
        found: Found,
        checked: &mut Checked,
    ) -> Result<(), StoreError> {
        let Found { head, offset, payload } = found;
        let place = place_of(segment.id.number, offset, &head);
        checked.record_count += 1;
        checked.max_sequence = checked.max_sequence.max(head.header.sequence);
        checked.on_log_record(&head, place.segment, &payload);
        let covered = self.known.map(|known| known.ledger.checkpoint.covered);
        let is_covered =
            covered.is_some_and(|covered| Position { segment: place.segment, offset } < covered);
        if !is_covered {
            checked.lag_bytes += u64::from(place.length);
        }
        let known = self.known.filter(|_| is_covered);
        let is_sound = payload != Payload::Damaged;
        let Some(known) = known else {
            if !is_sound {
                self.tell(self.damaged(FindingKind::DamagedRecord, place, &head));
            }
            return Ok(());
        };
        checked.book(place, &head, &payload);
        let Some(name) = &head.name else { return Ok(()) };
        let entry = known.index.get(name)?;
        let is_in_use = entry.as_ref().is_some_and(|entry| entry.place == place);
        if !is_sound {
            let kind =
                if is_in_use { FindingKind::DamagedRecord } else { FindingKind::DamagedGarbage };
            self.tell(self.damaged(kind, place, &head));
        }
        match entry {
            Some(entry) if is_in_use => {
                checked.on_match(&entry, &head, is_sound);
                if let Some(what) = difference(&entry, &head, &payload) {
                    let finding = self.damaged(FindingKind::EntryDiffers, place, &head);
                    self.tell(finding.because(what));
                }
            }
            Some(entry) if position(entry.place) > position(place) => {}
            Some(_) => self.tell(self.damaged(FindingKind::RecordWithoutEntry, place, &head)),
            None => checked.follow(name, &head, place),
        }
        Ok(())
    }

    fn damaged(&self, kind: FindingKind, place: Place, head: &Head) -> Finding {
        let path = self.path_of(place.segment);
        let finding = Finding::new(kind, path).at(place.offset.into(), place.length.into());
        match &head.name {
            Some(name) => finding.of(name, head.header.version),
            None => finding,
        }
    }

    fn path_of(&self, segment: u64) -> std::path::PathBuf {
        match self.listed.segments.get(&segment) {
            Some(id) => self.disk.path(id.path()),
            None => self.disk.path(format!("log/{segment:016x}-*.seg")),
        }
    }

    /// What only the whole log tells.
    fn conclude(&mut self, checked: &mut Checked) {
        // What was in use of a segment that was given up had been moved before.
        let removed = &checked.removed;
        checked.pending.retain(|_, place| !removed.contains(&place.segment));
        let missing = self.missing(checked);
        for segment in &missing {
            self.tell(Finding::new(FindingKind::MissingSegment, self.path_of(*segment)));
        }
        checked.missing.extend(missing);
        let Some(known) = self.known else { return };
        if checked.lag_bytes > 0 {
            let finding = Finding::new(FindingKind::IndexLags, self.disk.path("index"));
            let Position { segment, offset } = known.ledger.checkpoint.covered;
            let covered = format!("it ends in segment {segment} at {offset}");
            self.tell(Finding { bytes: Some(checked.lag_bytes), ..finding.because(covered) });
        }
        for region in &known.ledger.checkpoint.doubt {
            let finding = Finding::new(FindingKind::Doubt, self.path_of(region.segment));
            self.tell(Finding { offset: Some(region.start), ..finding });
        }
        self.compare_books(known, checked);
        if checked.is_overfull {
            self.tell(Finding::new(FindingKind::TooManyForgotten, self.disk.path("index")));
        } else if !checked.is_damaged() {
            // Of damage it may be the reason that it forgets.
            for place in checked.pending.values() {
                let path = self.path_of(place.segment);
                let finding = Finding::new(FindingKind::RecordWithoutEntry, path);
                self.tell(finding.at(place.offset.into(), place.length.into()));
            }
        }
    }

    fn missing(&self, checked: &Checked) -> BTreeSet<u64> {
        let pointed_to = self.known.map(|known| {
            crate::log_engine::recovery::missing_segments(known.ledger, &self.listed.segments)
        });
        let expected = checked.census.iter().copied().chain(pointed_to.into_iter().flatten());
        expected
            .filter(|number| !self.listed.segments.contains_key(number))
            .filter(|number| !checked.removed.contains(number))
            .collect()
    }

    fn compare_books(&mut self, known: Known<'_>, checked: &Checked) {
        let covered = known.ledger.checkpoint.covered.segment;
        for (number, usage) in &checked.usage {
            let is_whole = checked.unreadable.iter().all(|region| region.segment != *number);
            let expected = known.ledger.segments().get(number);
            let is_gone = checked.removed.contains(number);
            if *number > covered || !is_whole || is_gone || expected == Some(usage) {
                continue;
            }
            let finding = Finding::new(FindingKind::BooksDiffer, self.path_of(*number));
            let live = expected.map_or(0, |usage| usage.live_bytes);
            let found = usage.live_bytes;
            self.tell(finding.because(format!("{live} bytes in use, and {found} were found")));
        }
        let counts = known.ledger.checkpoint.counts;
        if !checked.is_damaged() && counts != checked.counts {
            let finding = Finding::new(FindingKind::BooksDiffer, self.disk.path("index"));
            let found = checked.counts;
            self.tell(finding.because(format!("{counts:?}, and {found:?} were found")));
        }
    }
}

impl Checked {
    /// Whether something of the log cannot be read.
    pub(super) fn is_damaged(&self) -> bool {
        !self.unreadable.is_empty() || !self.missing.is_empty()
    }

    /// Whether what lay at a place is gone with a part of the log. An entry that
    /// points to no record anywhere else is merely wrong.
    pub(super) fn is_lost(&self, place: Place) -> bool {
        let start = u64::from(place.offset);
        let end = start + u64::from(place.length);
        let overlaps = |region: &DoubtfulRegion| {
            region.segment == place.segment && region.start < end && start < region.end
        };
        self.lengths.get(&place.segment).is_none_or(|length| end > *length)
            || self.unreadable.iter().any(overlaps)
    }

    fn on_log_record(&mut self, head: &Head, segment: u64, payload: &Payload) {
        let Some(bytes) = payload.bytes() else { return };
        match head.header.kind {
            RecordKind::Census => {
                let ranges: Vec<(u64, u64)> = serde_json::from_slice(bytes).unwrap_or_default();
                let listed = ranges.into_iter().flat_map(|(first, last)| first..=last.min(segment));
                self.census = listed.collect();
            }
            RecordKind::Removed => {
                let Some(gone) = decode_segment(bytes) else { return };
                self.removed.insert(gone);
            }
            _ => {}
        }
    }

    fn book(&mut self, place: Place, head: &Head, payload: &Payload) {
        let usage = self.usage.entry(place.segment).or_default();
        let bytes = u64::from(place.length);
        usage.total_bytes += bytes;
        if head.header.kind == RecordKind::Forget {
            let origin = payload.bytes().and_then(|bytes| decode_segment(bytes));
            *usage.forget_bytes.entry(origin.unwrap_or(u64::MAX)).or_default() += bytes;
        }
    }

    fn on_match(&mut self, entry: &Entry, head: &Head, is_sound: bool) {
        self.matched_count += 1;
        self.counts.add(Counts::of(&entry.stat));
        let usage = self.usage.entry(entry.place.segment).or_default();
        usage.live_bytes += u64::from(entry.place.length);
        if !is_sound {
            self.unmarked_count += u64::from(!entry.is_unreadable());
            self.lost_reference_count += u64::from(head.header.kind == RecordKind::File);
        }
    }

    /// A record of a name that has no entry.
    fn follow(&mut self, name: &ObjectName, head: &Head, place: Place) {
        let hash = hash_of(name);
        if head.header.kind == RecordKind::Forget {
            self.pending.remove(&hash);
        } else if self.pending.len() < MAX_PENDING {
            self.pending.insert(hash, place);
        } else {
            self.is_overfull = true;
        }
    }
}

/// Where a record lies.
fn place_of(segment: u64, offset: u64, head: &Head) -> Place {
    let within = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
    Place { segment, offset: within(offset), length: within(head.header.record_bytes()) }
}

fn position(place: Place) -> Position {
    Position { segment: place.segment, offset: place.offset.into() }
}

fn hash_of(name: &ObjectName) -> u64 {
    let mut hash = Xxh3Default::new();
    hash.update(name.bucket.as_str().as_bytes());
    hash.update(&[0]);
    hash.update(name.key.as_str().as_bytes());
    hash.digest()
}

/// In what an entry and its record differ.
fn difference(entry: &Entry, head: &Head, payload: &Payload) -> Option<&'static str> {
    if head.stat().as_ref() != Some(&entry.stat) {
        return Some("the version or what is known of it");
    }
    if entry.origin != head.header.origin {
        return Some("the number of the write");
    }
    let content = match payload {
        Payload::Sound(bytes) => head.content(bytes),
        Payload::Damaged => return None,
    };
    let is_same = content == Some(entry.content)
        && !matches!(content, Some(Content::Lost) if !entry.is_unreadable());
    (!is_same).then_some("where the payload is")
}
