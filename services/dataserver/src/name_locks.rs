//! One lock for each name that is being worked on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_core::name::ObjectName;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

type Lock = Arc<RwLock<()>>;

/// Locks by name. Writes share one: the store decides between them. What must
/// not overlap with any write takes it alone. A name that nobody works on takes
/// no memory. Clones share the locks.
#[derive(Debug, Clone, Default)]
pub(crate) struct NameLocks {
    locks: Arc<Mutex<BTreeMap<ObjectName, Lock>>>,
}

/// A turn for one name, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    // Dropped first, in this order: the ticket looks whether it was the last.
    _guard: Guard,
    _ticket: Ticket,
}

#[derive(Debug)]
#[allow(dead_code, reason = "held for their drop alone")]
enum Guard {
    Shared(OwnedRwLockReadGuard<()>),
    Alone(OwnedRwLockWriteGuard<()>),
}

/// Keeps the lock of a name in the map, also while its turn has not come.
#[derive(Debug)]
struct Ticket {
    locks: NameLocks,
    name: ObjectName,
}

impl NameLocks {
    /// Waits while somebody is alone with `name`. Cancel safe.
    pub(crate) async fn share(&self, name: &ObjectName) -> Turn {
        let (ticket, lock) = self.ticket(name);
        let guard = Guard::Shared(lock.read_owned().await);
        Turn { _guard: guard, _ticket: ticket }
    }

    /// Waits until nobody else works on `name`. Who comes later waits behind
    /// this. Cancel safe.
    pub(crate) async fn alone(&self, name: &ObjectName) -> Turn {
        let (ticket, lock) = self.ticket(name);
        let guard = Guard::Alone(lock.write_owned().await);
        Turn { _guard: guard, _ticket: ticket }
    }

    fn ticket(&self, name: &ObjectName) -> (Ticket, Lock) {
        let lock = Arc::clone(self.map().entry(name.clone()).or_default());
        (Ticket { locks: self.clone(), name: name.clone() }, lock)
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<ObjectName, Lock>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut map = self.locks.map();
        // New clones are made under the mutex only: one that nobody else has,
        // nobody else can get.
        if map.get(&self.name).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            map.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_core::name::Key;
    use holdfast_runtime::Runtime;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    fn name(key: &str) -> ObjectName {
        ObjectName::seed(Key::new(key).expect("short"))
    }

    #[tokio::test]
    async fn writes_share_and_who_is_alone_is_alone() {
        let (runtime, locks) = (Runtime::real(), NameLocks::default());
        let (a, b) = (name("a"), name("b"));
        let (first, second) = (locks.share(&a).await, locks.share(&a).await);
        assert!(runtime.timeout(SOON, locks.alone(&a)).await.is_err());
        drop(locks.alone(&b).await);
        drop(first);
        assert!(runtime.timeout(SOON, locks.alone(&a)).await.is_err());
        drop(second);
        let alone = locks.alone(&a).await;
        assert!(runtime.timeout(SOON, locks.share(&a)).await.is_err());
        assert!(runtime.timeout(SOON, locks.alone(&a)).await.is_err());
        assert_eq!(locks.map().len(), 1);
        drop(alone);
        assert!(locks.map().is_empty(), "nobody works on anything");
    }

    #[tokio::test]
    async fn who_waits_is_not_locked_out_by_whoever_leaves() {
        let (runtime, locks) = (Runtime::real(), NameLocks::default());
        let a = name("a");
        let alone = locks.alone(&a).await;
        let (waiter, waiting) = (locks.clone(), a.clone());
        let (told, got) = tokio::sync::oneshot::channel();
        let _task = runtime.spawn("waiter", async move {
            let turn = waiter.alone(&waiting).await;
            let _ = told.send(turn);
        });
        // One that gave up must not take the lock of the others away.
        assert!(runtime.timeout(SOON, locks.share(&a)).await.is_err());
        drop(alone);
        let turn = got.await.expect("its turn has come");
        assert!(runtime.timeout(SOON, locks.share(&a)).await.is_err());
        drop(turn);
        assert!(locks.map().is_empty());
    }
}
