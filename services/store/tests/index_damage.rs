//! Files of the index that are not as they were written: an error, or what was
//! there after an earlier batch, and nothing else.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests look behind the seam"
)]
#![allow(clippy::print_stdout, reason = "how often what was found is worth knowing")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::TempDir;
use common::index::{Numbers, State, batch, batches, read, state_after};
use holdfast_runtime::Runtime;
use holdfast_store::log_engine::index::{FjallIndexEngine, IndexBatch, IndexEngine, IndexError};

/// So small that a few batches make several tables.
fn engine() -> FjallIndexEngine {
    FjallIndexEngine::new(Runtime::real()).with_memtable_bytes(32 * 1024)
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for found in fs::read_dir(directory).unwrap() {
        let path = found.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort_unstable();
    files
}

fn copy_all(from: &Path, to: &Path) {
    for file in files_below(from) {
        let copy = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(file, copy).unwrap();
    }
}

fn flip(path: &Path, bit: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).unwrap();
    file.write_all_at(&[byte[0] ^ (1 << (bit % 8))], bit / 8).unwrap();
}

#[derive(Debug, Default)]
struct Outcomes {
    refused_at_open: u32,
    refused_at_read: u32,
    newest: u32,
    older: u32,
}

fn open_and_read(directory: &Path) -> Result<Result<State, IndexError>, IndexError> {
    let index = engine().open(directory)?;
    Ok(read(&*index))
}

impl Outcomes {
    fn count(&mut self, directory: &Path, all: &[IndexBatch], what: &str) {
        let state = match open_and_read(directory) {
            Err(_) => return self.refused_at_open += 1,
            Ok(Err(_)) => return self.refused_at_read += 1,
            Ok(Ok(state)) => state,
        };
        let number = state.checkpoint.as_ref().map_or(0, |it| it.next_sequence);
        let applied = usize::try_from(number).unwrap();
        assert!(state == state_after(&all[..applied]), "{what}: other content at batch {applied}");
        if applied == all.len() { self.newest += 1 } else { self.older += 1 }
    }
}

/// An index with tables, and with batches that are in the journal alone.
fn written(directory: &Path, all: &[IndexBatch]) {
    let index = engine().open(directory).unwrap();
    let list = directory.join("keyspaces/1/current");
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut seen = fs::read(&list).unwrap();
    for (at, batch) in all.iter().enumerate() {
        index.apply(batch).unwrap();
        // Ten batches are more than a memtable, so one of the last ten had one written
        // out, which may be over by now.
        if at % 10 == 9 && at + 1 < all.len() {
            while fs::read(&list).unwrap() == seen {
                assert!(Instant::now() < deadline, "no memtable was written out");
                std::thread::yield_now();
            }
            seen = fs::read(&list).unwrap();
        }
    }
    index.persist().unwrap();
    drop(index);
    // Opening cuts the zeros behind the journal, which would be copied.
    drop(engine().open(directory).unwrap());
}

#[test]
fn a_flipped_bit_is_an_error_or_an_earlier_batch_or_nothing() {
    let original = TempDir::new();
    let all = batches(4, 73);
    written(original.path(), &all);
    let files: Vec<_> = files_below(original.path())
        .into_iter()
        .filter(|path| fs::metadata(path).unwrap().len() > 0)
        .collect();
    let tables = files.iter().filter(|path| path.parent().unwrap().ends_with("1/tables")).count();
    assert!(tables > 0, "there are tables to damage: {files:?}");
    let mut numbers = Numbers(20);
    let mut outcomes = Outcomes::default();
    for round in 0..300 {
        let copy = TempDir::new();
        copy_all(original.path(), copy.path());
        let file = &files[usize::try_from(numbers.below(files.len() as u64)).unwrap()];
        let bit = numbers.below(fs::metadata(file).unwrap().len() * 8);
        let relative = file.strip_prefix(original.path()).unwrap();
        flip(&copy.path().join(relative), bit);
        let what = format!("round {round}, bit {bit} of {}", relative.display());
        outcomes.count(copy.path(), &all, &what);
    }
    println!("{outcomes:?} in {} files, {tables} of them tables", files.len());
    assert!(outcomes.refused_at_open + outcomes.refused_at_read > 50, "{outcomes:?}");
}

