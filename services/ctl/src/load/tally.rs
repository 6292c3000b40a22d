//! What was seen.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::output::complain;

/// Failures that are shown one by one; all are counted.
const SHOWN: u64 = 50;

/// Kinds of failure that are counted one by one: they come from the network.
const KINDS: usize = 100;

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// To store.
    Put,
    /// To read what is there.
    Get,
    /// To delete.
    Delete,
    /// To find what was deleted gone.
    GetDeleted,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "PUT",
            Self::Get => "GET",
            Self::Delete => "DELETE",
            Self::GetDeleted => "GET after DELETE",
        })
    }
}

/// Requests of one kind.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Requests {
    /// How many were sent.
    pub requests: u64,
    /// How many of them failed.
    pub failed: u64,
    /// The longest that one took, failed or not.
    pub longest_millis: u64,
}

/// Counts for all clients.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

#[derive(Debug, Clone, Default)]
struct Counts {
    operations: BTreeMap<Operation, Requests>,
    allowed: BTreeMap<String, u64>,
    failures: BTreeMap<String, u64>,
    shown: u64,
}

impl Tally {
    pub(super) fn succeeded(&self, operation: Operation, took: Duration) {
        self.count(operation, took, |_| {});
    }

    /// Not as it should be, but expected.
    pub(super) fn allowed(&self, operation: Operation, took: Duration, kind: String) {
        self.count(operation, took, |counts| *counts.allowed.entry(kind).or_default() += 1);
    }

    pub(super) fn failed(&self, operation: Operation, took: Duration, kind: String, line: &str) {
        self.count(operation, took, |counts| {
            let is_known = counts.failures.contains_key(&kind);
            let full = counts.failures.len() >= KINDS && !is_known;
            let kind = if full { "other".to_owned() } else { kind };
            *counts.failures.entry(kind).or_default() += 1;
            counts.operations.entry(operation).or_default().failed += 1;
            counts.shown += 1;
            if counts.shown <= SHOWN {
                complain(format_args!("{operation} {line}"));
            }
            if counts.shown == SHOWN {
                complain(format_args!("further failures are only counted"));
            }
        });
    }

    fn count(&self, operation: Operation, took: Duration, more: impl FnOnce(&mut Counts)) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = counts.operations.entry(operation).or_default();
        requests.requests += 1;
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        requests.longest_millis = requests.longest_millis.max(millis);
        more(&mut counts);
    }

    pub(super) fn summary(&self, took: Duration) -> Summary {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sum = |of: fn(&Requests) -> u64| counts.operations.values().map(of).sum();
        Summary {
            seconds: took.as_secs_f64(),
            requests: sum(|requests| requests.requests),
            failed: sum(|requests| requests.failed),
            operations: counts.operations.clone(),
            allowed: counts.allowed,
            failures: counts.failures,
        }
    }
}

/// What a load has come to.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// How long it took.
    pub seconds: f64,
    /// Requests sent.
    pub requests: u64,
    /// Requests that were not answered as they should be.
    pub failed: u64,
    /// The same, one by one.
    pub operations: BTreeMap<Operation, Requests>,
    /// How often what was allowed.
    pub allowed: BTreeMap<String, u64>,
    /// How often what went wrong.
    pub failures: BTreeMap<String, u64>,
}

impl Summary {
    /// Whether there were requests, and none failed.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.requests > 0 && self.failed == 0
    }

    /// One line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, requests, failed, operations, allowed, failures } = self;
        write!(f, "{requests} requests in {seconds:.1} s, {failed} failed")?;
        for (operation, Requests { requests, failed, longest_millis }) in operations {
            write!(f, "\n  {operation}: {requests}, {failed} failed, at most {longest_millis} ms")?;
        }
        for (kind, count) in allowed {
            write!(f, "\n  {count} times, allowed: {kind}")?;
        }
        for (kind, count) in failures {
            write!(f, "\n  {count} times: {kind}")?;
        }
        Ok(())
    }
}
