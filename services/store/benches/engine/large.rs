//! Large objects, one at a time: the log engine, the direct writes and the file
//! engine by turns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_store::{PutOutcome, Store};

use crate::common::accounting::sync_file_system;
use crate::common::directory::BenchDirectory;
use crate::common::engines::{Engine, close};
use crate::common::names::Objects;
use crate::common::settings::number;
use crate::direct::{Aligned, DirectFiles, WRITE_BYTES};
use crate::table::{Goal, Sample, Table, Title, Unit};

const SIZE: usize = 64 * 1024 * 1024;
const METADATA_BYTES: usize = 24;

/// What is written in one measurement. Payloads are made while the clock
/// stands.
struct Batch {
    objects: Objects,
    count: u64,
    next: u64,
}

impl Batch {
    fn numbers(&mut self) -> impl Iterator<Item = u64> + use<> {
        let first = self.next;
        self.next += self.count;
        first..self.next
    }

    fn sample(&self, spent: Duration) -> Sample {
        Sample::of(self.count as f64 * SIZE as f64 / spent.as_secs_f64())
    }
}

pub(crate) async fn measure(directory: &BenchDirectory, rounds: usize, table: &mut Table) {
    let log = Engine::Log.open(&directory.join("large-log")).await;
    let file = Engine::File.open(&directory.join("large-file")).await;
    let direct = Arc::new(DirectFiles::new(directory.join("large-direct")));
    let count = number("HOLDFAST_BENCH_LARGE", 8);
    let mut batch = Batch { objects: Objects::new(METADATA_BYTES), count, next: 0 };
    for round in 1..=rounds {
        println!("large: round {round} of {rounds}");
        sync_file_system(directory.path());
        let bare = write_direct(&direct, &mut batch).await;
        sync_file_system(directory.path());
        let own = write_store(&log, &mut batch).await;
        sync_file_system(directory.path());
        let other = write_store(&file, &mut batch).await;
        table.add(title("O_DIRECT 1 MiB writes, fdatasync", Goal::AtLeast(0.7)), own, bare);
        table.add(title("file engine", Goal::Nothing), own, other);
    }
    close(log).await;
    close(file).await;
}

fn title(against: &str, goal: Goal) -> Title {
    Title {
        what: "put 64 MiB, 1 writer".to_owned(),
        against: against.to_owned(),
        durability: "fdatasync of file and directory before the answer",
        unit: Unit::Throughput,
        goal,
    }
}

async fn write_store(store: &Arc<dyn Store>, batch: &mut Batch) -> Sample {
    let mut spent = Duration::ZERO;
    for number in batch.numbers() {
        let payload = batch.objects.payload(number, SIZE);
        let (store, objects) = (Arc::clone(store), batch.objects);
        let put = tokio::spawn(async move { put(&*store, objects, number, payload).await });
        spent += put.await.expect("the writer panicked");
    }
    batch.sample(spent)
}

/// One object in pieces, as a server is sent it; gives how long it took.
async fn put(store: &dyn Store, objects: Objects, number: u64, mut payload: Bytes) -> Duration {
    let (name, stamp) = (objects.name(number), objects.stamp(number));
    let began = Instant::now();
    let mut staging = store.stage(Some(SIZE as u64)).await.expect("the disk has room");
    while !payload.is_empty() {
        let piece = payload.split_to(WRITE_BYTES.min(payload.len()));
        staging.write(piece).await.expect("the disk has room");
    }
    let staged = staging.finish().await.expect("the disk has room");
    let outcome = store.commit(name, stamp, staged).await.expect("the disk works");
    assert_eq!(outcome, PutOutcome::Stored, "the name is new");
    began.elapsed()
}

async fn write_direct(files: &Arc<DirectFiles>, batch: &mut Batch) -> Sample {
    let (files, numbers) = (Arc::clone(files), batch.numbers());
    let write = tokio::task::spawn_blocking(move || {
        let (mut payload, mut spent) = (Aligned::new(SIZE), Duration::ZERO);
        for number in numbers {
            payload.fill(number);
            let began = Instant::now();
            files.put(number, &payload);
            spent += began.elapsed();
        }
        spent
    });
    batch.sample(write.await.expect("the writer panicked"))
}
