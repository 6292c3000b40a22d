//! The disk that loses power keeps what it says it keeps, and loses the rest.

#![allow(clippy::disallowed_methods, reason = "threads of a test")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::power::{Choice, Names, Options, PowerDisk, SECTOR_BYTES};
use holdfast_runtime::{File, FileSystem, OpenMode};

const SECTOR: usize = 512;

fn create(disk: &PowerDisk, path: &str) -> Box<dyn File> {
    disk.open(Path::new(path), OpenMode::CreateNew).unwrap()
}

fn rename(disk: &PowerDisk, from: &str, to: &str) {
    disk.rename(Path::new(from), Path::new(to)).unwrap();
}

fn sync(disk: &PowerDisk, path: &str) {
    disk.sync_directory(Path::new(path)).unwrap();
}

fn contents(disk: &PowerDisk, path: &str) -> Option<Vec<u8>> {
    disk.contents(Path::new(path))
}

/// An empty file whose name is durable.
fn named(disk: &PowerDisk, path: &str) -> Box<dyn File> {
    let file = create(disk, path);
    disk.settle();
    file
}

/// What many cuts leave of something.
fn outcomes<T: Ord>(disk: &PowerDisk, look: impl Fn(&PowerDisk) -> T) -> BTreeSet<T> {
    (0..500).map(|seed| look(&disk.cut_now(Choice::Subset(seed)))).collect()
}

#[test]
fn readers_see_at_once_what_a_cut_loses() {
    let disk = PowerDisk::new();
    let file = create(&disk, "/a");
    file.write_all_at(b"hello", 0).unwrap();
    assert_eq!(contents(&disk, "/a").unwrap(), b"hello");
    assert_eq!(disk.cut_now(Choice::NothingUnsynced).files().len(), 0);
    assert_eq!(contents(&disk.cut_now(Choice::Everything), "/a").unwrap(), b"hello");
}

#[test]
fn data_needs_the_sync_of_the_file_and_a_name_that_of_the_directory() {
    for (file_synced, directory_synced) in [(true, true), (true, false), (false, true)] {
        let disk = PowerDisk::new();
        let file = create(&disk, "/a");
        file.write_all_at(b"hello", 0).unwrap();
        if file_synced {
            file.sync_data().unwrap();
        }
        if directory_synced {
            sync(&disk, "/");
        }
        let expected = match (file_synced, directory_synced) {
            (_, false) => None,
            (true, true) => Some(b"hello".to_vec()),
            (false, true) => Some(Vec::new()),
        };
        assert_eq!(contents(&disk.cut_now(Choice::NothingUnsynced), "/a"), expected);
    }
}

#[test]
fn what_is_synced_survives_every_cut() {
    let disk = PowerDisk::new();
    let file = create(&disk, "/a");
    file.write_all_at(&[1; 3 * SECTOR], 0).unwrap();
    file.sync_data().unwrap();
    sync(&disk, "/");
    create(&disk, "/b").write_all_at(&[2; SECTOR], 0).unwrap();
    let left = outcomes(&disk, |disk| contents(disk, "/a"));
    assert_eq!(left, BTreeSet::from([Some(vec![1; 3 * SECTOR])]));
    assert_eq!(outcomes(&disk, |disk| contents(disk, "/b").is_some()).len(), 2);
}

#[test]
fn a_length_is_durable_with_the_data() {
    let disk = PowerDisk::new();
    let file = named(&disk, "/a");
    file.write_all_at(&[1; SECTOR], 0).unwrap();
    file.set_len(10).unwrap();
    file.set_len(20).unwrap();
    file.sync_data().unwrap();
    file.set_len(5).unwrap();
    let cut = disk.cut_now(Choice::NothingUnsynced);
    assert_eq!(contents(&cut, "/a").unwrap(), [[1; 10], [0; 10]].concat());
    let lengths = outcomes(&disk, |disk| contents(disk, "/a").unwrap().len());
    assert_eq!(lengths, BTreeSet::from([5, 20]));
}

