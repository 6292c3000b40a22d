//! Settings of the embedded default: those of an api, with the data server's
//! chosen to fit.

use holdfast_api::config::ApiConfig;
use holdfast_coordinator::process::Settings;
use holdfast_coordinator::settings::CommonSettings;
use holdfast_core::settings::{BadSetting, BadSettings, Variable};
use holdfast_dataserver::config::DataServerConfig;

/// Where objects are kept unless `STORAGE_ROOT` says otherwise.
pub const DEFAULT_STORAGE_ROOT: &str = "./holdfast-data";

/// What only a cluster has. The other parts of the broker's address mean nothing
/// without its host.
const CLUSTER_VARIABLES: [&str; 3] = ["RABBITMQ_SERVER", "RABBITMQ_HOST", "DATASERVER_PEERS"];

/// Nobody else has to hear of a shutdown first.
const SHUTDOWN_DELAY: &str = "0s";

/// Every variable that means something here, as help shows it.
#[must_use]
pub fn variables() -> Vec<Variable> {
    let mut table = holdfast_api::config::variables();
    for row in holdfast_dataserver::config::variables() {
        if !table.iter().any(|known| known.name == row.name) {
            table.push(row);
        }
    }
    let of_cluster = |name: &str| {
        CLUSTER_VARIABLES.contains(&name)
            || ["RABBITMQ_", "SSL_"].iter().any(|p| name.starts_with(p))
    };
    table.retain(|row| !of_cluster(row.name));
    for row in &mut table {
        match row.name {
            "SHUTDOWN_DELAY" => row.default = SHUTDOWN_DELAY,
            "STORAGE_ROOT" => row.default = DEFAULT_STORAGE_ROOT,
            _ => {}
        }
    }
    table
}

/// What the embedded default is told by its environment.
#[derive(Debug, Clone)]
pub struct StandaloneConfig {
    /// The api, which has the addresses that were asked for.
    pub api: ApiConfig,
    /// The data server, on free loopback ports.
    pub data_server: DataServerConfig,
}

impl Settings for StandaloneConfig {
    fn common(&self) -> &CommonSettings {
        &self.api.common
    }
}

