//! What a check says of a volume, and what is left of it after a repair: a name
//! that the index remembers is never absent or older, and every other one only
//! because that was accepted.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests look behind the seam"
)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use common::faulty::{Fault, FaultyFiles, PAGE_BYTES};
use common::log::{flip, flip_head, record_of, segments};
use common::{TempDir, copy_all, name, payload, stamp};
use futures_util::StreamExt;
use holdfast_core::object::Kind;
use holdfast_runtime::Runtime;
use holdfast_store::log_engine::index::{Checkpoint, FjallIndexEngine, IndexBatch, IndexEngine};
use holdfast_store::log_engine::{
    Event, FindingKind, FsckReport, FsckRequest, LogStore, LogStoreOptions, fsck, rebuild_index,
    stats,
};
use holdfast_store::{PutOutcome, Store, StoreError};

const CHECK: FsckRequest = FsckRequest { is_quick: false, is_repair: false };
const REPAIR: FsckRequest = FsckRequest { is_quick: false, is_repair: true };

/// Small segments, so that there are several.
fn options() -> LogStoreOptions {
    LogStoreOptions { segment_bytes: 1 << 20, reserve_bytes: 0, ..LogStoreOptions::default() }
}

async fn open(root: &Path) -> LogStore {
    open_on(&Runtime::real(), root).await
}

async fn open_on(runtime: &Runtime, root: &Path) -> LogStore {
    LogStore::open(runtime.clone(), root.to_owned(), options()).await.unwrap()
}

/// Objects in several segments, deletes, large objects, and what was forgotten.
async fn volume() -> TempDir {
    let directory = TempDir::new();
    let store = open(directory.path()).await;
    for number in 0..40 {
        let key = format!("object-{number:04}");
        store.put(name(&key), stamp(1), payload(64 << 10)).await.unwrap();
    }
    for number in 0..4 {
        store.put(name(&format!("large-{number:04}")), stamp(1), payload(300_000)).await.unwrap();
        store.put(name(&format!("gone-{number:04}")), stamp(1), payload(9)).await.unwrap();
        store.put(name(&format!("moved-{number:04}")), stamp(1), payload(9)).await.unwrap();
    }
    for number in 0..4 {
        store.delete(name(&format!("gone-{number:04}")), stamp(2)).await.unwrap();
        let moved = name(&format!("moved-{number:04}"));
        assert!(store.forget(&moved, stamp(1).version).await.unwrap());
    }
    for number in 0..20 {
        let key = format!("late-{number:04}");
        store.put(name(&key), stamp(1), payload(64 << 10)).await.unwrap();
    }
    store.close().await;
    directory
}

/// What is said, and what it comes to.
fn run(root: &Path, request: FsckRequest) -> (FsckReport, Vec<Event>) {
    let mut events = Vec::new();
    let mut on = |event| events.push(event);
    let report = fsck(&Runtime::real(), root, &options(), request, &mut on).unwrap();
    events.retain(|event| !matches!(event, Event::Progress(_)));
    (report, events)
}

fn kinds(report: &FsckReport) -> Vec<FindingKind> {
    report.damage.keys().copied().collect()
}

fn assert_clean(root: &Path) {
    let (report, events) = run(root, CHECK);
    assert_eq!(report.damage, BTreeMap::new(), "{events:#?}");
}

fn drop_index(root: &Path) {
    fs::remove_dir_all(root.join("index")).unwrap();
    fs::create_dir(root.join("index")).unwrap();
}

async fn version(store: &LogStore, key: &str) -> Result<Option<(u64, Kind)>, StoreError> {
    let stat = store.stat(&[name(key)]).await.remove(0)?;
    Ok(stat.map(|stat| (stat.version.clock(), stat.kind)))
}

async fn read(store: &LogStore, key: &str) -> Result<Bytes, StoreError> {
    let mut payload = store.read(&name(key), None, None).await?;
    let mut all = BytesMut::new();
    while let Some(chunk) = payload.bytes.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all.freeze())
}

const OBJECT: Option<(u64, Kind)> = Some((1, Kind::Object));
const TOMBSTONE: Option<(u64, Kind)> = Some((2, Kind::Tombstone));

