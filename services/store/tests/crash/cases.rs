//! All the ways in which a recording can end, and what came of each.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use holdfast_store::Store;
use holdfast_store::log_engine::index::IndexBatch;

use crate::check::{self, Verdict};
use crate::common::index::Numbers;
use crate::common::power::{Choice, PowerDisk};
use crate::engine::{IndexState, RecordingEngine};
use crate::machine;
use crate::model::Expected;
use crate::session::Recording;

/// How much is tried.
#[derive(Debug, Clone)]
pub struct Plan {
    pub title: &'static str,
    /// How many subsets of each cut.
    pub subsets: u64,
    pub indexes: Indexes,
    /// At one of so many cuts all possible states are tried.
    pub all_indexes_every: usize,
    /// Of so many cases one is also cut while it recovers; 0 means none.
    pub nested_every: usize,
    /// Cuts of a process that was killed before, with what it had not synced.
    pub kills: bool,
    /// Failures after which nobody looks for more.
    pub enough_failures: usize,
    /// Only the case of this number.
    pub only: Option<String>,
}

/// Which states of the index are tried with a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Indexes {
    /// The newest and an older one, or all that are possible when nothing
    /// unsynced is kept; and none, and a torn one.
    Possible,
    /// The newest alone.
    Newest,
    /// One that is ahead of the log.
    Leading,
}

/// What was tried and what failed.
#[derive(Debug, Default)]
pub struct Tally {
    pub cuts: AtomicUsize,
    pub opens: AtomicUsize,
    pub failures: Mutex<Vec<String>>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cuts, opens) = (&self.cuts, &self.opens);
        write!(f, "{} cuts, {} opens", cuts.load(Ordering::Relaxed), opens.load(Ordering::Relaxed))
    }
}

/// How the power goes.
#[derive(Debug, Clone, Copy)]
struct Cut {
    at: usize,
    choice: Choice,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.at)?;
        match self.choice {
            Choice::NothingUnsynced => write!(f, "nothing"),
            Choice::Everything => write!(f, "everything"),
            Choice::AllBut(lost) => write!(f, "allbut{lost}"),
            Choice::Subset(seed) => write!(f, "subset{seed}"),
        }
    }
}

impl fmt::Display for IndexState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(f, "missing"),
            Self::Torn => write!(f, "torn"),
            Self::After(events) => write!(f, "after{events}"),
        }
    }
}

/// Goes through the cases of one recording.
pub struct Enumeration<'a> {
    recording: &'a Recording,
    plan: &'a Plan,
    contents: Vec<Option<IndexBatch>>,
    tally: Tally,
}

