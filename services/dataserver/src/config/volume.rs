//! Settings of the volume alone: what the commands need too.

use std::path::PathBuf;

use holdfast_core::settings::{BadSettings, NO_DEFAULT, SettingsReader, Variable, parse_bytes};
use holdfast_store::log_engine::{LogStoreOptions, MAX_INLINE_LIMIT_BYTES};
use serde::Deserialize;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The variables as they are written.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct RawVolume {
    storage_root: Option<String>,
    reserve_bytes: Option<String>,
    inline_limit_bytes: Option<String>,
    segment_bytes: Option<String>,
    compaction_rate_bytes: Option<String>,
}

/// The same, as help shows them.
pub(super) static TABLE: [Variable; 5] = [
    Variable::new("STORAGE_ROOT", NO_DEFAULT, "the directory that holds the volume"),
    Variable::new("RESERVE_BYTES", "512MiB", "room that payloads leave free on the disk"),
    Variable::new("INLINE_LIMIT_BYTES", "128KiB", "payloads up to this length lie in the log"),
    Variable::new("SEGMENT_BYTES", "128MiB", "length of a file of the log"),
    Variable::new("COMPACTION_RATE_BYTES", "32MiB", "what compaction reads a second at ease"),
];

/// What is set of a volume.
#[derive(Debug, Clone)]
pub struct VolumeSettings {
    /// `STORAGE_ROOT`: the directory that holds the volume.
    pub storage_root: PathBuf,
    /// `RESERVE_BYTES` (512MiB): what payloads leave free on the disk: room for
    /// tombstones, for the file system itself, and for the index, which grows
    /// with the number of names and must never meet a full disk.
    pub reserve_bytes: u64,
    /// `INLINE_LIMIT_BYTES` (128KiB): payloads up to this length lie in the log.
    pub inline_limit_bytes: u32,
    /// `SEGMENT_BYTES` (128MiB): length of a segment of the log.
    pub segment_bytes: u32,
    /// `COMPACTION_RATE_BYTES` (32MiB): how much compaction reads a second while
    /// there is little to gain.
    pub compaction_rate_bytes: u64,
}

impl VolumeSettings {
    /// Reads the settings of a command, which needs no others.
    ///
    /// # Errors
    /// [`BadSettings`] with everything that is wrong, not the first of it.
    pub fn from_variables(
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, BadSettings> {
        let mut reader = SettingsReader::default();
        let volume = Self::read(&super::parse(variables)?, &mut reader);
        reader.finish(volume)
    }

    /// Understands the variables; what is wrong is noted in `reader`.
    pub(super) fn read(raw: &RawVolume, reader: &mut SettingsReader) -> Self {
        let storage_root = reader.read("STORAGE_ROOT", raw.storage_root.as_deref(), None, |text| {
            Ok(Some(PathBuf::from(text)))
        });
        reader.require(
            storage_root.is_some(),
            "STORAGE_ROOT",
            "set the directory in which objects are kept",
        );
        let reserve_bytes =
            reader.read("RESERVE_BYTES", raw.reserve_bytes.as_deref(), 512 * MIB, parse_bytes);
        let inline_limit_bytes = reader.read(
            "INLINE_LIMIT_BYTES",
            raw.inline_limit_bytes.as_deref(),
            128 * KIB,
            |text| bytes_within(text, 0, MAX_INLINE_LIMIT_BYTES.into(), "0 to 16MiB"),
        );
        let segment_bytes =
            reader.read("SEGMENT_BYTES", raw.segment_bytes.as_deref(), 128 * MIB, |text| {
                bytes_within(text, MIB, 2 * GIB, "1MiB to 2GiB")
            });
        reader.require(
            2 * inline_limit_bytes <= segment_bytes,
            "INLINE_LIMIT_BYTES",
            "it must be at most half of SEGMENT_BYTES",
        );
        let compaction_rate_bytes = reader.read(
            "COMPACTION_RATE_BYTES",
            raw.compaction_rate_bytes.as_deref(),
            32 * MIB,
            |text| bytes_within(text, MIB, u64::MAX, "1MiB or more"),
        );
        Self {
            storage_root: storage_root.unwrap_or_default(),
            reserve_bytes,
            // Both are bounded: this does not cut them.
            inline_limit_bytes: u32::try_from(inline_limit_bytes).unwrap_or(u32::MAX),
            segment_bytes: u32::try_from(segment_bytes).unwrap_or(u32::MAX),
            compaction_rate_bytes,
        }
    }

    /// As the store takes them.
    #[must_use]
    pub fn options(&self) -> LogStoreOptions {
        LogStoreOptions {
            reserve_bytes: self.reserve_bytes,
            inline_limit_bytes: self.inline_limit_bytes,
            segment_bytes: self.segment_bytes,
            compaction_rate_bytes: self.compaction_rate_bytes,
            ..LogStoreOptions::default()
        }
    }
}

fn bytes_within(text: &str, least: u64, most: u64, bounds: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    let refused = || format!("{text:?} is not within {bounds}");
    (least..=most).contains(&bytes).then_some(bytes).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<VolumeSettings, BadSettings> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        VolumeSettings::from_variables(pairs)
    }

    #[test]
    fn the_defaults_are_those_of_the_store() {
        let read = read(&[("STORAGE_ROOT", "/data")]).expect("all that is needed").options();
        let default = LogStoreOptions::default();
        assert_eq!(read.reserve_bytes, default.reserve_bytes);
        assert_eq!(read.inline_limit_bytes, default.inline_limit_bytes);
        assert_eq!(read.segment_bytes, default.segment_bytes);
        assert_eq!(read.compaction_rate_bytes, default.compaction_rate_bytes);
    }

    #[test]
    fn everything_that_is_out_of_bounds_is_reported_at_once() {
        let bad = read(&[
            ("INLINE_LIMIT_BYTES", "17MiB"),
            ("SEGMENT_BYTES", "3GiB"),
            ("COMPACTION_RATE_BYTES", "0"),
            ("RESERVE_BYTES", "much"),
        ])
        .expect_err("four are wrong and one is missing");
        let variables: Vec<_> = bad.0.iter().map(|bad| bad.variable).collect();
        let expected = [
            "STORAGE_ROOT",
            "RESERVE_BYTES",
            "INLINE_LIMIT_BYTES",
            "SEGMENT_BYTES",
            "COMPACTION_RATE_BYTES",
        ];
        assert_eq!(variables, expected);
        let bad = read(&[
            ("STORAGE_ROOT", "/data"),
            ("INLINE_LIMIT_BYTES", "1MiB"),
            ("SEGMENT_BYTES", "1MiB"),
        ])
        .expect_err("no record of this length fits");
        assert_eq!(
            bad.0.iter().map(|bad| bad.variable).collect::<Vec<_>>(),
            ["INLINE_LIMIT_BYTES"]
        );
    }
}
