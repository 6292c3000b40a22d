//! How settings are read from text: every bad value is reported, not the first.

mod variable;

use std::fmt;
use std::time::Duration;

use thiserror::Error;

pub use self::variable::{NO_DEFAULT, Variable, listed, read_by};
use crate::node::Address;

/// One environment variable that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSetting {
    /// The variable.
    pub variable: &'static str,
    /// What is wrong, and what would be right.
    pub reason: String,
}

/// Every environment variable that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct BadSettings(pub Vec<BadSetting>);

impl fmt::Display for BadSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} error(s):", self.0.len())?;
        for bad in &self.0 {
            write!(f, "\n  {}: {}", bad.variable, bad.reason)?;
        }
        Ok(())
    }
}

/// Reads settings one after another and collects what is wrong with them.
#[derive(Debug, Default)]
pub struct SettingsReader {
    bad: Vec<BadSetting>,
}

impl SettingsReader {
    /// Parses `text`, or takes `default` when it is missing or empty. A bad
    /// value is noted and `default` stands in until [`Self::finish`].
    pub fn read<T>(
        &mut self,
        variable: &'static str,
        text: Option<&str>,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        match text.map(str::trim).filter(|text| !text.is_empty()) {
            None => default,
            Some(text) => parse(text).unwrap_or_else(|reason| {
                self.refuse(variable, reason);
                default
            }),
        }
    }

    /// Notes that a variable, or its relation to another, is wrong.
    pub fn refuse(&mut self, variable: &'static str, reason: impl Into<String>) {
        self.bad.push(BadSetting { variable, reason: reason.into() });
    }

    /// Notes `reason` unless `holds`.
    pub fn require(&mut self, holds: bool, variable: &'static str, reason: impl Into<String>) {
        if !holds {
            self.refuse(variable, reason);
        }
    }

    /// Gives `config` back if nothing was wrong.
    ///
    /// # Errors
    /// [`BadSettings`] with everything that was noted.
    pub fn finish<T>(self, config: T) -> Result<T, BadSettings> {
        if self.bad.is_empty() { Ok(config) } else { Err(BadSettings(self.bad)) }
    }
}

/// Parses `500ms`, `5s`, `10m`, `2h` or `30d`.
///
/// # Errors
/// A sentence that names the accepted form.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("{text:?} is not a duration; write it like 500ms, 5s, 10m, 2h or 30d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(refused)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refused())?;
    let unit_millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(refused()),
    };
    number.checked_mul(unit_millis).map(Duration::from_millis).ok_or_else(refused)
}

/// Parses a number of bytes: `4096`, `64KiB`, `5GiB`, `5TiB`.
///
/// # Errors
/// A sentence that names the accepted form.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let refused =
        || format!("{text:?} is not a size; write bytes, or a number with KiB, MiB, GiB or TiB");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refused())?;
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(refused()),
    };
    number.checked_mul(1 << shift).ok_or_else(refused)
}

/// Parses a whole number within bounds.
///
/// # Errors
/// A sentence that names the bounds.
pub fn parse_count(text: &str, least: usize, most: usize) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(count) if (least..=most).contains(&count) => Ok(count),
        _ => Err(format!("{text:?} is not a whole number from {least} to {most}")),
    }
}

/// Parses `true` or `false`.
///
/// # Errors
/// A sentence that names the accepted form.
pub fn parse_flag(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("{text:?} is neither true nor false"))
}

/// Where a service listens. The Go form `:8080` means every interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    /// An IP address, a name, or empty for every interface.
    host: String,
    port: u16,
}

impl ListenAddress {
    /// Parses `host:port`, `:port` or `[v6]:port`. Port 0 means any free port.
    ///
    /// # Errors
    /// A sentence that names the accepted form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refused =
            || format!("{text:?} is not an address to listen on; write host:port or :port");
        let (host, port) = text.rsplit_once(':').ok_or_else(refused)?;
        let port: u16 = port
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| port.parse().ok())
            .flatten()
            .ok_or_else(refused)?;
        // Any port would do to check the host.
        if !host.is_empty() && format!("{host}:1").parse::<Address>().is_err() {
            return Err(refused());
        }
        Ok(Self { host: host.to_owned(), port })
    }

    /// What to bind: the wildcard is the IPv6 one, which takes IPv4 as well.
    #[must_use]
    pub fn to_bind(&self) -> String {
        let host = if self.host.is_empty() { "[::]" } else { &self.host };
        format!("{host}:{}", self.port)
    }

    /// Whether every interface is meant, so that this cannot be told to others.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        matches!(self.host.as_str(), "" | "0.0.0.0" | "[::]")
    }

    /// The port; 0 means any free one.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host as it was written; empty for every interface.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("10m"), Ok(Duration::from_secs(600)));
        for bad in ["", "5", "s", "-5s", "5 s", "1.5s", "5sec", "99999999999999999999s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("5TiB"), Ok(5 << 40));
        for bad in ["", "MiB", "5MB", "-1", "99999999999TiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn listen_addresses_take_the_go_form() {
        let any = ListenAddress::parse(":8080").expect("Go form");
        assert!(any.is_wildcard());
        assert_eq!(any.to_bind(), "[::]:8080");
        let one = ListenAddress::parse("127.0.0.1:0").expect("any port");
        assert!(!one.is_wildcard());
        assert_eq!(one.to_bind(), "127.0.0.1:0");
        for bad in ["8080", "", ":", ":http", "a b:1", ":65536"] {
            assert!(ListenAddress::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_bad_value_is_reported() {
        let mut reader = SettingsReader::default();
        let kept = reader.read("A", Some("x"), 5, |t| parse_count(t, 1, 9));
        let fine = reader.read("B", Some(" 7 "), 5, |t| parse_count(t, 1, 9));
        let unset = reader.read("C", Some(""), 5, |t| parse_count(t, 1, 9));
        reader.require(fine < kept, "B", "B must be below A");
        assert_eq!((kept, fine, unset), (5, 7, 5));
        let bad = reader.finish(()).expect_err("two are wrong");
        assert_eq!(bad.0.len(), 2);
        assert!(bad.to_string().contains("A: \"x\" is not"));
    }
}
