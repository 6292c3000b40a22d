//! Settings that an api and a data server have in common, read from the
//! environment.

mod broker;
mod table;

use std::time::Duration;

use holdfast_bus::RabbitConfig;
use holdfast_core::node::Address;
use holdfast_core::settings::{
    ListenAddress, SettingsReader, parse_bytes, parse_count, parse_duration,
};
use holdfast_http::server::ServerLimits;
use holdfast_telemetry::logging::LogFormat;
use serde::Deserialize;

pub use self::table::variables;
use crate::cluster::Peers;
use crate::objects::ObjectsConfig;

/// How long a data server keeps a payload that waits for its commit: longer than
/// the locate and the commit of one request take, and short enough that what an
/// api left behind does not fill the disk.
pub const STAGING_PATIENCE: Duration = Duration::from_secs(60);

/// The variables as they are written, read by envy; what they mean is on
/// [`CommonSettings`]. Not `Debug`: there are passwords among them.
#[derive(Clone, Default, Deserialize)]
#[allow(missing_docs, reason = "each is documented where it is understood")]
pub struct RawCommon {
    pub listen_address: Option<String>,
    pub advertise_address: Option<String>,
    pub admin_listen_address: Option<String>,
    pub rabbitmq_server: Option<String>,
    pub rabbitmq_host: Option<String>,
    pub rabbitmq_port: Option<String>,
    pub rabbitmq_vhost: Option<String>,
    pub rabbitmq_username: Option<String>,
    pub rabbitmq_password: Option<String>,
    pub rabbitmq_tls: Option<String>,
    pub dataserver_peers: Option<String>,
    pub heartbeat_interval: Option<String>,
    pub heartbeat_expiry: Option<String>,
    pub locate_timeout: Option<String>,
    pub shutdown_delay: Option<String>,
    pub shutdown_timeout: Option<String>,
    pub max_connections: Option<String>,
    pub header_timeout: Option<String>,
    pub body_timeout: Option<String>,
    pub max_object_bytes: Option<String>,
    pub log_format: Option<String>,
}

/// What a service uses when a variable is not set.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// Of `LISTEN_ADDRESS`.
    pub listen: &'static str,
    /// Of `ADMIN_LISTEN_ADDRESS`.
    pub admin: &'static str,
    /// Of `SHUTDOWN_DELAY`.
    pub shutdown_delay: &'static str,
}

/// Settings that an api and a data server have in common.
#[derive(Debug, Clone)]
pub struct CommonSettings {
    /// `LISTEN_ADDRESS`: where clients and other services connect.
    pub listen: ListenAddress,
    /// `ADVERTISE_ADDRESS`: what others are told to connect to; by default
    /// `LISTEN_ADDRESS`, unless that is a wildcard.
    pub advertise: Option<Address>,
    /// `ADMIN_LISTEN_ADDRESS`: probes, metrics and the list of data servers.
    pub admin: ListenAddress,
    /// `RABBITMQ_SERVER`, or `RABBITMQ_HOST` and what goes with it: the broker.
    pub broker: Option<RabbitConfig>,
    /// `DATASERVER_PEERS`: where data servers may be found without the broker.
    pub peers: Peers,
    /// `HEARTBEAT_INTERVAL` (5s). The window for late messages is six times as
    /// long, so it must be the same on all services.
    pub heartbeat_interval: Duration,
    /// `HEARTBEAT_EXPIRY` (10s); at least twice the interval.
    pub heartbeat_expiry: Duration,
    /// `LOCATE_TIMEOUT` (1s).
    pub locate_timeout: Duration,
    /// `SHUTDOWN_DELAY` (5s): how long requests are still taken after the
    /// signal.
    pub shutdown_delay: Duration,
    /// `SHUTDOWN_TIMEOUT` (30s): how long requests may then still take.
    pub shutdown_timeout: Duration,
    /// `MAX_CONNECTIONS` (1024).
    pub max_connections: usize,
    /// `HEADER_TIMEOUT` (15s): how long the head of a request may take.
    pub header_timeout: Duration,
    /// `BODY_TIMEOUT` (30s): how long a body may stand still.
    pub body_timeout: Duration,
    /// `MAX_OBJECT_BYTES` (5TiB).
    pub max_object_bytes: u64,
    /// `LOG_FORMAT` (text): `text` or `json`.
    pub log_format: LogFormat,
}

impl CommonSettings {
    /// The limits of a server with these settings.
    pub(crate) fn server_limits(&self) -> ServerLimits {
        ServerLimits {
            max_connections: u32::try_from(self.max_connections).unwrap_or(u32::MAX),
            header_timeout: self.header_timeout,
            body_timeout: self.body_timeout,
            write_timeout: self.body_timeout,
            finish_timeout: self.shutdown_timeout,
            ..ServerLimits::default()
        }
    }