impl<'a> Enumeration<'a> {
    /// Tries everything that the plan says.
    pub fn run(recording: &'a Recording, plan: &'a Plan) -> Tally {
        let contents = recording.index.contents();
        let enumeration = Self { recording, plan, contents, tally: Tally::default() };
        let next = AtomicUsize::new(0);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| enumeration.work(&next));
            }
        });
        enumeration.tally
    }

    fn work(&self, next: &AtomicUsize) {
        let executor = machine::executor();
        let count = self.recording.disk.operation_count();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at > count || self.has_enough() {
                return;
            }
            self.tally.cuts.fetch_add(1, Ordering::Relaxed);
            self.cut(&executor, at);
        }
    }

    fn has_enough(&self) -> bool {
        self.tally.failures.lock().unwrap().len() >= self.plan.enough_failures
    }

    fn cut(&self, executor: &tokio::runtime::Runtime, at: usize) {
        let Recording { disk, model, index } = self.recording;
        let expected = model.expected(at, &disk.marks_before(at));
        for choice in choices(disk.pending(at), self.plan.subsets) {
            let cut = Cut { at, choice };
            for index in self.indexes(cut) {
                let label = format!("{cut}:{index}");
                self.case(executor, &label, &expected, || (disk.cut(at, choice), index));
            }
        }
        if self.plan.kills && disk.pending(at) > 0 {
            let newest = IndexState::After(index.events_before(at));
            let label = format!("{at}:killed:{newest}");
            self.case(executor, &label, &expected, || (disk.killed(at), newest));
        }
    }

    fn indexes(&self, cut: Cut) -> Vec<IndexState> {
        let history = &self.recording.index;
        let possible = history.possible(cut.at);
        let newest = *possible.end();
        match self.plan.indexes {
            Indexes::Newest => vec![IndexState::After(newest)],
            Indexes::Leading => {
                let ahead = (newest + 1).min(history.len());
                if ahead > newest { vec![IndexState::After(ahead)] } else { Vec::new() }
            }
            Indexes::Possible => {
                let is_bare = cut.choice == Choice::NothingUnsynced;
                let is_rebuilt = match cut.choice {
                    Choice::NothingUnsynced | Choice::Everything => true,
                    Choice::AllBut(_) => false,
                    Choice::Subset(seed) => seed.is_multiple_of(4),
                };
                let mut states: Vec<_> =
                    is_rebuilt.then_some(IndexState::Missing).into_iter().collect();
                states.extend(is_bare.then_some(IndexState::Torn));
                let takes_all = is_bare && cut.at.is_multiple_of(self.plan.all_indexes_every);
                let one = between(&possible, cut);
                let is_chosen = |events: &usize| takes_all || [one, newest].contains(events);
                states.extend(possible.filter(is_chosen).map(IndexState::After));
                states
            }
        }
    }

    fn case(
        &self,
        executor: &tokio::runtime::Runtime,
        label: &str,
        expected: &Expected,
        make: impl FnOnce() -> (PowerDisk, IndexState),
    ) {
        let number = scattered(label);
        let only = self.plan.only.as_deref();
        if only.is_some_and(|only| only != label && !only.starts_with(&format!("{label}/"))) {
            return;
        }
        let (disk, state) = make();
        let content = match state {
            IndexState::After(events) => self.contents[events].as_ref(),
            IndexState::Missing | IndexState::Torn => None,
        };
        let engine = RecordingEngine::found(&disk, content, state == IndexState::Torn);
        let recovered =
            self.judge(label, || executor.block_on(recover(&disk, &engine, expected, number)));
        let Some(recovered) = recovered else { return };
        let is_picked = self.plan.nested_every > 0 && number.is_multiple_of(self.plan.nested_every);
        let operations = match is_picked || only.is_some() {
            true => recovered.settled,
            false if label.contains("killed") => recovered.opened,
            false => return,
        };
        self.nested(executor, label, expected, Recovery { disk, engine, operations });
    }

    /// Cuts the power again while the volume recovers.
    fn nested(
        &self,
        executor: &tokio::runtime::Runtime,
        label: &str,
        expected: &Expected,
        recovery: Recovery,
    ) {
        let Recovery { disk, engine, operations } = recovery;
        let history = engine.history();
        let contents = history.contents();
        for at in 0..=operations {
            self.tally.cuts.fetch_add(1, Ordering::Relaxed);
            let (possible, pending) = (history.possible(at), disk.pending(at));
            let oldest = (possible.start() < possible.end()).then_some(*possible.start());
            for choice in nested_choices(pending, at as u64) {
                for events in oldest.into_iter().chain([*possible.end()]) {
                    let cut = Cut { at, choice };
                    let label = format!("{label}/{cut}:after{events}");
                    if self.plan.only.as_ref().is_some_and(|only| *only != label) {
                        continue;
                    }
                    let disk = disk.cut(at, choice);
                    let engine = RecordingEngine::found(&disk, contents[events].as_ref(), false);
                    self.judge(&label, || {
                        executor.block_on(recover(&disk, &engine, expected, scattered(&label)))
                    });
                }
            }
        }
    }

    fn judge<T>(&self, label: &str, work: impl FnOnce() -> Verdict<T>) -> Option<T> {
        self.tally.opens.fetch_add(1, Ordering::Relaxed);
        let verdict = catch_unwind(AssertUnwindSafe(work));
        let verdict = verdict.unwrap_or_else(|_| Err("it panicked".into()));
        if let Err(why) = &verdict {
            self.tally.failures.lock().unwrap().push(format!("{}/{label}: {why}", self.plan.title));
        }
        verdict.ok()
    }
}

/// A recovery that can be cut.
struct Recovery {
    disk: PowerDisk,
    engine: RecordingEngine,
    operations: usize,
}

/// How many operations there were of a recovery.
struct Recovered {
    /// Until the volume was open.
    opened: usize,
    /// Until everything was removed that could be.
    settled: usize,
}

/// Checks all that is to be checked after a cut.
async fn recover(
    disk: &PowerDisk,
    engine: &RecordingEngine,
    expected: &Expected,
    number: usize,
) -> Verdict<Recovered> {
    let store = check::open(disk, engine, 2).await?;
    let opened = disk.operation_count();
    let found = check::settle(&store, disk, expected).await?;
    let settled = disk.operation_count();
    // New writes, and opening it once more, do not depend on how it was cut.
    match number % 4 {
        0 => check::check_writable(store, disk, engine, found, false).await?,
        1 => check::check_writable(store, disk, engine, found, true).await?,
        _ => store.close().await,
    }
    Ok(Recovered { opened, settled })
}

fn nested_choices(pending: usize, seed: u64) -> Vec<Choice> {
    let more = [Choice::Everything, Choice::Subset(seed)];
    let more = more.into_iter().filter(|_| pending > 0);
    std::iter::once(Choice::NothingUnsynced).chain(more).collect()
}

fn choices(pending: usize, subsets: u64) -> Vec<Choice> {
    let mut choices = vec![Choice::NothingUnsynced];
    if pending > 0 {
        choices.push(Choice::Everything);
        choices.extend((0..pending).map(Choice::AllBut));
        choices.extend((0..subsets).map(Choice::Subset));
    }
    choices
}

/// The same for a case whenever it runs, so that it can be run alone.
fn scattered(label: &str) -> usize {
    let mix = |sum: u64, byte: u8| Numbers(sum ^ u64::from(byte)).below(u64::MAX);
    usize::try_from(label.bytes().fold(0, mix) >> 32).expect("half of it")
}

/// One of the states, another one for each cut.
fn between(possible: &std::ops::RangeInclusive<usize>, cut: Cut) -> usize {
    let seed = match cut.choice {
        Choice::Subset(seed) => seed,
        Choice::AllBut(lost) => 32 + lost as u64,
        Choice::NothingUnsynced | Choice::Everything => 0,
    };
    let count = (possible.end() - possible.start() + 1) as u64;
    let picked = Numbers(cut.at as u64 * 64 + seed).below(count);
    possible.start() + usize::try_from(picked).expect("it is one of them")
}
