//! Batches that overtake, wait for and fall with each other, on a disk that is
//! held up.

#![allow(clippy::disallowed_methods, reason = "tests look behind the seam")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::poll;
use holdfast_core::name::{Key, ObjectName};
use holdfast_core::object::Metadata;
use holdfast_core::version::Version;
use holdfast_runtime::Runtime;

use crate::log_engine::faulty::{Fault, FaultyFiles};
use crate::{LogStore, LogStoreOptions, PutOutcome, Stamp, Store, StoreError};

const PATIENCE: Duration = Duration::from_secs(20);
/// Half of it is the most that goes into one batch.
const SEGMENT_BYTES: u32 = 64 * 1024;
const FULL_BATCH: usize = 40 * 1024;
const LARGE: usize = 256 * 1024;

struct Volume {
    root: PathBuf,
    files: Arc<FaultyFiles>,
    store: LogStore,
}

type Put = BoxFuture<'static, Result<PutOutcome, StoreError>>;

impl Volume {
    async fn new() -> Self {
        let unique = Runtime::real().random_u128();
        let root = std::env::temp_dir().join(format!("holdfast-writer-{unique:032x}"));
        let files = FaultyFiles::new();
        let store = open(&root, &files).await;
        Self { root, files, store }
    }

    /// A write that waits for the disk, in the queue or beyond.
    async fn put(&self, key: &str, clock: u64, size_bytes: usize) -> Put {
        let (store, name) = (self.store.clone(), name(key));
        let version = Version::from_parts(clock, 1);
        let stamp = Stamp { version, metadata: Metadata::default() };
        let payload = Bytes::from(vec![7; size_bytes]);
        let mut put: Put = Box::pin(async move { store.put(name, stamp, payload).await });
        assert!(poll!(&mut put).is_pending(), "the disk is held");
        put
    }

    async fn version(&self, key: &str) -> Option<Version> {
        let stat = self.store.stat(&[name(key)]).await.remove(0);
        stat.expect("it is known").map(|stat| stat.version)
    }

    fn waiting(&self) -> usize {
        self.store.shared().queue.depth()
    }

    fn payload_files(&self) -> usize {
        let directories = std::fs::read_dir(self.root.join("large")).expect("the volume is there");
        let files = |directory: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_dir(directory.expect("it is readable").path()).map_or(0, Iterator::count)
        };
        directories.map(files).sum()
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let runtime = Runtime::real();
        let deadline = runtime.now() + PATIENCE;
        while !is_so(self) {
            assert!(runtime.now() < deadline, "not within {PATIENCE:?}: {what}");
            runtime.sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

async fn open(root: &std::path::Path, files: &Arc<FaultyFiles>) -> LogStore {
    let runtime = Runtime::real().with_files(Arc::clone(files) as _);
    let options = LogStoreOptions { segment_bytes: SEGMENT_BYTES, ..LogStoreOptions::default() };
    LogStore::open(runtime, root.to_owned(), options).await.expect("the volume is sound")
}

fn name(key: &str) -> ObjectName {
    ObjectName::seed(Key::new(key).expect("a short name"))
}

#[tokio::test]
async fn the_next_batch_is_planned_while_a_full_one_is_synced() {
    let volume = Volume::new().await;
    let hold = volume.files.hold(volume.root.join("log"));
    let full = volume.put("a", 1, FULL_BATCH).await;
    volume.until("the disk has the first", |_| hold.has_caught()).await;
    let next = [volume.put("b", 1, 10).await, volume.put("a", 2, 10).await];
    volume.until("the others are planned", |volume| volume.waiting() == 0).await;
    drop(hold);
    for put in next.into_iter().chain([full]) {
        assert_eq!(put.await.expect("the disk works"), PutOutcome::Stored);
    }
    assert_eq!(volume.version("a").await, Some(Version::from_parts(2, 1)));
}

#[tokio::test]
async fn what_rests_on_a_batch_that_finds_no_room_falls_with_it() {
    // The header of a new segment, and the records after it.
    for spared_writes in [0, 1] {
        a_batch_finds_no_room(spared_writes).await;
    }
}

async fn a_batch_finds_no_room(spared_writes: u64) {
    let volume = Volume::new().await;
    let hold = volume.files.hold(volume.root.join("log"));
    let first = volume.put("a", 2, 10).await;
    volume.until("the disk has the first", |_| hold.has_caught()).await;
    // Rests on the first: what was planned says that it is too old.
    let older = volume.put("a", 1, 10).await;
    let large = tokio::spawn(volume.put("large", 1, LARGE).await);
    volume.until("the payload is written", |volume| volume.payload_files() == 1).await;
    let small = volume.put("b", 1, 10).await;
    volume.until("all is planned", |volume| volume.waiting() == 0).await;
    volume.files.fail_after(Fault::WriteFull, spared_writes);
    drop(hold);
    let outcomes = [first.await, older.await, large.await.expect("no panic"), small.await];
    for outcome in outcomes {
        assert!(matches!(outcome, Err(StoreError::NoSpace { .. })), "{outcome:?}");
    }
    volume.until("the payload is removed", |volume| volume.payload_files() == 0).await;
    volume.files.heal();

    let put = |key: &'static str| {
        let stamp = Stamp { version: Version::from_parts(1, 1), metadata: Metadata::default() };
        volume.store.put(name(key), stamp, Bytes::from_static(b"anew"))
    };
    assert_eq!(put("a").await.expect("there is room"), PutOutcome::Stored);
    assert_eq!(volume.version("b").await, None);
    assert_eq!(volume.version("large").await, None);
    volume.store.close().await;
    let again = open(&volume.root, &volume.files).await;
    let found = again.stat(&["a", "b", "large"].map(name)).await;
    let versions: Vec<_> =
        found.into_iter().map(|stat| stat.expect("it is known").map(|stat| stat.version)).collect();
    assert_eq!(versions, [Some(Version::from_parts(1, 1)), None, None]);
    assert_eq!(again.report().rebuilt_because, None, "no segment is left that nobody knows");
    again.close().await;
}

#[tokio::test]
async fn a_batch_that_rests_on_a_failed_sync_is_never_written() {
    let volume = Volume::new().await;
    let hold = volume.files.hold(volume.root.join("log"));
    let first = volume.put("a", 1, 10).await;
    volume.until("the disk has the first", |_| hold.has_caught()).await;
    let second = volume.put("b", 1, 10).await;
    volume.until("the second is planned", |volume| volume.waiting() == 0).await;
    volume.files.fail_after(Fault::SyncData, 0);
    drop(hold);
    for outcome in [first.await, second.await] {
        assert!(matches!(outcome, Err(StoreError::Poisoned { .. })), "{outcome:?}");
    }
    volume.store.close().await;
    volume.files.heal();
    // The first may be there: it was written, and nobody knows more.
    let again = open(&volume.root, &volume.files).await;
    let stat = again.stat(&[name("b")]).await.remove(0);
    assert!(stat.expect("it is known").is_none(), "it was never offered to a sound disk");
    again.close().await;
}
