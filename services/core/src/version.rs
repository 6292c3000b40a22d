//! Versions: which content of one key is newer.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::node::ParseError;

/// How far ahead of its own clock a member lets a version be, in milliseconds.
/// A version far in the future would otherwise outrank every honest write
/// until that time has come.
pub const MAX_AHEAD_MILLIS: u64 = 60 * 60 * 1000;

const COUNTER_BITS: u32 = 16;

/// A stamp that orders the contents of one key: a hybrid logical clock and the
/// writer that used it.
///
/// The clock is Unix time in milliseconds (48 bits) and a counter (16 bits).
/// The writer part is random for each start of a process, so no two writers
/// can make the same version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    clock: u64,
    writer: u64,
}

impl Version {
    /// Builds a version from its two halves.
    #[must_use]
    pub const fn from_parts(clock: u64, writer: u64) -> Self {
        Self { clock, writer }
    }

    /// The hybrid clock: milliseconds in the upper 48 bits, counter below.
    #[must_use]
    pub fn clock(self) -> u64 {
        self.clock
    }

    /// The writer's random part.
    #[must_use]
    pub fn writer(self) -> u64 {
        self.writer
    }

    /// The physical part of the clock, in Unix milliseconds.
    #[must_use]
    pub fn unix_millis(self) -> u64 {
        self.clock >> COUNTER_BITS
    }

    /// The version right above this one, of the same writer: nobody can make one
    /// between the two. For versions of a [`VersionSource`] only, which leaves it
    /// free; it is its own for others.
    #[must_use]
    pub const fn right_above(self) -> Self {
        Self { writer: self.writer | 1, ..self }
    }

    /// Checks that this version is not far ahead of `now_millis`.
    ///
    /// # Errors
    /// [`TooFarAhead`] when it is more than [`MAX_AHEAD_MILLIS`] ahead.
    pub fn check_not_ahead(self, now_millis: u64) -> Result<(), TooFarAhead> {
        let ahead_millis = self.unix_millis().saturating_sub(now_millis);
        if ahead_millis > MAX_AHEAD_MILLIS {
            return Err(TooFarAhead { version: self, ahead_millis });
        }
        Ok(())
    }
}

/// A version that lies too far in this member's future.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("version {version} is {ahead_millis} ms ahead of this member's clock; check the clocks")]
pub struct TooFarAhead {
    /// The refused version.
    pub version: Version,
    /// By how much.
    pub ahead_millis: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", self.clock, self.writer)
    }
}

impl FromStr for Version {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let half = |part: &str| {
            let plain = part.len() == 16 && part.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(part, 16).ok()).flatten()
        };
        text.split_once('-')
            .and_then(|(clock, writer)| Some(Self::from_parts(half(clock)?, half(writer)?)))
            .ok_or_else(|| ParseError::new(text, "a version of two times 16 hexadecimal digits"))
    }
}

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Makes the versions of one process: strictly increasing, and above whatever
/// the writer has seen.
#[derive(Debug)]
pub struct VersionSource {
    last_clock: u64,
    writer: u64,
}

impl VersionSource {
    /// `writer` must be random for each start of the process. Its last bit is not
    /// used: see [`Version::right_above`].
    #[must_use]
    pub fn new(writer: u64) -> Self {
        Self { last_clock: 0, writer: writer & !1 }
    }

    /// The next version: max(`now_millis`, newest seen + 1, last made + 1).
    ///
    /// `newest_seen` is the newest version that the locate of this write found,
    /// tombstones and floors included.
    pub fn next(&mut self, now_millis: u64, newest_seen: Option<Version>) -> Version {
        let physical = now_millis << COUNTER_BITS;
        let above_seen = newest_seen.map_or(0, |seen| seen.clock.saturating_add(1));
        let above_own = self.last_clock.saturating_add(1);
        self.last_clock = physical.max(above_seen).max(above_own);
        Version::from_parts(self.last_clock, self.writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_only_grow_even_when_the_clock_goes_back() {
        let mut source = VersionSource::new(7);
        let first = source.next(1_000, None);
        let second = source.next(10, None);
        let third = source.next(1_000, Some(Version::from_parts(u64::from(u32::MAX) << 20, 9)));
        assert!(first < second && second < third);
        assert_eq!(third.clock(), (u64::from(u32::MAX) << 20) + 1);
        assert_eq!(first.unix_millis(), 1_000);
    }

    #[test]
    fn nobody_makes_a_version_right_above_another() {
        let [ours, theirs] = [7, 8].map(|writer| VersionSource::new(writer).next(1_000, None));
        assert!(ours < ours.right_above());
        assert!(ours.right_above() < theirs, "also when its writer comes next");
        assert_eq!(ours.right_above().clock(), ours.clock());
    }

    #[test]
    fn a_version_survives_its_text() {
        let version = Version::from_parts(0x0123_4567_89ab_cdef, 42);
        assert_eq!(version.to_string().parse(), Ok(version));
        assert!("0-0".parse::<Version>().is_err());
    }

    #[test]
    fn the_far_future_is_refused() {
        let mut source = VersionSource::new(1);
        let version = source.next(MAX_AHEAD_MILLIS + 5, None);
        assert!(version.check_not_ahead(5).is_ok());
        assert!(version.check_not_ahead(4).is_err());
    }
}
