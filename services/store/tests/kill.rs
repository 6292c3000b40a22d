//! `kill -9` under 64 writers: what was acknowledged is there, in a process of
//! its own on a real disk with the real index.
//!
//! A child puts, overwrites, deletes, forgets and reads, and says on its
//! standard output what it is about to do and what was acknowledged. It is
//! killed at a random moment, while it writes or while it opens the volume, and
//! the next one goes on with the same volume; from time to time the index is
//! removed before. After most rounds everything is looked at.
//!
//! Ten rounds are part of `cargo test`. More, and another or the same seed:
//!
//! ```text
//! HOLDFAST_KILL_ROUNDS=200 HOLDFAST_KILL_SEED=7 \
//!     cargo test -p holdfast-store --test kill -- --nocapture
//! ```
//!
//! The seed decides what is written and when it is killed; how far the child
//! came by then is up to the machine.

#![allow(clippy::disallowed_methods, reason = "processes and threads of a test")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "how child and parent talk")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::index::Numbers;
use common::{listed, name, stamp};
use futures_util::TryStreamExt;
use futures_util::future::{join_all, select_all};
use holdfast_core::name::Bucket;
use holdfast_core::object::{Kind, Stat};
use holdfast_core::wire::list::ListEntry;
use holdfast_runtime::Runtime;
use holdfast_store::{ListRequest, LogStore, LogStoreOptions, Payload, PutOutcome, Store};

const WRITERS: u64 = 64;
const NAMES_PER_WRITER: u64 = 12;
const ROUNDS: u64 = 10;
const SEED: u64 = 20_261;

const KIB: usize = 1024;

/// Clocks of a round begin above those of all rounds before.
const CLOCKS_PER_ROUND: u64 = 1 << 32;

/// Volume, seed and round of the child.
const CHILD: &str = "HOLDFAST_KILL_CHILD";

fn options() -> LogStoreOptions {
    LogStoreOptions {
        reserve_bytes: 0,
        segment_bytes: 4 * 1024 * 1024,
        compaction_rate_bytes: 64 * 1024 * 1024,
        ..LogStoreOptions::default()
    }
}

async fn open(root: &Path) -> LogStore {
    LogStore::open(Runtime::real(), root.to_owned(), options()).await.unwrap()
}

/// What there is of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Absent,
    Object(u64),
    Tombstone(u64),
}

impl State {
    fn of(stat: Option<&Stat>) -> Self {
        match stat.map(|stat| (stat.kind, stat.version.clock())) {
            None => Self::Absent,
            Some((Kind::Object, clock)) => Self::Object(clock),
            Some((Kind::Tombstone, clock)) => Self::Tombstone(clock),
        }
    }

    /// As the child writes it.
    fn word(self) -> String {
        match self {
            Self::Absent => "absent 0".into(),
            Self::Object(clock) => format!("object {clock}"),
            Self::Tombstone(clock) => format!("tombstone {clock}"),
        }
    }

    fn parse(kind: &str, clock: &str) -> Self {
        let clock = clock.parse().unwrap();
        match kind {
            "absent" => Self::Absent,
            "object" => Self::Object(clock),
            "tombstone" => Self::Tombstone(clock),
            other => panic!("no state: {other}"),
        }
    }
}

fn key(number: u64) -> String {
    format!("{:02}/object-{number}", number / NAMES_PER_WRITER)
}

/// The content of a version of a name, and of nothing else.
fn content(number: u64, clock: u64) -> Bytes {
    let mut numbers = Numbers(number << 48 ^ clock);
    let range = match numbers.below(30) {
        0 => 200 * KIB..2048 * KIB,
        1..4 => 8 * KIB..100 * KIB,
        _ => 100..8 * KIB,
    };
    let length = range.start + usize::try_from(numbers.below(range.len() as u64)).unwrap();
    let mut bytes = BytesMut::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&numbers.below(u64::MAX).to_le_bytes());
    }
    bytes.freeze().slice(..length)
}

async fn bytes_of(payload: Payload) -> Bytes {
    let joined = payload.bytes.try_fold(BytesMut::new(), async |mut all, chunk| {
        all.extend_from_slice(&chunk);
        Ok(all)
    });
    joined.await.expect("nothing is damaged").freeze()
}

