//! Whether a payload that is passed on moves, and whose fault it is if not.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use holdfast_runtime::Runtime;

use super::LONG_STALL;

/// What must move within [`LONG_STALL`], or the rest if that is less: 64 KiB/s.
const LEAST_BYTES: u64 = 384 * 1024;

/// For how many more stalls the answer is waited for once all of it has passed: a good
/// part may still be on its way.
const MOST_ENDS: usize = 2;

/// How far a payload has come. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    bytes: u64,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    passed_bytes: AtomicU64,
    awaits_source: AtomicBool,
    is_broken: AtomicBool,
}

impl Progress {
    /// Of a payload of so many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        Self { bytes, shared: Arc::default() }
    }

    /// The same bytes, counted on their way.
    pub(super) fn watch<S>(
        &self,
        mut body: S,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + use<S>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Unpin + 'static,
    {
        let shared = Arc::clone(&self.shared);
        stream::poll_fn(move |context| {
            let polled = body.poll_next_unpin(context);
            shared.awaits_source.store(polled.is_pending(), Ordering::Relaxed);
            if let Poll::Ready(Some(chunk)) = &polled {
                match chunk {
                    Ok(chunk) => {
                        shared.passed_bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                    }
                    Err(_) => shared.is_broken.store(true, Ordering::Relaxed),
                }
            }
            polled
        })
    }

    /// Returns when too little moves.
    pub(super) async fn stalled(&self, runtime: &Runtime) {
        let (mut seen, mut ends) = (0, 0..MOST_ENDS);
        loop {
            runtime.sleep(LONG_STALL).await;
            match self.passed_since(seen) {
                Some(passed) => seen = passed,
                None if seen == self.bytes && ends.next().is_some() => {}
                None => return,
            }
        }
    }

    /// How far it is, if that is far enough from where it was.
    fn passed_since(&self, seen: u64) -> Option<u64> {
        let passed = self.shared.passed_bytes.load(Ordering::Relaxed);
        let least = LEAST_BYTES.min(self.bytes.saturating_sub(seen)).max(1);
        (passed.saturating_sub(seen) >= least).then_some(passed)
    }

    /// Whether the next bytes are waited for, and not for somebody to take them.
    pub(super) fn awaits_source(&self) -> bool {
        self.shared.awaits_source.load(Ordering::Relaxed)
    }

    /// Whether the bytes ended with an error.
    pub(super) fn is_broken(&self) -> bool {
        self.shared.is_broken.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
