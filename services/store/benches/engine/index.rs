//! What the engine's `stat` and `list` cost over the same gets and scans
//! straight on the index they are kept in.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_core::name::{Bucket, ObjectName};
use holdfast_store::{ListRequest, Store};

use crate::bare_index::BareIndex;
use crate::common::directory::BenchDirectory;
use crate::common::engines::{Engine, close};
use crate::common::names::{Objects, mixed};
use crate::common::settings::number;
use crate::load::{Extent, Load, StoreTarget};
use crate::table::{Goal, Sample, Table, Title, Unit};

const METADATA_BYTES: usize = 300;
/// Enough that every group commit is full.
const WRITERS: usize = 2048;
/// Names of one locate batch.
const BATCH: usize = 64;
const PAGE: usize = 1_000;

/// Names that are asked for again and again: their blocks fit into any cache.
const HOT_NAMES: u64 = 4_096;
/// Names that are spread over all blocks, which do not.
const SPREAD_NAMES: u64 = 131_072;
/// Pages that are read again and again.
const HOT_PAGES: usize = 32;

/// Names to ask for, in an order that is not theirs.
type Names = Arc<Vec<ObjectName>>;

struct Sides {
    log: Arc<dyn Store>,
    bare: Arc<BareIndex>,
    hot: Names,
    spread: Names,
    window: Duration,
}

pub(crate) async fn measure(directory: &BenchDirectory, rounds: usize, table: &mut Table) {
    let count = number("HOLDFAST_BENCH_KEYS", 2_000_000);
    let sides = Sides::open(directory, count).await;
    for round in 1..=rounds {
        println!("index: round {round} of {rounds}");
        sides.round(table).await;
    }
    close(sides.log).await;
}

impl Sides {
    async fn open(directory: &BenchDirectory, count: u64) -> Self {
        let objects = Objects::new(METADATA_BYTES);
        let began = Instant::now();
        let log = populate(&directory.join("index-log"), objects, count).await;
        println!("index: {count} names written in {:.1} s", began.elapsed().as_secs_f64());
        let (began, path) = (Instant::now(), directory.join("index-bare"));
        let make = move || Arc::new(BareIndex::make(&path, objects, count));
        let bare = tokio::task::spawn_blocking(make).await.expect("the disk works");
        println!("index: the same into bare fjall in {:.1} s", began.elapsed().as_secs_f64());
        let window = Duration::from_secs_f64(number("HOLDFAST_BENCH_SECONDS", 1.5));
        let (hot, spread) = (names(objects, count, HOT_NAMES), names(objects, count, SPREAD_NAMES));
        Self { log, bare, hot, spread, window }
    }

    async fn round(&self, table: &mut Table) {
        let two = Goal::AtMost(2.0);
        for (what, names, size, goal) in [
            ("stat, 64 names a call, cached", &self.hot, BATCH, two),
            ("stat, 1 name a call, cached", &self.hot, 1, two),
            ("stat, 64 names a call, all names", &self.spread, BATCH, Goal::Nothing),
        ] {
            let bare = self.bare_gets(names, size).await;
            let own = self.stats(names, size).await;
            table.add(title(what, "bare fjall, time of one get", goal), own, bare);
        }
        let bare = self.bare_scans().await;
        let own = self.lists().await;
        table.add(title("list, pages of 1,000", "bare fjall, time of one entry", two), own, bare);
    }

    async fn stats(&self, names: &Names, size: usize) -> Sample {
        let (store, names, window) = (Arc::clone(&self.log), Arc::clone(names), self.window);
        let ask = async move {
            let mut timer = Timer::start(window);
            for batch in names.chunks(size).cycle() {
                let answers = store.stat(batch).await;
                let found = answers.iter().filter(|answer| matches!(answer, Ok(Some(_)))).count();
                assert_eq!(found, batch.len(), "every name is stored");
                if timer.is_over(found) {
                    break;
                }
            }
            timer.sample()
        };
        tokio::spawn(ask).await.expect("the client panicked")
    }

    async fn bare_gets(&self, names: &Names, size: usize) -> Sample {
        let (bare, names, window) = (Arc::clone(&self.bare), Arc::clone(names), self.window);
        let ask = async move {
            let mut timer = Timer::start(window);
            for batch in names.chunks(size).cycle() {
                let found = batch.iter().filter(|name| bare.get(name)).count();
                assert_eq!(found, batch.len(), "every name is stored");
                if timer.is_over(found) {
                    break;
                }
            }
            timer.sample()
        };
        tokio::spawn(ask).await.expect("the client panicked")
    }

    async fn lists(&self) -> Sample {
        let (store, names, window) = (Arc::clone(&self.log), Arc::clone(&self.hot), self.window);
        let ask = async move {
            let mut timer = Timer::start(window);
            for after in names.iter().take(HOT_PAGES).cycle() {
                let page = store.list(&request(after)).await.expect("the disk works");
                assert!(page.entries.len() == PAGE || !page.more, "it is full or the last");
                if timer.is_over(page.entries.len()) {
                    break;
                }
            }
            timer.sample()
        };
        tokio::spawn(ask).await.expect("the client panicked")
    }

    async fn bare_scans(&self) -> Sample {
        let (bare, names, window) = (Arc::clone(&self.bare), Arc::clone(&self.hot), self.window);
        let ask = async move {
            let mut timer = Timer::start(window);
            for after in names.iter().take(HOT_PAGES).cycle() {
                if timer.is_over(bare.scan(after, PAGE)) {
                    break;
                }
            }
            timer.sample()
        };
        tokio::spawn(ask).await.expect("the client panicked")
    }
}

/// Time for each entry, over as many entries as go into a window.
struct Timer {
    began: Instant,
    window: Duration,
    entries: usize,
}

impl Timer {
    fn start(window: Duration) -> Self {
        Self { began: Instant::now(), window, entries: 0 }
    }

    fn is_over(&mut self, entries: usize) -> bool {
        self.entries += entries;
        self.began.elapsed() >= self.window
    }

    fn sample(self) -> Sample {
        Sample::of(self.began.elapsed().as_secs_f64() / self.entries as f64)
    }
}

/// Writes empty objects through the engine and opens it anew.
pub(crate) async fn populate(root: &Path, objects: Objects, count: u64) -> Arc<dyn Store> {
    let store = Engine::Log.open(root).await;
    let load = Load::new(StoreTarget { store, objects }, objects);
    load.run(WRITERS, 0, Extent::Until(count)).await;
    let load = Arc::into_inner(load).expect("every writer has ended");
    close(load.target.store).await;
    Engine::Log.open(root).await
}

fn names(objects: Objects, count: u64, wanted: u64) -> Names {
    let numbers = (0..wanted.min(count)).map(|at| mixed(at.wrapping_add(objects.seed)) % count);
    Arc::new(numbers.map(|number| objects.name(number)).collect())
}

fn request(after: &ObjectName) -> ListRequest {
    ListRequest {
        bucket: Bucket::seed(),
        prefix: "bench/".to_owned(),
        start_after: Some(after.key.clone()),
        limit: PAGE,
    }
}

fn title(what: &str, against: &str, goal: Goal) -> Title {
    let (what, against) = (what.to_owned(), against.to_owned());
    Title { what, against, durability: "none: it only reads", unit: Unit::Seconds, goal }
}
