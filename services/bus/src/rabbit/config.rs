//! Where the broker is, and how patient to be with it.

use std::fmt;
use std::time::Duration;

use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use thiserror::Error;

/// AMQP heartbeat in seconds, unless the URL gives one. lapin gives a
/// connection up after two without a sign; the echo is what notices sooner.
const HEARTBEAT_SECONDS: u16 = 10;

/// How to reach RabbitMQ. `echo_timeout` is what makes a broker silent, so
/// `publish_timeout <= echo_timeout < silent_limit` is a sensible order.
#[derive(Clone)]
pub struct RabbitConfig {
    pub(super) uri: AMQPUri,
    /// Shown in the broker's list of connections.
    pub connection_name: String,
    /// Longest time in [`crate::Bus::publish`] and [`crate::Bus::reply`].
    pub publish_timeout: Duration,
    /// Longest time from the first packet to the last consumer of a session.
    pub connect_timeout: Duration,
    /// Time between two echoes.
    pub echo_interval: Duration,
    /// An echo that takes longer makes the broker silent.
    pub echo_timeout: Duration,
    /// A connection that is silent for longer is given up, unless the broker
    /// has said that it blocks publishers.
    pub silent_limit: Duration,
    /// First wait before connecting again; each further one is twice as long.
    pub retry_min: Duration,
    /// Longest wait before connecting again. All waits are shortened by a random
    /// factor from 0.5 to 1.
    pub retry_max: Duration,
    /// Messages that may wait in one queue of the broker; older ones go first.
    pub backlog_messages: u32,
    /// Age at which a message that waits in the broker is dropped.
    pub backlog_age: Duration,
}

/// A broker URL that cannot be used. It does not repeat the URL, which may hold
/// a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RabbitUrlError {
    /// It is for another protocol.
    #[error("the broker URL does not begin with amqp:// or amqps://")]
    Scheme,
    /// It is no URL, or a part of it is not of the right form.
    #[error("the broker URL is not of the form amqp://user:password@host:port/vhost")]
    Malformed,
    /// It names no host.
    #[error("the broker URL names no host")]
    NoHost,
}

/// A broker, named part by part. Nothing in it is encoded: a password may be
/// made of any characters.
#[derive(Clone)]
pub struct RabbitParts {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The port; by default that of AMQP, with or without TLS.
    pub port: Option<u16>,
    /// The virtual host, such as `/`.
    pub vhost: String,
    /// User and password; by default those of a broker that was not set up.
    pub login: Option<(String, String)>,
    /// Whether to speak TLS.
    pub tls: bool,
}

impl RabbitConfig {
    /// Takes the parts as they are; everything else has its default.
    #[must_use]
    pub fn from_parts(parts: RabbitParts) -> Self {
        let RabbitParts { host, port, vhost, login, tls } = parts;
        let scheme = if tls { AMQPScheme::AMQPS } else { AMQPScheme::AMQP };
        let port = port.unwrap_or_else(|| scheme.default_port());
        let userinfo = login.map_or_else(AMQPUserInfo::default, |(username, password)| {
            AMQPUserInfo { username, password }
        });
        let query =
            AMQPQueryString { heartbeat: Some(HEARTBEAT_SECONDS), ..AMQPQueryString::default() };
        let authority = AMQPAuthority { userinfo, host, port };
        Self::of(AMQPUri { scheme, authority, vhost, query })
    }

    /// Reads a URL like `amqp://user:password@host:5672/vhost`; everything else
    /// has its default. A URL without a vhost, or with an empty one, means `/`.
    ///
    /// # Errors
    /// [`RabbitUrlError`].
    pub fn new(url: &str) -> Result<Self, RabbitUrlError> {
        Ok(Self::of(parse(url)?))
    }

    fn of(uri: AMQPUri) -> Self {
        Self {
            uri,
            connection_name: "holdfast".to_owned(),
            publish_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(5),
            echo_interval: Duration::from_secs(1),
            echo_timeout: Duration::from_secs(2),
            silent_limit: Duration::from_secs(30),
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(2),
            backlog_messages: 10_000,
            backlog_age: Duration::from_secs(30),
        }
    }

    /// `host:port`, as a socket takes it.
    pub(super) fn address(&self) -> String {
        let authority = &self.uri.authority;
        if authority.host.contains(':') {
            format!("[{}]:{}", authority.host, authority.port)
        } else {
            format!("{}:{}", authority.host, authority.port)
        }
    }
}

