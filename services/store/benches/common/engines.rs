//! The engines that are measured. Everything else sees them as a [`Store`].

use std::path::Path;
use std::sync::Arc;

use holdfast_runtime::Runtime;
use holdfast_store::{FileStore, FileStoreOptions, LogStore, LogStoreOptions, Store};

/// An engine by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    /// The append-only log with its index.
    Log,
    /// One file for each name.
    File,
}

impl Engine {
    /// Opens the volume in `root`, or makes one.
    pub(crate) async fn open(self, root: &Path) -> Arc<dyn Store> {
        match self {
            Self::Log => open_log(root).await,
            Self::File => open_file(root).await,
        }
    }
}

async fn open_log(root: &Path) -> Arc<dyn Store> {
    let opened = LogStore::open(Runtime::real(), root.to_owned(), LogStoreOptions::default());
    Arc::new(opened.await.expect("the volume is sound"))
}

async fn open_file(root: &Path) -> Arc<dyn Store> {
    let opened = FileStore::open(Runtime::real(), root.to_owned(), FileStoreOptions::default());
    Arc::new(opened.await.expect("the volume is sound"))
}

/// Ends everything the engine does, and its work in the background too: when
/// this returns, it writes no more and the volume is unlocked.
pub(crate) async fn close(store: Arc<dyn Store>) {
    assert_eq!(Arc::strong_count(&store), 1, "nobody uses the volume any more");
    store.close().await;
    drop(store);
}
