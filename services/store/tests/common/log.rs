//! A small volume of the log engine of which everything is known, and the rule
//! that its answers keep whatever happened to its bytes.

#![allow(clippy::disallowed_types, reason = "damage is done behind the seam")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use holdfast_core::object::{Kind, Stat};
use holdfast_core::version::Version;
use holdfast_core::wire::list::ListEntry;
use holdfast_runtime::{Entropy, FileSystem, Runtime};
use holdfast_store::log_engine::index::{IndexEngine, MemoryIndexEngine};
use holdfast_store::{ListRequest, LogStore, LogStoreOptions, PutOutcome, Store, StoreError};

use super::power::{Options, PowerDisk};
use super::{name, payload, stamp};

/// Longer ones lie in files of their own.
pub const INLINE_LIMIT_BYTES: u32 = 1024;

/// Numbers from a seed, as the runtime hands them out.
#[derive(Debug)]
pub struct Seeded(AtomicU64);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    pub fn below(&self, bound: usize) -> usize {
        usize::try_from(self.random_u64() % bound.max(1) as u64).unwrap()
    }
}

impl Entropy for Seeded {
    fn random_u64(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15_u64;
        let state = self.0.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A volume in memory with everything in it that there can be, closed in order.
pub async fn filled(segment_bytes: u32) -> (PowerDisk, MemoryIndexEngine, Model) {
    let disk = PowerDisk::with(Options { keeps_history: false, ..Options::default() });
    let index = MemoryIndexEngine::new();
    let mut model = Model::default();
    let store = Opener::in_memory(&disk, &index, segment_bytes).open().await.unwrap();
    model.fill(&store).await;
    store.close().await;
    drop(store);
    disk.settle();
    (disk, index, model)
}

/// The segments of a volume, in order.
pub fn segments(root: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(root.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.collect();
    paths.sort_unstable();
    paths
}

/// Where the last record of a key begins, and in which segment.
pub fn record_of(root: &Path, key: &str) -> (PathBuf, u64) {
    for path in segments(root).into_iter().rev() {
        let bytes = fs::read(&path).unwrap();
        let found = bytes.windows(key.len()).rposition(|window| window == key.as_bytes());
        if let Some(found) = found {
            return (path, (found - "objects".len() - 80) as u64);
        }
    }
    panic!("{key} is not in the log");
}

/// Makes a byte another one.
pub fn flip(path: &Path, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

/// Makes a head unreadable.
pub fn flip_head(root: &Path, key: &str) {
    let (path, offset) = record_of(root, key);
    flip(&path, offset + 30);
}

/// What a volume was told last of a name.
#[derive(Debug, Clone)]
pub enum Known {
    Object(Stat, Bytes),
    Deleted(Stat),
    Forgotten,
}

/// Everything that a volume was told.
#[derive(Debug, Clone, Default)]
pub struct Model(pub BTreeMap<String, Known>);

/// How a volume is opened again and again.
#[derive(Debug, Clone)]
pub struct Opener {
    pub root: PathBuf,
    pub segment_bytes: u32,
    pub index: Option<Arc<dyn IndexEngine>>,
    pub files: Option<Arc<dyn FileSystem>>,
}

impl Opener {
    /// A volume on a disk and with an index that are in memory.
    pub fn in_memory(disk: &PowerDisk, index: &MemoryIndexEngine, segment_bytes: u32) -> Self {
        Self {
            root: "/volume".into(),
            segment_bytes,
            index: Some(Arc::new(index.clone())),
            files: Some(Arc::new(disk.clone())),
        }
    }

    pub async fn open(&self) -> Result<LogStore, StoreError> {
        let runtime = Runtime::real().with_entropy(Arc::new(Seeded::new(7)));
        let runtime = match &self.files {
            Some(files) => runtime.with_files(Arc::clone(files)),
            None => runtime,
        };
        LogStore::open(runtime, self.root.clone(), self.options()).await
    }

    pub fn options(&self) -> LogStoreOptions {
        LogStoreOptions {
            reserve_bytes: 0,
            inline_limit_bytes: INLINE_LIMIT_BYTES,
            segment_bytes: self.segment_bytes,
            index: self.index.clone(),
            ..LogStoreOptions::default()
        }
    }
}

impl Model {
    /// Writes a version that is newer than what there is.
    pub async fn put(&mut self, store: &LogStore, key: &str, clock: u64, bytes: Bytes) {
        let outcome = store.put(name(key), stamp(clock), bytes.clone()).await.unwrap();
        assert_eq!(outcome, PutOutcome::Stored, "{key}");
        let stat = stat(store, key).await.unwrap().unwrap();
        self.0.insert(key.to_owned(), Known::Object(stat, bytes));
    }

    pub async fn delete(&mut self, store: &LogStore, key: &str, clock: u64) {
        let outcome = store.delete(name(key), stamp(clock)).await.unwrap();
        assert_eq!(outcome, PutOutcome::Stored, "{key}");
        let stat = stat(store, key).await.unwrap().unwrap();
        self.0.insert(key.to_owned(), Known::Deleted(stat));
    }

    pub async fn forget(&mut self, store: &LogStore, key: &str, clock: u64) {
        let version = Version::from_parts(clock, 1);
        assert!(store.forget(&name(key), version).await.unwrap(), "{key}");
        self.0.insert(key.to_owned(), Known::Forgotten);
    }

    /// Four segments of 3 KiB, two payload files, overwrites, deletes, a forget.
    pub async fn fill(&mut self, store: &LogStore) {
        for at in 0..12_usize {
            self.put(store, &format!("k{at:02}"), 10, payload(40 + 17 * at)).await;
        }
        self.put(store, "file-short", 10, payload(2000)).await;
        for at in (0..12_usize).step_by(2) {
            self.put(store, &format!("k{at:02}"), 20, payload(500 + at)).await;
        }
        self.delete(store, "k01", 30).await;
        self.delete(store, "k03", 30).await;
        self.put(store, "gone", 10, payload(90)).await;
        self.put(store, "file-long", 10, payload(140_000)).await;
        for at in 5..9_usize {
            self.put(store, &format!("k{at:02}"), 30, payload(300 + at)).await;
        }
        self.delete(store, "gone", 20).await;
        self.put(store, "k01", 40, payload(77)).await;
        self.forget(store, "gone", 20).await;
        for at in 20..26_usize {
            self.put(store, &format!("k{at}"), 50, payload(200 + at)).await;
        }
        self.delete(store, "k11", 50).await;
        self.put(store, "last", 60, payload(10)).await;
    }

    /// Asks for everything. An answer is what was written last, or an error;
    /// returns how many were errors.
    pub async fn check(&self, store: &LogStore, what: &str) -> usize {
        let names: Vec<_> = self.0.keys().map(|key| name(key)).collect();
        let stats = store.stat(&names).await;
        let mut refused = 0;
        for ((key, known), answer) in self.0.iter().zip(stats) {
            let newest = match known {
                Known::Object(stat, _) | Known::Deleted(stat) => Some(stat),
                Known::Forgotten => None,
            };
            match answer {
                Ok(found) => assert_eq!(found.as_ref(), newest, "{what}: stat of {key}"),
                Err(error) => {
                    assert_clear(&error, what);
                    refused += 1;
                }
            }
            refused += self.check_read(store, key, known, what).await;
        }
        self.check_list(store, what).await;
        refused
    }

    async fn check_read(&self, store: &LogStore, key: &str, known: &Known, what: &str) -> usize {
        match (read(store, key).await, known) {
            (Ok(bytes), Known::Object(_, written)) => {
                assert!(bytes == written, "{what}: {key} has other bytes");
                0
            }
            (Ok(_), _) => panic!("{what}: {key} came back"),
            (Err(StoreError::NotFound { .. }), Known::Object(..)) => {
                panic!("{what}: {key} is taken for absent")
            }
            (Err(StoreError::NotFound { .. }), _) => 0,
            (Err(error), _) => {
                assert_clear(&error, what);
                1
            }
        }
    }

    /// As [`Self::check`] where records may be gone without a trace: bytes still
    /// belong to the version that is answered, and errors are clear.
    pub async fn check_identity(&self, store: &LogStore, what: &str) {
        for (key, known) in &self.0 {
            match (stat(store, key).await, read(store, key).await) {
                (Ok(Some(found)), Ok(bytes)) => {
                    assert_eq!(found.size_bytes, bytes.len() as u64, "{what}: {key}");
                    if let Known::Object(stat, written) = known
                        && found.version == stat.version
                    {
                        assert!(bytes == written, "{what}: {key} has other bytes");
                    }
                }
                (Err(error), _) => assert_clear(&error, what),
                (Ok(_), Err(StoreError::NotFound { .. })) => {}
                (Ok(_), Err(error)) => assert_clear(&error, what),
                (Ok(None), Ok(_)) => panic!("{what}: {key} is read and has no stat"),
            }
        }
    }

    async fn check_list(&self, store: &LogStore, what: &str) {
        let request = ListRequest {
            bucket: name("x").bucket,
            prefix: String::new(),
            start_after: None,
            limit: 1000,
        };
        let page = match store.list(&request).await {
            Ok(page) => page,
            Err(error) => return assert_clear(&error, what),
        };
        let entries = page.entries.into_iter();
        let entries = entries.map(|entry| ListEntry { is_damaged: false, ..entry });
        let listed: BTreeMap<_, _> = entries.map(|it| (it.key.as_str().to_owned(), it)).collect();
        for (key, known) in &self.0 {
            let newest = match known {
                Known::Object(stat, _) | Known::Deleted(stat) => Some(super::listed(key, stat)),
                Known::Forgotten => None,
            };
            let is_right = listed.get(key) == newest.as_ref();
            assert!(is_right || page.unreadable_count > 0, "{what}: list misses {key} silently");
            if let Some((listed, newest)) = listed.get(key).zip(newest) {
                assert!(listed.version <= newest.version, "{what}: {key} has a version to come");
            }
        }
        let unknown = listed.keys().find(|key| !self.0.contains_key(*key));
        assert_eq!(unknown, None, "{what}: list has a name that nobody wrote");
    }

    /// Writes that are older are never taken for newer ones, and others work or
    /// are refused.
    pub async fn check_writes(&mut self, store: &LogStore, what: &str) {
        for (key, clock) in [("k00", 5), ("k01", 35), ("k11", 9), ("last", 1), ("file-long", 1)] {
            match store.put(name(key), stamp(clock), payload(3)).await {
                Ok(PutOutcome::Superseded { newest }) => {
                    let (Some(Known::Object(stat, _) | Known::Deleted(stat)), true) =
                        (self.0.get(key), true)
                    else {
                        panic!("{what}: {key} is not in the model")
                    };
                    assert_eq!(&newest, stat, "{what}: {key}");
                }
                Ok(outcome) => panic!("{what}: an older {key} became {outcome:?}"),
                Err(error) => assert_clear(&error, what),
            }
        }
        for key in ["k02", "k99"] {
            match store.put(name(key), stamp(90), payload(33)).await {
                Ok(PutOutcome::Stored) => {
                    // Where the log is in doubt, a new write is past all doubt.
                    let stat = stat(store, key).await.unwrap().unwrap();
                    assert_eq!(stat.version, Version::from_parts(90, 1), "{what}");
                    assert_eq!(read(store, key).await.unwrap(), payload(33), "{what}");
                    self.0.insert(key.to_owned(), Known::Object(stat, payload(33)));
                }
                Ok(outcome) => panic!("{what}: a new {key} became {outcome:?}"),
                Err(error) => assert_clear(&error, what),
            }
        }
    }
}

/// What says that something is wrong, and nothing that hides it.
pub fn assert_clear(error: &StoreError, what: &str) {
    let is_clear = matches!(
        error,
        StoreError::Corrupt { .. } | StoreError::Doubtful { .. } | StoreError::Io { .. }
    );
    assert!(is_clear, "{what}: {error:?}");
}

pub async fn stat(store: &LogStore, key: &str) -> Result<Option<Stat>, StoreError> {
    store.stat(&[name(key)]).await.remove(0)
}

pub async fn read(store: &LogStore, key: &str) -> Result<Bytes, StoreError> {
    let mut payload = store.read(&name(key), None, None).await?;
    assert_eq!(payload.stat.kind, Kind::Object);
    let mut all = BytesMut::new();
    while let Some(chunk) = payload.bytes.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all.freeze())
}
