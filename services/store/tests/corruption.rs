//! Every byte of a small volume is damaged once, and files of it are cut and
//! lost: answers are right or errors, with the index and without it.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests look behind the seam"
)]
#![allow(clippy::print_stdout, reason = "how much was tried is worth knowing")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::TempDir;
use common::log::{Model, Opener};
use common::power::{Choice, PowerDisk};
use holdfast_runtime::FileSystem;
use holdfast_store::log_engine::index::MemoryIndexEngine;
use holdfast_store::{Store, StoreError};

const SEGMENT_BYTES: u32 = 3 * 1024;

/// A volume that was closed in order, with its index.
struct Volume {
    disk: PowerDisk,
    index: MemoryIndexEngine,
    batches: usize,
    model: Model,
}

fn opener(disk: &PowerDisk, index: &MemoryIndexEngine) -> Opener {
    Opener::in_memory(disk, index, SEGMENT_BYTES)
}

impl Volume {
    async fn new() -> Self {
        let (disk, index, model) = common::log::filled(SEGMENT_BYTES).await;
        let batches = index.batch_count();
        Self { disk, index, batches, model }
    }

    /// The same disk, and an index of its own.
    async fn twin(&self) -> Self {
        let (disk, index) = (self.disk.cut_now(Choice::Everything), MemoryIndexEngine::new());
        let store = opener(&disk, &index).open().await.unwrap();
        store.close().await;
        let batches = index.batch_count();
        let disk = self.disk.cut_now(Choice::Everything);
        Self { disk, index, batches, model: self.model.clone() }
    }

    fn files(&self, below: &str) -> Vec<PathBuf> {
        let below = Path::new("/volume").join(below);
        self.disk.files().into_iter().filter(|path| path.starts_with(&below)).collect()
    }

    fn length(&self, path: &Path) -> usize {
        self.disk.contents(path).unwrap().len()
    }

    /// A copy of the disk, and the index as it was or an empty one.
    fn case(&self, has_index: bool) -> (PowerDisk, MemoryIndexEngine) {
        let disk = self.disk.cut_now(Choice::Everything);
        if !has_index {
            return (disk, MemoryIndexEngine::new());
        }
        self.index.set_back(self.batches);
        (disk, self.index.clone())
    }

    /// Opens a damaged copy and asks it for everything; returns how many
    /// answers were errors. `is_thorough` also writes, and opens once more.
    async fn check(
        &self,
        (disk, index): (PowerDisk, MemoryIndexEngine),
        what: &str,
        is_thorough: bool,
    ) -> usize {
        let opener = opener(&disk, &index);
        let store = opener.open().await.unwrap_or_else(|error| panic!("{what}: {error}"));
        let refused = self.model.check(&store, what).await;
        if is_thorough {
            let mut model = self.model.clone();
            model.check_writes(&store, what).await;
            store.close().await;
            drop(store);
            let store = opener.open().await.unwrap_or_else(|error| panic!("{what}: {error}"));
            model.check(&store, &format!("{what}, opened again")).await;
            store.close().await;
        } else {
            store.close().await;
        }
        refused
    }
}

