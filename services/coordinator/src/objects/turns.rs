//! Turns for names: of the requests of one process that want the same name, one
//! at a time.

use std::sync::Arc;

use holdfast_core::name::ObjectName;
use holdfast_core::placement::name_hash;
use tokio::sync::{Mutex, MutexGuard};

/// How many names can have their turn at once; two names may share a place.
const PLACES: usize = 256;

/// A fixed number of queues that names are spread over. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Vec<Mutex<()>>>);

impl Turns {
    pub(super) fn new() -> Self {
        Self(Arc::new((0..PLACES).map(|_| Mutex::new(())).collect()))
    }

    /// Waits for the turn of `name`, which lasts until the guard is dropped.
    /// First come, first served. Cancel safe.
    pub(super) async fn take(&self, name: &ObjectName) -> Option<MutexGuard<'_, ()>> {
        let place = usize::try_from(name_hash(name) % PLACES as u64).unwrap_or(0);
        match self.0.get(place) {
            Some(place) => Some(place.lock().await),
            None => None,
        }
    }
}
