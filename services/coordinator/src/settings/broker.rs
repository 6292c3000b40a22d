//! Where the broker is: one URL, or its parts.

use holdfast_bus::{RabbitConfig, RabbitParts};
use holdfast_core::node::Address;
use holdfast_core::settings::{SettingsReader, parse_count, parse_flag};

use super::RawCommon;

/// Longest name of a virtual host: AMQP has one byte for the length.
const MAX_VHOST_BYTES: usize = 255;

/// Whether anything was said of where the broker is.
pub(super) fn is_named(raw: &RawCommon) -> bool {
    given(&raw.rabbitmq_server).is_some() || given(&raw.rabbitmq_host).is_some()
}

/// Understands the variables; what is wrong is noted in `reader`. No reason
/// repeats a value that is, or may hold, a password.
pub(super) fn read(raw: &RawCommon, reader: &mut SettingsReader) -> Option<RabbitConfig> {
    if given(&raw.rabbitmq_server).is_some() {
        return reader.read("RABBITMQ_SERVER", raw.rabbitmq_server.as_deref(), None, |text| {
            RabbitConfig::new(text).map(Some).map_err(|error| error.to_string())
        });
    }
    let host = reader.read("RABBITMQ_HOST", raw.rabbitmq_host.as_deref(), None, parse_host);
    let port = reader.read("RABBITMQ_PORT", port(raw), None, |text| {
        let port = parse_count(text, 1, u16::MAX.into())?;
        Ok(u16::try_from(port).ok())
    });
    let tls = reader.read("RABBITMQ_TLS", raw.rabbitmq_tls.as_deref(), false, parse_flag);
    // Not by way of the reader, which cuts spaces off: they may be meant.
    let vhost = given(&raw.rabbitmq_vhost);
    let username = given(&raw.rabbitmq_username);
    let password = given(&raw.rabbitmq_password);
    reader.require(
        vhost.is_none_or(|vhost| vhost.len() <= MAX_VHOST_BYTES),
        "RABBITMQ_VHOST",
        format!("it must not be longer than {MAX_VHOST_BYTES} bytes"),
    );
    if !is_named(raw) {
        for (is_set, variable) in [
            (port.is_some(), "RABBITMQ_PORT"),
            (vhost.is_some(), "RABBITMQ_VHOST"),
            (username.is_some(), "RABBITMQ_USERNAME"),
            (password.is_some(), "RABBITMQ_PASSWORD"),
            (tls, "RABBITMQ_TLS"),
        ] {
            reader.require(
                !is_set,
                variable,
                "it says nothing without RABBITMQ_HOST; set that too",
            );
        }
    }
    let login = match (username, password) {
        (Some(username), Some(password)) => Some((username.to_owned(), password.to_owned())),
        (None, None) => None,
        (Some(_), None) => {
            reader.refuse("RABBITMQ_PASSWORD", "RABBITMQ_USERNAME is set; set this too");
            None
        }
        (None, Some(_)) => {
            reader.refuse("RABBITMQ_USERNAME", "RABBITMQ_PASSWORD is set; set this too");
            None
        }
    };
    let vhost = vhost.unwrap_or("/").to_owned();
    Some(RabbitConfig::from_parts(RabbitParts { host: host?, port, vhost, login, tls }))
}

fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// The port, unless Kubernetes wrote it: in a namespace with a Service named
/// `rabbitmq`, every container finds `RABBITMQ_PORT=tcp://<address>:<port>`.
fn port(raw: &RawCommon) -> Option<&str> {
    given(&raw.rabbitmq_port).filter(|text| !text.starts_with("tcp://"))
}

