//! Keeps a fault that repeats from filling the log.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

/// Grants a few lines a second.
#[derive(Debug)]
pub(crate) struct LogBudget {
    per_second: u32,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    second: Option<u64>,
    granted: u32,
    suppressed: u64,
}

impl LogBudget {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second, window: Mutex::default() }
    }

    /// Whether a line may be written at `now`, and how many were held back
    /// since the last one.
    pub(crate) fn take(&self, now: Duration) -> Option<u64> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.second != Some(now.as_secs()) {
            window.second = Some(now.as_secs());
            window.granted = 0;
        }
        if window.granted >= self.per_second {
            window.suppressed += 1;
            return None;
        }
        window.granted += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_becomes_a_number() {
        let budget = LogBudget::new(2);
        let second = Duration::from_secs;
        let taken: Vec<_> = (0..5).map(|_| budget.take(second(9))).collect();
        assert_eq!(taken, [Some(0), Some(0), None, None, None]);
        assert_eq!(budget.take(second(10)), Some(3));
        assert_eq!(budget.take(second(10)), Some(0));
    }
}
