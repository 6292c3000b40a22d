//! Volumes that were mutated at random: opening them ends, and what they answer
//! is right or an error.
//!
//! `HOLDFAST_FUZZ_SECONDS` says for how long (3 unless set). The seed of a case
//! that fails is printed; `HOLDFAST_FUZZ_SEED` runs it alone.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests look behind the seam"
)]
#![allow(clippy::print_stdout, reason = "how much was tried is worth knowing")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::log::{Model, Opener, Seeded};
use common::power::{Choice, PowerDisk};
use holdfast_runtime::{Entropy, FileSystem, OpenMode};
use holdfast_store::log_engine::index::MemoryIndexEngine;
use holdfast_store::{Store, StoreError};

/// How long opening and asking for everything may take before it hangs.
const HANG: Duration = Duration::from_secs(60);

struct Volume {
    disk: PowerDisk,
    model: Model,
}

/// Small, so that there are several.
const SEGMENT_BYTES: u32 = 3 * 1024;

fn opener(disk: &PowerDisk, index: &MemoryIndexEngine) -> Opener {
    Opener::in_memory(disk, index, SEGMENT_BYTES)
}

impl Volume {
    async fn new() -> Self {
        let (disk, _, model) = common::log::filled(SEGMENT_BYTES).await;
        Self { disk, model }
    }
}

fn create(disk: &PowerDisk, path: &Path, bytes: &[u8]) {
    // There may be one of that name, or no such directory.
    if let Ok(file) = disk.open(path, OpenMode::CreateNew) {
        file.write_all_at(bytes, 0).unwrap();
        file.sync_data().unwrap();
    }
}

fn noise(dice: &Seeded, length: usize) -> Vec<u8> {
    (0..length).map(|_| dice.random_u64().to_le_bytes()[0]).collect()
}

fn pick(dice: &Seeded, disk: &PowerDisk, below: &str) -> Option<PathBuf> {
    let below = Path::new("/volume").join(below);
    let files: Vec<_> = disk.files().into_iter().filter(|path| path.starts_with(&below)).collect();
    files.get(dice.below(files.len())).cloned()
}

/// Damages bytes of a file; returns whether it was one byte at most.
fn mutate_content(dice: &Seeded, bytes: &mut Vec<u8>) -> bool {
    let length = bytes.len();
    if length == 0 {
        return true;
    }
    let (a, b) = (dice.below(length), dice.below(length));
    let range = a.min(b)..a.max(b);
    let kind = dice.below(7);
    match kind {
        0 => bytes[a] ^= 1 << dice.below(8),
        1 => bytes[a] = dice.random_u64().to_le_bytes()[0],
        2 => {
            let sector = a / 512 * 512;
            bytes[sector..(sector + 512).min(length)].fill(0);
        }
        3 => {
            let noise = noise(dice, range.len());
            bytes[range].copy_from_slice(&noise);
        }
        4 => {
            let copy = bytes[range.start..range.end.min(range.start + 900)].to_vec();
            bytes.splice(range.start..range.start, copy);
        }
        5 => {
            let (first, second) = (a / 512 * 512, b / 512 * 512);
            for at in 0..512 {
                if first.max(second) + at < length {
                    bytes.swap(first + at, second + at);
                }
            }
        }
        _ => bytes.extend(noise(dice, 1 + a % 300)),
    }
    kind < 2
}

/// What a mutation takes away that nothing tells of.
#[derive(Debug, Default)]
struct Done {
    /// Whole records may be gone without a trace: the end of a segment is not
    /// written down anywhere but in the index.
    is_cut: bool,
    log: Vec<String>,
}

