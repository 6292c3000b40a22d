//! Many runs, on as many threads as there are.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::run::{Report, run};

/// Runs seeds on so many threads; `tell` hears of each that has ended, in
/// whichever order. Gives those that failed.
pub fn run_many(seeds: &[u64], threads: usize, tell: impl Fn(&Report) + Sync) -> Vec<Report> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let work = || {
        loop {
            let place = next.fetch_add(1, Ordering::SeqCst);
            let Some(seed) = seeds.get(place) else { return };
            let report = run(*seed, false);
            tell(&report);
            if !report.violations.is_empty() {
                failed.lock().unwrap_or_else(PoisonError::into_inner).push(report);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}
