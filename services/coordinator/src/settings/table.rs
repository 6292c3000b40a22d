//! The variables of [`RawCommon`](super::RawCommon), as help shows them.

use holdfast_core::settings::{NO_DEFAULT, Variable};

use super::Defaults;

/// Every variable that an api and a data server have in common.
#[must_use]
pub fn variables(defaults: &Defaults) -> Vec<Variable> {
    let row = Variable::new;
    vec![
        row("LISTEN_ADDRESS", defaults.listen, "where clients and other services connect"),
        row(
            "ADVERTISE_ADDRESS",
            NO_DEFAULT,
            "what others are told to connect to; else LISTEN_ADDRESS",
        ),
        row("ADMIN_LISTEN_ADDRESS", defaults.admin, "probes, metrics, list of data servers"),
        row("RABBITMQ_SERVER", NO_DEFAULT, "the broker, as amqp:// or amqps:// URL"),
        row("RABBITMQ_HOST", NO_DEFAULT, "the broker, part by part, unless RABBITMQ_SERVER is set"),
        row("RABBITMQ_PORT", "5672", "its port; with TLS, the default is 5671"),
        row("RABBITMQ_VHOST", "/", "its virtual host"),
        row("RABBITMQ_USERNAME", "guest", "who logs in"),
        row("RABBITMQ_PASSWORD", "guest", "with which password, not encoded"),
        row("RABBITMQ_TLS", "false", "whether to speak TLS: true or false"),
        row("SSL_CERT_FILE", NO_DEFAULT, "which certificates to trust, instead of the system's"),
        row("SSL_CERT_DIR", NO_DEFAULT, "the same, a directory of them"),
        row(
            "DATASERVER_PEERS",
            NO_DEFAULT,
            "data servers to find without the broker: host:port,...",
        ),
        row("HEARTBEAT_INTERVAL", "5s", "how often a data server says that it is there"),
        row("HEARTBEAT_EXPIRY", "10s", "after how long without a word one counts as silent"),
        row("LOCATE_TIMEOUT", "1s", "when a lookup ends, whatever is missing"),
        row("SHUTDOWN_DELAY", defaults.shutdown_delay, "how long to take requests after SIGTERM"),
        row("SHUTDOWN_TIMEOUT", "30s", "how long requests in flight may then take"),
        row("MAX_CONNECTIONS", "1024", "connections at once on the public port"),
        row("HEADER_TIMEOUT", "15s", "how long the head of a request may take"),
        row("BODY_TIMEOUT", "30s", "how long a body may stand still"),
        row("MAX_OBJECT_BYTES", "5TiB", "largest object"),
        row("LOG_FORMAT", "text", "form of the log lines: text or json"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::RawCommon;
    use holdfast_core::settings::read_by;

    /// Read by the library for TLS, not by us.
    const OF_TLS: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

    #[test]
    fn the_table_has_every_variable_and_no_other() {
        let defaults = Defaults { listen: ":1", admin: ":2", shutdown_delay: "5s" };
        let mut listed: Vec<_> = variables(&defaults).iter().map(|row| row.name).collect();
        listed.retain(|name| !OF_TLS.contains(name));
        assert_eq!(listed, read_by::<RawCommon>());
    }
}
