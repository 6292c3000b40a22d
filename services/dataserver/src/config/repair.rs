//! Settings of repair and scrub.

use std::time::Duration;

use holdfast_core::settings::{SettingsReader, Variable, parse_bytes, parse_duration};
use serde::Deserialize;

const MIB: u64 = 1 << 20;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// The variables as they are written.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct RawRepair {
    repair_delay: Option<String>,
    repair_rate_bytes: Option<String>,
    repair_interval: Option<String>,
    scrub_interval: Option<String>,
}

/// The same, as help shows them.
pub(super) static TABLE: [Variable; 4] = [
    Variable::new(
        "REPAIR_DELAY",
        "10m",
        "after how long a silent data server's copies are made anew",
    ),
    Variable::new(
        "REPAIR_RATE_BYTES",
        "64MiB",
        "what repair, and a scrub on demand, copies or reads a second",
    ),
    Variable::new("REPAIR_INTERVAL", "1h", "how often all copies are looked at without a cause"),
    Variable::new(
        "SCRUB_INTERVAL",
        "30d",
        "how often every byte is read and verified; 0s is never",
    ),
];

/// What is set of repair and scrub.
#[derive(Debug, Clone)]
pub struct RepairSettings {
    /// `REPAIR_DELAY` (10m): after how long without a word the copies of a data
    /// server are made anew elsewhere.
    pub delay: Duration,
    /// `REPAIR_RATE_BYTES` (64MiB): how many payload bytes this data server has
    /// others copy in a second.
    pub rate_bytes: u64,
    /// `REPAIR_INTERVAL` (1h): the longest time between two full passes.
    pub interval: Duration,
    /// `SCRUB_INTERVAL` (30d): how long reading everything once may take; zero
    /// is never.
    pub scrub_interval: Duration,
}

impl RepairSettings {
    /// Understands the variables; what is wrong is noted in `reader`.
    pub(super) fn read(raw: &RawRepair, expiry: Duration, reader: &mut SettingsReader) -> Self {
        let delay =
            reader.read("REPAIR_DELAY", raw.repair_delay.as_deref(), 10 * MINUTE, parse_duration);
        reader.require(
            delay > expiry,
            "REPAIR_DELAY",
            "it must be longer than HEARTBEAT_EXPIRY: who is late is not lost",
        );
        let rate = raw.repair_rate_bytes.as_deref();
        let rate_bytes = reader.read("REPAIR_RATE_BYTES", rate, 64 * MIB, |text| {
            let bytes = parse_bytes(text)?;
            let refused = || format!("{text:?} is not 1MiB or more");
            (bytes >= MIB).then_some(bytes).ok_or_else(refused)
        });
        let interval =
            reader.read("REPAIR_INTERVAL", raw.repair_interval.as_deref(), HOUR, |text| {
                let interval = parse_duration(text)?;
                let refused = || format!("{text:?} is not 1s or more");
                (interval >= Duration::from_secs(1)).then_some(interval).ok_or_else(refused)
            });
        let scrub = raw.scrub_interval.as_deref();
        let scrub_interval = reader.read("SCRUB_INTERVAL", scrub, 30 * DAY, parse_duration);
        Self { delay, rate_bytes, interval, scrub_interval }
    }
}
