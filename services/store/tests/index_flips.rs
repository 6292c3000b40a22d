//! Flipped bits in the files of the real index under a whole store: every answer
//! is right or an error, and after the next start all of it is right.
//!
//! `HOLDFAST_FLIPS` says how many are tried; 200 unless set, a release tries
//! 2000.

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
use std::sync::Arc;

use common::log::{Known, Model, Opener, Seeded, read, stat};
use common::{TempDir, listed, name, payload};
use holdfast_runtime::Runtime;
use holdfast_store::log_engine::index::FjallIndexEngine;
use holdfast_store::{ListRequest, LogStore, Store, StoreError};

fn opener(root: &Path) -> Opener {
    let index = FjallIndexEngine::new(Runtime::real()).with_memtable_bytes(8 * 1024);
    Opener {
        root: root.to_owned(),
        segment_bytes: 64 * 1024,
        index: Some(Arc::new(index)),
        files: None,
    }
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

async fn volume(directory: &Path) -> Model {
    let mut model = Model::default();
    for round in 1..4_u64 {
        let store = opener(directory).open().await.unwrap();
        for at in 0..100_usize {
            if (at as u64).is_multiple_of(round) {
                model.put(&store, &format!("key-{at:03}"), round * 10, payload(20 + at)).await;
            }
        }
        model.delete(&store, &format!("key-{round:03}"), 50).await;
        store.close().await;
    }
    // Opening cuts the zeros behind the journal, which would be copied.
    let store = opener(directory).open().await.unwrap();
    store.close().await;
    model
}

/// How many answers were errors; the others were right.
async fn ask(store: &LogStore, model: &Model, what: &str) -> usize {
    let mut refused = 0;
    for (key, known) in &model.0 {
        let newest = match known {
            Known::Object(stat, _) | Known::Deleted(stat) => stat,
            Known::Forgotten => continue,
        };
        match stat(store, key).await {
            Ok(found) => assert_eq!(found.as_ref(), Some(newest), "{what}: stat of {key}"),
            Err(_) => refused += 1,
        }
        match (read(store, key).await, known) {
            (Ok(bytes), Known::Object(_, written)) => assert!(bytes == *written, "{what}: {key}"),
            (Err(StoreError::NotFound { .. }), Known::Deleted(_)) => {}
            (Ok(_), _) | (Err(StoreError::NotFound { .. }), _) => panic!("{what}: {key}"),
            (Err(_), _) => refused += 1,
        }
    }
    let request = ListRequest {
        bucket: name("x").bucket,
        prefix: String::new(),
        start_after: None,
        limit: 1000,
    };
    match store.list(&request).await {
        Ok(page) => {
            let written = model.0.iter().map(|(key, known)| match known {
                Known::Object(stat, _) | Known::Deleted(stat) => Some(listed(key, stat)),
                Known::Forgotten => None,
            });
            assert!(page.entries.into_iter().map(Some).eq(written), "{what}: another list");
        }
        Err(_) => refused += 1,
    }
    refused
}

#[derive(Debug, Default)]
struct Outcomes {
    unnoticed: u32,
    rebuilt_at_open: u32,
    refused_at_read: u32,
}

async fn case(original: &Path, model: &Model, dice: &Seeded, outcomes: &mut Outcomes) {
    let copy = TempDir::new();
    common::copy_all(original, copy.path());
    let files: Vec<_> = files_below(&copy.join("index"))
        .into_iter()
        .filter(|path| fs::metadata(path).unwrap().len() > 0)
        .collect();
    let file = &files[dice.below(files.len())];
    let mut bytes = fs::read(file).unwrap();
    let bit = dice.below(bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    fs::write(file, bytes).unwrap();
    let relative = file.strip_prefix(copy.path()).unwrap();
    let what = format!("bit {bit} of {}", relative.display());
    let store = match opener(copy.path()).open().await {
        Ok(store) => store,
        Err(error) => panic!("{what}: {error}"),
    };
    let is_rebuilt = store.report().rebuilt_because.is_some();
    let refused = ask(&store, model, &what).await;
    assert!(!is_rebuilt || refused == 0, "{what}: built anew and {refused} refusals");
    // What was read may be damaged and be noticed by a write first.
    let is_poisoned = store.poisoned().is_some();
    assert_eq!(is_poisoned, refused > 0, "{what}: {:?}", store.poisoned());
    store.close().await;
    drop(store);
    match (is_rebuilt, refused > 0) {
        (true, _) => outcomes.rebuilt_at_open += 1,
        (false, true) => outcomes.refused_at_read += 1,
        (false, false) => outcomes.unnoticed += 1,
    }
    if refused > 0 {
        let store = opener(copy.path()).open().await.unwrap();
        assert!(store.report().rebuilt_because.is_some(), "{what}: it is not built anew");
        assert_eq!(ask(&store, model, &what).await, 0, "{what}: refusals after that");
        let mut model = model.clone();
        model.put(&store, "key-new", 90, payload(9)).await;
        assert_eq!(ask(&store, &model, &what).await, 0, "{what}: refusals after a write");
        store.close().await;
    }
}

#[tokio::test]
async fn a_flipped_bit_in_the_index_is_an_error_or_of_no_harm() {
    let directory = TempDir::new();
    let model = volume(directory.path()).await;
    let tables = files_below(&directory.join("index"))
        .into_iter()
        .filter(|path| path.parent().unwrap().ends_with("tables"))
        .count();
    assert!(tables > 1, "there are tables to damage");
    let flips = std::env::var("HOLDFAST_FLIPS").map_or(200, |flips| flips.parse().unwrap());
    let (dice, mut outcomes) = (Seeded::new(5), Outcomes::default());
    for _ in 0..flips {
        case(directory.path(), &model, &dice, &mut outcomes).await;
    }
    println!("{flips} flips, {tables} tables: {outcomes:?}");
    assert!(outcomes.rebuilt_at_open > 0, "{outcomes:?}");
}