/// A name or an address, an IPv6 one with or without brackets; without port.
fn parse_host(text: &str) -> Result<Option<String>, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let host = if bare.contains(':') { format!("[{bare}]") } else { bare.to_owned() };
    if text.contains("://") || text.contains('@') {
        return Err(
            "it looks like a URL; put that into RABBITMQ_SERVER, or only the host here".to_owned()
        );
    }
    match format!("{host}:1").parse::<Address>() {
        Ok(_) => Ok(Some(bare.to_owned())),
        Err(_) => Err(format!(
            "{text:?} is not the name or address of a host; its port goes into RABBITMQ_PORT"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "p@ss/w%rd:1";

    fn raw(pairs: &[(&str, &str)]) -> RawCommon {
        let mut raw = RawCommon::default();
        for (name, value) in pairs {
            let field = match *name {
                "SERVER" => &mut raw.rabbitmq_server,
                "HOST" => &mut raw.rabbitmq_host,
                "PORT" => &mut raw.rabbitmq_port,
                "VHOST" => &mut raw.rabbitmq_vhost,
                "USERNAME" => &mut raw.rabbitmq_username,
                "PASSWORD" => &mut raw.rabbitmq_password,
                "TLS" => &mut raw.rabbitmq_tls,
                _ => panic!("{name} is none of them"),
            };
            *field = Some((*value).to_owned());
        }
        raw
    }

    /// What was understood, without the password, or what was refused.
    fn understood(pairs: &[(&str, &str)]) -> Result<Option<String>, String> {
        let mut reader = SettingsReader::default();
        let broker = read(&raw(pairs), &mut reader);
        let said = reader.finish(broker.map(|broker| format!("{broker:?}")));
        said.map_err(|bad| bad.to_string())
    }

    #[test]
    fn the_parts_make_a_broker() {
        for (pairs, address, user, vhost) in [
            (&[("HOST", "broker")] as &[_], "broker:5672", "guest", "/"),
            (&[("HOST", "broker"), ("TLS", "true")], "broker:5671", "guest", "/"),
            (&[("HOST", "::1"), ("PORT", "7")], "[::1]:7", "guest", "/"),
            (&[("HOST", "[::1]"), ("PORT", "tcp://10.0.0.1:80")], "[::1]:5672", "guest", "/"),
            (
                &[("HOST", "b"), ("USERNAME", " u@"), ("PASSWORD", SECRET), ("VHOST", "a/b")],
                "b:5672",
                " u@",
                "a/b",
            ),
        ] {
            let shown = understood(pairs).expect("all is right").expect("a broker");
            for part in [address, user, vhost] {
                assert!(shown.contains(&format!("{part:?}")), "{part} is not in {shown}");
            }
            assert!(!shown.contains(SECRET), "{shown}");
        }
    }

    #[test]
    fn the_url_wins_over_all_others() {
        let shown = understood(&[
            ("SERVER", "amqp://one"),
            ("HOST", "http://two"),
            ("PORT", "x"),
            ("PASSWORD", "half"),
        ]);
        assert!(shown.expect("the others do not count").expect("a broker").contains("one:5672"));
        assert_eq!(understood(&[]), Ok(None));
        assert_eq!(understood(&[("PORT", "tcp://10.0.0.1:80"), ("TLS", "false")]), Ok(None));
    }

    #[test]
    fn what_is_half_or_wrong_is_refused_without_the_password() {
        for (pairs, expected) in [
            (&[("PASSWORD", SECRET), ("USERNAME", "u")] as &[_], "without RABBITMQ_HOST"),
            (&[("PORT", "5672")], "RABBITMQ_PORT: it says nothing without RABBITMQ_HOST"),
            (&[("TLS", "true")], "RABBITMQ_TLS: it says nothing without RABBITMQ_HOST"),
            (&[("HOST", "b"), ("USERNAME", "u")], "RABBITMQ_PASSWORD: RABBITMQ_USERNAME is set"),
            (&[("HOST", "b"), ("PASSWORD", SECRET)], "RABBITMQ_USERNAME: RABBITMQ_PASSWORD is"),
            (&[("HOST", "amqp://u:p@ss/w%rd:1@b")], "RABBITMQ_HOST: it looks like a URL"),
            (&[("HOST", "u:p@ss/w%rd:1@b")], "RABBITMQ_HOST: it looks like a URL"),
            (&[("HOST", "b:5672")], "its port goes into RABBITMQ_PORT"),
            (&[("HOST", "b"), ("PORT", "65536")], "\"65536\" is not a whole number from 1"),
            (&[("HOST", "b"), ("PORT", "0")], "\"0\" is not a whole number from 1"),
            (&[("HOST", "b"), ("TLS", "yes")], "\"yes\" is neither true nor false"),
        ] {
            let said = understood(pairs).expect_err("it is wrong");
            assert!(said.contains(expected), "{said}");
            assert!(!said.contains(SECRET), "{said}");
        }
        let long = "v".repeat(256);
        assert!(understood(&[("HOST", "b"), ("VHOST", &long)]).is_err());
    }
}
