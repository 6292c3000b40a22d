//! Flipped bits and cut files: noticed, never served, never taken for absent.

#![allow(clippy::disallowed_methods, reason = "tests look behind the seam")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{TempDir, name, object_files, open, payload, read, read_until_error, stamp, stat};
use holdfast_store::{FileStore, ListRequest, PutOutcome, Store, StoreError};

/// Three blocks, the last of which is short.
const SIZE_BYTES: usize = 2 * 128 * 1024 + 1_000;

/// As the footer says it.
const TABLE_BYTES: usize = 3 * 4;

fn flip(path: &Path, at: usize, mask: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= mask;
    fs::write(path, bytes).unwrap();
}

async fn volume_with(directory: &TempDir, size_bytes: usize) -> PathBuf {
    let store = open(directory.path()).await.unwrap();
    store.put(name("a"), stamp(5), payload(size_bytes)).await.unwrap();
    drop(store);
    object_files(directory.path()).remove(0)
}

fn is_corrupt<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Corrupt { .. }))
}

/// Nothing but a prefix of the payload may come, and then an error.
async fn assert_refused(store: &FileStore, what: &str) {
    let (given, error) = read_until_error(store, "a").await;
    assert!(matches!(error, Some(StoreError::Corrupt { .. })), "{what}: {error:?}");
    assert!(payload(SIZE_BYTES).starts_with(&given), "{what}: other bytes were given");
}

#[tokio::test]
async fn a_flipped_bit_in_payload_or_table_is_never_served() {
    let directory = TempDir::new();
    let file = volume_with(&directory, SIZE_BYTES).await;
    let payload_places = (0..SIZE_BYTES).step_by(20_011);
    let borders = [131_071, 131_072, SIZE_BYTES - 1];
    let table = SIZE_BYTES..SIZE_BYTES + TABLE_BYTES;
    let store = open(directory.path()).await.unwrap();
    for at in payload_places.chain(borders).chain(table) {
        flip(&file, at, 1 << (at % 8));
        assert_refused(&store, &format!("byte {at}")).await;
        assert!(stat(&store, "a").await.unwrap().is_some(), "its version is still known");
        flip(&file, at, 1 << (at % 8));
    }
    assert!(read(&store, "a").await.unwrap() == payload(SIZE_BYTES), "all is mended");
}

#[tokio::test]
async fn a_range_beside_the_damage_is_served() {
    let directory = TempDir::new();
    let file = volume_with(&directory, SIZE_BYTES).await;
    flip(&file, 140_000, 1);
    let store = open(directory.path()).await.unwrap();
    for (range, is_sound) in [
        (0..131_072, true),
        (262_144..262_150, true),
        (262_143..262_145, false),
        (131_000..131_073, false),
    ] {
        let read = store.read(&name("a"), None, Some(range.clone())).await;
        assert_eq!(read.is_ok(), is_sound, "{range:?}: {read:?}");
    }
}

