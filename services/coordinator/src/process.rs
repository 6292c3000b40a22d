//! A service as a process: arguments, settings, logs, signals, exit status.
//!
//! | exit status | meaning |
//! |---|---|
//! | 0 | it was asked to end, and did |
//! | 1 | it could not start or go on; the log says why |
//! | 64 | arguments or settings are wrong; nothing was opened or bound |
//! | 74 | a sync of the volume failed, or its index was found damaged; start it again |
//! | 75 | the data server was given up by the others; start it again, and it joins as a new, empty member |
//!
//! A [`Command`] has exit statuses of its own.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use holdfast_bus::Topic;
use holdfast_bus::{MemoryBroker, MemoryBrokerOptions};
use holdfast_bus::{RabbitBus, RabbitConfig};
use holdfast_core::settings::{BadSettings, Variable, listed};
use holdfast_runtime::{Runtime, raise_file_limit};
use holdfast_telemetry::logging::{self, LoggingConfig};
use holdfast_telemetry::metrics::Metrics;
use holdfast_telemetry::shutdown::Shutdown;
use tracing::{error, warn};

use crate::service::{BusConnection, StartError};
use crate::settings::{CommonSettings, environment};

/// As in sysexits.h: the command was used wrongly.
pub const EXIT_USAGE: u8 = 64;

/// As in sysexits.h: the disk failed. A start of the volume reads what the disk
/// still holds, so whoever watches the process should start it again.
const EXIT_IO: u8 = 74;

/// As in sysexits.h: not a fault of its own, and the next start does better.
const EXIT_RETIRED: u8 = 75;

/// A binary, as its `main` describes it.
#[derive(Debug, Clone, Copy)]
pub struct Binary {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Its settings, but for those of [`logging`].
    pub variables: fn() -> Vec<Variable>,
    /// What it does beside being a service.
    pub commands: &'static [Command],
}

/// Something that a binary does instead of being a service, named by its first
/// argument. It ends by itself, and has no logs: what it has to say goes to
/// standard output.
#[derive(Debug, Clone, Copy)]
pub struct Command {
    /// The first argument.
    pub name: &'static str,
    /// The arguments after it, as help shows them.
    pub arguments: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// Does it, and gives the exit status. Blocks.
    pub run: fn(Invocation) -> u8,
}

/// What a command gets from its process.
#[derive(Debug)]
pub struct Invocation {
    /// The name of the binary.
    pub binary: &'static str,
    /// The arguments after the command's name.
    pub arguments: Vec<OsString>,
    /// The environment.
    pub variables: Variables,
    /// The seam.
    pub runtime: Runtime,
}

/// What a service gets from its process.
#[derive(Debug)]
pub struct Process {
    /// The name of the binary.
    pub name: &'static str,
    /// The seam.
    pub runtime: Runtime,
    /// Where everything is counted.
    pub metrics: Metrics,
    /// Told by SIGTERM and SIGINT.
    pub shutdown: Shutdown,
}

impl Process {
    /// Connects to the broker, or to none if there are only peers; then there
    /// are no metrics of a broker. Returns at once: a broker that is away is
    /// waited for in the background.
    ///
    /// # Errors
    /// When a metric is registered twice: a fault in this program.
    pub fn connect(
        &self,
        settings: &CommonSettings,
        topics: &[Topic],
    ) -> Result<BusConnection, prometheus::Error> {
        let registry = self.metrics.registry();
        if let Some(broker) = &settings.broker {
            let mut config: RabbitConfig = broker.clone();
            config.connection_name = self.name.to_owned();
            let (bus, inbox) = RabbitBus::start(self.runtime.clone(), config, topics);
            bus.metrics().register(registry)?;
            return Ok(BusConnection { bus, inbox });
        }
        let nobody = MemoryBroker::new(self.runtime.clone(), MemoryBrokerOptions::default());
        nobody.stop();
        // Its numbers are not registered: no broker is missing where none is set.
        let (bus, inbox) = nobody.connect(topics);
        Ok(BusConnection { bus: Arc::clone(&bus) as Arc<_>, inbox })
    }
}

/// Settings as [`main`] needs them.
pub trait Settings {
    /// What every service has.
    fn common(&self) -> &CommonSettings;
}

/// The whole of a service's `main`.
pub fn main<C, R, F>(
    binary: Binary,
    read: impl FnOnce(Variables) -> Result<C, BadSettings>,
    run: R,
) -> ExitCode
where
    C: Settings,
    R: FnOnce(C, Process) -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    let Binary { name, version, .. } = binary;
    let variables = environment().collect::<Vec<_>>().into_iter();
    match asked_for(binary) {
        Asked::Answered(status) => return status,
        Asked::Command(run, arguments) => {
            let runtime = Runtime::real();
            let invocation = Invocation { binary: name, arguments, variables, runtime };
            return on_threads(name, async move { ExitCode::from(run(invocation)) });
        }
        Asked::Service => {}
    }
    match read(variables) {
        Ok(config) => on_threads(name, run_process(name, version, config, run)),
        Err(bad) => complain(&format!("{name}: {bad}"), EXIT_USAGE),
    }
}

