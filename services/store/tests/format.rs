//! The volumes in `fixtures` were written by the first release of format 1:
//! every later release finds in them what the manifests beside them say. One of
//! them was damaged and repaired.
//!
//! `HOLDFAST_WRITE_FIXTURE=<directory>` writes such volumes and manifests into an
//! empty directory, for the first fixtures of a new format.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests look behind the seam"
)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::log::{Known, Model, Opener, flip_head, read, stat};
use common::{TempDir, listed, name, payload};
use crc_fast::crc32_iscsi;
use holdfast_core::object::{Kind, Stat};
use holdfast_core::wire::list::ListEntry;
use holdfast_runtime::Runtime;
use holdfast_store::log_engine::{FsckRequest, fsck};
use holdfast_store::{ListRequest, LogStore, Store, StoreError};
use serde::{Deserialize, Serialize};

/// Everything that there can be in a volume.
const SOUND: &str = "log-v1";

/// The same, with some of it lost: known to have been there, and not readable.
const REPAIRED: &str = "log-v1-repaired";

const LOST: [&str; 2] = ["key 05 é", "key 11 é"];

/// What there is of a name; no stat when it was forgotten, and no checksum of what
/// cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Expected {
    key: String,
    stat: Option<Stat>,
    payload_crc32c: Option<u32>,
}

impl Expected {
    fn is_lost(&self) -> bool {
        let is_object = self.stat.as_ref().is_some_and(|stat| stat.kind == Kind::Object);
        is_object && self.payload_crc32c.is_none()
    }
}

fn opener(root: &Path) -> Opener {
    Opener { root: root.to_owned(), segment_bytes: 3 * 1024, index: None, files: None }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

async fn found(store: &LogStore, key: &str) -> Expected {
    let payload_crc32c = match read(store, key).await {
        Ok(bytes) => Some(crc32_iscsi(&bytes)),
        Err(StoreError::NotFound { .. }) => None,
        Err(StoreError::Corrupt { .. }) if LOST.contains(&key) => None,
        Err(error) => panic!("{key}: {error}"),
    };
    Expected { key: key.to_owned(), stat: stat(store, key).await.unwrap(), payload_crc32c }
}

async fn check(store: &LogStore, manifest: &[Expected]) {
    for expected in manifest {
        assert_eq!(&found(store, &expected.key).await, expected);
    }
    let request = ListRequest {
        bucket: name("x").bucket,
        prefix: String::new(),
        start_after: None,
        limit: 1000,
    };
    let page = store.list(&request).await.unwrap();
    let expected = manifest.iter().filter_map(|it| {
        let entry = listed(&it.key, it.stat.as_ref()?);
        Some(ListEntry { is_damaged: it.is_lost(), ..entry })
    });
    assert_eq!(page.entries, expected.collect::<Vec<_>>());
    assert_eq!(page.unreadable_count, 0);
}

#[tokio::test]
async fn volumes_of_format_1_are_read() {
    for (fixture_name, lost_count) in [(SOUND, 0), (REPAIRED, LOST.len())] {
        let manifest = fs::read(fixture(fixture_name).join("manifest.json")).unwrap();
        let manifest: Vec<Expected> = serde_json::from_slice(&manifest).unwrap();
        assert!(manifest.len() > 10);
        assert_eq!(manifest.iter().filter(|it| it.is_lost()).count(), lost_count);
        let copy = TempDir::new();
        common::copy_all(&fixture(fixture_name).join("volume"), copy.path());
        // Git keeps no empty directories.
        fs::create_dir_all(copy.join("index")).unwrap();
        // Without an index, and then with the one that was built.
        for is_rebuilt in [true, false] {
            let store = opener(copy.path()).open().await.unwrap();
            let report = store.report().clone();
            assert_eq!(report.rebuilt_because.is_some(), is_rebuilt, "{report:?}");
            assert_eq!((report.damaged_count, report.doubtful_count), (0, 0), "{report:?}");
            check(&store, &manifest).await;
            store.close().await;
        }
    }
}

/// Writes the fixtures when it is asked for, and checks what it would write.
#[tokio::test]
async fn the_fixtures_can_be_written_again() {
    let directory = TempDir::new();
    let root = std::env::var("HOLDFAST_WRITE_FIXTURE");
    let root = root.map_or_else(|_| directory.path().to_owned(), PathBuf::from);
    for fixture_name in [SOUND, REPAIRED] {
        write(&root.join(fixture_name), fixture_name == REPAIRED).await;
    }
}

async fn write(root: &Path, is_repaired: bool) {
    let mut model = Model::default();
    let volume = root.join("volume");
    fs::create_dir_all(&volume).unwrap();
    let store = opener(&volume).open().await.unwrap();
    fill(&mut model, &store).await;
    // What garbage there is, is moved: this leaves records that were copied.
    store.compact().await.unwrap();
    store.close().await;
    drop(store);
    if is_repaired {
        LOST.iter().for_each(|key| flip_head(&volume, key));
        let request = FsckRequest { is_quick: false, is_repair: true };
        let options = opener(&volume).options();
        let report = fsck(&Runtime::real(), &volume, &options, request, &mut |_| {}).unwrap();
        assert!(report.is_repaired(), "{report:?}");
        // What was given up is remembered by the log alone.
        fs::remove_dir_all(volume.join("quarantine")).unwrap();
        fs::remove_dir_all(volume.join("index")).unwrap();
        fs::create_dir(volume.join("index")).unwrap();
    }
    let store = opener(&volume).open().await.unwrap();
    assert_eq!(store.report().doubtful_count, 0);
    let mut manifest = Vec::new();
    for (key, known) in &model.0 {
        let expected = found(&store, key).await;
        assert_eq!(expected.stat.is_none(), matches!(known, Known::Forgotten), "{key}");
        assert_eq!(expected.is_lost(), is_repaired && LOST.contains(&key.as_str()), "{key}");
        manifest.push(expected);
    }
    check(&store, &manifest).await;
    store.close().await;
    fs::write(root.join("manifest.json"), serde_json::to_vec_pretty(&manifest).unwrap()).unwrap();
    fs::remove_dir_all(volume.join("index")).unwrap();
    let _ = fs::remove_file(volume.join("lock"));
}

/// Objects of all kinds, in several segments.
async fn fill(model: &mut Model, store: &LogStore) {
    for round in 1..5_u64 {
        for at in 0..12_usize {
            if (at as u64).is_multiple_of(round) {
                let size_bytes = 40 + at * 31 + usize::try_from(round).unwrap();
                let key = format!("key {at:02} é");
                model.put(store, &key, round * 10, payload(size_bytes)).await;
            }
        }
        model.delete(store, &format!("key {round:02} é"), 100).await;
    }
    model.put(store, "empty", 1, payload(0)).await;
    model.put(store, "file", 1, payload(5000)).await;
    model.put(store, "gone", 1, payload(50)).await;
    model.forget(store, "gone", 1).await;
    model.delete(store, "never there", 3).await;
}
