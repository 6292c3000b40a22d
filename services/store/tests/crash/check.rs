//! What must be so after a power cut.

use std::sync::Arc;

use bytes::BytesMut;
use futures_util::StreamExt;
use holdfast_core::name::Bucket;
use holdfast_core::object::{Kind, Stat};
use holdfast_core::wire::list::ListEntry;
use holdfast_store::{ListRequest, LogStore, Stamp, Store, StoreError};

use crate::common::power::PowerDisk;
use crate::common::stamp;
use crate::engine::RecordingEngine;
use crate::machine;
use crate::model::{Change, Expected, Found, payload};
use crate::session::{ROOT, ask, key_name, options};

/// Later than all that was written before.
const LATE_CLOCK: u64 = 1 << 40;

/// What is wrong.
pub type Verdict<T> = Result<T, String>;

macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}

pub async fn open(disk: &PowerDisk, engine: &RecordingEngine, seed: u64) -> Verdict<LogStore> {
    let runtime = machine::runtime(Arc::new(disk.clone()), seed);
    let opened = LogStore::open(runtime, ROOT.into(), options(Arc::new(engine.clone()))).await;
    opened.map_err(|error| format!("it does not open: {error}"))
}

/// Opens the volume, compares it with what may be there, has everything removed
/// that can be removed, and compares again.
pub async fn settle(store: &LogStore, disk: &PowerDisk, expected: &Expected) -> Verdict<Expected> {
    let report = store.report();
    let counts = (report.doubtful_count, report.damaged_count);
    ensure!(counts == (0, 0), "{} doubtful, {} damaged", counts.0, counts.1);
    let found = compare(store, expected).await?;
    store.compact().await.map_err(|error| format!("compaction: {error}"))?;
    let found = compare(store, &exactly(found)).await.map_err(|why| format!("compacted: {why}"))?;
    check_files(disk, &found)?;
    Ok(exactly(found))
}

/// Writes to the volume, opens it again and compares; with `rebuilds` the index
/// is made anew.
pub async fn check_writable(
    store: LogStore,
    disk: &PowerDisk,
    engine: &RecordingEngine,
    found: Expected,
    rebuilds: bool,
) -> Verdict<()> {
    let mut expected = found;
    for (key, size_bytes) in [(0, 300), (expected.len(), 700), (8, 2_500)] {
        let change = Change::Put { clock: LATE_CLOCK, payload: payload(LATE_CLOCK, size_bytes) };
        let answer = ask(store.clone(), key, change.clone()).await;
        ensure!(matches!(answer, Ok(true)), "a new write of {key}: {answer:?}");
        expected.resize(expected.len().max(key + 1), vec![None]);
        expected[key] = vec![change.apply(None)];
    }
    store.close().await;
    drop(store);
    let engine = if rebuilds { RecordingEngine::new(disk) } else { engine.clone() };
    let store = open(disk, &engine, 3).await.map_err(|why| format!("again: {why}"))?;
    compare(&store, &expected).await.map_err(|why| format!("again: {why}"))?;
    let doubtful = store.report().doubtful_count;
    ensure!(doubtful == 0, "again: {doubtful} doubtful");
    store.close().await;
    Ok(())
}

fn exactly(found: Vec<Option<Found>>) -> Expected {
    found.into_iter().map(|found| vec![found]).collect()
}

/// What is there, if it is what may be.
async fn compare(store: &LogStore, expected: &Expected) -> Verdict<Vec<Option<Found>>> {
    ensure!(store.poisoned().is_none(), "poisoned: {:?}", store.poisoned());
    let names: Vec<_> = (0..expected.len()).map(key_name).collect();
    let stats = store.stat(&names).await;
    let mut found = Vec::new();
    for (key, (stat, states)) in stats.into_iter().zip(expected).enumerate() {
        let stat = stat.map_err(|error| format!("stat of {key}: {error}"))?;
        found.push(compare_one(store, key, stat.as_ref(), states).await?);
    }
    check_list(store, &found).await?;
    check_usage(store, &found).await?;
    Ok(found)
}