fn mutate(dice: &Seeded, disk: &PowerDisk, done: &mut Done) {
    let kind = dice.below(12);
    match kind {
        0..=4 => {
            let below = if dice.below(4) == 0 { "large" } else { "log" };
            let Some(file) = pick(dice, disk, below) else { return };
            let mut bytes = disk.contents(&file).unwrap();
            let before = bytes.len();
            let is_byte = mutate_content(dice, &mut bytes);
            // More than a byte at the end of the log may be all that was after
            // it: an interrupted write looks the same.
            let last = disk.files().into_iter().filter(|path| path.starts_with("/volume/log"));
            done.is_cut |= !is_byte && last.max().as_ref() == Some(&file);
            disk.replace(&file, &bytes);
            done.log.push(format!("{} of {before} bytes changed", file.display()));
        }
        5 => {
            let Some(file) = pick(dice, disk, "log") else { return };
            let bytes = disk.contents(&file).unwrap();
            disk.replace(&file, &bytes[..dice.below(bytes.len())]);
            done.is_cut = true;
            done.log.push(format!("{} cut", file.display()));
        }
        6 => {
            let Some(file) = pick(dice, disk, if dice.below(2) == 0 { "log" } else { "large" })
            else {
                return;
            };
            disk.remove_file(&file).unwrap();
            done.is_cut = true;
            done.log.push(format!("{} removed", file.display()));
        }
        7 | 8 => {
            let Some(file) = pick(dice, disk, "log") else { return };
            let number = [0, 1, 2, 9, u64::MAX, dice.random_u64()][dice.below(6)];
            let name = file.file_name().unwrap().to_str().unwrap();
            let Some((_, salt)) = name.split_once('-') else { return };
            let to = Path::new("/volume/log").join(format!("{number:016x}-{salt}"));
            let copy = disk.contents(&file).unwrap();
            if kind == 7 {
                // One that is replaced is as good as removed.
                done.is_cut |= disk.contents(&to).is_some();
                let _ = disk.rename(&file, &to);
            } else {
                create(disk, &to, &copy);
            }
            done.log.push(format!("{} as {}, kind {kind}", file.display(), to.display()));
        }
        9 => {
            let length = dice.below(200);
            disk.replace(Path::new("/volume/format"), &noise(dice, length));
            done.log.push("format overwritten".to_owned());
        }
        10 => {
            let names = [
                "large/x",
                "large/00000000000000ff",
                "log/stray",
                "log/0000000000000001.seg",
                "log/00000000000000ee-00000000000000ee.seg",
                "index/x",
                "index-rebuild",
                "stray",
            ];
            let path = Path::new("/volume").join(names[dice.below(names.len())]);
            let length = dice.below(300);
            create(disk, &path, &noise(dice, length));
            done.log.push(format!("{} added", path.display()));
        }
        _ => {
            let names = ["large/ffffffffffffffff", "large/00000000000000aa", "log/directory"];
            let path = Path::new("/volume").join(names[dice.below(names.len())]);
            disk.create_directories(&path).unwrap();
            create(disk, &path.join("ffffffffffffffff"), b"x");
            done.log.push(format!("{} made", path.display()));
        }
    }
}

async fn case(volume: &Volume, seed: u64) -> bool {
    let dice = Seeded::new(seed);
    let disk = volume.disk.cut_now(Choice::Everything);
    let has_index = dice.below(2) == 0;
    let index = MemoryIndexEngine::new();
    if has_index {
        // Built from the log while that is as it was.
        let sound = volume.disk.cut_now(Choice::Everything);
        opener(&sound, &index).open().await.unwrap().close().await;
    }
    let mut done = Done::default();
    for _ in 0..1 + dice.below(4) {
        mutate(&dice, &disk, &mut done);
    }
    let what = format!("seed {seed}, with index: {has_index}, {:?}", done.log);
    let store = match opener(&disk, &index).open().await {
        Ok(store) => store,
        Err(StoreError::Format { .. } | StoreError::Io { .. } | StoreError::Corrupt { .. }) => {
            return false;
        }
        Err(error) => panic!("{what}: {error:?}"),
    };
    // Several mutations may hide each other, and without the index nothing tells
    // where a segment ended.
    let is_told = done.log.len() == 1 && (has_index || !done.is_cut);
    if is_told {
        volume.model.check(&store, &what).await;
    } else {
        volume.model.check_identity(&store, &what).await;
    }
    store.close().await;
    true
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("it is a number"))
}

fn run(seed: u64, volume: &Volume, runtime: &tokio::runtime::Runtime) -> bool {
    let case = AssertUnwindSafe(|| {
        let within = async { tokio::time::timeout(HANG, case(volume, seed)).await };
        runtime.block_on(within).expect("it hangs")
    });
    std::panic::catch_unwind(case)
        .unwrap_or_else(|_| panic!("the case of HOLDFAST_FUZZ_SEED={seed} failed"))
}

#[test]
fn a_mutated_volume_opens_or_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let volume = runtime.block_on(Volume::new());
    if let Some(seed) = variable("HOLDFAST_FUZZ_SEED") {
        run(seed, &volume, &runtime);
        return;
    }
    let seconds = variable("HOLDFAST_FUZZ_SECONDS").unwrap_or(3);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let first = u64::from(std::process::id()) << 32;
    let (mut seed, mut opened) = (first, 0_u64);
    while Instant::now() < deadline {
        opened += u64::from(run(seed, &volume, &runtime));
        seed += 1;
    }
    println!("{} cases from seed {first} on, {opened} opened", seed - first);
    assert!(opened > 0, "every volume was refused");
}
