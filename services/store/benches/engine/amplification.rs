//! How many bytes are written to the disk for each byte of payload, with all
//! that the index does in the background.

use std::sync::Arc;

use crate::common::accounting::{device_written_bytes, sync_file_system, written_bytes};
use crate::common::directory::BenchDirectory;
use crate::common::engines::{Engine, close};
use crate::common::names::Objects;
use crate::common::settings::number;
use crate::load::{Extent, Load, StoreTarget};
use crate::table::{Goal, Sample, Table, Title, Unit};

const SIZE: usize = 4 * 1024;
const METADATA_BYTES: usize = 24;
const WRITERS: usize = 64;

pub(crate) async fn measure(directory: &BenchDirectory, table: &mut Table) {
    let count: u64 = number("HOLDFAST_BENCH_OBJECTS", 400_000);
    println!("amplification: {count} objects of 4 KiB");
    sync_file_system(directory.path());
    let (process, device) = (written_bytes(), device_written_bytes(directory.path()));
    write(directory, count).await;
    sync_file_system(directory.path());
    let payload = Sample::of(count as f64 * SIZE as f64);
    let process = Sample::of((written_bytes() - process) as f64);
    table.add(title("written by the process", Goal::AtMost(1.3)), process, payload);
    if let (Some(before), Some(after)) = (device, device_written_bytes(directory.path())) {
        let device = Sample::of((after - before) as f64);
        table.add(title("written to the disk, journal too", Goal::Nothing), device, payload);
    }
}

/// Writes the objects and waits until the engine writes no more.
async fn write(directory: &BenchDirectory, count: u64) {
    let objects = Objects::new(METADATA_BYTES);
    let store = Engine::Log.open(&directory.join("amplification")).await;
    let load = Load::new(StoreTarget { store, objects }, objects);
    load.run(WRITERS, SIZE, Extent::Until(count)).await;
    let load = Arc::into_inner(load).expect("every writer has ended");
    close(load.target.store).await;
}

fn title(what: &str, goal: Goal) -> Title {
    Title {
        what: format!("{what}, 4 KiB, {WRITERS} writers"),
        against: "payload".to_owned(),
        durability: "fdatasync before the answer",
        unit: Unit::Bytes,
        goal,
    }
}
