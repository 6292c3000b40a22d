//! The api's settings, all from the environment.

use holdfast_coordinator::settings::{CommonSettings, Defaults, RawCommon};
use holdfast_core::settings::{BadSetting, BadSettings, SettingsReader, Variable};

const DEFAULTS: Defaults =
    Defaults { listen: "127.0.0.1:8080", admin: "127.0.0.1:9090", shutdown_delay: "5s" };

/// Every variable of an api, as help shows it.
#[must_use]
pub fn variables() -> Vec<Variable> {
    holdfast_coordinator::settings::variables(&DEFAULTS)
}

/// What an api is told by its environment.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// What it has in common with a data server.
    pub common: CommonSettings,
}

impl holdfast_coordinator::process::Settings for ApiConfig {
    fn common(&self) -> &CommonSettings {
        &self.common
    }
}

impl ApiConfig {
    /// Reads the settings from variables.
    ///
    /// # Errors
    /// [`BadSettings`] with everything that is wrong, not the first of it.
    pub fn from_variables(
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, BadSettings> {
        Self::read(variables, false)
    }

    /// Reads the settings of an api that shares its process with its data
    /// server and needs no broker.
    ///
    /// # Errors
    /// As [`Self::from_variables`].
    pub fn embedded(
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, BadSettings> {
        Self::read(variables, true)
    }

    fn read(
        variables: impl Iterator<Item = (String, String)>,
        alone: bool,
    ) -> Result<Self, BadSettings> {
        // Every field is optional text, so this cannot fail for what a variable
        // says.
        let raw: RawCommon = envy::from_iter(variables).map_err(|error| {
            BadSettings(vec![BadSetting { variable: "environment", reason: error.to_string() }])
        })?;
        let mut reader = SettingsReader::default();
        let common = CommonSettings::read(&raw, &DEFAULTS, &mut reader);
        if !alone {
            common.require_a_way(&raw, &mut reader);
        }
        reader.finish(Self { common })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::settings::NO_DEFAULT;

    #[test]
    fn an_api_needs_a_way_to_its_data_servers() {
        assert!(ApiConfig::from_variables(std::iter::empty()).is_err());
        let peers = ("DATASERVER_PEERS".to_owned(), "ds:8080".to_owned());
        assert!(ApiConfig::from_variables([peers].into_iter()).is_ok());
    }

    #[test]
    fn help_tells_the_defaults_that_count() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let needed = pair("RABBITMQ_HOST", "broker");
        let defaults = variables().into_iter().filter(|row| row.default != NO_DEFAULT);
        let said = defaults.map(|row| pair(row.name, row.default)).chain([needed.clone()]);
        let said = ApiConfig::from_variables(said).expect("defaults can be set");
        let unset = ApiConfig::from_variables([needed].into_iter()).expect("all that is needed");
        assert_eq!(format!("{said:?}"), format!("{unset:?}"));
    }
}
