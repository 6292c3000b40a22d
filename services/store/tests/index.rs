//! Every index keeps what it is given, in order and batch by batch.

#![allow(clippy::disallowed_methods, reason = "tests look behind the seam")]
#![allow(clippy::print_stdout, reason = "it is how a child tells that it is ready")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::TempDir;
use common::index::{Numbers, State, batch, batches, entry, name, read, state_after};
use holdfast_core::object::{Kind, Metadata};
use holdfast_runtime::{OpenMode, Runtime};
use holdfast_store::log_engine::index::{
    Checkpoint, Content, FileId, FileState, FjallIndexEngine, INDEX_VERSION, Index, IndexBatch,
    IndexEngine, IndexError, MemoryIndexEngine, SegmentUsage,
};

fn fjall() -> FjallIndexEngine {
    FjallIndexEngine::new(Runtime::real())
}

/// Runs a test on each engine.
fn on_each(test: impl Fn(&dyn IndexEngine, &Path)) {
    let engines: [&dyn IndexEngine; 2] = [&fjall(), &MemoryIndexEngine::new()];
    for engine in engines {
        let directory = TempDir::new();
        test(engine, &directory.join("index"));
    }
}

fn scan(index: &dyn Index, from: Bound<&str>, limit: usize) -> Vec<String> {
    let from = from.map(|key| name("b", key));
    let mut keys = Vec::new();
    let visit = &mut |name: holdfast_core::name::ObjectName, _| {
        keys.push(name.key.as_str().to_owned());
        if keys.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    index.scan(from.as_ref(), visit).unwrap();
    keys
}

fn with_entries(number: u64, keys: &[&str]) -> IndexBatch {
    let entries = keys.iter().map(|key| (name("b", key), Some(entry(number)))).collect();
    IndexBatch { entries, ..batch(number) }
}

#[test]
fn an_index_that_was_just_made_is_empty() {
    on_each(|engine, directory| {
        let index = engine.open(directory).unwrap();
        assert_eq!(read(&*index).unwrap(), State::default());
        assert_eq!(index.get(&name("b", "a")).unwrap(), None);
        assert_eq!(index.file(FileId { directory: 0, number: 0 }).unwrap(), None);
    });
}

#[test]
fn what_was_applied_is_there_also_after_opening_again() {
    on_each(|engine, directory| {
        let all = batches(1, 40);
        let mut index = engine.open(directory).unwrap();
        for (at, batch) in all.iter().enumerate() {
            index.apply(batch).unwrap();
            if at % 8 == 3 {
                // With and without a sync before.
                if at % 16 == 3 {
                    index.persist().unwrap();
                }
                drop(index);
                index = engine.open(directory).unwrap();
            }
            let is = read(&*index).unwrap();
            assert_eq!(is, state_after(&all[..=at]), "after batch {at}");
        }
    });
}

/// In memtables so small that it is built of many runs, too.
#[test]
fn an_index_that_is_built_is_as_one_that_was_written_to() {
    let small = fjall().with_memtable_bytes(4 * 1024);
    let engines: [&dyn IndexEngine; 3] = [&fjall(), &small, &MemoryIndexEngine::new()];
    for engine in engines {
        let directory = TempDir::new();
        let directory = &directory.join("index");
        let all = batches(5, 90);
        let mut builder = engine.build(directory).unwrap();
        for (at, batch) in all.iter().enumerate().take(80) {
            builder.apply(batch).unwrap();
            let expected: BTreeMap<_, _> = match at % 20 {
                0 => state_after(&all[..=at]).entries.into_iter().collect(),
                _ => continue,
            };
            for (name, _) in all.iter().flat_map(|batch| &batch.entries) {
                assert_eq!(builder.get(name).unwrap().as_ref(), expected.get(name), "{name}");
            }
        }
        let index = builder.finish().unwrap();
        assert_eq!(read(&*index).unwrap(), state_after(&all[..80]));
        drop(index);
        for at in 80..all.len() {
            let index = engine.open(directory).unwrap();
            assert_eq!(read(&*index).unwrap(), state_after(&all[..at]), "before batch {at}");
            index.apply(&all[at]).unwrap();
        }
    }
}

#[test]
fn an_index_that_was_cut_while_it_was_built_has_no_checkpoint() {
    let engine = fjall().with_memtable_bytes(4 * 1024);
    let directory = TempDir::new();
    let mut builder = engine.build(directory.path()).unwrap();
    batches(6, 80).iter().for_each(|batch| builder.apply(batch).unwrap());
    drop(builder);
    let index = engine.open(directory.path()).unwrap();
    assert_eq!(index.checkpoint().unwrap(), None);
    assert!(!read(&*index).unwrap().entries.is_empty(), "runs were written before");
}

#[test]
fn nothing_makes_an_empty_index() {
    on_each(|engine, directory| {
        let index = engine.build(directory).unwrap().finish().unwrap();
        assert_eq!(read(&*index).unwrap(), State::default());
    });
}

#[test]
fn entries_are_scanned_in_the_order_of_names_from_where_one_asks() {
    on_each(|engine, directory| {
        let index = engine.open(directory).unwrap();
        let longest = "x".repeat(1024);
        let keys = ["\0", "\0\0", "a", "a\0", "a\0b", "a/b", "ab", "é", "\u{10ffff}", &longest];
        index.apply(&with_entries(1, &keys)).unwrap();
        let others = [name("a", "z"), name("b-", "a"), name("b.c", "\0"), name("c", "a")];
        let others = others.into_iter().map(|name| (name, Some(entry(2)))).collect();
        index.apply(&IndexBatch { entries: others, ..batch(2) }).unwrap();
        let mut sorted = keys.to_vec();
        sorted.sort_unstable();
        let all = scan(&*index, Bound::Included("\0"), keys.len());
        assert_eq!(all, sorted);
        for (at, key) in sorted.iter().enumerate() {
            assert_eq!(scan(&*index, Bound::Included(key), 1), [*key]);
            assert_eq!(
                scan(&*index, Bound::Excluded(key), 1).first(),
                sorted.get(at + 1).map(|key| (*key).to_owned()).or(Some("a".into())).as_ref()
            );
            assert_eq!(index.get(&name("b", key)).unwrap(), Some(entry(1)), "{key:?}");
        }
        let whole = read(&*index).unwrap();
        assert_eq!(whole.entries.len(), keys.len() + 4);
        assert_eq!(index.get(&name("b", "aa")).unwrap(), None);
        assert_eq!(index.get(&name("a", "a")).unwrap(), None);
    });
}

#[test]
fn a_scan_stops_when_told_to() {
    on_each(|engine, directory| {
        let index = engine.open(directory).unwrap();
        index.apply(&with_entries(1, &["1", "2", "3", "4"])).unwrap();
        assert_eq!(scan(&*index, Bound::Unbounded, 2), ["1", "2"]);
        assert_eq!(scan(&*index, Bound::Excluded("2"), 9), ["3", "4"]);
    });
}

#[test]
fn a_scan_does_not_see_what_is_written_meanwhile() {
    on_each(|engine, directory| {
        let index = engine.open(directory).unwrap();
        index.apply(&with_entries(1, &["a", "b", "c"])).unwrap();
        let mut seen = Vec::new();
        let visit = &mut |name: holdfast_core::name::ObjectName, entry| {
            if seen.is_empty() {
                let gone = (name_of("c"), None);
                let mut next = with_entries(2, &["a", "b", "bb"]);
                next.entries.push(gone);
                index.apply(&next).unwrap();
            }
            seen.push((name.key.as_str().to_owned(), entry));
            ControlFlow::Continue(())
        };
        index.scan(Bound::Unbounded, visit).unwrap();
        assert_eq!(seen, ["a", "b", "c"].map(|key| (key.to_owned(), entry(1))));
        assert_eq!(scan(&*index, Bound::Unbounded, 9), ["a", "b", "bb"]);
    });
}

fn name_of(key: &str) -> holdfast_core::name::ObjectName {
    name("b", key)
}

#[test]
fn odd_entries_come_back() {
    on_each(|engine, directory| {
        let index = engine.open(directory).unwrap();
        let mut bare = entry(1);
        bare.stat.metadata = Metadata::default();
        let mut tombstone = entry(2);
        tombstone.stat.kind = Kind::Tombstone;
        tombstone.content = Content::Nothing;
        let mut lost = entry(u64::MAX);
        lost.content = Content::Lost;
        lost.is_damaged = true;
        let mut large = entry(3);
        large.stat.metadata.content_type = Some("\0é\u{10ffff}".repeat(20_000));
        let all = [("bare", bare), ("tombstone", tombstone), ("lost", lost), ("large", large)];
        let entries = all.iter().map(|(key, entry)| (name_of(key), Some(entry.clone()))).collect();
        index.apply(&IndexBatch { entries, ..batch(1) }).unwrap();
        for (key, entry) in all {
            assert_eq!(index.get(&name_of(key)).unwrap(), Some(entry), "{key}");
        }
    });
}

#[test]
fn files_are_live_doomed_or_unknown() {
    on_each(|engine, directory| {
        let index = engine.open(directory).unwrap();
        let file = |number| FileId { directory: number / 2, number };
        let set = |number, files: &[(u64, Option<FileState>)]| {
            let files = files.iter().map(|(number, state)| (file(*number), *state)).collect();
            index.apply(&IndexBatch { files, ..batch(number) }).unwrap();
        };
        let (live, doomed) = (Some(FileState::Live), Some(FileState::Doomed));
        set(1, &[(1, live), (2, live), (256, live), (3, doomed), (u64::MAX, doomed)]);
        assert_eq!(index.file(file(1)).unwrap(), live);
        assert_eq!(index.file(file(3)).unwrap(), doomed);
        assert_eq!(index.file(file(4)).unwrap(), None);
        set(2, &[(256, doomed), (2, doomed), (3, None)]);
        assert_eq!(index.file(file(3)).unwrap(), None);
        assert_eq!(index.doomed_files(9).unwrap(), [2, 256, u64::MAX].map(file));
        assert_eq!(index.doomed_files(2).unwrap(), [2, 256].map(file));
        assert_eq!(index.doomed_files(0).unwrap(), []);
        set(3, &[(2, live), (256, None)]);
        assert_eq!(index.file(file(2)).unwrap(), live);
        assert_eq!(index.doomed_files(9).unwrap(), [u64::MAX].map(file));
    });
}

#[test]
fn segments_and_the_checkpoint_come_back() {
    on_each(|engine, directory| {
        let index = engine.open(directory).unwrap();
        let usage = |bytes| SegmentUsage {
            total_bytes: bytes,
            live_bytes: 1,
            forget_bytes: BTreeMap::from([(7, bytes), (u64::MAX, 1)]),
        };
        let segments = vec![(1, Some(usage(u64::MAX))), (2, None), (256, Some(usage(5)))];
        let next = IndexBatch { segments, ..batch(u64::MAX) };
        index.apply(&next).unwrap();
        let expected = BTreeMap::from([(1, usage(u64::MAX)), (256, usage(5))]);
        assert_eq!(index.segments().unwrap(), expected);
        assert_eq!(index.checkpoint().unwrap(), Some(next.checkpoint));
        index.apply(&IndexBatch { segments: vec![(1, None)], ..batch(2) }).unwrap();
        assert_eq!(index.segments().unwrap().keys().collect::<Vec<_>>(), [&256]);
    });
}

#[test]
fn an_index_of_another_version_is_refused_until_it_is_removed() {
    on_each(|engine, directory| {
        let index = engine.open(directory).unwrap();
        let checkpoint = Checkpoint { version: INDEX_VERSION + 1, ..Checkpoint::default() };
        index.apply(&IndexBatch { checkpoint, ..batch(1) }).unwrap();
        drop(index);
        let refused = engine.open(directory).unwrap_err();
        let version = INDEX_VERSION + 1;
        assert!(
            matches!(refused, IndexError::OtherVersion { version: told } if told == version),
            "{refused}"
        );
        engine.remove(directory).unwrap();
        engine.remove(directory).unwrap();
        assert_eq!(read(&*engine.open(directory).unwrap()).unwrap(), State::default());
    });
}

#[test]
fn the_memory_index_goes_back_and_tears() {
    let engine = MemoryIndexEngine::new();
    let all = batches(5, 10);
    let index = engine.open(Path::new("")).unwrap();
    all.iter().for_each(|batch| index.apply(batch).unwrap());
    index.persist().unwrap();
    assert_eq!((engine.batch_count(), engine.persist_count()), (10, 1));
    for count in [7, 3, 0] {
        engine.set_back(count);
        let index = engine.open(Path::new("")).unwrap();
        assert_eq!(read(&*index).unwrap(), state_after(&all[..count]));
    }
    engine.tear();
    assert!(matches!(engine.open(Path::new("")), Err(IndexError::Damaged { .. })));
    engine.remove(Path::new("")).unwrap();
    assert!(engine.open(Path::new("")).is_ok());
}

#[test]
fn an_index_that_is_in_use_is_not_opened_again() {
    let directory = TempDir::new();
    let index = fjall().open(directory.path()).unwrap();
    let refused = fjall().open(directory.path()).unwrap_err();
    assert!(matches!(refused, IndexError::Failed { .. }), "{refused}");
    index.apply(&batch(1)).unwrap();
}

/// What a process left that was killed while it looked for room.
#[test]
fn the_file_that_tries_the_room_is_removed() {
    let directory = TempDir::new();
    let path = directory.join("index");
    fjall().open(&path).unwrap().apply(&batch(1)).unwrap();
    let probe = path.join("keyspaces/probe");
    std::fs::write(&probe, "left").unwrap();
    fjall().try_room(&path).unwrap();
    assert!(!probe.exists());
    std::fs::write(&probe, "left").unwrap();
    let index = fjall().open(&path).unwrap();
    assert_eq!(read(&*index).unwrap(), state_after(&[batch(1)]));
    assert!(!probe.exists());
}

/// fjall keeps tables that were merged into others while nothing more is written.
#[test]
fn what_was_replaced_is_removed_unless_somebody_reads() {
    let directory = TempDir::new();
    let mut all = batches(3, 2_000);
    let engine = fjall().with_memtable_bytes(16 * 1024);
    let index = engine.open(directory.path()).unwrap();
    let versions = || {
        let files = std::fs::read_dir(directory.join("keyspaces/1")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with('v')).count()
    };
    let mut applied = 0;
    while applied < 200 || versions() < 2 {
        index.apply(all.get(applied).expect("there is nothing to remove")).unwrap();
        applied += 1;
    }
    all.truncate(applied);
    let mut visited = 0;
    index
        .scan(Bound::Unbounded, &mut |_, _| {
            if visited == 0 {
                let before = versions();
                index.tidy().unwrap();
                assert_eq!(versions() > 1, before > 1);
            }
            visited += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(visited > 0);
    let patience = Runtime::real().now() + Duration::from_secs(20);
    while versions() > 1 && Runtime::real().now() < patience {
        // The worker may write one more table meanwhile.
        index.tidy().unwrap();
    }
    assert_eq!(versions(), 1);
    assert_eq!(read(&*index).unwrap(), state_after(&all));
    drop(index);
    assert_eq!(read(&*engine.open(directory.path()).unwrap()).unwrap(), state_after(&all));
}

/// A thread of fjall may close it a moment after the index was closed, and write
/// what is left in its buffer only then.
#[test]
fn an_index_is_not_opened_before_its_journal_was_closed() {
    let directory = TempDir::new();
    let path = directory.join("index");
    fjall().open(&path).unwrap().apply(&batch(1)).unwrap();
    let late = Runtime::real().files().open(&path.join("0.jnl"), OpenMode::Read).unwrap();
    std::thread::scope(|scope| {
        let (opened, is_opened) = std::sync::mpsc::channel();
        let path = &path;
        scope.spawn(move || opened.send(fjall().open(path).map(drop)).unwrap());
        let early = is_opened.recv_timeout(Duration::from_millis(300));
        assert!(early.is_err(), "{early:?}");
        drop(late);
        is_opened.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    });
}

#[test]
fn dropping_releases_all_so_that_it_opens_at_once() {
    let directory = TempDir::new();
    let engine = fjall().with_memtable_bytes(16 * 1024);
    let all = batches(9, 60);
    for (at, batch) in all.iter().enumerate() {
        let index = engine.open(directory.path()).unwrap();
        index.apply(batch).unwrap();
        assert_eq!(index.checkpoint().unwrap().unwrap(), all[at].checkpoint);
    }
    let index = engine.open(directory.path()).unwrap();
    assert_eq!(read(&*index).unwrap(), state_after(&all));
}

const CHILD: &str = "HOLDFAST_INDEX_OF_CHILD";
const CHILD_SEED: u64 = 77;
const CHILD_BATCHES: usize = 50;

/// Not a test: what the next one kills.
#[test]
#[ignore = "it waits to be killed"]
fn child_that_is_killed() {
    let Ok(directory) = std::env::var(CHILD) else { return };
    let index = fjall().open(Path::new(&directory)).unwrap();
    batches(CHILD_SEED, CHILD_BATCHES).iter().for_each(|batch| index.apply(batch).unwrap());
    println!("\napplied");
    loop {
        std::thread::park();
    }
}

#[test]
fn what_was_applied_survives_the_kill_of_the_process() {
    let directory = TempDir::new();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_is_killed", "--ignored", "--nocapture"])
        .env(CHILD, directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "applied"), "the child ended early");
    child.kill().unwrap();
    child.wait().unwrap();
    let index = fjall().open(directory.path()).unwrap();
    let all = batches(CHILD_SEED, CHILD_BATCHES);
    assert_eq!(read(&*index).unwrap(), state_after(&all));
    let mut numbers = Numbers(3);
    let more = common::index::random_batch(&mut numbers, CHILD_BATCHES as u64 + 1);
    index.apply(&more).unwrap();
}