/// Every name answers as it should; of `unreadable` only the version is left.
async fn assert_contents(root: &Path, unreadable: &[&str]) {
    let store = open(root).await;
    assert_eq!(store.report().doubtful_count, 0);
    let inline = (0..40).map(|number| (format!("object-{number:04}"), 64 << 10));
    let late = (0..20).map(|number| (format!("late-{number:04}"), 64 << 10));
    let large = (0..4).map(|number| (format!("large-{number:04}"), 300_000));
    for (key, bytes) in inline.chain(late).chain(large) {
        assert_eq!(version(&store, &key).await.unwrap(), OBJECT, "{key}");
        let content = read(&store, &key).await;
        if unreadable.contains(&key.as_str()) {
            assert!(matches!(content, Err(StoreError::Corrupt { .. })), "{key}: {content:?}");
        } else {
            assert!(content.unwrap() == payload(bytes), "{key}");
        }
    }
    for number in 0..4 {
        assert_eq!(version(&store, &format!("gone-{number:04}")).await.unwrap(), TOMBSTONE);
        assert_eq!(version(&store, &format!("moved-{number:04}")).await.unwrap(), None);
    }
    store.close().await;
}

#[tokio::test]
async fn a_sound_volume_is_clean_and_a_repair_leaves_it_alone() {
    let directory = volume().await;
    let root = directory.path();
    let (report, events) = run(root, CHECK);
    assert_eq!((report.damage_count(), report.note_count), (0, 0), "{events:#?}");
    assert_eq!((report.entry_count, report.file_count), (68, 4));
    let (report, _) = run(root, REPAIR);
    assert_eq!((report.damage_count(), report.is_rebuilt), (0, false));
    assert_contents(root, &[]).await;
}

#[tokio::test]
async fn compaction_leaves_books_that_add_up() {
    let directory = volume().await;
    let store = open(directory.path()).await;
    for number in 0..30 {
        let key = format!("object-{number:04}");
        store.put(name(&key), stamp(3), payload(10)).await.unwrap();
    }
    store.compact().await.unwrap();
    store.close().await;
    assert_clean(directory.path());
}

#[tokio::test]
async fn what_the_index_remembers_outlives_the_log() {
    let directory = volume().await;
    let root = directory.path();
    for key in ["object-0003", "large-0001", "gone-0002", "moved-0000"] {
        flip_head(root, key);
    }
    let before = segments(root);
    let (report, events) = run(root, CHECK);
    assert_eq!(report.damage[&FindingKind::UnreadableRegion], 4, "{events:#?}");
    assert_eq!(report.damage[&FindingKind::EntryWithoutRecord], 3, "{events:#?}");
    assert_eq!(segments(root), before, "a check changes nothing");
    let (report, events) = run(root, REPAIR);
    assert!(report.is_repaired() && report.is_rebuilt, "{events:#?}");
    let accepted = events.iter().find_map(|event| match event {
        Event::Accepting(acceptance) => Some(*acceptance),
        Event::Finding(_) | Event::Progress(_) => None,
    });
    let accepted = accepted.unwrap();
    assert_eq!((accepted.region_count, accepted.remembered_count), (4, 3));
    assert!(accepted.had_index);
    assert_eq!(fs::read_dir(root.join("quarantine")).unwrap().count(), 4);
    assert_clean(root);
    assert_contents(root, &["object-0003"]).await;
    // And it is in the log, not in the index alone.
    rebuild_index(&Runtime::real(), root, &options(), &mut |_| {}).unwrap();
    assert_contents(root, &["object-0003"]).await;
    assert_eq!(run(root, REPAIR).0.damage_count(), 0, "there is nothing left to repair");
    let store = open(root).await;
    let again = store.put(name("object-0003"), stamp(1), payload(64 << 10)).await.unwrap();
    assert_eq!(again, PutOutcome::Stored, "another copy heals it");
    store.close().await;
    assert_contents(root, &[]).await;
}