fn on_threads(name: &str, work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(tokio) => tokio.block_on(work),
        Err(error) => complain(&format!("{name}: no threads to run on: {error}"), 1),
    }
}

/// Environment variables, names and values.
pub type Variables = std::vec::IntoIter<(String, String)>;

async fn run_process<C, R, F>(
    name: &'static str,
    version: &'static str,
    config: C,
    run: R,
) -> ExitCode
where
    C: Settings,
    R: FnOnce(C, Process) -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    let runtime = Runtime::real();
    let common = config.common();
    let instance = match &common.advertise {
        Some(address) => address.to_string(),
        None => common.listen.to_bind(),
    };
    let logging = LoggingConfig {
        service_name: name.to_owned(),
        service_instance: instance,
        format: common.log_format,
    };
    let guard = match logging::init(&runtime, &logging) {
        Ok(guard) => guard,
        Err(error) => return complain(&format!("{name}: {error}"), EXIT_USAGE),
    };
    if let Err(error) = raise_file_limit() {
        warn!(%error, "no more files and connections may be open than this process began with");
    }
    let process = match (Metrics::new(version), Shutdown::on_signals(&runtime)) {
        (Ok(metrics), Ok(shutdown)) => Process { name, runtime, metrics, shutdown },
        (Err(error), _) => return complain(&format!("{name}: {error}"), 1),
        (_, Err(error)) => return complain(&format!("{name}: no signals: {error}"), 1),
    };
    let ended = run(config, process).await;
    if let Err(error) = &ended {
        error!(error = format!("{error:#}"), "this service ends");
    }
    guard.shutdown().await;
    ended.map_or_else(|error| ExitCode::from(status_of(&error)), |()| ExitCode::SUCCESS)
}

fn status_of(error: &anyhow::Error) -> u8 {
    let status = |cause: &StartError| match cause {
        StartError::VolumeFailed { .. } => Some(EXIT_IO),
        StartError::Retired => Some(EXIT_RETIRED),
        _ => None,
    };
    error.chain().filter_map(|cause| cause.downcast_ref()).find_map(status).unwrap_or(1)
}

/// What the arguments ask for.
enum Asked {
    Service,
    Command(fn(Invocation) -> u8, Vec<OsString>),
    Answered(ExitCode),
}

/// A service has no options: everything is set by the environment.
fn asked_for(binary: Binary) -> Asked {
    let Binary { name, version, commands, .. } = binary;
    let mut arguments = std::env::args_os().skip(1);
    let Some(first) = arguments.next() else { return Asked::Service };
    let command = commands.iter().find(|command| first == command.name);
    if let Some(command) = command {
        return Asked::Command(command.run, arguments.collect());
    }
    match first.to_str() {
        Some("--version" | "-V") => say(&format!("{name} {version}")),
        Some("--help" | "-h") => say(&help(binary)),
        _ => {
            let complaint = format!(
                "{name}: unknown argument {first:?}; settings are environment variables, see --help"
            );
            return Asked::Answered(complain(&complaint, EXIT_USAGE));
        }
    }
    Asked::Answered(ExitCode::SUCCESS)
}

fn help(binary: Binary) -> String {
    let Binary { name, version, variables, commands } = binary;
    let mut text = format!("{name} {version}\n\nUsage: {name}\n");
    for Command { name: command, arguments, about, .. } in commands {
        let call = [name, command, arguments].join(" ");
        text.push_str(&format!("       {}\n           {about}\n", call.trim_end()));
    }
    text.push_str("\nEnvironment variables, with their defaults; README.md says more of each:\n\n");
    let all = [variables().as_slice(), &logging::VARIABLES].concat();
    text.push_str(listed(&all).trim_end());
    text
}

fn say(text: &str) {
    // A closed standard output is nobody's fault.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Before there are logs.
fn complain(text: &str, status: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_that_failed_has_an_exit_status_of_its_own() {
        let failed = || StartError::VolumeFailed { reason: "fdatasync: Input/output error".into() };
        assert_eq!(status_of(&failed().into()), 74);
        let wrapped = anyhow::Error::from(failed()).context("the data server failed");
        assert_eq!(status_of(&wrapped), 74);
        assert_eq!(status_of(&StartError::Retired.into()), 75);
        let other = StartError::Advertise { reason: "no port".into() };
        assert_eq!(status_of(&other.into()), 1);
        assert_eq!(status_of(&anyhow::anyhow!("something else")), 1);
    }

    #[test]
    fn help_lists_commands_and_variables() {
        let commands = &[Command {
            name: "check",
            arguments: "[--quick]",
            about: "Checks everything.",
            run: |_| 0,
        }];
        let variables = || vec![Variable::new("SOME_THING", "5s", "how long")];
        let text = help(Binary { name: "service", version: "1", variables, commands });
        assert!(text.contains("service check [--quick]\n"), "{text}");
        assert!(text.contains("Checks everything."), "{text}");
        assert!(text.contains("\n  SOME_THING "), "{text}");
        assert!(text.contains("\n  RUST_LOG "), "{text}");
    }
}
