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

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;
    use holdfast_core::name::Key;

    use super::*;

    fn name(key: &str) -> ObjectName {
        ObjectName::seed(Key::new(key).expect("a short name"))
    }

    #[tokio::test]
    async fn one_name_has_one_turn_at_a_time_and_first_come_is_first_served() {
        let turns = Turns::new();
        let name = name("a");
        let first = turns.take(&name).await;
        let (mut second, mut third) = (pin!(turns.take(&name)), pin!(turns.take(&name)));
        assert!(poll!(&mut second).is_pending());
        assert!(poll!(&mut third).is_pending());
        drop(first);
        assert!(poll!(&mut third).is_pending(), "it came last");
        let guard = second.await;
        assert!(guard.is_some() && poll!(&mut third).is_pending());
        drop(guard);
        assert!(third.await.is_some());
    }

    #[tokio::test]
    async fn who_stops_waiting_holds_nobody_up() {
        let turns = Turns::new();
        let name = name("a");
        let first = turns.take(&name).await;
        {
            let mut gone = pin!(turns.take(&name));
            assert!(poll!(&mut gone).is_pending());
        }
        drop(first);
        assert!(turns.take(&name).await.is_some());
    }

    #[tokio::test]
    async fn names_with_places_of_their_own_do_not_wait() {
        let turns = Turns::new();
        let place = |name: &ObjectName| name_hash(name) % PLACES as u64;
        let one = name("a");
        let other = (0..).map(|number: u32| name(&number.to_string()));
        let other = other.into_iter().find(|other| place(other) != place(&one)).expect("some");
        let _first = turns.take(&one).await;
        assert!(turns.take(&other).await.is_some());
    }
}
