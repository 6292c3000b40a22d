//! The least that an index has to do: a fjall keyspace with the same keys, and
//! values of the size of the engine's entries, asked directly.

use std::path::Path;
use std::time::{Duration, Instant};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use holdfast_core::name::ObjectName;

use crate::common::names::{Objects, fill};

/// The log engine's own, so that both keep as much in memory.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// Version, size, digest and place of an entry, the lengths of its metadata and
/// its checksums: what the engine keeps beside the text of the metadata.
const ENTRY_BYTES: usize = 89;

const BATCH: usize = 1_000;
const QUIET: Duration = Duration::from_millis(500);
const SETTLE_LIMIT: Duration = Duration::from_secs(120);

/// A keyspace of its own.
pub(crate) struct BareIndex {
    /// Kept open as long as the keyspace is used.
    _database: Database,
    keyspace: Keyspace,
}

impl BareIndex {
    /// Writes the objects numbered below `count`, waits until nothing is left
    /// to do in the background, and opens it anew. Blocks.
    pub(crate) fn make(directory: &Path, objects: Objects, count: u64) -> Self {
        let (database, keyspace) = open(directory);
        let mut value = vec![0; objects.metadata_bytes + ENTRY_BYTES];
        let mut numbers = 0..count;
        while !numbers.is_empty() {
            let mut batch = database.batch();
            for number in numbers.by_ref().take(BATCH) {
                fill(number, &mut value);
                batch.insert(&keyspace, key(&objects.name(number)), value.as_slice());
            }
            batch.commit().expect("the disk has room");
        }
        database.persist(PersistMode::SyncAll).expect("the disk works");
        settle(&database);
        drop((database, keyspace));
        let (database, keyspace) = open(directory);
        Self { _database: database, keyspace }
    }

    /// Whether it is there, having read its value.
    pub(crate) fn get(&self, name: &ObjectName) -> bool {
        let value = self.keyspace.get(key(name)).expect("the disk works");
        value.is_some_and(|value| read(&value))
    }

    /// Reads keys and values after a name; gives how many there were.
    pub(crate) fn scan(&self, after: &ObjectName, limit: usize) -> usize {
        let pairs = self.keyspace.range(key(after)..).skip(1).take(limit);
        let pairs = pairs.map(|pair| pair.into_inner().expect("the disk works"));
        pairs.filter(|(key, value)| read(key) && read(value)).count()
    }
}

/// Looks at every byte, without a copy; false when there is none.
fn read(bytes: &[u8]) -> bool {
    std::hint::black_box(bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)));
    !bytes.is_empty()
}

fn open(directory: &Path) -> (Database, Keyspace) {
    let database = Database::builder(directory).cache_size(CACHE_BYTES).open();
    let database = database.expect("the directory is ours");
    let keyspace = database.keyspace("entries", KeyspaceCreateOptions::default);
    (database, keyspace.expect("the directory is ours"))
}

fn key(name: &ObjectName) -> Vec<u8> {
    [name.bucket.as_str().as_bytes(), b"\0", name.key.as_str().as_bytes()].concat()
}

/// Waits until nothing has gone on in the background for a while: one
/// compaction may start the next.
fn settle(database: &Database) {
    let deadline = Instant::now() + SETTLE_LIMIT;
    let (mut since, mut completed) = (Instant::now(), 0);
    while since.elapsed() < QUIET {
        assert!(Instant::now() < deadline, "the index does not come to rest");
        let is_busy = database.outstanding_flushes() > 0 || database.active_compactions() > 0;
        if is_busy || database.compactions_completed() != completed {
            (since, completed) = (Instant::now(), database.compactions_completed());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