#[tokio::test]
async fn what_nothing_remembers_is_in_doubt_until_the_loss_is_accepted() {
    let directory = volume().await;
    let root = directory.path();
    flip_head(root, "object-0003");
    drop_index(root);
    let store = open(root).await;
    assert_eq!(store.report().doubtful_count, 1);
    assert!(matches!(version(&store, "object-0003").await, Err(StoreError::Doubtful { .. })));
    store.close().await;
    let (report, events) = run(root, CHECK);
    assert!(kinds(&report).contains(&FindingKind::Doubt), "{events:#?}");
    let (report, events) = run(root, REPAIR);
    assert!(report.is_repaired(), "{events:#?}");
    assert!(events.iter().any(|event| matches!(event, Event::Accepting(_))), "it is said");
    assert_clean(root);
    let store = open(root).await;
    assert_eq!(store.report().doubtful_count, 0);
    assert_eq!(version(&store, "object-0003").await.unwrap(), None, "accepted");
    assert_eq!(version(&store, "object-0004").await.unwrap(), OBJECT);
    assert_eq!(version(&store, "gone-0001").await.unwrap(), TOMBSTONE);
    store.close().await;
}

#[tokio::test]
async fn a_payload_file_that_nothing_remembers_is_set_aside_and_not_removed() {
    let directory = volume().await;
    let root = directory.path();
    flip_head(root, "large-0001");
    drop_index(root);
    assert!(run(root, REPAIR).0.is_repaired());
    assert_clean(root);
    let store = open(root).await;
    store.compact().await.unwrap();
    assert_eq!(version(&store, "large-0001").await.unwrap(), None, "accepted");
    assert_eq!(version(&store, "large-0002").await.unwrap(), OBJECT);
    store.close().await;
    let files = fs::read_dir(directory.join("quarantine")).unwrap();
    let files = files.map(|file| fs::read(file.unwrap().path()).unwrap());
    assert!(files.into_iter().any(|bytes| bytes.starts_with(&payload(300_000))), "it is kept");
}

#[tokio::test]
async fn a_missing_segment_is_accepted_and_its_names_stay_known() {
    let directory = volume().await;
    let root = directory.path();
    let (victim, _) = record_of(root, "object-0003");
    fs::remove_file(&victim).unwrap();
    let (report, events) = run(root, CHECK);
    assert_eq!(report.damage[&FindingKind::MissingSegment], 1, "{events:#?}");
    let (report, events) = run(root, REPAIR);
    assert!(report.is_repaired(), "{events:#?}");
    assert_clean(root);
    let store = open(root).await;
    assert_eq!(store.report().doubtful_count, 0);
    for number in 0..40 {
        let key = format!("object-{number:04}");
        assert_eq!(version(&store, &key).await.unwrap(), OBJECT, "{key}");
    }
    assert!(read(&store, "object-0003").await.is_err());
    store.close().await;
    // The same without an index: only the census knows that it was there.
    let directory = volume().await;
    let root = directory.path();
    let (victim, _) = record_of(root, "object-0003");
    fs::remove_file(&victim).unwrap();
    drop_index(root);
    let (report, events) = run(root, REPAIR);
    assert!(report.is_repaired(), "{events:#?}");
    let store = open(root).await;
    assert_eq!(store.report().doubtful_count, 0);
    assert_eq!(version(&store, "object-0003").await.unwrap(), None, "accepted");
    store.close().await;
    drop_index(root);
    let store = open(root).await;
    assert_eq!(store.report().doubtful_count, 0, "it is accepted in the log");
    store.close().await;
}

#[tokio::test]
async fn a_segment_that_was_cut_is_mended_at_its_end() {
    for left in [40, 200] {
        let directory = volume().await;
        let root = directory.path();
        let (path, offset) = record_of(root, "object-0003");
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(offset + left + 3).unwrap();
        let (report, events) = run(root, REPAIR);
        assert!(report.is_repaired(), "{events:#?}");
        assert_clean(root);
        let store = open(root).await;
        assert_eq!(version(&store, "object-0003").await.unwrap(), OBJECT);
        assert!(read(&store, "object-0003").await.is_err());
        store.close().await;
    }
}

