//! The data server's settings, all from the environment.

mod copies;
mod repair;
mod volume;

use holdfast_coordinator::settings::{CommonSettings, Defaults, RawCommon};
use holdfast_core::policy::Wanted;
use holdfast_core::settings::{
    BadSetting, BadSettings, NO_DEFAULT, SettingsReader, Variable, parse_count,
};
use serde::Deserialize;

use self::copies::RawCopies;
use self::repair::RawRepair;
pub use self::repair::RepairSettings;
use self::volume::RawVolume;
pub use self::volume::VolumeSettings;

const DEFAULTS: Defaults =
    Defaults { listen: "127.0.0.1:8081", admin: "127.0.0.1:9091", shutdown_delay: "5s" };

/// The variables of [`RawDataServer`], as help shows them.
static OWN: [Variable; 2] = [
    Variable::new("INITIAL_MEMBERS", "1", "empty data servers that become a new cluster together"),
    Variable::new("ZONE", NO_DEFAULT, "failure zone; copies are spread over zones first"),
];

/// Every variable of a data server, as help shows it.
#[must_use]
pub fn variables() -> Vec<Variable> {
    let common = holdfast_coordinator::settings::variables(&DEFAULTS);
    [common.as_slice(), &copies::TABLE, &volume::TABLE, &repair::TABLE, &OWN].concat()
}

/// The variables that only a data server has, as they are written.
#[derive(Debug, Clone, Default, Deserialize)]
struct RawDataServer {
    initial_members: Option<String>,
    zone: Option<String>,
}

/// What a data server is told by its environment.
#[derive(Debug, Clone)]
pub struct DataServerConfig {
    /// What it has in common with an api.
    pub common: CommonSettings,
    /// `REPLICAS` (1) and `WRITE_QUORUM` (more than half of them): how many
    /// copies of each object there are to be, and how many a write makes before
    /// it is acknowledged. The cluster follows once all its data servers ask for
    /// the same.
    pub copies: Wanted,
    /// Where and how objects are kept.
    pub volume: VolumeSettings,
    /// How copies are looked after.
    pub repair: RepairSettings,
    /// `INITIAL_MEMBERS` (1): how many empty data servers must see each other
    /// before they become a new cluster.
    pub initial_members: usize,
    /// `ZONE`: the failure zone it runs in.
    pub zone: Option<String>,
    /// Found a cluster at once, without looking for others: for one process
    /// that has api and data server in it. Not a variable.
    pub alone: bool,
}

impl holdfast_coordinator::process::Settings for DataServerConfig {
    fn common(&self) -> &CommonSettings {
        &self.common
    }
}

impl DataServerConfig {
    /// Reads the settings from variables.
    ///
    /// # Errors
    /// [`BadSettings`] with everything that is wrong, not the first of it.
    pub fn from_variables(
        variables: impl Iterator<Item = (String, String)> + Clone,
    ) -> Result<Self, BadSettings> {
        Self::read(variables, false)
    }

    /// Reads the settings of a data server that shares its process with an api
    /// and needs no broker.
    ///
    /// # Errors
    /// As [`Self::from_variables`].
    pub fn embedded(
        variables: impl Iterator<Item = (String, String)> + Clone,
    ) -> Result<Self, BadSettings> {
        Self::read(variables, true)
    }

    fn read(
        variables: impl Iterator<Item = (String, String)> + Clone,
        alone: bool,
    ) -> Result<Self, BadSettings> {
        let mut reader = SettingsReader::default();
        let raw_common: RawCommon = parse(variables.clone())?;
        let raw: RawDataServer = parse(variables.clone())?;
        let copies: RawCopies = parse(variables.clone())?;
        let volume: RawVolume = parse(variables.clone())?;
        let repair: RawRepair = parse(variables)?;
        let common = CommonSettings::read(&raw_common, &DEFAULTS, &mut reader);
        reader.require(
            common.advertise.is_some() || !common.listen.is_wildcard(),
            "ADVERTISE_ADDRESS",
            "LISTEN_ADDRESS names no interface, so set the host:port at which others reach this data server",
        );
        if !alone {
            common.require_a_way(&raw_common, &mut reader);
        }
        let copies = copies::read(&copies, &mut reader);
        let volume = VolumeSettings::read(&volume, &mut reader);
        let repair = RepairSettings::read(&repair, common.heartbeat_expiry, &mut reader);
        let initial_members =
            reader.read("INITIAL_MEMBERS", raw.initial_members.as_deref(), 1, |text| {
                parse_count(text, 1, 1_000)
            });
        let zone = raw.zone.filter(|zone| !zone.is_empty());
        reader.finish(Self { common, copies, volume, repair, initial_members, zone, alone })
    }
}