/// One write that is shorter than what a pipe takes whole.
fn say(line: &str) {
    std::io::stdout().lock().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// One of the child's writers, the only one to change its names.
struct ChildWriter {
    store: LogStore,
    numbers: Numbers,
    first_name: u64,
    clock: u64,
    /// What was acknowledged in this round.
    acknowledged: BTreeMap<u64, State>,
}

impl ChildWriter {
    async fn run(mut self) {
        loop {
            let number = self.first_name + self.numbers.below(NAMES_PER_WRITER);
            match self.numbers.below(20) {
                0..11 => self.put(number).await,
                11..14 => self.delete(number).await,
                14..16 => self.forget(number).await,
                _ => self.read(number).await,
            }
        }
    }

    fn next_clock(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn acknowledge(&mut self, number: u64, state: State) {
        say(&format!("acknowledged {number} {}", state.word()));
        self.acknowledged.insert(number, state);
    }

    async fn put(&mut self, number: u64) {
        let state = State::Object(self.next_clock());
        say(&format!("intent {number} {}", state.word()));
        let payload = content(number, self.clock);
        let outcome = self.store.put(name(&key(number)), stamp(self.clock), payload).await;
        assert_eq!(outcome.unwrap(), PutOutcome::Stored);
        self.acknowledge(number, state);
    }

    async fn delete(&mut self, number: u64) {
        let state = State::Tombstone(self.next_clock());
        say(&format!("intent {number} {}", state.word()));
        let outcome = self.store.delete(name(&key(number)), stamp(self.clock)).await;
        assert_eq!(outcome.unwrap(), PutOutcome::Stored);
        self.acknowledge(number, state);
    }

    async fn forget(&mut self, number: u64) {
        let known = self.acknowledged.get(&number).copied();
        let Some(State::Object(clock) | State::Tombstone(clock)) = known else { return };
        say(&format!("intent {number} {}", State::Absent.word()));
        let forgotten = self.store.forget(&name(&key(number)), stamp(clock).version).await;
        assert!(forgotten.unwrap(), "{number} in version {clock} was there");
        self.acknowledge(number, State::Absent);
    }

    /// A name of its own must be as it left it, another one whole.
    async fn read(&mut self, own: u64) {
        let other = self.numbers.below(WRITERS * NAMES_PER_WRITER);
        for number in [own, other] {
            let read = self.store.read(&name(&key(number)), None, None).await;
            let clock = match read {
                Ok(payload) => {
                    let clock = payload.stat.version.clock();
                    assert!(bytes_of(payload).await == content(number, clock), "{number}");
                    Some(clock)
                }
                Err(holdfast_store::StoreError::NotFound { .. }) => None,
                Err(error) => panic!("{number}: {error}"),
            };
            if number == own
                && let Some(known) = self.acknowledged.get(&own)
            {
                let expected = match known {
                    State::Object(clock) => Some(*clock),
                    _ => None,
                };
                assert_eq!(clock, expected, "{own}");
            }
        }
    }
}

/// Not a test: what the next one kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it writes until it is killed"]
async fn child_that_is_killed() {
    let Ok(settings) = std::env::var(CHILD) else { return };
    let mut settings = settings.splitn(3, ' ');
    let (seed, round) = (settings.next().unwrap(), settings.next().unwrap());
    let (seed, round): (u64, u64) = (seed.parse().unwrap(), round.parse().unwrap());
    let store = open(Path::new(settings.next().unwrap())).await;
    say("\nopen");
    let writer = |writer| ChildWriter {
        store: store.clone(),
        numbers: Numbers(seed ^ round << 32 ^ writer << 16),
        first_name: writer * NAMES_PER_WRITER,
        clock: (round + 1) * CLOCKS_PER_ROUND,
        acknowledged: BTreeMap::new(),
    };
    let spawned = |number| Runtime::real().spawn("writer", writer(number).run());
    let writers: Vec<_> = (0..WRITERS).map(spawned).collect();
    // None ends unless it failed: then the process ends, and the parent sees it.
    let ends = writers.into_iter().map(|mut task| Box::pin(async move { task.finished().await }));
    select_all(ends).await;
    panic!("a writer ended");
}

/// A child and what it says.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(root: &Path, seed: u64, round: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_is_killed", "--ignored", "--nocapture"])
            .env(CHILD, format!("{seed} {round} {}", root.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Kills it after this long, or so long after it has opened the volume.
    fn kill(mut self, after: Duration, once_open: bool) -> Vec<String> {
        let mut said = Vec::new();
        let is_open = |said: &[String]| said.iter().any(|line| line == "open");
        while once_open && !is_open(&said) {
            said.push(self.lines.recv_timeout(Duration::from_secs(60)).expect("it opens"));
        }
        std::thread::park_timeout(after);
        let ended = self.child.try_wait().unwrap();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        said.extend(self.lines.iter());
        assert!(ended.is_none(), "the child ended by itself: {:#?}", said.last());
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It is dead already unless the test failed.
        let _ = self.child.kill();
    }
}

/// Whole lines, until the pipe is closed.
fn lines_of(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|length| length > 0) && line.ends_with('\n') {
            // The receiver may be gone, when the test failed.
            let _ = sender.send(line.trim_end().to_owned());
            line.clear();
        }
    });
    receiver
}

