//! What the arguments ask for.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_core::settings::{parse_bytes, parse_count, parse_duration};
use lexopt::{Arg, Parser, ValueExt};
use thiserror::Error;

use crate::kubernetes::SERVICE_ACCOUNT;
use crate::site::Site;
use crate::volumes::quantity::Quantity;
use crate::{drain, load, selftest, volumes};

/// Every client keeps a few objects in memory.
const MAX_OBJECT_BYTES: u64 = 64 << 20;

const HELP: &str = "\
Usage: holdfastctl selftest --api http://HOST:PORT [options]
           Stores, reads, compares and deletes objects.
  --admin http://HOST:PORT   also look at its probes and metrics; may be repeated
  --timeout 60s              how long to try again what may pass

       holdfastctl load --api http://HOST:PORT [options]
           Writes, reads back, compares and deletes, and counts what goes wrong,
           until the time is over or SIGTERM comes. Nothing is tried again.
  --clients 8                how many at once
  --for 60s                  for how long
  --object-bytes 16KiB       length of an object
  --prefix load              beginning of the objects' names
  --allow CODE               problems with this code are no failure; may be repeated.
                             While a data server restarts: incomplete, read-failed
  --keep-alive               clients keep their connections (default)
  --no-keep-alive            one connection for each request
  --json                     the summary as one line of JSON

       holdfastctl grow-volumes --statefulset NAME --claim NAME --size QUANTITY [options]
           Inside a Kubernetes cluster, before an upgrade that asks for larger
           volumes: grows the claims of the StatefulSet, then deletes it without
           its pods, so that the upgrade makes it anew.
  --namespace NAME           where it is; default the pod's own
  --timeout 2m               how long to try again what may pass
  --service-account DIR      token, ca.crt and namespace; default
                             /var/run/secrets/kubernetes.io/serviceaccount

       holdfastctl drain-dataservers --statefulset NAME --keep COUNT --admin http://HOST:PORT
           [options]
           Inside a Kubernetes cluster, before an upgrade to fewer data servers: has
           those above the first COUNT hand over what they hold, and waits until they
           have retired. Does nothing when there are no more than COUNT. A drain that
           has begun goes on when this ends, and is found again by the next run.
  --admin http://HOST:PORT   the admin port of an api
  --namespace NAME           where it is; default the pod's own
  --timeout 1h               how long all of it may take
  --service-account DIR      as above

  --help, --version          wherever they stand

Exit status: 0 done, 1 it could not be done or something went wrong, 64 wrong
arguments.";

/// What to do.
#[derive(Debug)]
pub enum Asked {
    /// Only to say this.
    Text(String),
    /// See [`selftest`].
    Selftest(selftest::Options),
    /// See [`load`].
    Load(load::Options),
    /// See [`drain`].
    DrainDataServers(drain::Options),
    /// See [`volumes`].
    GrowVolumes(volumes::Options),
}

/// Arguments without a meaning.
#[derive(Debug, Error)]
pub enum UsageError {
    /// One is unknown, or has no value.
    #[error(transparent)]
    Argument(#[from] lexopt::Error),
    /// The value of one is not of the right form.
    #[error("--{option}: {reason}")]
    Value {
        /// The option.
        option: &'static str,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// One is needed.
    #[error("--{option} is needed")]
    Missing {
        /// The option.
        option: &'static str,
    },
    /// The first one names no command.
    #[error("there is no command {name:?}")]
    Command {
        /// What was given.
        name: OsString,
    },
    /// There is none.
    #[error("a command is needed")]
    Nothing,
}

/// Reads the arguments after the name of the program.
///
/// # Errors
/// [`UsageError`].
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Asked, UsageError> {
    let mut parser = Parser::from_args(arguments);
    let Some(first) = parser.next()? else { return Err(UsageError::Nothing) };
    match first {
        Arg::Value(name) if name == "selftest" => parse_selftest(&mut parser),
        Arg::Value(name) if name == "load" => parse_load(&mut parser),
        Arg::Value(name) if name == "drain-dataservers" => parse_drain(&mut parser),
        Arg::Value(name) if name == "grow-volumes" => parse_grow_volumes(&mut parser),
        Arg::Value(name) => Err(UsageError::Command { name }),
        other => told(&other).ok_or_else(|| other.unexpected().into()),
    }
}

/// What is answered wherever it is asked.
fn told(argument: &Arg<'_>) -> Option<Asked> {
    let version = concat!("holdfastctl ", env!("CARGO_PKG_VERSION"));
    match argument {
        Arg::Long("help") | Arg::Short('h') => Some(Asked::Text(format!("{version}\n\n{HELP}"))),
        Arg::Long("version") | Arg::Short('V') => Some(Asked::Text(version.to_owned())),
        _ => None,
    }
}

fn parse_selftest(parser: &mut Parser) -> Result<Asked, UsageError> {
    let (mut api, mut admin, mut timeout) = (None, Vec::new(), Duration::from_secs(60));
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("api") => api = Some(value(parser, "api", Site::parse)?),
            Arg::Long("admin") => admin.push(value(parser, "admin", Site::parse)?),
            Arg::Long("timeout") => timeout = value(parser, "timeout", parse_duration)?,
            other => return told(&other).ok_or_else(|| other.unexpected().into()),
        }
    }
    let api = api.ok_or(UsageError::Missing { option: "api" })?;
    Ok(Asked::Selftest(selftest::Options { api, admin, timeout }))
}

