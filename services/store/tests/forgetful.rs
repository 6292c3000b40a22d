//! The mounted disk that loses power is a file system that programs can use,
//! and forgets what they did not sync.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a program that does its own I/O"
)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::forgetful::ForgetfulMount;
use common::power::{Call, Choice, Fault, Names, Options};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

const MIB: u64 = 1 << 20;

fn mount(names: Names) -> Option<ForgetfulMount> {
    ForgetfulMount::new(Options { names, ..Options::default() })
}

fn sync_directory(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

fn is_mount_point(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(1) == path.to_str())
}

#[test]
fn a_program_finds_a_file_system() {
    let Some(mount) = mount(Names::Independent) else { return };
    let path = |name: &str| mount.path().join(name);
    fs::create_dir_all(path("a/b")).unwrap();
    fs::write(path("a/file"), b"hello").unwrap();
    OpenOptions::new().append(true).open(path("a/file")).unwrap().write_all(b" you").unwrap();
    let mut file = OpenOptions::new().read(true).write(true).open(path("a/file")).unwrap();
    file.write_all_at(b"J", 0).unwrap();
    file.seek(SeekFrom::Start(6)).unwrap();
    let mut rest = String::new();
    file.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), file.metadata().unwrap().len()), ("you", 9));
    file.set_len(5).unwrap();
    fs::rename(path("a/file"), path("a/b/moved")).unwrap();
    assert_eq!(fs::read(path("a/b/moved")).unwrap(), b"Jello");
    assert_eq!(fs::metadata(path("a/file")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs::remove_dir(path("a/b")).unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
    fs::remove_file(path("a/b/moved")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 5, "it is open still");
    fs::remove_dir(path("a/b")).unwrap();
    file.lock().unwrap();
    file.sync_all().unwrap();
}

#[test]
fn a_directory_is_listed_whole() {
    let Some(mount) = mount(Names::Independent) else { return };
    let names: Vec<_> = (0..1000).map(|number| format!("{number:04}")).collect();
    names.iter().for_each(|name| drop(File::create(mount.path().join(name)).unwrap()));
    let listed = fs::read_dir(mount.path()).unwrap();
    let mut listed: Vec<_> =
        listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    listed.sort_unstable();
    assert_eq!(listed, names);
}

#[test]
fn a_power_cut_forgets_what_was_not_synced() {
    let Some(mut mount) = mount(Names::Independent) else { return };
    let path = mount.path().join("file");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"kept").unwrap();
    file.sync_data().unwrap();
    sync_directory(mount.path());
    file.write_all(b"lost").unwrap();
    File::create(mount.path().join("other")).unwrap().sync_all().unwrap();
    mount.power_cut(Choice::NothingUnsynced);
    assert_eq!(fs::read(&path).unwrap(), b"kept");
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 1);
    // Who was there before writes into the void.
    file.write_all(b"late").unwrap();
    file.sync_all().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"kept");
}

#[test]
fn it_fills_up_and_fails() {
    let Some(mount) = ForgetfulMount::new(Options { capacity_bytes: MIB, ..Options::default() })
    else {
        return;
    };
    let mut file = File::create(mount.path().join("file")).unwrap();
    let stat = rustix::fs::statvfs(mount.path()).unwrap();
    assert_eq!(stat.f_bavail * stat.f_frsize, MIB);
    let error = file.write_all(&vec![1; 2 * 1024 * 1024]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    mount.disk().fail(Fault::next(Call::SyncData));
    assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(5));
    file.sync_all().unwrap();
}

#[test]
fn it_is_unmounted_even_by_a_panic_and_with_files_open() {
    let Some(mount) = mount(Names::Independent) else { return };
    let path = mount.path().to_owned();
    let file = File::create(path.join("open")).unwrap();
    assert!(is_mount_point(&path));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _mount = mount;
        std::panic::resume_unwind(Box::new("a failed test"));
    }));
    assert!(panicked.is_err());
    assert!(!is_mount_point(&path));
    assert!(!path.exists());
    drop(file);
}

fn open_database(path: &Path) -> (Database, Keyspace) {
    let database = Database::builder(path).open().unwrap();
    let keyspace = database.keyspace("entries", KeyspaceCreateOptions::default).unwrap();
    (database, keyspace)
}

const BATCH_KEYS: u32 = 5;

fn write_batch(database: &Database, keyspace: &Keyspace, number: u32) {
    try_write_batch(database, keyspace, number).unwrap();
}

fn try_write_batch(database: &Database, keyspace: &Keyspace, number: u32) -> fjall::Result<()> {
    let mut batch = database.batch().durability(Some(PersistMode::Buffer));
    for key in 0..BATCH_KEYS {
        let value = vec![number.to_be_bytes()[3]; 700];
        batch.insert(keyspace, format!("{number:08}/{key}"), value);
    }
    batch.commit()
}

