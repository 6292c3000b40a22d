//! Indexes with content that is made from a seed.

#![allow(clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::path::Path;

use holdfast_core::name::{Bucket, Key, ObjectName};
use holdfast_core::object::{Digest, Kind, Metadata, Stat};
use holdfast_core::version::Version;
use holdfast_store::log_engine::index::{
    Brief, Checkpoint, Content, Entry, FileId, FileState, INDEX_VERSION, Index, IndexBatch,
    IndexEngine, IndexError, MemoryIndexEngine, Place, SegmentUsage,
};

/// Everything that can be read from an index.
#[derive(Debug, Default, PartialEq)]
pub struct State {
    pub entries: Vec<(ObjectName, Entry)>,
    pub files: Vec<(FileId, FileState)>,
    pub doomed: Vec<FileId>,
    pub segments: BTreeMap<u64, SegmentUsage>,
    pub checkpoint: Option<Checkpoint>,
}

/// Reads everything, entries by scan, by list and by name.
pub fn read(index: &dyn Index) -> Result<State, IndexError> {
    let mut state = State::default();
    index.scan(Bound::Unbounded, &mut |name, entry| {
        state.entries.push((name, entry));
        ControlFlow::Continue(())
    })?;
    let mut scanned = state.entries.iter();
    index.list(Bound::Unbounded, &mut |bucket, key, brief| {
        let (name, entry) = scanned.next().expect("a list has no more than a scan");
        assert_eq!((bucket, key), (name.bucket.as_str(), name.key.as_str()));
        assert_eq!(brief, Brief::from(entry), "scan and list of {name} differ");
        ControlFlow::Continue(())
    })?;
    assert_eq!(scanned.next(), None, "a list has no less than a scan");
    for number in 0..NAMES {
        let name = numbered_name(number);
        let found = state.entries.binary_search_by(|(other, _)| other.cmp(&name));
        let scanned = found.ok().map(|at| &state.entries[at].1);
        assert_eq!(index.get(&name)?.as_ref(), scanned, "scan and get of {name} differ");
    }
    for number in 0..FILES {
        let file = numbered_file(number);
        state.files.extend(index.file(file)?.map(|state| (file, state)));
    }
    state.doomed = index.doomed_files(usize::MAX)?;
    state.segments = index.segments()?;
    state.checkpoint = index.checkpoint()?;
    Ok(state)
}

/// What an index must hold after these batches.
pub fn state_after(batches: &[IndexBatch]) -> State {
    let index = MemoryIndexEngine::new().open(Path::new("")).unwrap();
    batches.iter().for_each(|batch| index.apply(batch).unwrap());
    read(&*index).unwrap()
}

pub fn name(bucket: &str, key: &str) -> ObjectName {
    ObjectName::new(Bucket::new(bucket).unwrap(), Key::new(key).unwrap())
}

pub fn entry(number: u64) -> Entry {
    let metadata = Metadata {
        content_type: Some(format!("text/{number}")),
        headers: BTreeMap::from([("cache-control".into(), "no-store, ".repeat(20))]),
        modified_unix_millis: number,
        written_as: (number % 3 == 1).then(|| Version::from_parts(number / 2, number)),
    };
    Entry {
        stat: Stat {
            version: Version::from_parts(number, !number),
            kind: Kind::Object,
            size_bytes: number / 2,
            digest: Digest(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            metadata,
        },
        content: Content::Inline,
        place: Place { segment: number, offset: 512, length: 8192 },
        origin: number,
        is_damaged: false,
    }
}

/// A batch with a checkpoint alone.
pub fn batch(number: u64) -> IndexBatch {
    let checkpoint =
        Checkpoint { version: INDEX_VERSION, next_sequence: number, ..Checkpoint::default() };
    IndexBatch { checkpoint, ..IndexBatch::default() }
}

/// Numbers that follow from a seed.
#[derive(Debug)]
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, end: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

const NAMES: u64 = 600;
const FILES: u64 = 40;

fn numbered_name(number: u64) -> ObjectName {
    name(["objects", "other"][usize::from(number.is_multiple_of(5))], &format!("name/{number}\0"))
}

fn numbered_file(number: u64) -> FileId {
    FileId { directory: number % 3, number }
}

/// The first `count` batches of a seed; `next_sequence` of each is its number,
/// from 1.
pub fn batches(seed: u64, count: usize) -> Vec<IndexBatch> {
    let mut numbers = Numbers(seed);
    (1..=count as u64).map(|number| random_batch(&mut numbers, number)).collect()
}

pub fn random_batch(numbers: &mut Numbers, number: u64) -> IndexBatch {
    let mut changed = BTreeMap::new();
    for _ in 0..1 + numbers.below(40) {
        let is_gone = numbers.below(5) == 0;
        let made = (!is_gone).then(|| entry(number * 1000 + numbers.below(1000)));
        changed.insert(numbered_name(numbers.below(NAMES)), made);
    }
    let states = [Some(FileState::Live), Some(FileState::Doomed), None];
    let state = states[usize::try_from(numbers.below(3)).unwrap()];
    let usage = SegmentUsage { total_bytes: number, ..SegmentUsage::default() };
    IndexBatch {
        entries: changed.into_iter().collect(),
        files: vec![(numbered_file(numbers.below(FILES)), state)],
        segments: vec![(numbers.below(9), (numbers.below(4) > 0).then_some(usage))],
        ..batch(number)
    }
}
