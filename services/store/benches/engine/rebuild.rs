//! How fast the index is built anew from a log of small records, over reading
//! the same log from the disk and doing nothing with it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use holdfast_runtime::Runtime;
use holdfast_store::LogStoreOptions;
use holdfast_store::log_engine::rebuild_index;
use rustix::fs::{Advice, fadvise};

use crate::common::accounting::sync_file_system;
use crate::common::directory::BenchDirectory;
use crate::common::engines::close;
use crate::common::names::Objects;
use crate::common::settings::number;
use crate::index::populate;
use crate::table::{Goal, Sample, Table, Title, Unit};

const METADATA_BYTES: usize = 300;
/// What a rebuild reads at once.
const READ_BYTES: usize = 1024 * 1024;

pub(crate) async fn measure(directory: &BenchDirectory, rounds: usize, table: &mut Table) {
    let count = number("HOLDFAST_BENCH_RECORDS", 1_000_000);
    let root = directory.join("rebuild");
    let began = Instant::now();
    close(populate(&root, Objects::new(METADATA_BYTES), count).await).await;
    println!("rebuild: {count} records written in {:.1} s", began.elapsed().as_secs_f64());
    for round in 1..=rounds {
        println!("rebuild: round {round} of {rounds}");
        let (root, log) = (root.clone(), segments(&root));
        let round = tokio::task::spawn_blocking(move || {
            forget(&root, &log);
            let bare = measured(&log, || read(&log));
            forget(&root, &log);
            let own = measured(&log, || rebuild(&root));
            println!("rebuild: {:.0} records/s", count as f64 * own.value / bytes(&log));
            (own, bare)
        });
        let (own, bare) = round.await.expect("the disk works");
        table.add(title(), own, bare);
    }
}

/// Bytes of the log a second.
fn measured(log: &[PathBuf], work: impl FnOnce()) -> Sample {
    let began = Instant::now();
    work();
    Sample::of(bytes(log) / began.elapsed().as_secs_f64())
}

fn rebuild(root: &Path) {
    let options = LogStoreOptions::default();
    rebuild_index(&Runtime::real(), root, &options, &mut |_| {}).expect("the volume is sound");
}

fn read(log: &[PathBuf]) {
    let mut buffer = vec![0; READ_BYTES];
    for path in log {
        let (file, mut at) = (open(path), 0);
        loop {
            match file.read_at(&mut buffer, at).expect("the disk works") {
                0 => break,
                read => at += read as u64,
            }
        }
    }
}

/// Takes the log out of the page cache, so that the disk has to read it.
fn forget(root: &Path, log: &[PathBuf]) {
    sync_file_system(root);
    for path in log {
        fadvise(open(path), 0, None, Advice::DontNeed).expect("it is a file");
    }
}

fn segments(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root.join("log")).expect("the volume was made");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("it was listed").path()).collect();
    paths.sort_unstable();
    paths
}

fn bytes(log: &[PathBuf]) -> f64 {
    log.iter().map(|path| open(path).metadata().expect("it is a file").len() as f64).sum()
}

fn open(path: &Path) -> File {
    File::open(path).expect("the volume was made")
}

fn title() -> Title {
    Title {
        what: "index built anew, records of 300 B of metadata".to_owned(),
        against: "reading the log from the disk".to_owned(),
        durability: "the index is synced at the end",
        unit: Unit::Throughput,
        goal: Goal::Nothing,
    }
}