fn parse<T: for<'de> Deserialize<'de>>(
    variables: impl Iterator<Item = (String, String)>,
) -> Result<T, BadSettings> {
    // Every field is optional text, so this cannot fail for what a variable says.
    envy::from_iter(variables).map_err(|error| {
        BadSettings(vec![BadSetting { variable: "environment", reason: error.to_string() }])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::settings::read_by;
    use std::time::Duration;

    fn read(pairs: &[(&str, &str)]) -> Result<DataServerConfig, BadSettings> {
        let pairs: Vec<_> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        DataServerConfig::from_variables(pairs.into_iter())
    }

    #[test]
    fn the_seeds_variables_suffice() {
        let config = read(&[
            ("LISTEN_ADDRESS", "10.0.0.1:8080"),
            ("STORAGE_ROOT", "/data"),
            ("RABBITMQ_SERVER", "amqp://guest:guest@broker:5672/"),
        ]);
        let config = config.expect("all that is needed");
        assert_eq!(config.common.heartbeat_interval, Duration::from_secs(5));
        assert_eq!(config.initial_members, 1);
    }

    #[test]
    fn the_tables_have_every_variable_and_no_other() {
        let names = |table: &[Variable]| table.iter().map(|row| row.name).collect::<Vec<_>>();
        assert_eq!(names(&OWN), read_by::<RawDataServer>());
        assert_eq!(names(&copies::TABLE), read_by::<RawCopies>());
        assert_eq!(names(&volume::TABLE), read_by::<RawVolume>());
        assert_eq!(names(&repair::TABLE), read_by::<RawRepair>());
    }

    #[test]
    fn help_tells_the_defaults_that_count() {
        let table = variables();
        let defaults = table.iter().filter(|row| row.default != NO_DEFAULT);
        let needed = [("RABBITMQ_HOST", "broker"), ("STORAGE_ROOT", "/data")];
        let mut said: Vec<_> = defaults.map(|row| (row.name, row.default)).collect();
        said.extend(needed);
        let said = read(&said).expect("defaults can be set");
        let unset = read(&needed).expect("all that is needed");
        assert_eq!(format!("{said:?}"), format!("{unset:?}"));
    }

    #[test]
    fn everything_that_is_wrong_is_reported_at_once() {
        let bad = read(&[
            ("LISTEN_ADDRESS", ":8080"),
            ("HEARTBEAT_INTERVAL", "8s"),
            ("MAX_CONNECTIONS", "0"),
            ("REPLICAS", "6"),
            ("WRITE_QUORUM", "0"),
            ("LOG_FORMAT", "xml"),
            ("RABBITMQ_SERVER", "http://broker"),
            ("SEGMENT_BYTES", "4GiB"),
            ("REPAIR_DELAY", "5s"),
            ("REPAIR_RATE_BYTES", "1KiB"),
            ("REPAIR_INTERVAL", "0s"),
        ])
        .expect_err("eleven are wrong and one is missing");
        let variables: Vec<_> = bad.0.iter().map(|bad| bad.variable).collect();
        for expected in [
            "ADVERTISE_ADDRESS",
            "HEARTBEAT_EXPIRY",
            "MAX_CONNECTIONS",
            "REPLICAS",
            "WRITE_QUORUM",
            "LOG_FORMAT",
            "RABBITMQ_SERVER",
            "STORAGE_ROOT",
            "SEGMENT_BYTES",
            "REPAIR_DELAY",
            "REPAIR_RATE_BYTES",
            "REPAIR_INTERVAL",
        ] {
            assert!(variables.contains(&expected), "{expected} is not in {variables:?}");
        }
    }
}
