//! What happens in a run, in order: its digest tells whether two runs were the
//! same.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use crate::executor::Executor;

/// Takes events. Clones are the same.
#[derive(Debug, Clone)]
pub struct Trace {
    executor: Executor,
    is_told: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    digest: u64,
    count: u64,
}

impl Trace {
    /// No events yet; each is also written to standard error if `is_told`.
    #[must_use]
    pub fn new(executor: &Executor, is_told: bool) -> Self {
        let state = State { digest: 0xcbf2_9ce4_8422_2325, count: 0 };
        Self { executor: executor.clone(), is_told, state: Arc::new(Mutex::new(state)) }
    }

    /// Adds an event.
    pub fn add(&self, event: &str) {
        let now = self.executor.now();
        let line = format!("{:>11.6} {event}\n", now.as_secs_f64());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for byte in line.bytes() {
            // FNV-1a.
            state.digest = (state.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        state.count += 1;
        drop(state);
        if self.is_told {
            // Whoever closed it does not want to know.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    /// The digest of all events until now.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).digest
    }
}
