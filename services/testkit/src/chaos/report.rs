//! What came of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::clients::Load;
use super::faults::{Faults, Over};
use super::kind::Kind;
use super::verdict::{self, Wrong};
use super::whole::Found;
use super::{HEALING, bursts, waits};
use crate::history::{self, Outcome};

/// For how long an api may believe, after a disk has room again, that it has none.
const OLD_NEWS: Duration = Duration::from_secs(5);

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// Keys that were used; those of bursts do not count, nor do the operations on
    /// them.
    pub keys: usize,
    /// Operations that were answered.
    pub answered: usize,
    /// Names of which lists told something; those that can be compared are among
    /// the operations.
    pub listed: usize,
    /// Writes that may or may not have happened.
    pub uncertain: usize,
    /// Operations that were refused or not answered, those of bursts too.
    pub unavailable: u64,
    /// Of those, writes for which there was no room.
    pub no_room: usize,
    /// How often many clients created one name at the same time.
    pub bursts: u64,
    /// How often one of them was told that it did.
    pub won: usize,
    /// What there was of each kind of fault.
    pub faults: BTreeMap<Kind, Seen>,
    /// Faults that could not be made here, and why.
    pub left_out: Vec<(Kind, String)>,
    /// What was read back in the end, and how long it took until everything was
    /// there and had all its copies.
    found: Option<(Found, Duration)>,
    /// How long that took before each time that a disk was emptied.
    healings: Vec<Duration>,
    /// Copies that each object is to have.
    copies: usize,
    /// Reads that were wrong, by kind.
    pub wrong: Wrong,
    /// Reads that gave bytes that nobody wrote.
    pub wrong_bytes: usize,
    /// Everything that must not be, these reads included.
    pub violations: Vec<String>,
}

/// What there was of one kind of fault.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// How many.
    pub count: usize,
    /// The longest time that a client was without an answer meanwhile, whatever
    /// else was broken.
    pub longest: Duration,
    /// The same, of those times in which nothing else was broken.
    pub longest_alone: Duration,
}

/// How everything was read back, and how long it took.
pub(super) type ReadBack = (Result<Found, String>, Duration);

impl Report {
    pub(super) fn new(
        load: &Load,
        faults: Faults,
        left_out: Vec<(Kind, String)>,
        (whole, took): ReadBack,
        log: &str,
    ) -> Self {
        let histories = load.histories();
        let wrong_bytes = load.wrong_bytes();
        let mut violations = faults.violations;
        violations.extend(load.unexpected());
        violations.extend(wrong_bytes.iter().cloned());
        violations.extend(whole.as_ref().err().map(|missing| format!("in the end: {missing}")));
        let panics = log.lines().filter(|line| line.contains("panicked at"));
        violations.extend(panics.map(str::to_owned));
        let mut wrong = Wrong::default();
        for (key, operations) in &histories {
            wrong += verdict::judge(operations);
            if let Err(error) = history::check(operations) {
                violations.push(format!("{key}: {error}"));
            }
        }
        let (no_room, over) = (load.no_room(), faults.over);
        violations.extend(no_room.iter().filter(|one| !is_full(&over, **one)).map(
            |(start, end)| format!("{start:.1?} to {end:.1?}: no room, and no disk was full"),
        ));
        let of_bursts = || histories.iter().filter(|(key, _)| bursts::is_of_one(key));
        let won = of_bursts().filter(|(_, operations)| bursts::has_winner(operations)).count();
        let others = || histories.iter().filter(|(key, _)| !bursts::is_of_one(key));
        let operations = || others().flat_map(|(_, operations)| operations);
        let uncertain = operations().filter(|one| one.outcome == Outcome::Maybe).count();
        Self {
            keys: others().count(),
            answered: operations().count() - uncertain,
            listed: load.listed_count(),
            uncertain,
            unavailable: load.unavailable.load(Ordering::SeqCst),
            no_room: no_room.len(),
            bursts: load.bursts.load(Ordering::SeqCst),
            won,
            faults: waits::longest(&load.successes(), &over),
            left_out,
            found: whole.ok().map(|found| (found, took)),
            healings: faults.healings,
            copies: load.copies(),
            wrong,
            wrong_bytes: wrong_bytes.len(),
            violations,
        }
    }

    /// Kinds of faults that were neither made nor left out.
    #[must_use]
    pub fn missing(&self) -> BTreeSet<Kind> {
        let left_out = |kind: &Kind| self.left_out.iter().any(|(left_out, _)| left_out == kind);
        let missing = |kind: &Kind| !self.faults.contains_key(kind) && !left_out(kind);
        Kind::ALL.into_iter().filter(missing).collect()
    }
}

fn is_full(over: &[Over], (start, end): (Duration, Duration)) -> bool {
    let mut full = over.iter().filter(|fault| fault.kind == Kind::Fill);
    full.any(|fault| fault.start < end && start < fault.end + OLD_NEWS)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, reason) in &self.left_out {
            writeln!(f, "*** LEFT OUT: {kind:?}, since here is none of it: {reason}")?;
        }
        let Self { keys, answered, listed, uncertain, unavailable, no_room, .. } = self;
        writeln!(
            f,
            "{answered} operations on {keys} keys were answered, among them what lists said \
             ({listed} times)"
        )?;
        writeln!(
            f,
            "{uncertain} writes are uncertain, {unavailable} operations were not possible, \
             {no_room} of them for want of room"
        )?;
        writeln!(
            f,
            "{} bursts of {} creators of one name, {} with a winner",
            self.bursts,
            bursts::CREATORS,
            self.won
        )?;
        writeln!(
            f,
            "the longest that a client was without an answer, and if nothing else was broken:"
        )?;
        for (kind, Seen { count, longest, longest_alone }) in &self.faults {
            let (kind, longest) = (format!("{kind:?}"), longest.as_secs_f64());
            let alone = longest_alone.as_secs_f64();
            writeln!(f, "{count:>5} x {kind:<12} {longest:>6.2} s {alone:>6.2} s")?;
        }
        for kind in self.missing() {
            writeln!(f, "    0 x {kind:?}")?;
        }
        if let Some(longest) = self.healings.iter().max() {
            let count = self.healings.len();
            writeln!(
                f,
                "before a disk was emptied: {count} times at {} copies of everything, after at \
                 most {longest:.1?} of {HEALING:?}",
                self.copies
            )?;
        }
        if let Some((Found { objects, absent }, took)) = &self.found {
            writeln!(
                f,
                "in the end: {objects} objects read back through every api and at {} copies each, \
                 {absent} names without one, after {took:.1?} of {HEALING:?}",
                self.copies
            )?;
        }
        let Wrong { stale, resurrected, lost } = self.wrong;
        writeln!(
            f,
            "{lost} acknowledged objects lost, {stale} stale reads, {resurrected} deletes undone, \
             {} reads of wrong bytes",
            self.wrong_bytes
        )?;
        writeln!(f, "{} violations", self.violations.len())?;
        self.violations.iter().try_for_each(|violation| writeln!(f, "{violation}"))
    }
}