impl StandaloneConfig {
    /// Reads the settings from variables.
    ///
    /// # Errors
    /// [`BadSettings`] with everything that is wrong, not the first of it.
    pub fn from_variables(
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, BadSettings> {
        let given: Vec<(String, String)> = variables.collect();
        let is_set = |name: &str| given.iter().any(|(n, value)| n == name && !value.is_empty());
        if let Some(variable) = CLUSTER_VARIABLES.into_iter().find(|name| is_set(name)) {
            let reason = "the embedded holdfast is alone; run holdfast-api and holdfast-dataserver for a cluster";
            return Err(BadSettings(vec![BadSetting { variable, reason: reason.to_owned() }]));
        }
        let with = |overrides: &[(&str, &str)], defaults: &[(&str, &str)]| {
            let replaced = |name: &str| overrides.iter().any(|(n, _)| *n == name);
            let mut all: Vec<(String, String)> =
                given.iter().filter(|(name, _)| !replaced(name)).cloned().collect();
            let missing = defaults.iter().filter(|(name, _)| !is_set(name));
            for (name, value) in overrides.iter().chain(missing) {
                all.push(((*name).to_owned(), (*value).to_owned()));
            }
            all.into_iter()
        };
        let at_once = ("SHUTDOWN_DELAY", SHUTDOWN_DELAY);
        let inside = [
            ("LISTEN_ADDRESS", "127.0.0.1:0"),
            ("ADMIN_LISTEN_ADDRESS", "127.0.0.1:0"),
            ("ADVERTISE_ADDRESS", ""),
        ];
        let storage = ("STORAGE_ROOT", DEFAULT_STORAGE_ROOT);
        let api = ApiConfig::embedded(with(&[], &[at_once]));
        let data_server = DataServerConfig::embedded(with(&inside, &[at_once, storage]));
        match (api, data_server) {
            (Ok(api), Ok(data_server)) => Ok(Self { api, data_server }),
            (api, data_server) => {
                let mut bad = Vec::new();
                for error in [api.err(), data_server.err()].into_iter().flatten() {
                    bad.extend(
                        error.0.into_iter().filter(|e| !bad.contains(e)).collect::<Vec<_>>(),
                    );
                }
                Err(BadSettings(bad))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::settings::NO_DEFAULT;
    use holdfast_telemetry::logging::VARIABLES;

    fn read(pairs: &[(&str, &str)]) -> Result<StandaloneConfig, BadSettings> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        StandaloneConfig::from_variables(pairs.iter().map(pair))
    }

    #[test]
    fn nothing_has_to_be_set() {
        let config = read(&[]).expect("defaults");
        assert_eq!(config.api.common.listen.to_bind(), "127.0.0.1:8080");
        assert_eq!(config.data_server.volume.storage_root.to_str(), Some(DEFAULT_STORAGE_ROOT));
        assert_eq!(config.data_server.common.listen.to_bind(), "127.0.0.1:0");
    }

    #[test]
    fn an_error_is_reported_once_and_a_broker_is_refused() {
        let bad =
            read(&[("LOG_FORMAT", "xml"), ("RESERVE_BYTES", "x")]).expect_err("two are wrong");
        assert_eq!(bad.0.len(), 2, "{bad}");
        for variable in CLUSTER_VARIABLES {
            let bad = read(&[(variable, "x")]).expect_err("it is alone");
            assert_eq!(bad.0.first().map(|bad| bad.variable), Some(variable));
        }
    }

    #[test]
    fn help_tells_the_defaults_that_count() {
        let defaults = variables().into_iter().filter(|row| row.default != NO_DEFAULT);
        let said: Vec<_> = defaults.map(|row| (row.name, row.default)).collect();
        let said = read(&said).expect("defaults can be set");
        assert_eq!(format!("{said:?}"), format!("{:?}", read(&[]).expect("defaults")));
    }

    /// The rows of README's table: names, service, default.
    fn rows_of_readme() -> Vec<(Vec<&'static str>, &'static str, &'static str)> {
        let readme = include_str!("../../../README.md");
        let (_, rest) = readme.split_once("\n## Configuration\n").expect("a chapter");
        let (table, _) = rest.split_once("\nChecked against each other").expect("after the table");
        let rows = table.lines().filter(|line| line.starts_with("| `"));
        rows.map(|row| {
            let mut cells = row.split(" | ");
            let names = cells.next().expect("names").split('`').skip(1).step_by(2).collect();
            (names, cells.next().expect("service"), cells.next().expect("default"))
        })
        .collect()
    }

    #[test]
    fn readme_has_every_variable_with_its_defaults_and_no_other() {
        let with_logging = |table: Vec<Variable>| [table.as_slice(), &VARIABLES].concat();
        let api = with_logging(holdfast_api::config::variables());
        let data_server = with_logging(holdfast_dataserver::config::variables());
        let mut seen = Vec::new();
        for (names, service, default) in rows_of_readme() {
            let of_all = [&api, &data_server, &variables()].map(Clone::clone).concat();
            for row in of_all.iter().filter(|row| names.contains(&row.name)) {
                let told = row.default == NO_DEFAULT || default.contains(row.default);
                assert!(told, "{}: {} is not in {default:?}", row.name, row.default);
            }
            for name in names {
                let is_in = |table: &[Variable]| table.iter().any(|row| row.name == name);
                assert_eq!(is_in(&api), service == "both", "{name}");
                assert!(is_in(&data_server), "{name}");
                assert!(!seen.contains(&name), "{name} is there twice");
                seen.push(name);
            }
        }
        let missing = data_server.iter().filter(|row| !seen.contains(&row.name));
        assert_eq!(missing.count(), 0, "README lacks a variable; it has {seen:?}");
    }
}
