//! Names that repair is to look at soon.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_core::name::ObjectName;
use tokio::sync::Notify;

use super::metrics::RepairMetrics;

/// Most hints that wait; what is too much is found by the next lap.
pub const MAX_HINTS: usize = 8_192;

/// A bounded queue of them. Clones share it.
#[derive(Debug, Clone)]
pub struct Hints {
    queue: Arc<Mutex<Queue>>,
    added: Arc<Notify>,
    metrics: RepairMetrics,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeSet<ObjectName>,
    order: VecDeque<ObjectName>,
}

impl Hints {
    /// Nothing waits.
    #[must_use]
    pub fn new(metrics: RepairMetrics) -> Self {
        Self { queue: Arc::default(), added: Arc::default(), metrics }
    }

    /// Takes note of names, as far as there is room.
    pub fn add(&self, names: impl IntoIterator<Item = ObjectName>) {
        let mut queue = self.queue();
        for name in names {
            if queue.waiting.contains(&name) {
                continue;
            }
            if queue.order.len() >= MAX_HINTS {
                self.metrics.hints_dropped.inc();
                continue;
            }
            queue.waiting.insert(name.clone());
            queue.order.push_back(name);
        }
        drop(queue);
        self.added.notify_one();
    }

    /// The oldest names, at most `limit`.
    #[must_use]
    pub fn take(&self, limit: usize) -> Vec<ObjectName> {
        let mut queue = self.queue();
        let limit = limit.min(queue.order.len());
        let taken: Vec<ObjectName> = queue.order.drain(..limit).collect();
        for name in &taken {
            queue.waiting.remove(name);
        }
        taken
    }

    /// How many wait.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.queue().order.len() as u64
    }

    /// Waits until there are some. Cancel safe; for one task.
    pub async fn wait(&self) {
        while self.count() == 0 {
            self.added.notified().await;
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_core::name::Key;
    use holdfast_telemetry::metrics::Metrics;

    use super::*;

    fn hint(number: usize) -> ObjectName {
        ObjectName::seed(Key::new(format!("k{number}")).expect("short"))
    }

    #[tokio::test]
    async fn hints_come_once_in_their_order_and_are_bounded() {
        let metrics = RepairMetrics::new(&Metrics::new("test").expect("new")).expect("new");
        let hints = Hints::new(metrics.clone());
        hints.add([hint(1), hint(2), hint(1)]);
        hints.wait().await;
        assert_eq!(hints.take(1), [hint(1)]);
        hints.add([hint(2), hint(1)]);
        assert_eq!(hints.take(9), [hint(2), hint(1)]);
        hints.add((0..MAX_HINTS + 5).map(hint));
        assert_eq!(metrics.hints_dropped.get(), 5);
        assert_eq!(hints.count(), MAX_HINTS as u64);
    }
}
