//! The disk that loses power fails, fills up and decays as it is told to.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::io::ErrorKind;
use std::path::Path;

use common::power::{
    CHUNK_BYTES, Call, Choice, DIRECT_BYTES, Fault, Matching, Operation, Options, PowerDisk, Sync,
};
use holdfast_runtime::{File, FileSystem, OpenMode};
use rustix::io::Errno;

const CHUNK: usize = 4096;

fn create(disk: &PowerDisk, path: &str) -> Box<dyn File> {
    disk.open(Path::new(path), OpenMode::CreateNew).unwrap()
}

fn contents(disk: &PowerDisk, path: &str) -> Vec<u8> {
    disk.contents(Path::new(path)).unwrap()
}

#[test]
fn the_chosen_call_fails_and_no_other() {
    let calls = [Call::SyncData, Call::SyncDirectory, Call::Write, Call::Read];
    for call in calls {
        let disk = PowerDisk::new();
        let file = create(&disk, "/a");
        disk.fail(Fault::next(call).after(1).errno(Errno::NOSPC));
        let round = || {
            [
                file.sync_data(),
                disk.sync_directory(Path::new("/")),
                file.write_all_at(b"x", 0),
                file.read_at(&mut [0], 0).map(drop),
            ]
        };
        for (number, fails) in [(0, false), (1, true), (2, false)] {
            for (outcome, which) in round().into_iter().zip(calls) {
                let expected = (fails && which == call).then_some(ErrorKind::StorageFull);
                assert_eq!(outcome.err().map(|error| error.kind()), expected, "round {number}");
            }
        }
    }
}