#[tokio::test]
async fn good_blocks_in_a_wrong_place_are_noticed() {
    let directory = TempDir::new();
    let file = volume_with(&directory, SIZE_BYTES).await;
    let mut bytes = fs::read(&file).unwrap();
    let (first, rest) = bytes.split_at_mut(131_072);
    first.swap_with_slice(&mut rest[..131_072]);
    let (one, two) = bytes[SIZE_BYTES..SIZE_BYTES + 8].split_at_mut(4);
    one.swap_with_slice(two);
    fs::write(&file, bytes).unwrap();
    let store = open(directory.path()).await.unwrap();
    let (_, error) = read_until_error(&store, "a").await;
    assert!(
        matches!(error, Some(StoreError::Corrupt { what: "the whole payload", .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_flipped_bit_in_any_byte_of_the_trailer_is_never_absent() {
    let directory = TempDir::new();
    let file = volume_with(&directory, 10).await;
    let sound = fs::read(&file).unwrap();
    for at in 10 + 4..sound.len() {
        flip(&file, at, 1 << (at % 8));
        let store = open(directory.path()).await.unwrap();
        assert_unreadable(&store, &format!("byte {at} of {}", sound.len())).await;
        fs::write(&file, &sound).unwrap();
        drop(store);
    }
}

#[tokio::test]
async fn a_cut_or_grown_file_is_never_absent() {
    let directory = TempDir::new();
    let file = volume_with(&directory, 100).await;
    let sound = fs::read(&file).unwrap();
    for length in [0, 1, 31, 32, 33, 99, 100, 104, sound.len() - 32, sound.len() - 1] {
        fs::write(&file, &sound[..length]).unwrap();
        assert_unreadable(&open(directory.path()).await.unwrap(), &format!("cut to {length}"))
            .await;
    }
    fs::write(&file, [sound.as_slice(), b"\0"].concat()).unwrap();
    assert_unreadable(&open(directory.path()).await.unwrap(), "one byte more").await;
    fs::write(&file, [b"\0", sound.as_slice()].concat()).unwrap();
    assert_unreadable(&open(directory.path()).await.unwrap(), "one byte before").await;
    fs::write(&file, vec![0; sound.len()]).unwrap();
    assert_unreadable(&open(directory.path()).await.unwrap(), "zeros").await;
    fs::write(&file, vec![0xff; sound.len()]).unwrap();
    assert_unreadable(&open(directory.path()).await.unwrap(), "ones").await;
}

async fn assert_unreadable(store: &FileStore, what: &str) {
    let answers = store.stat(&[name("b"), name("a")]).await;
    assert!(matches!(answers[0], Ok(None)), "{what}: another name is absent");
    assert!(is_corrupt(&answers[1]), "{what}: {:?}", answers[1]);
    let (given, error) = read_until_error(store, "a").await;
    assert!(matches!(error, Some(StoreError::Corrupt { .. })), "{what}: {error:?}");
    assert!(given.is_empty(), "{what}");
    for clock in [1, 5, 9] {
        let put = store.put(name("a"), stamp(clock), payload(1)).await;
        assert!(is_corrupt(&put), "{what}: what is there may be newer: {put:?}");
    }
    assert!(is_corrupt(&store.delete(name("a"), stamp(9)).await), "{what}");
    let request = ListRequest {
        bucket: name("a").bucket,
        prefix: String::new(),
        start_after: None,
        limit: 9,
    };
    let page = store.list(&request).await.unwrap();
    assert_eq!((page.entries.len(), page.unreadable_count), (0, 1), "{what}");
}

#[tokio::test]
async fn damage_under_an_open_volume_is_noticed() {
    let directory = TempDir::new();
    let store = open(directory.path()).await.unwrap();
    store.put(name("a"), stamp(5), payload(100)).await.unwrap();
    let file = object_files(directory.path()).remove(0);
    let sound = fs::read(&file).unwrap();
    for at in 0..sound.len() {
        flip(&file, at, 1 << (at % 8));
        let (given, error) = read_until_error(&store, "a").await;
        assert!(matches!(error, Some(StoreError::Corrupt { .. })), "byte {at}: {error:?}");
        assert!(given.is_empty(), "byte {at}");
        fs::write(&file, &sound).unwrap();
    }
    fs::remove_file(&file).unwrap();
    let gone = read(&store, "a").await;
    assert!(is_corrupt(&gone), "a lost file is not absent: {gone:?}");
}

#[tokio::test]
async fn the_file_of_another_name_or_version_is_not_taken_for_it() {
    let directory = TempDir::new();
    let store = open(directory.path()).await.unwrap();
    store.put(name("a"), stamp(5), payload(100)).await.unwrap();
    let file = object_files(directory.path()).remove(0);
    let version_5 = fs::read(&file).unwrap();
    store.put(name("a"), stamp(6), payload(100)).await.unwrap();
    fs::write(&file, version_5).unwrap();
    assert!(is_corrupt(&read(&store, "a").await), "a lost write must not bring back the old");
    store.put(name("b"), stamp(5), payload(100)).await.unwrap();
    let other = object_files(directory.path()).into_iter().find(|path| *path != file).unwrap();
    fs::copy(&other, &file).unwrap();
    assert!(is_corrupt(&read(&store, "a").await));
    drop(store);
    let store = open(directory.path()).await.unwrap();
    assert!(is_corrupt(&stat(&store, "a").await));
    assert!(read(&store, "b").await.is_ok());
}

#[tokio::test]
async fn writing_the_same_version_again_mends_a_damaged_payload() {
    let directory = TempDir::new();
    let file = volume_with(&directory, SIZE_BYTES).await;
    flip(&file, 5, 1);
    let store = open(directory.path()).await.unwrap();
    assert!(is_corrupt(&read(&store, "a").await));
    let older = store.put(name("a"), stamp(4), payload(1)).await.unwrap();
    assert!(matches!(older, PutOutcome::Superseded { .. }));
    let mended = store.put(name("a"), stamp(5), payload(SIZE_BYTES)).await.unwrap();
    assert_eq!(mended, PutOutcome::Stored, "what is damaged is not already stored");
    assert!(read(&store, "a").await.unwrap() == payload(SIZE_BYTES));
    let again = store.put(name("a"), stamp(5), payload(SIZE_BYTES)).await.unwrap();
    assert_eq!(again, PutOutcome::AlreadyStored);
}

#[tokio::test]
async fn a_name_can_be_written_once_its_damaged_file_is_put_aside() {
    let directory = TempDir::new();
    let file = volume_with(&directory, 100).await;
    let length = fs::metadata(&file).unwrap().len();
    flip(&file, usize::try_from(length).unwrap() - 1, 1);
    let store = open(directory.path()).await.unwrap();
    assert!(!store.quarantine(&name("b")).await.unwrap(), "there is no such file");
    assert!(store.quarantine(&name("a")).await.unwrap());
    assert_eq!(stat(&store, "a").await.unwrap(), None);
    store.put(name("a"), stamp(1), payload(7)).await.unwrap();
    assert!(!store.quarantine(&name("a")).await.unwrap(), "what can be read stays");
    drop(store);
    let store = open(directory.path()).await.unwrap();
    assert_eq!(read(&store, "a").await.unwrap(), payload(7));
    assert_eq!(fs::read_dir(directory.join("quarantine")).unwrap().count(), 1);
}