/// What may be there of each name.
struct Model(Vec<BTreeSet<State>>);

impl Model {
    fn new() -> Self {
        let names = usize::try_from(WRITERS * NAMES_PER_WRITER).unwrap();
        Self(vec![BTreeSet::from([State::Absent]); names])
    }

    /// Returns how much was acknowledged.
    fn hear(&mut self, lines: &[String]) -> usize {
        let mut count = 0;
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let [what @ ("intent" | "acknowledged"), number, kind, clock] = words[..] else {
                continue;
            };
            let possible = &mut self.0[number.parse::<usize>().unwrap()];
            if what == "acknowledged" {
                possible.clear();
                count += 1;
            }
            possible.insert(State::parse(kind, clock));
        }
        count
    }

    /// Looks at everything; what is there is from now on what must be.
    async fn verify(&mut self, root: &Path) -> String {
        let store = open(root).await;
        let report = store.report().clone();
        assert_eq!((report.damaged_count, report.doubtful_count), (0, 0), "{report:?}");
        let mut stats = BTreeMap::new();
        for (number, possible) in (0..).zip(&mut self.0) {
            let stat = store.stat(&[name(&key(number))]).await.remove(0).unwrap();
            let found = State::of(stat.as_ref());
            assert!(possible.contains(&found), "{number}: {found:?}, not one of {possible:?}");
            *possible = BTreeSet::from([found]);
            check_content(&store, number, stat.as_ref()).await;
            stats.extend(stat.map(|stat| (key(number), stat)));
        }
        let expected = stats.iter().map(|(key, stat)| (key.clone(), listed(key, stat)));
        assert_eq!(list(&store).await, expected.collect(), "what is listed and what is there");
        let usage = store.usage().await.unwrap();
        let objects = || stats.values().filter(|stat| stat.kind == Kind::Object);
        assert_eq!(usage.object_count, objects().count() as u64);
        assert_eq!(usage.tombstone_count, stats.len() as u64 - usage.object_count);
        assert_eq!(usage.live_bytes, objects().map(|stat| stat.size_bytes).sum::<u64>());
        store.close().await;
        format!(
            "{} objects, {} tombstones, read {} bytes of the log, torn {:?}, rebuilt {:?}",
            usage.object_count,
            usage.tombstone_count,
            report.replayed_bytes,
            report.torn.map(|torn| torn.bytes),
            report.rebuilt_because
        )
    }
}

async fn check_content(store: &LogStore, number: u64, stat: Option<&Stat>) {
    let read = store.read(&name(&key(number)), None, None).await;
    match stat.filter(|stat| stat.kind == Kind::Object) {
        Some(stat) => {
            let payload = read.unwrap();
            assert_eq!(payload.stat, *stat);
            assert!(bytes_of(payload).await == content(number, stat.version.clock()), "{number}");
        }
        None => assert!(
            matches!(read, Err(holdfast_store::StoreError::NotFound { .. })),
            "{number}: {read:?}"
        ),
    }
}

