//! The log engine with the index that it really uses, on a mounted disk that
//! loses power: many clients write at once, the power goes at a moment that no
//! one chose, and what was promised is there again.
//!
//! More rounds: `HOLDFAST_CRASH_ROUNDS=200 cargo test --release
//! -p holdfast-store --test crash_forgetful`.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "threads of a test, and a mounted disk"
)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use common::forgetful::ForgetfulMount;
use common::index::Numbers;
use common::power::{Choice, Names, Options};
use common::{name, payload, stamp, until};
use futures_util::StreamExt;
use holdfast_core::object::Kind;
use holdfast_runtime::Runtime;
use holdfast_store::{LogStore, LogStoreOptions, PutOutcome, Store, StoreError};

/// Clients at once.
const WRITERS: u64 = 16;

/// Keys of each client.
const KEYS: u64 = 6;

const INLINE_LIMIT_BYTES: u64 = 4 * 1024;

fn options() -> LogStoreOptions {
    LogStoreOptions {
        reserve_bytes: 0,
        inline_limit_bytes: 4 * 1024,
        segment_bytes: 128 * 1024,
        ..LogStoreOptions::default()
    }
}

/// The newest that a client knows of a key: `None` is a tombstone.
type Content = Option<Bytes>;

/// What one client knows of one of its keys.
#[derive(Debug, Clone, Default)]
struct Known {
    promised: Option<(u64, Content)>,
    /// Asked for, and not answered before the power went.
    in_flight: Option<(u64, Content)>,
}

/// One client: nobody else writes its keys.
#[derive(Debug)]
struct Client {
    number: u64,
    numbers: Numbers,
    clock: u64,
    keys: Vec<Known>,
}

impl Client {
    fn new(number: u64) -> Self {
        let keys = vec![Known::default(); usize::try_from(KEYS).unwrap()];
        Self { number, numbers: Numbers(number << 32), clock: 1, keys }
    }

    fn key(&self, index: usize) -> String {
        format!("{}/{index}", self.number)
    }

    fn content(&mut self) -> Content {
        let bytes = match self.numbers.below(16) {
            0 | 1 => return None,
            2 => INLINE_LIMIT_BYTES + 1 + self.numbers.below(60_000),
            _ => self.numbers.below(3_000),
        };
        let mut bytes = payload(usize::try_from(bytes).unwrap()).to_vec();
        let own = (self.number << 32 | self.clock).to_le_bytes();
        bytes.iter_mut().zip(own).for_each(|(byte, own)| *byte ^= own);
        Some(bytes.into())
    }

    /// Writes until the disk is gone.
    async fn work(mut self, store: LogStore, world: Arc<World>) -> Self {
        while !world.is_over.load(Ordering::SeqCst) {
            let index = usize::try_from(self.numbers.below(KEYS)).unwrap();
            self.clock += 1;
            let (clock, content) = (self.clock, self.content());
            let key = self.key(index);
            self.keys[index].in_flight = Some((clock, content.clone()));
            let outcome = match content.clone() {
                Some(bytes) => store.put(name(&key), stamp(clock), bytes).await,
                None => store.delete(name(&key), stamp(clock)).await,
            };
            // What is answered after the power went was never promised.
            if world.is_over.load(Ordering::SeqCst) {
                break;
            }
            assert_eq!(outcome.unwrap(), PutOutcome::Stored);
            self.keys[index] = Known { promised: Some((clock, content)), in_flight: None };
            world.answers.fetch_add(1, Ordering::SeqCst);
        }
        self
    }

    /// What is there is what was promised last, or what was in flight.
    async fn check(&mut self, store: &LogStore, round: u64) {
        for index in 0..self.keys.len() {
            let key = self.key(index);
            let found = newest(store, &key).await;
            let Known { promised, in_flight } = &self.keys[index];
            let is_kept = found == *promised || in_flight.is_some() && found == *in_flight;
            let clock = |known: &Option<(u64, Content)>| known.as_ref().map(|(clock, _)| *clock);
            assert!(
                is_kept,
                "round {round}, {key}: {:?} is there, {:?} was promised, {:?} in flight",
                clock(&found),
                clock(promised),
                clock(in_flight)
            );
            self.keys[index] = Known { promised: found, in_flight: None };
        }
    }
}