/// Two threads: a case waits for threads of the store most of the time.
fn on_threads(threads: usize, work: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        let work = &work;
        for thread in 0..threads {
            scope.spawn(move || work(thread));
        }
    });
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Flips a bit of every `step`th byte of each file, and checks each time.
fn flip_every_byte(has_index: bool, below: &'static str, step: impl Fn(usize) -> usize + Sync) {
    const THREADS: usize = 4;
    let (cases, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let original = block_on(Volume::new());
    on_threads(THREADS, |thread| {
        block_on(async {
            let volume = original.twin().await;
            assert!(volume.files("log").len() >= 4, "{:?}", volume.files("log"));
            let mut number = 0_usize;
            for file in volume.files(below) {
                let length = volume.length(&file);
                for at in (0..length).step_by(step(length)) {
                    number += 1;
                    if number % THREADS != thread {
                        continue;
                    }
                    let what = format!("bit {} of byte {at} of {}", at % 8, file.display());
                    let case = volume.case(has_index);
                    case.0.flip_bit(&file, at as u64, u32::try_from(at % 8).unwrap());
                    let is_thorough = (number / THREADS).is_multiple_of(16);
                    let errors = volume.check(case, &what, is_thorough).await;
                    cases.fetch_add(1, Ordering::Relaxed);
                    refused.fetch_add(errors, Ordering::Relaxed);
                }
            }
        });
    });
    println!("{cases:?} flips below {below}, with index: {has_index}; {refused:?} refusals");
    assert!(refused.into_inner() > 0, "nothing was noticed");
}

#[test]
fn a_flipped_bit_in_any_byte_of_a_segment_with_the_index() {
    flip_every_byte(true, "log", |_| 1);
}

#[test]
fn a_flipped_bit_in_any_byte_of_a_segment_without_the_index() {
    flip_every_byte(false, "log", |_| 1);
}

/// The short one byte by byte.
#[test]
fn a_flipped_bit_in_any_byte_of_a_payload_file() {
    let step = |length| if length > 10_000 { 211 } else { 1 };
    flip_every_byte(true, "large", step);
    flip_every_byte(false, "large", step);
}

#[test]
fn the_last_segment_cut_anywhere_under_an_index_that_covers_it() {
    block_on(async {
        let volume = Volume::new().await;
        let file = volume.files("log").pop().unwrap();
        let content = volume.disk.contents(&file).unwrap();
        for length in 0..content.len() {
            let case = volume.case(true);
            case.0.replace(&file, &content[..length]);
            let what = format!("{} cut to {length}", file.display());
            let refused = volume.check(case, &what, length % 7 == 0).await;
            // All but the seal is about a name.
            assert!(refused > 0 || content.len() - length <= 80, "{what}");
        }
        println!("{} lengths", content.len());
    });
}

/// Without an index nothing tells that the last segment was ever there.
#[test]
fn a_segment_that_is_gone_is_missed() {
    block_on(async {
        let count = Volume::new().await.files("log").len();
        for (at, has_index) in (0..count).flat_map(|at| [(at, true), (at, false)]) {
            if !has_index && at + 1 == count {
                continue;
            }
            let volume = Volume::new().await;
            let file = volume.files("log")[at].clone();
            let case = volume.case(has_index);
            case.0.remove_file(&file).unwrap();
            let what = format!("without {}, with index: {has_index}", file.display());
            assert!(volume.check(case, &what, true).await > 0, "{what}");
        }
    });
}

/// The index has not been told of it yet, but a later segment lists it.
#[test]
fn a_segment_that_is_gone_is_missed_however_far_the_index_lags_behind() {
    block_on(async {
        let original = Volume::new().await;
        let mut cases = 0;
        for at in 0..original.files("log").len() - 1 {
            for batches in 1..original.batches {
                // The index of its own: one that is built anew forgets what it was.
                let volume = Volume::new().await;
                let file = volume.files("log")[at].clone();
                let disk = volume.disk.cut_now(Choice::Everything);
                volume.index.set_back(batches);
                disk.remove_file(&file).unwrap();
                let what = format!("without {}, after {batches} batches", file.display());
                let case = (disk, volume.index.clone());
                assert!(volume.check(case, &what, batches % 8 == 0).await > 0, "{what}");
                cases += 1;
            }
        }
        println!("{cases} cases");
    });
}

#[test]
fn a_payload_file_that_is_gone_is_an_error() {
    block_on(async {
        let count = Volume::new().await.files("large").len();
        for (at, has_index) in (0..count).flat_map(|at| [(at, true), (at, false)]) {
            let volume = Volume::new().await;
            let file = volume.files("large")[at].clone();
            let case = volume.case(has_index);
            case.0.remove_file(&file).unwrap();
            let what = format!("without {}, with index: {has_index}", file.display());
            assert_eq!(volume.check(case, &what, true).await, 1, "{what}");
        }
    });
}

fn segment_name(number: u64, salt: u64) -> PathBuf {
    Path::new("/volume/log").join(format!("{number:016x}-{salt:016x}.seg"))
}

fn create(disk: &PowerDisk, path: &Path, bytes: &[u8]) {
    let file = disk.open(path, holdfast_runtime::OpenMode::CreateNew).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync_data().unwrap();
}

/// As a crash leaves them right after they were made.
#[test]
fn segments_that_hold_nothing_are_of_no_harm() {
    block_on(async {
        let volume = Volume::new().await;
        let header = volume.disk.contents(&volume.files("log")[0]).unwrap()[..64].to_vec();
        for (length, has_index) in
            [0, 1, 63, 64].into_iter().flat_map(|length| [(length, true), (length, false)])
        {
            let case = volume.case(has_index);
            // The header of this very segment is not known here: a wrong one is
            // as good as a torn one while nothing follows it.
            create(&case.0, &segment_name(99, 1), &header[..length]);
            let what = format!("an empty segment of {length} bytes, with index: {has_index}");
            let outcome = opener(&case.0, &case.1).open().await;
            match outcome {
                Ok(store) => {
                    assert_eq!(volume.model.check(&store, &what).await, 0, "{what}");
                    store.close().await;
                }
                Err(StoreError::Format { reason, .. }) if length == 64 => {
                    assert!(reason.contains("renamed"), "{reason}");
                }
                Err(error) => panic!("{what}: {error}"),
            }
        }
    });
}

async fn refusal(disk: &PowerDisk, index: &MemoryIndexEngine) -> String {
    match opener(disk, index).open().await {
        Err(StoreError::Format { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_segment_under_another_number_is_refused() {
    block_on(async {
        for has_index in [true, false] {
            let volume = Volume::new().await;
            let first = volume.files("log")[0].clone();
            let bytes = volume.disk.contents(&first).unwrap();
            let salt = u64::from_be_bytes(bytes[24..32].try_into().unwrap()).swap_bytes();

            let case = volume.case(has_index);
            create(&case.0, &segment_name(1, salt ^ 1), &bytes);
            let reason = refusal(&case.0, &case.1).await;
            assert!(reason.contains("two segments have one number"), "{reason}");

            let case = volume.case(has_index);
            create(&case.0, &segment_name(0x77, salt), &bytes);
            let reason = refusal(&case.0, &case.1).await;
            assert!(reason.contains("renamed"), "{reason}");

            let case = volume.case(has_index);
            case.0.rename(&first, &segment_name(0x77, salt)).unwrap();
            let reason = refusal(&case.0, &case.1).await;
            assert!(reason.contains("renamed"), "{reason}");
        }
    });
}

#[test]
fn the_highest_number_is_no_number_of_a_segment() {
    block_on(async {
        let volume = Volume::new().await;
        let case = volume.case(false);
        create(&case.0, &segment_name(u64::MAX, 1), &[]);
        let reason = refusal(&case.0, &case.1).await;
        assert!(reason.contains("move it away"), "{reason}");
    });
}

#[test]
fn a_segment_of_a_newer_format_is_refused_with_what_to_do() {
    block_on(async {
        let volume = Volume::new().await;
        for file in volume.files("log") {
            let case = volume.case(false);
            let mut bytes = volume.disk.contents(&file).unwrap();
            bytes[8] = 2;
            let crc = crc_fast::crc32_iscsi(&bytes[..60]);
            bytes[60..64].copy_from_slice(&crc.to_le_bytes());
            case.0.replace(&file, &bytes);
            let reason = refusal(&case.0, &case.1).await;
            assert!(reason.contains("format version 2"), "{reason}");
            assert!(reason.contains("run the release that wrote it"), "{reason}");
        }
    });
}

/// With the index and the files that are used there.
fn on_real_disk(directory: &TempDir) -> Opener {
    let root = directory.path().to_owned();
    Opener { root, segment_bytes: SEGMENT_BYTES, index: None, files: None }
}

/// The same on a real disk with the index that is used there.
#[tokio::test]
async fn flipped_bits_on_a_real_disk() {
    let directory = TempDir::new();
    let opener = on_real_disk(&directory);
    let mut model = Model::default();
    let store = opener.open().await.unwrap();
    model.fill(&store).await;
    store.close().await;
    drop(store);
    let mut cases = 0;
    for has_index in [true, false] {
        let segments = fs::read_dir(directory.join("log")).unwrap();
        for segment in segments.map(|file| file.unwrap()) {
            let length = usize::try_from(segment.metadata().unwrap().len()).unwrap();
            for at in (0..length).step_by(if has_index { 149 } else { 313 }) {
                let copy = TempDir::new();
                common::copy_all(directory.path(), copy.path());
                let file = copy.join("log").join(segment.file_name());
                let mut bytes = fs::read(&file).unwrap();
                bytes[at] ^= 1 << (at % 8);
                fs::write(&file, &bytes).unwrap();
                if !has_index {
                    fs::remove_dir_all(copy.join("index")).unwrap();
                    fs::create_dir(copy.join("index")).unwrap();
                }
                let what = format!("byte {at} of {}, index: {has_index}", file.display());
                let opener = Opener { root: copy.path().to_owned(), ..opener.clone() };
                let store = opener.open().await.unwrap();
                model.check(&store, &what).await;
                store.close().await;
                cases += 1;
            }
        }
    }
    println!("{cases} flips");
    let store = opener.open().await.unwrap();
    assert_eq!(model.check(&store, "nothing was flipped").await, 0);
}

#[tokio::test]
async fn damage_that_a_start_meets_is_counted() {
    let directory = TempDir::new();
    let opener = on_real_disk(&directory);
    let content = b"bytes that are found again in the log";
    let store = opener.open().await.unwrap();
    Model::default().put(&store, "a", 1, content.as_slice().into()).await;
    store.close().await;
    drop(store);
    let segment = fs::read_dir(directory.join("log")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(content.len()).position(|window| window == content).unwrap();
    bytes[at] ^= 1;
    fs::write(&segment, bytes).unwrap();
    fs::remove_dir_all(directory.join("index")).unwrap();
    let store = opener.open().await.unwrap();
    assert_eq!(store.report().damaged_count, 1);
    let registry = prometheus::Registry::new();
    store.metrics().register(&registry).unwrap();
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let series = "holdfast_corruptions_total{result=\"unreadable\"} 1";
    assert!(text.contains(series), "{series} in {text}");
}
