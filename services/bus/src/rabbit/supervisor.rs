//! One session after another, for as long as the bus is there.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use super::session::Lost;
use super::{Shared, setup};
use crate::inbox::Postbox;
use crate::{BusHealth, Topic};

/// A long outage is logged this often.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Runs until the bus is closed or dropped.
pub(super) async fn run(shared: Arc<Shared>, postbox: Postbox, topics: Vec<Topic>) {
    let mut stop = shared.stop.subscribe();
    let mut outage = Outage::default();
    let mut session_number = 0;
    while !*stop.borrow() {
        let opened = tokio::select! {
            biased;
            // The sender lives in `shared`: this cannot fail.
            _ = stop.wait_for(|stop| *stop) => break,
            opened = setup::open(&shared, &topics) => opened,
        };
        match opened {
            Ok(session) => {
                session_number += 1;
                shared.metrics.session(session_number);
                match session.run(&shared, &postbox, session_number).await {
                    (Lost::Stopped, _) => break,
                    (lost, proven) => outage.apply_lost(&shared, session_number, &lost, proven),
                }
            }
            Err(error) => outage.apply_failed(&shared, &error),
        }
        let wait = shared.runtime.jittered(outage.wait(&shared));
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            () = shared.runtime.sleep(wait) => (),
        }
    }
    shared.set_health(BusHealth::Disconnected, None);
    // The queues of the inbox end before the caller of `close` goes on.
    drop(postbox);
    shared.ended.send_replace(true);
}

/// Attempts that failed in a row.
#[derive(Debug, Default)]
struct Outage {
    attempts: u32,
    last_logged: Option<Duration>,
}

impl Outage {
    /// A session that worked ends the outage; one that never did is one more
    /// failure, or it would be tried again without a pause.
    fn apply_lost(&mut self, shared: &Shared, session: u64, lost: &Lost, proven: bool) {
        if proven {
            *self = Self::default();
            tracing::warn!(session, cause = %lost, "lost the broker");
            self.attempts = 1;
        } else {
            self.apply_failed(shared, lost);
        }
    }

    fn apply_failed(&mut self, shared: &Shared, cause: &dyn Display) {
        self.attempts = self.attempts.saturating_add(1);
        let now = shared.runtime.now();
        if self.last_logged.is_some_and(|logged| now.saturating_sub(logged) < LOG_INTERVAL) {
            return;
        }
        self.last_logged = Some(now);
        let address = shared.config.address();
        tracing::warn!(%address, attempts = self.attempts, %cause, "the broker is away");
    }

    /// Twice as long after each failure.
    fn wait(&self, shared: &Shared) -> Duration {
        let doublings = self.attempts.saturating_sub(1).min(16);
        let wait = shared.config.retry_min.saturating_mul(1 << doublings);
        wait.min(shared.config.retry_max)
    }
}