/// What clients and the one who cuts the power share.
#[derive(Debug, Default)]
struct World {
    is_over: AtomicBool,
    answers: AtomicU64,
}

async fn newest(store: &LogStore, key: &str) -> Option<(u64, Content)> {
    let stat = store.stat(&[name(key)]).await.remove(0).unwrap()?;
    let clock = stat.version.clock();
    match read(store, key).await {
        Ok(bytes) => Some((clock, Some(bytes))),
        Err(StoreError::NotFound { .. }) if stat.kind == Kind::Tombstone => Some((clock, None)),
        Err(error) => panic!("a read of {key}: {error}"),
    }
}

async fn read(store: &LogStore, key: &str) -> Result<Bytes, StoreError> {
    let mut payload = store.read(&name(key), None, None).await?;
    let mut all = BytesMut::new();
    while let Some(chunk) = payload.bytes.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all.freeze())
}

async fn check_volume(store: &LogStore, clients: &mut [Client], round: u64) {
    let report = store.report();
    assert_eq!((report.doubtful_count, report.damaged_count), (0, 0), "round {round}: {report:?}");
    for client in &mut *clients {
        client.check(store, round).await;
    }
    let usage = store.usage().await.unwrap();
    let promised = clients.iter().flat_map(|client| &client.keys);
    let contents = promised.filter_map(|known| known.promised.as_ref()).map(|(_, content)| content);
    let contents: Vec<_> = contents.collect();
    let objects = contents.iter().filter(|content| content.is_some()).count() as u64;
    let counted = (objects, contents.len() as u64 - objects);
    assert_eq!((usage.object_count, usage.tombstone_count), counted, "round {round}");
}

/// Writes at once with compaction until some answers came; then the power goes.
async fn write_until_cut(
    mount: &mut ForgetfulMount,
    store: LogStore,
    clients: Vec<Client>,
    round: u64,
) -> Vec<Client> {
    let world = Arc::new(World::default());
    let begun = clients
        .into_iter()
        .map(|client| tokio::spawn(client.work(store.clone(), Arc::clone(&world))));
    let begun: Vec<_> = begun.collect();
    let enough = 20 + Numbers(round).below(400);
    until("enough is written", || world.answers.load(Ordering::SeqCst) >= enough).await;
    let choice =
        if round.is_multiple_of(3) { Choice::NothingUnsynced } else { Choice::Subset(round) };
    // Before the cut: an answer that comes in between counts as in flight.
    world.is_over.store(true, Ordering::SeqCst);
    let cut = mount.disk().cut_now(choice);
    let mut clients = Vec::new();
    for client in begun {
        clients.push(client.await.unwrap());
    }
    // On the disk from before the cut, which no longer matters.
    store.close().await;
    drop(store);
    mount.replace(cut);
    clients
}

async fn open(root: &Path) -> LogStore {
    LogStore::open(Runtime::real(), root.to_owned(), options()).await.unwrap()
}

async fn survive(names: Names, rounds: u64) {
    let options = Options { names, ..Options::default() };
    let Some(mut mount) = ForgetfulMount::new(options) else { return };
    let root = mount.path().join("volume");
    let mut clients: Vec<_> = (0..WRITERS).map(Client::new).collect();
    for round in 0..rounds {
        let store = open(&root).await;
        check_volume(&store, &mut clients, round).await;
        // The first index was never made durable, the one after it was.
        let rebuilt = &store.report().rebuilt_because;
        assert!(round < 2 || rebuilt.is_none(), "round {round}: {rebuilt:?}");
        if round % 2 == 1 {
            store.compact().await.unwrap();
            check_volume(&store, &mut clients, round).await;
        }
        clients = write_until_cut(&mut mount, store, clients, round).await;
    }
    let store = open(&root).await;
    check_volume(&store, &mut clients, rounds).await;
    store.compact().await.unwrap();
    check_volume(&store, &mut clients, rounds).await;
    store.close().await;
}

fn rounds() -> u64 {
    let rounds = std::env::var("HOLDFAST_CRASH_ROUNDS").ok();
    rounds.map_or(10, |rounds| rounds.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_lose_nothing_that_was_promised() {
    survive(Names::Journaled, rounds()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_lose_nothing_where_names_have_no_order() {
    survive(Names::Independent, rounds()).await;
}