#[test]
fn a_fault_can_last_and_be_about_some_files() {
    let disk = PowerDisk::new();
    let (bad, good) = (create(&disk, "/bad"), create(&disk, "/good"));
    disk.fail(Fault::next(Call::Write).lasting().on(Matching::below("/bad")));
    for _ in 0..3 {
        let error = bad.write_all_at(b"x", 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
        good.write_all_at(b"x", 0).unwrap();
    }
    disk.heal();
    bad.write_all_at(b"x", 0).unwrap();
}

#[test]
fn a_failed_write_leaves_a_part_behind() {
    let disk = PowerDisk::new();
    let file = create(&disk, "/a");
    disk.fail(Fault::next(Call::Write));
    file.write_all_at(b"hello!", 0).unwrap_err();
    assert_eq!(contents(&disk, "/a"), b"hel");
}

#[test]
fn no_later_sync_mends_one_that_failed() {
    let disk = PowerDisk::new();
    let file = create(&disk, "/a");
    disk.settle();
    file.write_all_at(b"one", 0).unwrap();
    disk.fail(Fault::next(Call::SyncData));
    file.sync_data().unwrap_err();
    file.write_all_at(b"two", 3).unwrap();
    file.sync_data().unwrap();
    assert_eq!(contents(&disk, "/a"), b"onetwo", "readers see the cache");
    assert_eq!(contents(&disk.cut_now(Choice::NothingUnsynced), "/a"), b"\0\0\0two");
    assert_eq!(contents(&disk.cut_now(Choice::Everything), "/a"), b"onetwo");
    assert_eq!(disk.pending(disk.operation_count()), 1);
}

#[test]
fn no_later_sync_mends_that_of_a_directory() {
    let disk = PowerDisk::new();
    create(&disk, "/a");
    disk.fail(Fault::next(Call::SyncDirectory));
    disk.sync_directory(Path::new("/")).unwrap_err();
    create(&disk, "/b");
    disk.sync_directory(Path::new("/")).unwrap();
    assert_eq!(disk.cut_now(Choice::NothingUnsynced).files(), [Path::new("/b")]);
}

#[test]
fn a_full_disk_takes_what_fits() {
    let capacity_bytes = 3 * CHUNK_BYTES;
    let disk = PowerDisk::with(Options { capacity_bytes, ..Options::default() });
    let free = || disk.space(Path::new("/")).unwrap().free_bytes;
    let file = create(&disk, "/a");
    file.write_all_at(&[1; CHUNK + 1], 0).unwrap();
    assert_eq!(free(), CHUNK_BYTES);
    let error = file.write_all_at(&[2; 4 * CHUNK], 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(free(), 0);
    assert_eq!(contents(&disk, "/a"), vec![2; 3 * CHUNK]);
    file.write_all_at(&[3; CHUNK], 0).expect("it has the room already");
    file.set_len(CHUNK_BYTES).unwrap();
    assert_eq!(free(), 2 * CHUNK_BYTES);
    file.set_len(100 * CHUNK_BYTES).expect("a hole takes none");
    assert_eq!(free(), 2 * CHUNK_BYTES);
    disk.remove_file(Path::new("/a")).unwrap();
    assert_eq!(free(), 2 * CHUNK_BYTES, "it is open still");
    drop(file);
    assert_eq!(free(), capacity_bytes);
    assert_eq!(disk.space(Path::new("/")).unwrap().total_bytes, capacity_bytes);
}

#[test]
fn a_flipped_bit_is_on_the_disk_at_once() {
    let disk = PowerDisk::new();
    let file = create(&disk, "/a");
    file.write_all_at(b"ab", 0).unwrap();
    disk.settle();
    file.write_all_at(b"x", 1).unwrap();
    disk.flip_bit(Path::new("/a"), 0, 1);
    assert_eq!(contents(&disk, "/a"), b"cx");
    assert_eq!(contents(&disk.cut_now(Choice::NothingUnsynced), "/a"), b"cb");
    assert_eq!(contents(&disk.cut(1, Choice::Everything), "/a"), b"ax", "it came later");
    disk.replace(Path::new("/a"), b"other");
    assert_eq!(contents(&disk.cut_now(Choice::NothingUnsynced), "/a"), b"other");
}

#[test]
fn direct_writes_are_aligned_and_no_more_durable_than_others() {
    assert!(PowerDisk::new().create_direct(Path::new("/a")).unwrap().is_none());
    let disk = PowerDisk::with(Options { direct: true, ..Options::default() });
    let file = disk.create_direct(Path::new("/a")).unwrap().unwrap();
    disk.settle();
    let memory = vec![7; 3 * CHUNK];
    let aligned = memory.as_ptr().align_offset(CHUNK);
    let buffer = &memory[aligned..aligned + CHUNK];
    for (bytes, offset) in [(buffer, 1), (&buffer[..100], 0), (&memory[aligned + 1..][..CHUNK], 0)]
    {
        let error = file.write_all_at(bytes, offset).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    file.write_all_at(buffer, DIRECT_BYTES).unwrap();
    assert_eq!(contents(&disk.cut_now(Choice::NothingUnsynced), "/a"), b"");
    file.sync_data().unwrap();
    assert_eq!(contents(&disk.cut_now(Choice::NothingUnsynced), "/a").len(), 2 * CHUNK);
}

#[test]
fn errors_are_those_of_a_file_system() {
    let disk = PowerDisk::new();
    disk.create_directories(Path::new("/a/b")).unwrap();
    create(&disk, "/a/file");
    let open = |path: &str, mode| disk.open(Path::new(path), mode).unwrap_err().kind();
    assert_eq!(open("/missing", OpenMode::Read), ErrorKind::NotFound);
    assert_eq!(open("/missing/x", OpenMode::CreateNew), ErrorKind::NotFound);
    assert_eq!(open("/a/file", OpenMode::CreateNew), ErrorKind::AlreadyExists);
    assert_eq!(open("/a", OpenMode::Write), ErrorKind::IsADirectory);
    assert_eq!(open("/a/file/x", OpenMode::Read), ErrorKind::NotADirectory);
    let rename = |from: &str, to: &str| disk.rename(Path::new(from), Path::new(to));
    assert_eq!(rename("/a", "/a/b/c").unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(rename("/a/file", "/a/b").unwrap_err().kind(), ErrorKind::IsADirectory);
    rename("/a/b", "/moved").unwrap();
    assert_eq!(disk.list(Path::new("/")).unwrap(), [Path::new("/a"), Path::new("/moved")]);
    let removed = disk.remove_file(Path::new("/moved"));
    assert_eq!(removed.unwrap_err().kind(), ErrorKind::IsADirectory);
    let reader = disk.open(Path::new("/a/file"), OpenMode::Read).unwrap();
    assert!(reader.write_all_at(b"x", 0).is_err());
}

#[test]
fn a_lying_disk_says_that_it_synced() {
    let lying = Matching::below("/lies");
    let disk = PowerDisk::with(Options {
        lying_files: Some(lying.clone()),
        lying_directories: Some(lying),
        ..Options::default()
    });
    for directory in ["/lies", "/true"] {
        disk.create_directories(Path::new(directory)).unwrap();
        create(&disk, &format!("{directory}/old"));
        disk.settle();
    }
    for directory in ["/lies", "/true"] {
        let old = Path::new(directory).join("old");
        let file = disk.open(&old, OpenMode::Write).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        file.sync_data().unwrap();
        create(&disk, &format!("{directory}/new"));
        disk.sync_directory(Path::new(directory)).unwrap();
    }
    let cut = disk.cut_now(Choice::NothingUnsynced);
    assert_eq!(contents(&cut, "/lies/old"), b"");
    assert_eq!(contents(&cut, "/true/old"), b"x");
    assert_eq!(cut.contents(Path::new("/lies/new")), None);
    assert!(cut.contents(Path::new("/true/new")).is_some());
    let lied =
        |operation: &Operation| matches!(operation, Operation::SyncData { sync: Sync::Lied, .. });
    assert_eq!(disk.operations(0).iter().filter(|operation| lied(operation)).count(), 1);
}