#[test]
fn unsynced_writes_survive_in_any_combination() {
    let disk = PowerDisk::new();
    let file = named(&disk, "/a");
    file.set_len(3 * SECTOR_BYTES).unwrap();
    file.sync_data().unwrap();
    for index in 0..3 {
        file.write_all_at(&[1; SECTOR], index * SECTOR_BYTES).unwrap();
    }
    let which = |disk: &PowerDisk| {
        let bytes = contents(disk, "/a").unwrap();
        bytes.chunks(SECTOR).map(|sector| sector[0]).collect::<Vec<_>>()
    };
    assert_eq!(outcomes(&disk, which).len(), 8);
}

#[test]
fn a_write_is_torn_at_sectors_and_nowhere_else() {
    let disk = PowerDisk::new();
    let file = named(&disk, "/a");
    file.write_all_at(&[1; 4 * SECTOR], 0).unwrap();
    file.sync_data().unwrap();
    // From the middle of the first sector to the middle of the last.
    file.write_all_at(&[2; 3 * SECTOR], SECTOR_BYTES / 2).unwrap();
    let left = outcomes(&disk, |disk| contents(disk, "/a").unwrap());
    assert_eq!(left.len(), 16, "each of four sectors for itself");
    for bytes in left {
        let edges = [0, SECTOR / 2, SECTOR, 2 * SECTOR, 3 * SECTOR, 7 * SECTOR / 2, 4 * SECTOR];
        for edge in edges.windows(2) {
            let part = &bytes[edge[0]..edge[1]];
            assert!(part.iter().all(|byte| *byte == part[0]), "torn within a sector");
        }
    }
}

#[test]
fn a_file_is_as_long_as_what_is_left_or_as_it_would_have_been() {
    let disk = PowerDisk::new();
    let file = named(&disk, "/a");
    file.write_all_at(&[1; SECTOR], 0).unwrap();
    file.write_all_at(&[2; SECTOR], SECTOR_BYTES).unwrap();
    let left = outcomes(&disk, |disk| contents(disk, "/a").unwrap());
    let (zeros, ones, twos) = (vec![0; SECTOR], vec![1; SECTOR], vec![2; SECTOR]);
    let expected = [
        vec![],
        ones.clone(),
        [zeros.clone(), twos.clone()].concat(),
        [ones.clone(), twos].concat(),
        // The length came before the data.
        zeros.clone(),
        [zeros.clone(), zeros.clone()].concat(),
        [ones, zeros].concat(),
    ];
    assert_eq!(left, BTreeSet::from(expected));
}

#[test]
fn names_survive_in_any_combination() {
    let disk = PowerDisk::new();
    named(&disk, "/removed");
    disk.create_directories(Path::new("/made")).unwrap();
    create(&disk, "/created");
    disk.remove_file(Path::new("/removed")).unwrap();
    assert_eq!(outcomes(&disk, |disk| disk.list(Path::new("/")).unwrap()).len(), 8);
    sync(&disk, "/");
    assert_eq!(outcomes(&disk, |disk| disk.list(Path::new("/")).unwrap()).len(), 1);
}

#[test]
fn with_a_journal_names_survive_in_order_and_by_any_sync() {
    let disk = PowerDisk::with(Options { names: Names::Journaled, ..Options::default() });
    let file = create(&disk, "/a");
    disk.create_directories(Path::new("/d")).unwrap();
    create(&disk, "/d/b");
    create(&disk, "/c");
    let left: BTreeSet<_> = outcomes(&disk, PowerDisk::files);
    let files = ["/a", "/d/b", "/c"].map(|path| Path::new(path).to_owned());
    let [a, b, c] = files;
    let expected = [vec![], vec![a.clone()], vec![a.clone(), b.clone()], vec![a, c, b]];
    assert_eq!(left, BTreeSet::from(expected));
    let count = disk.operation_count();
    assert_eq!(disk.cut(count, Choice::AllBut(1)).files(), [Path::new("/a")]);
    file.sync_data().unwrap();
    assert_eq!(disk.cut_now(Choice::NothingUnsynced).files().len(), 3);
}

