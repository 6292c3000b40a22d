//! Settings of the embedded default: those of an api, with the data server's
//! chosen to fit.

use holdfast_api::config::ApiConfig;
use holdfast_coordinator::process::Settings;
use holdfast_coordinator::settings::CommonSettings;
use holdfast_core::settings::{BadSetting, BadSettings};
use holdfast_dataserver::config::DataServerConfig;

/// Where objects are kept unless `STORAGE_ROOT` says otherwise.
pub const DEFAULT_STORAGE_ROOT: &str = "./holdfast-data";

/// What only a cluster has. The other parts of the broker's address mean nothing
/// without its host.
const CLUSTER_VARIABLES: [&str; 3] = ["RABBITMQ_SERVER", "RABBITMQ_HOST", "DATASERVER_PEERS"];

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
        // Nobody else has to hear of a shutdown first.
        let at_once = ("SHUTDOWN_DELAY", "0s");
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
}