fn parse_load(parser: &mut Parser) -> Result<Asked, UsageError> {
    let mut api = None;
    let mut manner = load::Manner::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("api") => api = Some(value(parser, "api", Site::parse)?),
            Arg::Long("clients") => {
                manner.clients = value(parser, "clients", |text| parse_count(text, 1, 1_000))?;
            }
            Arg::Long("for") => manner.time = value(parser, "for", parse_duration)?,
            Arg::Long("object-bytes") => {
                manner.object_bytes = value(parser, "object-bytes", parse_object_bytes)?;
            }
            Arg::Long("prefix") => {
                manner.prefix = value(parser, "prefix", |text| Ok(text.to_owned()))?;
            }
            Arg::Long("allow") => {
                manner.allowed.push(value(parser, "allow", |text| Ok(text.to_owned()))?);
            }
            Arg::Long("keep-alive") => manner.keep_alive = true,
            Arg::Long("no-keep-alive") => manner.keep_alive = false,
            Arg::Long("json") => manner.json = true,
            other => return told(&other).ok_or_else(|| other.unexpected().into()),
        }
    }
    let api = api.ok_or(UsageError::Missing { option: "api" })?;
    Ok(Asked::Load(load::Options { api, manner }))
}

fn parse_object_bytes(text: &str) -> Result<usize, String> {
    let bytes = Some(parse_bytes(text)?).filter(|bytes| *bytes <= MAX_OBJECT_BYTES);
    let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
    bytes.ok_or_else(|| format!("{text:?} is more than 64MiB"))
}

fn parse_grow_volumes(parser: &mut Parser) -> Result<Asked, UsageError> {
    let (mut statefulset, mut claim, mut size, mut namespace) = (None, None, None, None);
    let mut timeout = Duration::from_secs(120);
    let mut service_account = PathBuf::from(SERVICE_ACCOUNT);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("statefulset") => {
                statefulset = Some(value(parser, "statefulset", parse_name)?);
            }
            Arg::Long("claim") => claim = Some(value(parser, "claim", parse_name)?),
            Arg::Long("size") => size = Some(value(parser, "size", Quantity::parse)?),
            Arg::Long("namespace") => namespace = Some(value(parser, "namespace", parse_name)?),
            Arg::Long("timeout") => timeout = value(parser, "timeout", parse_duration)?,
            Arg::Long("service-account") => service_account = parser.value()?.into(),
            other => return told(&other).ok_or_else(|| other.unexpected().into()),
        }
    }
    Ok(Asked::GrowVolumes(volumes::Options {
        statefulset: statefulset.ok_or(UsageError::Missing { option: "statefulset" })?,
        claim: claim.ok_or(UsageError::Missing { option: "claim" })?,
        size: size.ok_or(UsageError::Missing { option: "size" })?,
        namespace,
        timeout,
        service_account,
    }))
}