#[test]
fn a_rename_happened_or_did_not() {
    for target in ["/new", "/directory/new"] {
        let disk = PowerDisk::new();
        disk.create_directories(Path::new("/directory")).unwrap();
        create(&disk, target).write_all_at(b"old", 0).unwrap();
        create(&disk, "/staged").write_all_at(b"new", 0).unwrap();
        disk.settle();
        rename(&disk, "/staged", target);
        let look = |disk: &PowerDisk| (contents(disk, "/staged"), contents(disk, target).unwrap());
        let old = (Some(b"new".to_vec()), b"old".to_vec());
        let new = (None, b"new".to_vec());
        assert_eq!(outcomes(&disk, look), BTreeSet::from([old, new.clone()]));
        sync(&disk, Path::new(target).parent().unwrap().to_str().unwrap());
        assert_eq!(outcomes(&disk, look), BTreeSet::from([new]));
    }
}

#[test]
fn a_file_never_has_two_names() {
    let disk = PowerDisk::new();
    named(&disk, "/a");
    rename(&disk, "/a", "/b");
    rename(&disk, "/b", "/c");
    let files = outcomes(&disk, PowerDisk::files);
    assert!(files.iter().all(|files| files.len() == 1), "{files:?}");
    assert_eq!(files.len(), 3);
}

#[test]
fn the_sync_of_a_directory_keeps_what_its_names_build_on() {
    let disk = PowerDisk::new();
    disk.create_directories(Path::new("/staging")).unwrap();
    disk.create_directories(Path::new("/objects")).unwrap();
    disk.settle();
    create(&disk, "/staging/a");
    rename(&disk, "/staging/a", "/objects/a");
    create(&disk, "/staging/b");
    sync(&disk, "/objects");
    let look = |disk: &PowerDisk| disk.files().iter().map(|path| format!("{path:?}")).collect();
    let left: BTreeSet<Vec<String>> = outcomes(&disk, look);
    let moved = "\"/objects/a\"".to_owned();
    let other = "\"/staging/b\"".to_owned();
    assert_eq!(left, BTreeSet::from([vec![moved.clone()], vec![moved, other]]));
}

#[test]
fn what_is_below_a_lost_directory_is_gone() {
    let disk = PowerDisk::new();
    disk.create_directories(Path::new("/a/b")).unwrap();
    let file = create(&disk, "/a/b/c");
    file.write_all_at(b"kept", 0).unwrap();
    file.sync_data().unwrap();
    sync(&disk, "/a/b");
    sync(&disk, "/a");
    let cut = disk.cut_now(Choice::NothingUnsynced);
    assert_eq!((cut.files().len(), cut.core().used_bytes()), (0, 0));
    sync(&disk, "/");
    assert_eq!(disk.cut_now(Choice::NothingUnsynced).files(), [Path::new("/a/b/c")]);
}

#[test]
fn a_removed_file_stays_readable_while_it_is_open() {
    let disk = PowerDisk::new();
    let file = named(&disk, "/a");
    file.write_all_at(b"hello", 0).unwrap();
    disk.remove_file(Path::new("/a")).unwrap();
    let mut buffer = [0; 10];
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 5);
    assert_eq!(&buffer[..5], b"hello");
    file.write_all_at(b"more", 5).unwrap();
    assert_eq!(file.len().unwrap(), 9);
    let used = disk.core().used_bytes();
    drop(file);
    assert!(disk.core().used_bytes() < used, "its room is free when it is closed");
    // The removal is not durable, and what was written before may be there.
    assert!(outcomes(&disk, |disk| contents(disk, "/a")).contains(&Some(b"hello".to_vec())));
    sync(&disk, "/");
    assert_eq!(disk.pending(disk.operation_count()), 0, "nobody will see what was written");
}

#[test]
fn each_change_can_be_the_only_one_that_is_lost() {
    let disk = PowerDisk::new();
    let file = create(&disk, "/a");
    file.write_all_at(b"one", 0).unwrap();
    file.write_all_at(b"two", 3).unwrap();
    let count = disk.operation_count();
    assert_eq!(disk.pending(count), 3);
    let left = |lost| contents(&disk.cut(count, Choice::AllBut(lost)), "/a");
    assert_eq!(left(0), None);
    assert_eq!(left(1).unwrap(), b"\0\0\0two");
    assert_eq!(left(2).unwrap(), b"one");
}