#[tokio::test]
async fn damaged_payloads_are_told_and_marked() {
    let directory = volume().await;
    let root = directory.path();
    let (path, offset) = record_of(root, "object-0003");
    flip(&path, offset + 30_000);
    let large = root.join("large/0000000000000000");
    fs::remove_file(large.join("0000000000000000")).unwrap();
    flip(&large.join("0000000000000001"), 70_000);
    let (report, events) = run(root, CHECK);
    let expected = [
        FindingKind::DamagedRecord,
        FindingKind::PayloadFileMissing,
        FindingKind::PayloadFileDamaged,
    ];
    assert_eq!(kinds(&report), expected, "{events:#?}");
    let quick = FsckRequest { is_quick: true, ..CHECK };
    let (report, _) = run(root, quick);
    assert_eq!(kinds(&report), expected[..2], "a quick check reads no payload files");
    let (report, events) = run(root, REPAIR);
    assert!(report.is_repaired(), "{events:#?}");
    assert_contents(root, &["object-0003", "large-0000", "large-0001"]).await;
    assert!(!run(root, REPAIR).0.is_rebuilt, "it is marked already");
    let store = open(root).await;
    let stock = stats(&Runtime::real(), root, &options()).unwrap();
    assert!(stock.is_in_use && stock.contents.is_none());
    for (key, bytes) in
        [("object-0003", 64 << 10), ("large-0000", 300_000), ("large-0001", 300_000)]
    {
        let again = store.put(name(key), stamp(1), payload(bytes)).await.unwrap();
        assert_eq!(again, PutOutcome::Stored, "{key}: another copy is welcome");
    }
    store.close().await;
    assert_clean(root);
    assert_contents(root, &[]).await;
}

#[tokio::test]
async fn the_reference_to_a_payload_file_is_saved_from_a_damaged_record() {
    let directory = volume().await;
    let root = directory.path();
    let (path, offset) = record_of(root, "large-0002");
    let bytes = fs::read(&path).unwrap();
    let field = |at: u64| {
        let at = usize::try_from(offset + at).unwrap();
        u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()))
    };
    flip(&path, offset + 80 + 7 + 10 + field(12));
    assert_eq!(
        kinds(&run(root, CHECK).0),
        [FindingKind::DamagedRecord, FindingKind::EntryWithoutRecord]
    );
    run(root, REPAIR);
    assert_contents(root, &[]).await;
}

#[tokio::test]
async fn orphans_and_torn_ends_are_no_damage() {
    let directory = volume().await;
    let root = directory.path();
    let large = root.join("large/0000000000000000");
    fs::copy(large.join("0000000000000001"), large.join("0000000000000fff")).unwrap();
    let last = segments(root).pop().unwrap();
    let length = fs::metadata(&last).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&last).unwrap();
    file.write_all_at(&[7; 1000], length).unwrap();
    let (report, events) = run(root, CHECK);
    assert_eq!((report.damage_count(), report.note_count), (0, 2), "{events:#?}");
    run(root, REPAIR);
    assert_eq!(run(root, CHECK).0.note_count, 1, "the end was cut off");
    assert_contents(root, &[]).await;
}

#[tokio::test]
async fn damage_in_what_was_acknowledged_last_is_no_interrupted_write() {
    // In the head of a record, and in its payload.
    for at in [8, 80 + 7 + 7 + 100] {
        let directory = volume().await;
        let killed = TempDir::new();
        let keys: Vec<String> = (0..64).map(|number| format!("last-{number:02}")).collect();
        {
            let store = open(directory.path()).await;
            let puts = keys.iter().map(|key| store.put(name(key), stamp(7), payload(400)));
            for put in futures_util::future::join_all(puts).await {
                put.unwrap();
            }
            // As a process leaves it that is killed.
            copy_all(directory.path(), killed.path());
            store.close().await;
        }
        // Near its end, so that nothing that was written later tells that it was synced.
        let mut places: Vec<_> = keys.iter().map(|key| record_of(killed.path(), key)).collect();
        places.sort_unstable();
        let (segment, offset) = places.remove(places.len() - 2);
        flip(&segment, offset + at);
        let (report, events) = run(killed.path(), CHECK);
        let lost = match at {
            8 => vec![FindingKind::UnreadableRegion, FindingKind::EntryWithoutRecord],
            _ => vec![FindingKind::DamagedRecord],
        };
        assert_eq!(kinds(&report), lost, "{events:#?}");
        let (_, events) = run(killed.path(), REPAIR);
        let store = open(killed.path()).await;
        let mut unreadable = 0;
        for key in &keys {
            let known = version(&store, key).await.unwrap();
            assert_eq!(known, Some((7, Kind::Object)), "{at}: {key} is gone: {events:#?}");
            unreadable += usize::from(read(&store, key).await.is_err());
        }
        assert_eq!(unreadable, 1, "{at}: all but the one that was damaged is there");
        store.close().await;
    }
}