fn parse_drain(parser: &mut Parser) -> Result<Asked, UsageError> {
    let (mut statefulset, mut keep, mut admin, mut namespace) = (None, None, None, None);
    let mut timeout = Duration::from_secs(3_600);
    let mut service_account = PathBuf::from(SERVICE_ACCOUNT);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("statefulset") => {
                statefulset = Some(value(parser, "statefulset", parse_name)?);
            }
            Arg::Long("keep") => {
                let count = value(parser, "keep", |text| parse_count(text, 1, 1_000))?;
                keep = u32::try_from(count).ok();
            }
            Arg::Long("admin") => admin = Some(value(parser, "admin", Site::parse)?),
            Arg::Long("namespace") => namespace = Some(value(parser, "namespace", parse_name)?),
            Arg::Long("timeout") => timeout = value(parser, "timeout", parse_duration)?,
            Arg::Long("service-account") => service_account = parser.value()?.into(),
            other => return told(&other).ok_or_else(|| other.unexpected().into()),
        }
    }
    Ok(Asked::DrainDataServers(drain::Options {
        statefulset: statefulset.ok_or(UsageError::Missing { option: "statefulset" })?,
        keep: keep.ok_or(UsageError::Missing { option: "keep" })?,
        admin: admin.ok_or(UsageError::Missing { option: "admin" })?,
        namespace,
        timeout,
        service_account,
    }))
}

/// A name as Kubernetes takes it; it becomes part of a path.
fn parse_name(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if text.is_empty() || text.len() > 253 || text.starts_with('.') || !text.bytes().all(plain) {
        return Err(format!("{text:?} is not the name of a Kubernetes object"));
    }
    Ok(text.to_owned())
}

fn value<T>(
    parser: &mut Parser,
    option: &'static str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, UsageError> {
    let text = parser.value()?.string()?;
    parse(&text).map_err(|reason| UsageError::Value { option, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Result<Asked, UsageError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_defaults_are_those_that_help_tells() {
        let given = "--clients 8 --for 60s --object-bytes 16KiB --prefix load --keep-alive";
        let load = "load --api http://h:1";
        let (short, long) = (asked(load).expect("right"), asked(&format!("{load} {given}")));
        assert_eq!(format!("{short:?}"), format!("{:?}", long.expect("right")));
        let grow = "grow-volumes --statefulset s --claim=data --size=20Gi";
        let given = format!("--timeout 2m --service-account {SERVICE_ACCOUNT}");
        let (short, long) = (asked(grow).expect("right"), asked(&format!("{grow} {given}")));
        assert_eq!(format!("{short:?}"), format!("{:?}", long.expect("right")));
        for default in given.split_whitespace() {
            assert!(HELP.contains(default), "{default}");
        }
        let drain = "drain-dataservers --statefulset s --keep 3 --admin http://h:1";
        let given = format!("--timeout 1h --service-account {SERVICE_ACCOUNT}");
        let (short, long) = (asked(drain).expect("right"), asked(&format!("{drain} {given}")));
        assert_eq!(format!("{short:?}"), format!("{:?}", long.expect("right")));
        assert!(HELP.contains("--timeout 1h"));
        let (short, long) =
            (asked("selftest --api http://h:1"), asked("selftest --api http://h:1 --timeout 60s"));
        assert_eq!(format!("{:?}", short.expect("right")), format!("{:?}", long.expect("right")));
    }

    #[test]
    fn what_has_no_meaning_is_refused_with_a_reason() {
        for (line, expected) in [
            ("", "a command is needed"),
            ("shrink", "no command \"shrink\""),
            ("selftest", "--api is needed"),
            ("selftest --api", "missing argument"),
            ("selftest --api https://h:1", "--api: "),
            ("selftest --api http://h:1 --timeout 5", "--timeout: \"5\" is not a duration"),
            ("selftest --api http://h:1 more", "unexpected argument \"more\""),
            ("load --api http://h:1 --clients 0", "--clients: \"0\" is not a whole number"),
            ("load --api http://h:1 --object-bytes 1GiB", "--object-bytes: \"1GiB\" is more"),
            ("load --api http://h:1 --keep-alive=yes", "unexpected argument for option"),
            ("grow-volumes --claim data --size 1Gi", "--statefulset is needed"),
            ("grow-volumes --statefulset s --claim data", "--size is needed"),
            ("grow-volumes --statefulset s/../t --claim d --size 1Gi", "is not the name"),
            ("grow-volumes --statefulset s --claim d --size 1GB", "--size: \"1GB\""),
            ("drain-dataservers --statefulset s --keep 3", "--admin is needed"),
            ("drain-dataservers --statefulset s --admin http://h:1", "--keep is needed"),
            ("drain-dataservers --keep 0", "--keep: \"0\" is not a whole number"),
        ] {
            let error = asked(line).expect_err(line).to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