#[test]
fn a_cut_is_after_any_operation() {
    let disk = PowerDisk::new();
    let file = create(&disk, "/a");
    for index in 0..200_u64 {
        file.write_all_at(&[1], index).unwrap();
        file.sync_data().unwrap();
    }
    sync(&disk, "/");
    for at in 0..=disk.operation_count() {
        let left = contents(&disk.cut(at, Choice::Everything), "/a").map(|bytes| bytes.len());
        assert_eq!(left, at.checked_sub(1).map(|done| done.div_ceil(2).min(200)), "after {at}");
        let is_named = at == disk.operation_count();
        let cut = disk.cut(at, Choice::NothingUnsynced);
        assert_eq!(contents(&cut, "/a").is_some(), is_named, "after {at}");
        let pending = if at == 0 || is_named { 0 } else { 2 - at % 2 };
        assert_eq!(disk.pending(at), pending, "after {at}");
    }
}

#[test]
fn a_cut_disk_is_a_disk_that_can_be_cut() {
    let disk = PowerDisk::new();
    named(&disk, "/a").write_all_at(b"kept", 0).unwrap();
    let second = disk.cut_now(Choice::Everything);
    let lock = second.try_lock(Path::new("/a")).unwrap().expect("nobody has it");
    let file = second.open(Path::new("/a"), OpenMode::Write).unwrap();
    file.write_all_at(b"lost", 0).unwrap();
    let third = second.cut_now(Choice::NothingUnsynced);
    assert_eq!(contents(&third, "/a").unwrap(), b"kept");
    assert_eq!(contents(&second, "/a").unwrap(), b"lost");
    assert_eq!(third.operation_count(), 0);
    assert!(second.try_lock(Path::new("/a")).unwrap().is_none());
    assert!(third.try_lock(Path::new("/a")).unwrap().is_some(), "no lock outlives the power");
    drop(lock);
    assert!(second.try_lock(Path::new("/a")).unwrap().is_some());
}

#[test]
fn many_threads_use_one_disk() {
    let disk = PowerDisk::new();
    let threads: Vec<_> = (0..4_u8)
        .map(|thread| {
            let disk = disk.clone();
            std::thread::spawn(move || {
                let file = create(&disk, &format!("/{thread}"));
                for index in 0..100 {
                    file.write_all_at(&[thread], index).unwrap();
                    file.sync_data().unwrap();
                    disk.mark(usize::from(thread));
                }
                sync(&disk, "/");
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let count = disk.operation_count();
    assert_eq!(count, 4 * (1 + 200 + 1));
    for at in 0..=count {
        let (cut, marks) = (disk.cut(at, Choice::Everything), disk.marks_before(at));
        for thread in 0..4_u8 {
            let promised = marks.iter().filter(|mark| **mark == usize::from(thread)).count();
            let left = contents(&cut, &format!("/{thread}")).unwrap_or_default();
            assert!(left.len() >= promised && left.iter().all(|byte| *byte == thread));
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_cut() {
    let disk = PowerDisk::new();
    let file = named(&disk, "/a");
    (0..40_u64).for_each(|index| file.write_all_at(&[1; 700], index * 700).unwrap());
    let cut = |seed| contents(&disk.cut_now(Choice::Subset(seed)), "/a");
    assert!((0..50).all(|seed| cut(seed) == cut(seed)));
    assert!((0..50).map(cut).collect::<BTreeSet<_>>().len() > 40);
}

#[test]
fn marks_say_what_was_promised_before_a_cut() {
    let disk = PowerDisk::new();
    disk.mark(7);
    let file = create(&disk, "/a");
    file.sync_data().unwrap();
    disk.mark(8);
    assert_eq!(disk.marks_before(0), [7]);
    assert_eq!(disk.marks_before(1), [7]);
    assert_eq!(disk.marks_before(2), [7, 8]);
}
