//! Copies that newer versions have superseded, and that wait to be forgotten.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_core::name::ObjectName;
use holdfast_core::version::Version;

/// Most copies that wait. What there is no room for is found again by a later
/// repair pass.
const MOST: usize = 65_536;

/// Which copies wait. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Superseded {
    waiting: Arc<Mutex<BTreeSet<(ObjectName, Version)>>>,
}

impl Superseded {
    /// Adds one; false when it waits already, or too many do.
    pub(crate) fn begin(&self, name: &ObjectName, version: Version) -> bool {
        let mut waiting = self.waiting();
        waiting.len() < MOST && waiting.insert((name.clone(), version))
    }

    /// It waits no longer.
    pub(crate) fn end(&self, name: &ObjectName, version: Version) {
        self.waiting().remove(&(name.clone(), version));
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeSet<(ObjectName, Version)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
