//! What came of a run.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::clients::Load;
use super::faults::{Kind, Over};
use crate::history::{self, Outcome};

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// Keys that were used.
    pub keys: usize,
    /// Operations that were answered.
    pub answered: usize,
    /// Writes that may or may not have happened.
    pub uncertain: usize,
    /// Operations that were refused or not answered.
    pub unavailable: u64,
    /// Of each kind of fault: how many, and the longest time that a client was
    /// without an answer meanwhile.
    pub faults: BTreeMap<Kind, (usize, Duration)>,
    /// Everything that must not be.
    pub violations: Vec<String>,
}

impl Report {
    pub(super) fn new(load: &Load, over: Vec<Over>, whole: Result<(), String>) -> Self {
        let histories = load.histories();
        let mut violations = load.wrong_bytes();
        violations.extend(whole.err().map(|missing| format!("not whole in time: {missing}")));
        for (key, operations) in &histories {
            if let Err(error) = history::check(operations) {
                violations.push(format!("{key}: {error}"));
            }
        }
        let operations = || histories.values().flatten();
        let uncertain = operations().filter(|one| one.outcome == Outcome::Maybe).count();
        Self {
            keys: histories.len(),
            answered: operations().count() - uncertain,
            uncertain,
            unavailable: load.unavailable.load(Ordering::SeqCst),
            faults: longest_waits(&load.successes(), &over),
            violations,
        }
    }
}

fn longest_waits(
    successes: &[(usize, Duration)],
    over: &[Over],
) -> BTreeMap<Kind, (usize, Duration)> {
    let mut by_client: BTreeMap<usize, Vec<Duration>> = BTreeMap::new();
    for (client, at) in successes {
        by_client.entry(*client).or_default().push(*at);
    }
    let mut faults = BTreeMap::new();
    for fault in over {
        let (count, longest) = faults.entry(fault.kind).or_insert((0, Duration::ZERO));
        *count += 1;
        for times in by_client.values_mut() {
            times.sort_unstable();
            for pair in times.windows(2) {
                let [from, to] = pair else { continue };
                if *to > fault.start && *from < fault.end {
                    *longest = (*longest).max(*to - *from);
                }
            }
        }
    }
    faults
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys, answered, uncertain, unavailable, .. } = self;
        writeln!(f, "{answered} operations on {keys} keys were answered")?;
        writeln!(
            f,
            "{uncertain} writes are uncertain, {unavailable} operations were not possible"
        )?;
        for (kind, (count, longest)) in &self.faults {
            writeln!(
                f,
                "{count:>4} x {:<12} a client was without an answer for at most {:.2} s",
                format!("{kind:?}"),
                longest.as_secs_f64()
            )?;
        }
        writeln!(f, "{} violations", self.violations.len())?;
        self.violations.iter().try_for_each(|violation| writeln!(f, "{violation}"))
    }
}