async fn list(store: &LogStore) -> BTreeMap<String, ListEntry> {
    let mut listed = BTreeMap::new();
    let bucket: Bucket = name("a").bucket;
    let mut request = ListRequest { bucket, prefix: String::new(), start_after: None, limit: 100 };
    loop {
        let page = store.list(&request).await.unwrap();
        assert_eq!(page.unreadable_count, 0);
        request.start_after = page.entries.last().map(|entry| entry.key.clone());
        listed.extend(page.entries.into_iter().map(|it| (it.key.as_str().to_owned(), it)));
        if !page.more {
            return listed;
        }
    }
}

fn setting<T: FromStr>(variable: &str, default: T) -> T {
    match std::env::var(variable) {
        Ok(value) => value.parse().ok().expect("it is a number"),
        Err(_) => default,
    }
}

/// On the disk of the build, which is no memory.
struct Volume(PathBuf);

impl Volume {
    fn new() -> Self {
        let unique = Runtime::real().random_u64();
        Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kill-{unique:016x}")))
    }

    fn remove_index(&self) {
        let index = self.0.join("index");
        if index.exists() {
            std::fs::remove_dir_all(index).unwrap();
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the volume is left at {}", self.0.display());
            return;
        }
        // What stays is in the directory of the build.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn payload_files(root: &Path) -> usize {
    let directories = std::fs::read_dir(root.join("large")).unwrap();
    directories.map(|directory| std::fs::read_dir(directory.unwrap().path()).unwrap().count()).sum()
}

#[tokio::test]
async fn the_very_first_write_outlives_the_index() {
    let volume = Volume::new();
    let store = open(&volume.0).await;
    store.put(name("a"), stamp(1), content(0, 1)).await.unwrap();
    store.close().await;
    volume.remove_index();
    let store = open(&volume.0).await;
    assert_eq!((store.report().torn, store.report().doubtful_count), (None, 0));
    let read = store.read(&name("a"), None, None).await.unwrap();
    assert!(bytes_of(read).await == content(0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_every_kill() {
    let rounds = setting("HOLDFAST_KILL_ROUNDS", ROUNDS);
    let seed = setting("HOLDFAST_KILL_SEED", SEED);
    let (volume, mut model, mut numbers) = (Volume::new(), Model::new(), Numbers(seed));
    let mut total = 0;
    for round in 0..rounds {
        if numbers.below(6) == 0 {
            volume.remove_index();
        }
        let while_opening = round > 0 && numbers.below(4) == 0;
        let after = match while_opening {
            true => Duration::from_micros(numbers.below(120_000)),
            false => Duration::from_millis(50 + numbers.below(750)),
        };
        let lines = Running::start(&volume.0, seed, round).kill(after, !while_opening);
        let count = model.hear(&lines);
        total += count;
        let without_index = numbers.below(5) == 0;
        // Now and then the next child is the first to see what is left.
        let is_verified = numbers.below(4) > 0 || round + 1 == rounds;
        let found = match is_verified {
            true => {
                if without_index {
                    volume.remove_index();
                }
                model.verify(&volume.0).await
            }
            false => "not looked at".into(),
        };
        println!(
            "seed {seed} round {round}: killed {} after {after:?}, {count} acknowledged; {found}",
            if while_opening { "while opening" } else { "while writing" }
        );
    }
    assert!(total as u64 > 20 * rounds, "only {total} writes were acknowledged");
    check_what_is_left(&volume.0).await;
    let again = model.verify(&volume.0).await;
    println!("{total} acknowledged in all; {again}");
}

/// Nothing is left of writes that were cut short.
async fn check_what_is_left(root: &Path) {
    let store = open(root).await;
    store.compact().await.unwrap();
    let is_large = |it: &&ListEntry| it.kind == Kind::Object && it.size_bytes > 128 * 1024;
    let large = list(&store).await.values().filter(is_large).count();
    assert_eq!(payload_files(root), large, "payload files and objects that have one");
    let reads = (0..WRITERS * NAMES_PER_WRITER).map(|number| {
        let store = store.clone();
        async move {
            let stat = store.stat(&[name(&key(number))]).await.remove(0).unwrap();
            check_content(&store, number, stat.as_ref()).await;
        }
    });
    join_all(reads).await;
    store.close().await;
}
