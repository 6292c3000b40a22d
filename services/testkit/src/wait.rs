//! Waiting for what will happen: by looking again and again until a deadline,
//! never by sleeping for as long as it should take.

use std::time::{Duration, Instant};

/// Long enough for what takes a second on an idle machine.
pub const LIMIT: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `look` gives a value.
///
/// # Panics
/// When it gives none within [`LIMIT`]; `what` says what was waited for.
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(LIMIT, what, look).await
}

/// [`until`] with a limit of its own.
///
/// # Panics
/// When `look` gives no value within `limit`.
pub async fn until_within<T>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until `holds`.
///
/// # Panics
/// When it does not within [`LIMIT`].
pub async fn until_true(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    until(what, async || holds().await.then_some(())).await;
}

/// Checks that `holds` stays true for `time`.
///
/// # Panics
/// When it does not.
pub async fn while_true(time: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        assert!(holds().await, "no longer true: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Runs `work`, which must end within [`LIMIT`].
///
/// # Panics
/// When it does not.
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, work).await {
        Ok(value) => value,
        Err(_) => panic!("waited {LIMIT:?} in vain: {what}"),
    }
}