#[tokio::test]
async fn an_index_that_does_not_agree_is_built_anew() {
    let directory = volume().await;
    let root = directory.path();
    let engine = FjallIndexEngine::new(Runtime::real());
    let index = engine.open(&root.join("index")).unwrap();
    let checkpoint = index.checkpoint().unwrap().unwrap();
    let mut wrong = index.get(&name("object-0002")).unwrap().unwrap();
    wrong.stat.size_bytes += 1;
    let mut astray = index.get(&name("object-0005")).unwrap().unwrap();
    astray.place.offset += 8;
    let entries = vec![
        (name("object-0001"), None),
        (name("object-0002"), Some(wrong)),
        (name("object-0005"), Some(astray)),
    ];
    index.apply(&IndexBatch { entries, checkpoint, ..IndexBatch::default() }).unwrap();
    index.persist().unwrap();
    drop(index);
    let (report, events) = run(root, CHECK);
    for kind in [
        FindingKind::RecordWithoutEntry,
        FindingKind::EntryDiffers,
        FindingKind::EntryWithoutRecord,
        FindingKind::BooksDiffer,
    ] {
        assert!(report.damage.contains_key(&kind), "{kind:?}: {events:#?}");
    }
    assert!(run(root, REPAIR).0.is_rebuilt);
    assert_clean(root);
    assert_contents(root, &[]).await;
}

#[tokio::test]
async fn an_index_of_another_release_is_no_damage() {
    let directory = volume().await;
    let root = directory.path();
    let index = FjallIndexEngine::new(Runtime::real()).open(&root.join("index")).unwrap();
    let checkpoint = index.checkpoint().unwrap().unwrap();
    let checkpoint = Checkpoint { version: checkpoint.version + 1, ..checkpoint };
    index.apply(&IndexBatch { checkpoint, ..IndexBatch::default() }).unwrap();
    index.persist().unwrap();
    drop(index);
    let (report, events) = run(root, CHECK);
    assert_eq!(kinds(&report), [], "{events:#?}");
    let is_told = |event: &Event| matches!(event, Event::Finding(finding) if finding.kind == FindingKind::IndexOutdated);
    assert_eq!(events.iter().filter(|event| is_told(event)).count(), 1, "{events:#?}");
    assert_contents(root, &[]).await;
    assert_clean(root);
}

#[tokio::test]
async fn beside_a_running_process_only_whole_segments_are_checked() {
    let directory = volume().await;
    let root = directory.path();
    flip_head(root, "object-0003");
    let store = open(root).await;
    let (report, events) = run(root, CHECK);
    assert_eq!(kinds(&report), [FindingKind::UnreadableRegion], "{events:#?}");
    let refused = fsck(&Runtime::real(), root, &options(), REPAIR, &mut |_| {});
    assert!(matches!(refused, Err(StoreError::InUse { .. })), "{refused:?}");
    let refused = rebuild_index(&Runtime::real(), root, &options(), &mut |_| {});
    assert!(matches!(refused, Err(StoreError::InUse { .. })), "{refused:?}");
    store.close().await;
}