/// Every bit of the fields that fjall does not verify.
#[test]
fn a_flipped_bit_in_a_list_of_tables_or_a_batch_header_is_noticed() {
    let original = TempDir::new();
    let all = batches(4, 20);
    written(original.path(), &all);
    let lists = files_below(original.path()).into_iter().filter(|path| {
        let file = path.file_name().unwrap().to_str().unwrap();
        file == "current" || file.starts_with('v') && file != "version"
    });
    let mut outcomes = Outcomes::default();
    for list in lists {
        let relative = list.strip_prefix(original.path()).unwrap();
        for bit in (0..fs::metadata(&list).unwrap().len() * 8).step_by(13) {
            let copy = TempDir::new();
            copy_all(original.path(), copy.path());
            flip(&copy.path().join(relative), bit);
            assert!(open_and_read(copy.path()).is_err(), "bit {bit} of {}", relative.display());
            outcomes.refused_at_open += 1;
        }
    }
    let (last_start, _) = last_batch(&fs::read(original.join("0.jnl")).unwrap());
    for start in [0, last_start] {
        for bit in 0..13 * 8 {
            let copy = TempDir::new();
            copy_all(original.path(), copy.path());
            flip(&copy.join("0.jnl"), start as u64 * 8 + bit);
            outcomes.count(copy.path(), &all, &format!("bit {bit} of the batch at {start}"));
        }
    }
    println!("{outcomes:?}");
}

/// Where the last batch begins, and its length, by the mark that ends each.
fn last_batch(journal: &[u8]) -> (usize, usize) {
    let end = journal.len();
    let mark = b"FJL\x03";
    let before = &journal[..end - mark.len()];
    let start = before.windows(mark.len()).rposition(|window| window == mark).unwrap();
    (start + mark.len(), end - start - mark.len())
}

/// An index of some batches, with nothing in tables, and nothing in its journal
/// behind the last one.
fn all_in_one_journal() -> (TempDir, Vec<IndexBatch>, FjallIndexEngine) {
    let directory = TempDir::new();
    let all = batches(8, 12);
    let engine = FjallIndexEngine::new(Runtime::real());
    let index = engine.open(directory.path()).unwrap();
    all.iter().for_each(|batch| index.apply(batch).unwrap());
    drop(index);
    drop(engine.open(directory.path()).unwrap());
    (directory, all, engine)
}

#[test]
fn a_journal_that_is_cut_anywhere_leaves_an_earlier_batch() {
    let (original, all, engine) = all_in_one_journal();
    let len = fs::metadata(original.join("0.jnl")).unwrap().len();
    let mut numbers = Numbers(1);
    let mut outcomes = Outcomes::default();
    for _ in 0..60 {
        let copy = TempDir::new();
        copy_all(original.path(), copy.path());
        let journal = fs::OpenOptions::new().write(true).open(copy.join("0.jnl")).unwrap();
        journal.set_len(numbers.below(len)).unwrap();
        // As it is before the file system has written all of it.
        journal.set_len(len).unwrap();
        // An index is not opened before all have closed its journal.
        drop(journal);
        outcomes.count(copy.path(), &all, "a cut");
        // It goes on from there.
        let index = engine.open(copy.path()).unwrap();
        let number = index.checkpoint().unwrap().map_or(0, |it| it.next_sequence);
        index.apply(&batch(number + 1)).unwrap();
        drop(index);
        let index = engine.open(copy.path()).unwrap();
        assert_eq!(index.checkpoint().unwrap().unwrap().next_sequence, number + 1);
    }
    println!("{outcomes:?}");
    assert_eq!(outcomes.older, 60, "{outcomes:?}");
}

/// A journal is sealed at 64 MB; this makes two out of one, between batches.
fn split_journal(directory: &Path) {
    let journal = fs::read(directory.join("0.jnl")).unwrap();
    let (middle, _) = last_batch(&journal[..last_batch(&journal).0]);
    fs::write(directory.join("0.jnl"), &journal[..middle]).unwrap();
    fs::write(directory.join("1.jnl"), &journal[middle..]).unwrap();
}

