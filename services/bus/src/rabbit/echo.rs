//! Whether messages come back: pure, the time is passed in.

use std::collections::VecDeque;
use std::time::Duration;

/// How the correlation id of an echo begins; the number follows.
const PREFIX: &str = "holdfast.echo.";

/// The echoes of one session.
#[derive(Debug)]
pub(super) struct Echo {
    interval: Duration,
    timeout: Duration,
    next_number: u64,
    last_sent: Option<Duration>,
    /// Number and time of those that are not back. Bounded by the time after
    /// which a silent session is given up, and not grown while publishes are
    /// blocked.
    outstanding: VecDeque<(u64, Duration)>,
    /// Whether any has come back.
    proven: bool,
    last_heard: Duration,
}

impl Echo {
    pub(super) fn new(interval: Duration, timeout: Duration, now: Duration) -> Self {
        Self {
            interval,
            timeout,
            next_number: 0,
            last_sent: None,
            outstanding: VecDeque::new(),
            proven: false,
            last_heard: now,
        }
    }

    /// Whether it is time for the next one.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.last_sent.is_none_or(|sent| now.saturating_sub(sent) >= self.interval)
    }

    /// One is sent now; returns its correlation id.
    pub(super) fn apply_sent(&mut self, now: Duration) -> String {
        let number = self.next_number;
        self.next_number += 1;
        self.last_sent = Some(now);
        self.outstanding.push_back((number, now));
        format!("{PREFIX}{number}")
    }

    /// The number of an echo, if the correlation id is one of an echo.
    pub(super) fn number(correlation_id: Option<&str>) -> Option<u64> {
        correlation_id?.strip_prefix(PREFIX)?.parse().ok()
    }

    /// One came back, and with it every earlier one. A number that was not sent
    /// proves nothing.
    pub(super) fn apply_heard(&mut self, number: u64, now: Duration) {
        if number >= self.next_number {
            return;
        }
        self.proven = true;
        self.last_heard = now;
        self.outstanding.retain(|(sent, _)| *sent > number);
    }

    /// Whether at least one came back, and none is overdue.
    pub(super) fn is_heard(&self, now: Duration) -> bool {
        self.proven && !self.is_overdue(now)
    }

    /// Whether one should have been back by now.
    pub(super) fn is_overdue(&self, now: Duration) -> bool {
        self.outstanding.front().is_some_and(|(_, sent)| now >= *sent + self.timeout)
    }

    /// For how long nothing has come back.
    pub(super) fn silence(&self, now: Duration) -> Duration {
        now.saturating_sub(self.last_heard)
    }

    /// How long until something changes by itself. Never zero: a caller that
    /// cannot send the echo that is due must not spin.
    pub(super) fn wait(&self, now: Duration) -> Duration {
        let next = self.last_sent.map_or(now, |sent| sent + self.interval);
        let overdue = self.outstanding.front().map(|(_, sent)| *sent + self.timeout);
        let moments = [Some(next), overdue].into_iter().flatten();
        let soonest = moments.filter(|moment| *moment > now).min();
        let wait = soonest.map_or(self.interval, |moment| moment - now);
        wait.max(Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn echoes_that_come_back_prove_the_way() {
        let mut echo = Echo::new(SECOND, 2 * SECOND, SECOND);
        assert!(echo.is_due(SECOND) && !echo.is_heard(SECOND));
        let id = echo.apply_sent(SECOND);
        assert!(!echo.is_due(SECOND) && !echo.is_heard(SECOND));
        let number = Echo::number(Some(&id)).expect("an echo");
        echo.apply_heard(number, SECOND);
        assert!(echo.is_heard(SECOND));
        assert_eq!(echo.wait(SECOND), SECOND);
        assert!(echo.is_due(2 * SECOND));
    }

    #[test]
    fn one_that_stays_away_makes_silence_and_one_that_returns_ends_it() {
        let mut echo = Echo::new(SECOND, 2 * SECOND, Duration::ZERO);
        echo.apply_sent(Duration::ZERO);
        echo.apply_heard(0, Duration::ZERO);
        echo.apply_sent(SECOND);
        echo.apply_sent(2 * SECOND);
        assert!(echo.is_heard(3 * SECOND - Duration::from_millis(1)));
        assert!(echo.is_overdue(3 * SECOND) && !echo.is_heard(3 * SECOND));
        assert_eq!(echo.silence(3 * SECOND), 3 * SECOND);
        echo.apply_heard(2, 4 * SECOND);
        assert!(echo.is_heard(4 * SECOND));
        assert_eq!(echo.silence(4 * SECOND), Duration::ZERO);
    }

    #[test]
    fn forged_echoes_prove_nothing() {
        let mut echo = Echo::new(SECOND, SECOND, Duration::ZERO);
        echo.apply_sent(Duration::ZERO);
        echo.apply_heard(u64::MAX, Duration::ZERO);
        assert!(!echo.is_heard(Duration::ZERO));
        for id in [None, Some(""), Some("7"), Some("holdfast.echo."), Some("holdfast.echo.x")] {
            assert_eq!(Echo::number(id), None);
        }
    }
}
