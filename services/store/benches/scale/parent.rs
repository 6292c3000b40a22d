//! The process that starts the others and prints what they took.

use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::CHILD;
use crate::child::METADATA_BYTES;
use crate::common::accounting::{file_system, sync_file_system};
use crate::common::directory::{BenchDirectory, disk_bytes};
use crate::common::names::Objects;
use crate::common::settings::number;
use crate::report::{Memory, Message, Order, Read, Task, Written};

/// What one volume took.
struct Volume {
    count: u64,
    written: Written,
    disk: String,
    clean: Read,
    /// Writes that were answered before the kill.
    acknowledged: u64,
    killed: Read,
}

/// Measures both volumes and prints them side by side.
pub(crate) fn run() {
    let count: u64 = number("HOLDFAST_BENCH_OBJECTS", 5_000_000);
    assert!(count >= 1_000, "HOLDFAST_BENCH_OBJECTS is too small to show anything");
    let directory = BenchDirectory::new();
    println!("file system: {}", file_system(directory.path()));
    let until_kill = count / 20;
    let small = measure(&directory, count / 10, until_kill);
    let large = measure(&directory, count, until_kill);
    print(&small, &large);
}

fn measure(directory: &BenchDirectory, count: u64, until_kill: u64) -> Volume {
    println!("{count} objects");
    let root = directory.join(&format!("volume-{count}"));
    let seed = Objects::new(METADATA_BYTES).seed;
    let order = |task| Order { root: root.clone(), seed, task };
    let written = write(&order(Task::Write { first: 0, end: count }));
    sync_file_system(directory.path());
    let disk = sizes(&root);
    let clean = read(&order(Task::Read { count }));
    assert_eq!(clean.object_count, count, "all that was written is there");
    let endless = Task::Write { first: count, end: u64::MAX };
    let acknowledged = kill_while_writing(&order(endless), until_kill);
    let killed = read(&order(Task::Read { count }));
    assert!(killed.object_count >= count + acknowledged, "all that was answered is there");
    std::fs::remove_dir_all(&root).expect("the directory is ours");
    Volume { count, written, disk, clean, acknowledged, killed }
}

/// Starts this program as a child; gives what it says.
fn start(order: &Order) -> (Child, impl Iterator<Item = Message> + use<>) {
    let own = std::env::current_exe().expect("this program has a path");
    let order = serde_json::to_string(order).expect("the path is text");
    let mut command = Command::new(own);
    command.arg(CHILD).arg(order).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("this program can be started");
    let output = BufReader::new(child.stdout.take().expect("it is piped"));
    // A child that is killed may leave half a line.
    let messages = output.lines().map_while(Result::ok);
    (child, messages.filter_map(|line| serde_json::from_str(&line).ok()))
}

fn write(order: &Order) -> Written {
    let (mut child, messages) = start(order);
    let written = messages.filter_map(|message| match message {
        Message::Written(written) => Some(written),
        _ => None,
    });
    let written = written.last();
    assert!(child.wait().expect("it was started").success(), "the writer failed");
    written.expect("a writer says what it took")
}

fn read(order: &Order) -> Read {
    let (mut child, messages) = start(order);
    let read = messages.filter_map(|message| match message {
        Message::Read(read) => Some(read),
        _ => None,
    });
    let read = read.last();
    assert!(child.wait().expect("it was started").success(), "the reader failed");
    read.expect("a reader says what it took")
}

/// Kills the writer once it has acknowledged that many; gives how many it had
/// acknowledged at least.
fn kill_while_writing(order: &Order, until_kill: u64) -> u64 {
    let (mut child, messages) = start(order);
    let mut last = 0;
    let mut counts = messages.filter_map(|message| match message {
        Message::Acknowledged { count } => Some(count),
        _ => None,
    });
    for count in counts.by_ref() {
        last = count;
        if count >= until_kill {
            child.kill().expect("it is running");
            break;
        }
    }
    // What it said before the signal came counts too.
    last = counts.last().unwrap_or(last);
    let status = child.wait().expect("it was started");
    assert_eq!(status.code(), None, "the writer ended before it was killed");
    last
}

/// What lies in the volume's directory, the largest first.
fn sizes(root: &Path) -> String {
    let entries = std::fs::read_dir(root).expect("the volume was made");
    let paths = entries.map(|entry| entry.expect("the volume was made").path());
    let size = |path: &Path| disk_bytes(path).expect("nobody uses the volume");
    let mut sizes: Vec<_> = paths.map(|path| (size(&path), path)).collect();
    sizes.sort_unstable_by(|left, right| right.cmp(left));
    let mut text = String::new();
    for (bytes, path) in sizes.iter().filter(|(bytes, _)| *bytes >= 1_000_000) {
        let name = path.file_name().expect("it was listed").to_string_lossy();
        write!(text, "{name} {}, ", megabytes(*bytes)).expect("a text takes all");
    }
    let total = sizes.iter().map(|(bytes, _)| bytes).sum();
    text + "all " + &megabytes(total)
}

type Show = fn(&Volume) -> String;

fn print(small: &Volume, large: &Volume) {
    let rows: [(&str, Show); 14] = [
        ("written, objects/s", |it| format!("{:.0}", it.written.objects_per_second)),
        ("memory of the writer", |it| memory(it.written.memory)),
        ("time to close", |it| seconds(it.written.close_seconds)),
        ("disk", |it| it.disk.clone()),
        ("time to open, closed before", |it| seconds(it.clean.open_seconds)),
        ("memory after opening", |it| memory(it.clean.opened)),
        ("memory after 100,000 stats and 100 lists", |it| memory(it.clean.asked)),
        ("stat, each of 64", |it| micros(it.clean.stat_seconds)),
        ("list, page of 1,000", |it| micros(it.clean.list_seconds)),
        ("written on before SIGKILL", |it| it.acknowledged.to_string()),
        ("time to open, killed before", |it| seconds(it.killed.open_seconds)),
        ("memory after opening", |it| memory(it.killed.opened)),
        ("memory after 100,000 stats and 100 lists", |it| memory(it.killed.asked)),
        ("objects found", |it| it.killed.object_count.to_string()),
    ];
    println!("\nMemory: at that moment (at most ever). Every write is durable before it is");
    println!("answered: fdatasync comes first.\n");
    println!("| | {} objects | {} objects |\n|---|---|---|", small.count, large.count);
    for (title, show) in rows {
        println!("| {title} | {} | {} |", show(small), show(large));
    }
}

fn memory(memory: Memory) -> String {
    format!("{} ({})", megabytes(memory.resident_bytes), megabytes(memory.peak_bytes))
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.3} s")
}

fn micros(seconds: f64) -> String {
    format!("{:.1} µs", seconds * 1e6)
}
