//! How old a message is, judged by whoever receives it.
//!
//! Every answer of a member carries a [`Stamp`]: which run of it answered, and
//! when on its own clock. Whoever acts on that answer gives the stamp back, and
//! the member judges its age on the very clock that made it. So neither a paused
//! peer, nor a slow network, nor a clock that is wrong can pass an old message
//! off as a new one.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::membership::Moment;
use crate::node::{Generation, ParseError};

/// When one run of one member said something, on its own clock, which counts
/// the time for which it slept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Which run.
    pub generation: Generation,
    /// When, in milliseconds of its own clock.
    pub mono_millis: u64,
}

/// The stamp that was given back is not good any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StampError {
    /// It is of another run: what that run promised is forgotten.
    #[error("the answer that this request builds on is of another run of this data server")]
    AnotherRun,
    /// It is older than the window.
    #[error("the answer that this request builds on is older than {window:?}")]
    TooOld {
        /// The window.
        window: Duration,
    },
}

/// How long a message may be under way and still count: six heartbeat intervals.
#[must_use]
pub fn window(heartbeat_interval: Duration) -> Duration {
    heartbeat_interval * 6
}

impl Stamp {
    /// The stamp for something that is said at `now`.
    #[must_use]
    pub fn at(generation: Generation, now: Moment) -> Self {
        Self { generation, mono_millis: u64::try_from(now.as_millis()).unwrap_or(u64::MAX) }
    }

    /// Judges a stamp that came back, in the run `own` at `now`.
    ///
    /// # Errors
    /// [`StampError`]; whatever came with it must have no effect.
    pub fn check(self, own: Generation, now: Moment, window: Duration) -> Result<(), StampError> {
        if self.generation != own {
            return Err(StampError::AnotherRun);
        }
        let age = now.saturating_sub(Duration::from_millis(self.mono_millis));
        // Exactly the window is too old: whoever waits for the window to pass
        // may act at that very moment.
        if age >= window { Err(StampError::TooOld { window }) } else { Ok(()) }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.generation.0, self.mono_millis)
    }
}

impl FromStr for Stamp {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| part.parse().ok()).flatten()
        };
        text.split_once('-')
            .and_then(|(generation, millis)| {
                let generation = Generation(number(generation)?);
                Some(Self { generation, mono_millis: number(millis)? })
            })
            .ok_or_else(|| ParseError::new(text, "a stamp of the form generation-milliseconds"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);

    #[test]
    fn a_stamp_is_good_for_less_than_the_window_and_in_its_run_only() {
        let seconds = Duration::from_secs;
        let stamp = Stamp::at(Generation(3), seconds(100));
        let check = |own, now| stamp.check(Generation(own), seconds(now), WINDOW);
        assert_eq!(check(3, 100), Ok(()));
        assert_eq!(check(3, 129), Ok(()));
        assert_eq!(check(3, 130), Err(StampError::TooOld { window: WINDOW }));
        assert_eq!(check(4, 100), Err(StampError::AnotherRun));
        assert_eq!(check(2, 100), Err(StampError::AnotherRun));
    }

    #[test]
    fn a_stamp_survives_its_text() {
        let stamp = Stamp { generation: Generation(7), mono_millis: 12 };
        assert_eq!(stamp.to_string().parse(), Ok(stamp));
        for bad in ["", "1", "1-", "-1", "+1-2", "1-2-3", "a-b"] {
            assert!(bad.parse::<Stamp>().is_err(), "{bad}");
        }
    }
}