impl fmt::Debug for RabbitConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitConfig")
            .field("address", &self.address())
            .field("vhost", &self.uri.vhost)
            .field("user", &self.uri.authority.userinfo.username)
            .field("connection_name", &self.connection_name)
            .finish_non_exhaustive()
    }
}

fn parse(url: &str) -> Result<AMQPUri, RabbitUrlError> {
    let rest = url.strip_prefix("amqp://").or_else(|| url.strip_prefix("amqps://"));
    let host = host(rest.ok_or(RabbitUrlError::Scheme)?);
    if host.is_empty() {
        return Err(RabbitUrlError::NoHost);
    }
    let mut uri: AMQPUri = url.parse().map_err(|_: String| RabbitUrlError::Malformed)?;
    // lapin takes an IPv6 address for none, and would go to localhost.
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        uri.authority.host = address.to_owned();
    }
    // The Go client of the original reads `amqp://host:5672/` as the default.
    if uri.vhost.is_empty() {
        uri.vhost = "/".to_owned();
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
    Ok(uri)
}

/// The host in `user:password@host:port/vhost?query`.
fn host(rest: &str) -> &str {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host_port = authority.rsplit('@').next().unwrap_or_default();
    match host_port.find(']') {
        Some(end) => host_port.get(..=end).unwrap_or_default(),
        None => host_port.split(':').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_the_original_reads_them() {
        for url in ["amqp://host", "amqp://host/", "amqp://guest:guest@host:5672/%2f"] {
            let config = RabbitConfig::new(url).expect("a good URL");
            assert_eq!((config.address().as_str(), config.uri.vhost.as_str()), ("host:5672", "/"));
        }
        let config = RabbitConfig::new("amqps://u:p%40@10.0.0.1:7/v?heartbeat=3").expect("good");
        assert_eq!((config.address().as_str(), config.uri.vhost.as_str()), ("10.0.0.1:7", "v"));
        assert_eq!(config.uri.authority.userinfo.password, "p@");
        assert_eq!(config.uri.query.heartbeat, Some(3));
        let config = RabbitConfig::new("amqp://[::1]:5673").expect("a good URL");
        assert_eq!(config.address(), "[::1]:5673");
    }

    #[test]
    fn parts_are_taken_as_they_are() {
        let parts = RabbitParts {
            host: "::1".to_owned(),
            port: None,
            vhost: "a/b%".to_owned(),
            login: Some(("u@x".to_owned(), "p@ss/w%rd:1".to_owned())),
            tls: false,
        };
        let config = RabbitConfig::from_parts(parts.clone());
        let url = "amqp://u%40x:p%40ss%2Fw%25rd%3A1@[::1]/a%2Fb%25";
        assert_eq!(config.uri, RabbitConfig::new(url).expect("a good URL").uri);
        assert!(!format!("{config:?}").contains("p@ss"));
        let with_tls = RabbitConfig::from_parts(RabbitParts { tls: true, login: None, ..parts });
        assert_eq!(with_tls.address(), "[::1]:5671");
        assert_eq!(with_tls.uri.authority.userinfo, AMQPUserInfo::default());
    }

    #[test]
    fn a_bad_url_is_refused_and_the_password_is_never_shown() {
        assert_eq!(RabbitConfig::new("http://host").err(), Some(RabbitUrlError::Scheme));
        assert_eq!(RabbitConfig::new("").err(), Some(RabbitUrlError::Scheme));
        assert_eq!(RabbitConfig::new("amqp://").err(), Some(RabbitUrlError::NoHost));
        assert_eq!(RabbitConfig::new("amqp://u:p@:1/").err(), Some(RabbitUrlError::NoHost));
        assert_eq!(RabbitConfig::new("amqp://h:port").err(), Some(RabbitUrlError::Malformed));
        assert_eq!(
            RabbitConfig::new("amqp://h/?heartbeat=x").err(),
            Some(RabbitUrlError::Malformed)
        );
        let config = RabbitConfig::new("amqp://user:secret@host").expect("a good URL");
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn the_limits_are_in_order() {
        let config = RabbitConfig::new("amqp://host").expect("a good URL");
        assert!(config.publish_timeout <= config.echo_timeout);
        assert!(config.echo_interval <= config.echo_timeout);
        assert!(config.echo_timeout < config.silent_limit);
        assert!(config.retry_min <= config.retry_max);
    }
}