async fn compare_one(
    store: &LogStore,
    key: usize,
    stat: Option<&Stat>,
    states: &[Option<Found>],
) -> Verdict<Option<Found>> {
    let is_it = |state: &&Option<Found>| is_stat_of(stat, state.as_ref());
    let Some(state) = states.iter().find(is_it) else {
        let wanted: Vec<_> = states.iter().map(describe).collect();
        return Err(format!("key {key} is {stat:?} and should be {}", wanted.join(" or ")));
    };
    let read = read(store, key).await;
    match (state, read) {
        (Some(found), Ok(bytes)) if found.kind == Kind::Object => {
            ensure!(bytes == found.payload, "key {key} has other content");
        }
        (Some(Found { kind: Kind::Tombstone, .. }) | None, Err(StoreError::NotFound { .. })) => {}
        (_, read) => return Err(format!("a read of {key}: {:?}", read.map(|bytes| bytes.len()))),
    }
    Ok(state.clone())
}

fn is_stat_of(stat: Option<&Stat>, state: Option<&Found>) -> bool {
    let (Some(stat), Some(found)) = (stat, state) else { return stat.is_none() && state.is_none() };
    let stamp = stamp(found.clock);
    (stat.version, &stat.metadata) == (stamp.version, &stamp.metadata)
        && (stat.kind, stat.size_bytes) == (found.kind, found.payload.len() as u64)
}

fn is_entry_of(entry: &ListEntry, found: &Found) -> bool {
    let Stamp { version, metadata } = stamp(found.clock);
    (entry.version, entry.content_type.as_deref()) == (version, metadata.content_type.as_deref())
        && entry.modified_unix_millis == metadata.modified_unix_millis
        && (entry.kind, entry.size_bytes) == (found.kind, found.payload.len() as u64)
}

fn describe(state: &Option<Found>) -> String {
    state.as_ref().map_or_else(
        || "absent".into(),
        |found| format!("{:?} {} of {} bytes", found.kind, found.clock, found.payload.len()),
    )
}

async fn read(store: &LogStore, key: usize) -> Result<BytesMut, StoreError> {
    let mut payload = store.read(&key_name(key), None, None).await?;
    let mut all = BytesMut::new();
    while let Some(chunk) = payload.bytes.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all)
}

async fn check_list(store: &LogStore, found: &[Option<Found>]) -> Verdict<()> {
    let request = ListRequest {
        bucket: Bucket::seed(),
        prefix: String::new(),
        start_after: None,
        limit: found.len() + 10,
    };
    let page = store.list(&request).await.map_err(|error| format!("list: {error}"))?;
    ensure!(page.unreadable_count == 0 && !page.more, "the list is not whole");
    let mut listed = page.entries.into_iter();
    for (key, found) in found.iter().enumerate().filter(|(_, found)| found.is_some()) {
        let next = listed.next();
        let is_it = next.as_ref().zip(found.as_ref()).is_some_and(|(entry, found)| {
            entry.key == key_name(key).key && is_entry_of(entry, found)
        });
        ensure!(is_it, "the list has {next:?} for {key}");
    }
    ensure!(listed.next().is_none(), "the list has more than there is");
    Ok(())
}

async fn check_usage(store: &LogStore, found: &[Option<Found>]) -> Verdict<()> {
    let usage = store.usage().await.map_err(|error| format!("usage: {error}"))?;
    let count = |kind| found.iter().flatten().filter(|found| found.kind == kind).count() as u64;
    let live_bytes: usize = found.iter().flatten().map(|found| found.payload.len()).sum();
    let counted = (count(Kind::Object), count(Kind::Tombstone), live_bytes as u64);
    let said = (usage.object_count, usage.tombstone_count, usage.live_bytes);
    ensure!(said == counted, "usage says {said:?}, counted are {counted:?}");
    Ok(())
}

/// No payload file is left that nothing points to.
fn check_files(disk: &PowerDisk, found: &[Option<Found>]) -> Verdict<()> {
    let files = disk.files();
    let large = files.iter().filter(|path| path.starts_with("/volume/large")).count();
    let wanted = found.iter().flatten().filter(|found| found.is_large()).count();
    ensure!(large == wanted, "{large} payload files for {wanted} payloads");
    Ok(())
}