/// As on a disk that became full in the middle of a batch, when fjall begins the
/// next journal all the same.
#[test]
fn a_journal_that_is_torn_is_cut_if_what_follows_it_is_empty() {
    let (original, all, engine) = all_in_one_journal();
    let journal = fs::read(original.join("0.jnl")).unwrap();
    let (start, length) = last_batch(&journal);
    let followers: [&[u8]; 3] = [&[], &[0; 4096], &[0; 1 << 20]];
    let mut numbers = Numbers(7);
    for follower in followers.iter().cycle().take(30) {
        let cut = start + 1 + usize::try_from(numbers.below(length as u64 - 1)).unwrap();
        let copy = TempDir::new();
        copy_all(original.path(), copy.path());
        fs::write(copy.join("0.jnl"), &journal[..cut]).unwrap();
        fs::write(copy.join("1.jnl"), follower).unwrap();
        // It goes on as one that was never torn.
        for _ in 0..2 {
            let index = engine.open(copy.path()).unwrap();
            index.apply(all.last().unwrap()).unwrap();
            assert_eq!(read(&*index).unwrap(), state_after(&all), "cut at {cut}");
        }
    }
}

#[test]
fn a_journal_that_others_follow_must_be_whole() {
    let (original, all, engine) = all_in_one_journal();
    split_journal(original.path());
    let len = fs::metadata(original.join("0.jnl")).unwrap().len();
    let mut numbers = Numbers(6);
    for _ in 0..60 {
        let copy = TempDir::new();
        copy_all(original.path(), copy.path());
        let bit = numbers.below(len * 8);
        flip(&copy.join("0.jnl"), bit);
        let refused = engine.open(copy.path()).unwrap_err();
        assert!(matches!(refused, IndexError::Damaged { .. }), "bit {bit}: {refused}");
    }
    let mut outcomes = Outcomes::default();
    outcomes.count(original.path(), &all, "nothing was flipped");
    assert_eq!(outcomes.newest, 1);
}

#[test]
fn a_worker_that_dies_fails_the_next_batches_and_nothing_hangs() {
    let directory = TempDir::new();
    let index = engine().open(directory.path()).unwrap();
    let tables = directory.join("keyspaces/1/tables");
    let deadline = Instant::now() + Duration::from_secs(60);
    let all = batches(2, 5000);
    let failure = all
        .iter()
        .find_map(|batch| {
            assert!(Instant::now() < deadline, "no batch failed");
            // Compaction reads tables from the disk.
            for table in files_below(&tables) {
                if let Ok(mut bytes) = fs::read(&table) {
                    bytes.iter_mut().take(8192).for_each(|byte| *byte = 0xa5);
                    let _ = fs::write(&table, bytes);
                }
            }
            index.apply(batch).err()
        })
        .unwrap();
    assert!(matches!(failure, IndexError::Failed { .. }), "{failure}");
    assert!(matches!(index.apply(&batch(1)), Err(IndexError::Failed { .. })));
    assert!(matches!(index.persist(), Err(IndexError::Failed { .. })));
    drop(index);
    // What was damaged may have been a table that was not finished.
    Outcomes::default().count(directory.path(), &all, "after the worker died");
}

type Damage = fn(&Path);

#[test]
fn whatever_is_in_the_directory_nothing_panics() {
    let all = batches(4, 20);
    let original = TempDir::new();
    written(original.path(), &all);
    let damages: [(&str, Damage); 8] = [
        ("no version", |it| fs::remove_file(it.join("version")).unwrap()),
        ("no journal", |it| fs::remove_file(it.join("0.jnl")).unwrap()),
        ("no keyspaces", |it| fs::remove_dir_all(it.join("keyspaces")).unwrap()),
        ("no tree", |it| fs::remove_dir_all(it.join("keyspaces/1")).unwrap()),
        ("no names of trees", |it| fs::remove_dir_all(it.join("keyspaces/0")).unwrap()),
        ("no list", |it| fs::remove_file(it.join("keyspaces/1/current")).unwrap()),
        ("a strange tree", |it| fs::create_dir(it.join("keyspaces/x")).unwrap()),
        ("a strange table", |it| fs::create_dir(it.join("keyspaces/1/tables/x")).unwrap()),
    ];
    for (what, damage) in damages {
        let copy = TempDir::new();
        copy_all(original.path(), copy.path());
        damage(copy.path());
        let refused = engine().open(copy.path()).unwrap_err();
        assert!(matches!(refused, IndexError::Damaged { .. }), "{what}: {refused}");
        engine().remove(copy.path()).unwrap();
        assert_eq!(read(&*engine().open(copy.path()).unwrap()).unwrap(), State::default());
    }
}