/// How many batches there are. Proves that these are the first ones, whole.
fn count_batches(keyspace: &Keyspace, seed: u64) -> u32 {
    let mut count = 0;
    for (index, item) in (0_u32..).zip(keyspace.iter()) {
        let (key, value) = item.into_inner().unwrap();
        let (number, rest) = (index / BATCH_KEYS, index % BATCH_KEYS);
        let expected = format!("{number:08}/{rest}");
        assert_eq!(&*key, expected.as_bytes(), "seed {seed}: not a prefix of whole batches");
        assert_eq!(&*value, vec![number.to_be_bytes()[3]; 700], "seed {seed}: {expected}");
        count += 1;
    }
    assert_eq!(count % BATCH_KEYS, 0, "seed {seed}: the last batch is not whole");
    count / BATCH_KEYS
}

/// A disk with a new database on it.
fn mount_database(names: Names) -> Option<(ForgetfulMount, PathBuf)> {
    let mount = mount(names)?;
    let path = mount.path().join("database");
    fs::create_dir(&path).unwrap();
    sync_directory(mount.path());
    Some((mount, path))
}

/// Writes 40 batches, persists the first 20, cuts the power and returns how
/// many there are then. With odd seeds some are in a table and not in a journal.
fn batches_after_a_cut(mount: &mut ForgetfulMount, path: &Path, seed: u64) -> u32 {
    let (database, keyspace) = open_database(path);
    (0..10).for_each(|number| write_batch(&database, &keyspace, number));
    if seed % 2 == 1 {
        keyspace.rotate_memtable_and_wait().unwrap();
    }
    (10..20).for_each(|number| write_batch(&database, &keyspace, number));
    database.persist(PersistMode::SyncAll).unwrap();
    (20..40).for_each(|number| write_batch(&database, &keyspace, number));
    assert_eq!(count_batches(&keyspace, seed), 40);
    mount.power_cut(if seed == 0 { Choice::NothingUnsynced } else { Choice::Subset(seed) });
    drop((database, keyspace));
    let (database, keyspace) = open_database(path);
    let count = count_batches(&keyspace, seed);
    write_batch(&database, &keyspace, count);
    assert_eq!(count_batches(&keyspace, seed), count + 1, "it is written to again");
    count
}

fn check_database(names: Names, prepare: impl Fn(&Path)) {
    let (mut least, mut most) = (u32::MAX, 0);
    for seed in 0..12 {
        let Some((mut mount, path)) = mount_database(names) else { return };
        prepare(&path);
        let count = batches_after_a_cut(&mut mount, &path, seed);
        assert!(count >= 20, "seed {seed}: {count} batches, 20 were persisted");
        assert!(seed != 0 || count == 20, "{count} batches, nothing unsynced was kept");
        (least, most) = (least.min(count), most.max(count));
    }
    assert!(least < 40 && most > 20, "never lost, or never kept: from {least} to {most}");
}

#[test]
fn a_database_comes_back_with_what_it_persisted_and_a_prefix_of_the_rest() {
    check_database(Names::Journaled, |_| {});
}

#[test]
fn a_database_needs_no_order_of_names_once_its_keyspaces_are_synced() {
    check_database(Names::Independent, |path| {
        drop(open_database(path));
        sync_directory(&path.join("keyspaces"));
    });
}

/// Why the index syncs it: fjall leaves that to the order of a journal. It finds
/// the loss out neither.
#[test]
fn a_database_does_not_sync_the_directory_of_its_keyspaces() {
    let Some((mut mount, path)) = mount_database(Names::Independent) else { return };
    assert_eq!(batches_after_a_cut(&mut mount, &path, 0), 0);
}

#[test]
fn a_database_on_a_full_disk_fails_and_comes_back_when_there_is_room() {
    let Some((mut mount, path)) = mount_database(Names::Journaled) else { return };
    let (database, keyspace) = open_database(&path);
    mount.disk().set_capacity(MIB);
    let fits = |number: &u32| try_write_batch(&database, &keyspace, *number).is_ok();
    let written = (0..1000).take_while(fits).count();
    assert!((100..1000).contains(&written), "{written} batches of 3.5 kB fit into 1 MiB");
    mount.power_cut(Choice::Everything);
    drop((database, keyspace));
    mount.disk().set_capacity(64 * MIB);
    let (database, keyspace) = open_database(&path);
    let count = count_batches(&keyspace, 0);
    assert!(usize::try_from(count).unwrap() >= written, "{count} of {written} are left");
    write_batch(&database, &keyspace, count);
}
