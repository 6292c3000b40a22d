//! What the tests of the engines share.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(clippy::disallowed_methods, reason = "tests look behind the seam")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

pub mod faulty;
pub mod forgetful;
pub mod index;
pub mod log;
pub mod power;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use holdfast_core::name::{Key, ObjectName};
use holdfast_core::object::{Metadata, Stat};
use holdfast_core::version::Version;
use holdfast_core::wire::list::ListEntry;
use holdfast_runtime::{FileSystem, Runtime};
use holdfast_store::{FileStore, FileStoreOptions, Stamp, Store, StoreError};

/// A directory of its own, removed in the end.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        let unique = Runtime::real().random_u128();
        let path = std::env::temp_dir().join(format!("holdfast-store-{unique:032x}"));
        fs::create_dir(&path).expect("the temporary directory is writable");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, relative: &str) -> PathBuf {
        self.0.join(relative)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What stays is in the temporary directory, where nobody minds.
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub async fn open(root: &Path) -> Result<FileStore, StoreError> {
    FileStore::open(Runtime::real(), root.to_owned(), FileStoreOptions::default()).await
}

pub async fn open_with(root: &Path, files: Arc<dyn FileSystem>) -> FileStore {
    let runtime = Runtime::real().with_files(files);
    let opened = FileStore::open(runtime, root.to_owned(), FileStoreOptions::default()).await;
    opened.expect("the volume is sound")
}

/// What a list says of a name.
pub fn listed(key: &str, stat: &Stat) -> ListEntry {
    ListEntry::new(name(key).key, stat)
}

pub fn name(key: &str) -> ObjectName {
    ObjectName::seed(Key::new(key).expect("a valid key"))
}

pub fn stamp(clock: u64) -> Stamp {
    let metadata = Metadata {
        content_type: Some("text/plain".into()),
        modified_unix_millis: 1,
        ..Metadata::default()
    };
    Stamp { version: Version::from_parts(clock, 1), metadata }
}

/// Bytes without a pattern that a checksum could miss.
pub fn payload(size_bytes: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    (0..size_bytes).map(next).collect()
}

pub async fn stat(store: &FileStore, key: &str) -> Result<Option<Stat>, StoreError> {
    store.stat(&[name(key)]).await.remove(0)
}

pub async fn read(store: &FileStore, key: &str) -> Result<Bytes, StoreError> {
    let (bytes, error) = read_until_error(store, key).await;
    error.map_or(Ok(bytes), Err)
}

/// What a reader is given, and how it ended.
pub async fn read_until_error(store: &FileStore, key: &str) -> (Bytes, Option<StoreError>) {
    let mut all = BytesMut::new();
    let mut payload = match store.read(&name(key), None, None).await {
        Ok(payload) => payload,
        Err(error) => return (Bytes::new(), Some(error)),
    };
    while let Some(chunk) = payload.bytes.next().await {
        match chunk {
            Ok(chunk) => all.extend_from_slice(&chunk),
            Err(error) => {
                assert!(payload.bytes.next().await.is_none(), "an error ends the stream");
                return (all.freeze(), Some(error));
            }
        }
    }
    (all.freeze(), None)
}

/// Every file of the volume that belongs to an object.
pub fn object_files(root: &Path) -> Vec<PathBuf> {
    let directories = fs::read_dir(root.join("objects")).expect("the volume was made");
    directories
        .flat_map(|directory| fs::read_dir(directory.expect("it was listed").path()))
        .flat_map(|files| files.map(|file| file.expect("it was listed").path()))
        .collect()
}

pub fn staged_files(root: &Path) -> usize {
    fs::read_dir(root.join("staging")).expect("the volume was made").count()
}

/// Waits for something that comes soon.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let runtime = Runtime::real();
    let deadline = runtime.now() + Duration::from_secs(20);
    while !is_so() {
        assert!(runtime.now() < deadline, "waited in vain until {what}");
        tokio::task::yield_now().await;
    }
}

/// The same, without a busy loop: what is waited for takes its own time.
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let runtime = Runtime::real();
    let deadline = runtime.now() + Duration::from_secs(20);
    while !is_so() {
        assert!(runtime.now() < deadline, "waited in vain until {what}");
        runtime.sleep(Duration::from_millis(20)).await;
    }
}

/// Copies what is in a directory.
pub fn copy_all(from: &Path, to: &Path) {
    for found in fs::read_dir(from).unwrap() {
        let path = found.unwrap().path();
        let copy = to.join(path.file_name().unwrap());
        if path.is_dir() {
            fs::create_dir_all(&copy).unwrap();
            copy_all(&path, &copy);
        } else {
            fs::copy(path, copy).unwrap();
        }
    }
}