#[test]
fn a_directory_without_a_volume_stays_as_it_is() {
    let directory = TempDir::new();
    let refused = fsck(&Runtime::real(), directory.path(), &options(), REPAIR, &mut |_| {});
    assert!(matches!(refused, Err(StoreError::Format { .. })), "{refused:?}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn stock_is_taken() {
    let directory = volume().await;
    let root = directory.path();
    let stock = stats(&Runtime::real(), root, &options()).unwrap();
    assert_eq!(stock.segment_count, segments(root).len() as u64);
    assert_eq!(stock.file_count, 4);
    let contents = stock.contents.unwrap();
    assert_eq!((contents.object_count, contents.tombstone_count), (64, 4));
    assert_eq!((contents.damaged_count, contents.used_file_count), (0, 4));
    assert!(contents.used_log_bytes > 60 * (64 << 10));
}

/// Stops a repair at every write and every sync in turn.
#[tokio::test]
async fn a_repair_that_was_cut_short_can_be_done_again() {
    let damaged = volume().await;
    for key in ["object-0003", "large-0001", "gone-0002", "moved-0000"] {
        flip_head(damaged.path(), key);
    }
    let mut is_done = false;
    for (fault, spared) in (0..).flat_map(|spared| {
        [Fault::SyncData, Fault::SyncDirectory, Fault::WriteFull].map(|fault| (fault, spared))
    }) {
        let directory = TempDir::new();
        let root = directory.path();
        common::copy_all(damaged.path(), root);
        let files = FaultyFiles::new();
        files.fail_after(fault, spared);
        let runtime = Runtime::real().with_files(Arc::clone(&files) as Arc<_>);
        let cut = fsck(&runtime, root, &options(), REPAIR, &mut |_| {});
        is_done |= cut.is_ok();
        let (report, events) = run(root, REPAIR);
        assert!(report.is_repaired(), "{fault:?} {spared}: {events:#?}");
        assert_clean(root);
        assert_contents(root, &["object-0003"]).await;
        if is_done && spared >= 12 {
            break;
        }
    }
}

/// Records of 700 bytes of which a part may be on one page.
const MOST_ON_A_PAGE: usize = 7;

/// How many names of [`volume`], and of small ones, have only their version left.
async fn count_unreadable(runtime: Runtime, root: &Path) -> usize {
    let store = open_on(&runtime, root).await;
    assert_eq!(store.report().doubtful_count, 0);
    let kinds = [("object", 40, 64 << 10), ("late", 20, 64 << 10), ("small", 1_000, 700)];
    let mut unreadable = 0;
    for (kind, count, length) in kinds {
        for number in 0..count {
            let key = format!("{kind}-{number:04}");
            assert_eq!(version(&store, &key).await.unwrap(), OBJECT, "{key}");
            match read(&store, &key).await {
                Ok(content) => assert!(content == payload(length), "{key}: other bytes"),
                Err(error) => {
                    assert!(error.is_damage(), "{key}: {error}");
                    unreadable += 1;
                }
            }
        }
    }
    store.close().await;
    unreadable
}

/// Where the disk gives nothing, a part of a page cannot be written either.
#[tokio::test]
async fn pages_that_the_disk_cannot_read_are_given_up_and_written_anew() {
    let sound = volume().await;
    // Of which a page has several, and some are on two.
    let store = open(sound.path()).await;
    for number in 0..1_000 {
        let key = format!("small-{number:04}");
        store.put(name(&key), stamp(1), payload(700)).await.unwrap();
    }
    store.close().await;
    let paths = segments(sound.path());
    let (mut tried, mut given_up) = (0, 0);
    for (place, path) in paths.iter().enumerate() {
        let length = fs::metadata(path).unwrap().len();
        let name = path.strip_prefix(sound.path()).unwrap();
        let last = length.div_ceil(PAGE_BYTES) - 1;
        for page in (0..=last).step_by(53).chain([last]) {
            let directory = TempDir::new();
            let root = directory.path();
            common::copy_all(sound.path(), root);
            let files = FaultyFiles::new();
            files.break_page(&root.join(name), page);
            let runtime = Runtime::real().with_files(Arc::clone(&files) as Arc<_>);
            // With the header of a segment, too.
            open_on(&runtime, root).await.close().await;
            let mut events = Vec::new();
            let repaired =
                fsck(&runtime, root, &options(), REPAIR, &mut |event| events.push(event));
            let what = format!("segment {place}, page {page} of {last}");
            let report = repaired.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(report.is_repaired(), "{what}: {events:#?}");
            // What is left is known to be damaged, and each of it is one name.
            let again = fsck(&runtime, root, &options(), CHECK, &mut |_| {}).unwrap();
            let left = [FindingKind::DamagedRecord, FindingKind::DamagedGarbage];
            assert!(again.damage.keys().all(|kind| left.contains(kind)), "{what}: {again:?}");
            let was_given_up = report.damage.contains_key(&FindingKind::UnreadableRegion);
            given_up += usize::from(was_given_up);
            let lost = count_unreadable(runtime, root).await;
            assert!(lost <= MOST_ON_A_PAGE, "{what}: {lost} names cannot be read");
            tried += 1;
        }
    }
    assert!(tried > 25 && given_up > 8, "{given_up} of {tried}");
}