    /// Understands the variables; what is wrong is noted in `reader`.
    pub fn read(raw: &RawCommon, defaults: &Defaults, reader: &mut SettingsReader) -> Self {
        let duration = |reader: &mut SettingsReader, variable, text: &Option<String>, default| {
            let value = reader.read(variable, text.as_deref(), default, parse_duration);
            reader.require(!value.is_zero(), variable, "it must be longer than 0");
            value
        };
        let seconds = Duration::from_secs;
        let listen = |reader: &mut SettingsReader, variable, text: &Option<String>, default| {
            let default = ListenAddress::parse(default).expect("defaults are addresses");
            reader.read(variable, text.as_deref(), default, ListenAddress::parse)
        };
        let settings = Self {
            listen: listen(reader, "LISTEN_ADDRESS", &raw.listen_address, defaults.listen),
            advertise: reader.read(
                "ADVERTISE_ADDRESS",
                raw.advertise_address.as_deref(),
                None,
                |text| text.parse().map(Some).map_err(|error| format!("{error}")),
            ),
            admin: listen(
                reader,
                "ADMIN_LISTEN_ADDRESS",
                &raw.admin_listen_address,
                defaults.admin,
            ),
            broker: broker::read(raw, reader),
            peers: reader.read(
                "DATASERVER_PEERS",
                raw.dataserver_peers.as_deref(),
                Peers::default(),
                Peers::parse,
            ),
            heartbeat_interval: duration(
                reader,
                "HEARTBEAT_INTERVAL",
                &raw.heartbeat_interval,
                seconds(5),
            ),
            heartbeat_expiry: duration(
                reader,
                "HEARTBEAT_EXPIRY",
                &raw.heartbeat_expiry,
                seconds(10),
            ),
            locate_timeout: duration(reader, "LOCATE_TIMEOUT", &raw.locate_timeout, seconds(1)),
            shutdown_delay: reader.read(
                "SHUTDOWN_DELAY",
                raw.shutdown_delay.as_deref(),
                parse_duration(defaults.shutdown_delay).expect("defaults are durations"),
                parse_duration,
            ),
            shutdown_timeout: duration(
                reader,
                "SHUTDOWN_TIMEOUT",
                &raw.shutdown_timeout,
                seconds(30),
            ),
            max_connections: reader.read(
                "MAX_CONNECTIONS",
                raw.max_connections.as_deref(),
                1_024,
                |text| parse_count(text, 1, 1_000_000),
            ),
            header_timeout: duration(reader, "HEADER_TIMEOUT", &raw.header_timeout, seconds(15)),
            body_timeout: duration(reader, "BODY_TIMEOUT", &raw.body_timeout, seconds(30)),
            max_object_bytes: reader.read(
                "MAX_OBJECT_BYTES",
                raw.max_object_bytes.as_deref(),
                5 << 40,
                parse_bytes,
            ),
            log_format: reader.read(
                "LOG_FORMAT",
                raw.log_format.as_deref(),
                LogFormat::Text,
                |text| text.parse::<LogFormat>(),
            ),
        };
        settings.check(reader);
        settings
    }

    fn check(&self, reader: &mut SettingsReader) {
        reader.require(
            self.heartbeat_interval * 2 <= self.heartbeat_expiry,
            "HEARTBEAT_EXPIRY",
            "it must be at least twice HEARTBEAT_INTERVAL, or one lost message makes a member silent",
        );
        reader.require(
            self.locate_timeout < self.body_timeout,
            "LOCATE_TIMEOUT",
            "it must be shorter than BODY_TIMEOUT",
        );
        let longest = self.locate_timeout * 2 + ObjectsConfig::default().write_timeout;
        reader.require(
            longest < self.shutdown_timeout && longest < STAGING_PATIENCE,
            "SHUTDOWN_TIMEOUT",
            format!("it must be longer than two lookups and a write take at most, {longest:?}"),
        );
    }

    /// Notes that there is no way to the data servers, unless there is one or
    /// what was said of the broker is wrong anyway.
    pub fn require_a_way(&self, raw: &RawCommon, reader: &mut SettingsReader) {
        reader.require(
            broker::is_named(raw) || !self.peers.is_empty(),
            "RABBITMQ_SERVER",
            "set the broker's amqp:// URL, or RABBITMQ_HOST, or DATASERVER_PEERS to run without a broker",
        );
    }

    /// What others are told to connect to, once the port is known. A data server
    /// that listens on every interface must have `ADVERTISE_ADDRESS`; its
    /// settings are refused otherwise.
    ///
    /// # Errors
    /// When what comes of it is no address.
    pub fn advertised(&self, bound: &str) -> Result<Address, String> {
        if let Some(advertise) = &self.advertise {
            return Ok(advertise.clone());
        }
        let port = bound.rsplit_once(':').map_or("0", |(_, port)| port);
        let host = if self.listen.is_wildcard() { "127.0.0.1" } else { self.listen.host() };
        format!("{host}:{port}").parse().map_err(|error| format!("{error}"))
    }
}

/// The process's environment without what is not Unicode, which no variable of
/// Holdfast is.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
