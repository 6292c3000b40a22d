//! Small objects: the log engine, the file engine and the bare log by turns.

use std::sync::Arc;
use std::time::Duration;

use crate::bare_log::BareLog;
use crate::common::accounting::sync_file_system;
use crate::common::directory::BenchDirectory;
use crate::common::engines::{Engine, close};
use crate::common::names::Objects;
use crate::common::settings::number;
use crate::load::{Extent, Load, StoreTarget};
use crate::table::{Goal, Sample, Table, Title, Unit};

const SMALL: usize = 4 * 1024;
const MEDIUM: usize = 64 * 1024;
const METADATA_BYTES: usize = 24;

/// What the file engine is tried with.
const CALIBRATION: [usize; 3] = [16, 64, 256];

const DURABILITY: &str = "fdatasync before the answer";

const BARE_LOG: &str = "bare queue, write and fdatasync";

/// The sides, each on a volume of its own that lasts through all rounds.
struct Sides {
    log: Arc<Load<StoreTarget>>,
    file: Arc<Load<StoreTarget>>,
    bare: Arc<Load<BareLog>>,
    extent: Extent,
}

/// Objects of 4 KiB.
pub(crate) async fn measure(directory: &BenchDirectory, rounds: usize, table: &mut Table) {
    let sides = Sides::open(directory, "puts").await;
    let best = sides.best_writers().await;
    for round in 1..=rounds {
        println!("puts: round {round} of {rounds}");
        sides.round(directory, best, table).await;
    }
    sides.close().await;
}

/// Objects of 64 KiB.
pub(crate) async fn measure_medium(directory: &BenchDirectory, rounds: usize, table: &mut Table) {
    let sides = Sides::open(directory, "medium").await;
    for round in 1..=rounds {
        println!("medium: round {round} of {rounds}");
        sides.medium_round(directory, table).await;
    }
    sides.close().await;
}

impl Sides {
    /// New volumes, whose directories begin with the name of the row.
    async fn open(directory: &BenchDirectory, row: &str) -> Self {
        let window = Duration::from_secs_f64(number("HOLDFAST_BENCH_SECONDS", 1.5));
        let objects = Objects::new(METADATA_BYTES);
        let bare = Load::new(BareLog::start(directory.join(&format!("{row}-bare"))), objects);
        let log = load(Engine::Log, directory, &format!("{row}-log")).await;
        let file = load(Engine::File, directory, &format!("{row}-file")).await;
        Self { log, file, bare, extent: Extent::Window(window) }
    }

    /// The same with objects of 64 KiB, where the disk is what counts.
    async fn medium_round(&self, directory: &BenchDirectory, table: &mut Table) {
        let settle = || sync_file_system(directory.path());
        settle();
        let file = self.file.run(16, MEDIUM, self.extent).await;
        settle();
        let log = self.log.run(16, MEDIUM, self.extent).await;
        settle();
        let bare = self.bare.run(16, MEDIUM, self.extent).await;
        let what = "put 64 KiB, 16 writers";
        table.add(title(what, "file engine, 16 writers", Goal::AtLeast(2.0)), log, file);
        table.add(title(what, BARE_LOG, Goal::Nothing), log, bare);
    }

    /// With how many writers the file engine stores most objects.
    async fn best_writers(&self) -> usize {
        let mut best = (0, 0.0);
        for writers in CALIBRATION {
            let rate = self.file.run(writers, SMALL, self.extent).await.value;
            println!("file engine, 4 KiB, {writers} writers: {rate:.0}/s");
            if rate > best.1 {
                best = (writers, rate);
            }
        }
        println!("file engine, 4 KiB: best with {} writers", best.0);
        best.0
    }

    async fn round(&self, directory: &BenchDirectory, best: usize, table: &mut Table) {
        let settle = || sync_file_system(directory.path());
        settle();
        let file_best = self.file.run(best, SMALL, self.extent).await;
        settle();
        let log = self.log.run(64, SMALL, self.extent).await;
        settle();
        let bare = self.bare.run(64, SMALL, self.extent).await;
        settle();
        let file_16 = self.file.run(16, SMALL, self.extent).await;
        settle();
        let log_16 = self.log.run(16, SMALL, self.extent).await;
        settle();
        let bare_16 = self.bare.run(16, SMALL, self.extent).await;

        let its_best = format!("file engine, {best} writers (its best)");
        let (many, few) = ("put 4 KiB, 64 writers", "put 4 KiB, 16 writers");
        let mut add = |what: &str, against: &str, goal: Goal, own: Sample, other: Sample| {
            table.add(title(what, against, goal), own, other);
        };
        add(many, &its_best, Goal::AtLeast(5.0), log, file_best);
        add(many, BARE_LOG, Goal::AtLeast(0.7), log, bare);
        add(few, "file engine, 16 writers", Goal::AtLeast(3.0), log_16, file_16);
        add(few, &its_best, Goal::Nothing, log_16, file_best);
        add(few, BARE_LOG, Goal::Nothing, log_16, bare_16);
    }

    async fn close(self) {
        for load in [self.log, self.file] {
            let load = Arc::into_inner(load).expect("every writer has ended");
            close(load.target.store).await;
        }
    }
}

async fn load(engine: Engine, directory: &BenchDirectory, name: &str) -> Arc<Load<StoreTarget>> {
    let objects = Objects::new(METADATA_BYTES);
    let store = engine.open(&directory.join(name)).await;
    Load::new(StoreTarget { store, objects }, objects)
}

fn title(what: &str, against: &str, goal: Goal) -> Title {
    let (what, against) = (what.to_owned(), against.to_owned());
    Title { what, against, durability: DURABILITY, unit: Unit::Objects, goal }
}
