//! A service as a process: arguments, settings, logs, signals, exit status.
//!
//! | exit status | meaning |
//! |---|---|
//! | 0 | it was asked to end, and did |
//! | 1 | it could not start or go on; the log says why |
//! | 64 | arguments or settings are wrong; nothing was opened or bound |

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use holdfast_bus::Topic;
use holdfast_bus::{MemoryBroker, MemoryBrokerOptions};
use holdfast_bus::{RabbitBus, RabbitConfig};
use holdfast_core::settings::BadSettings;
use holdfast_runtime::Runtime;
use holdfast_telemetry::logging::{self, LoggingConfig};
use holdfast_telemetry::metrics::Metrics;
use holdfast_telemetry::shutdown::Shutdown;
use tracing::error;

use crate::service::BusConnection;
use crate::settings::{CommonSettings, environment};

/// As in sysexits.h: the command was used wrongly.
const EXIT_USAGE: u8 = 64;

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
    /// Connects to the broker, or to none if there are only peers. Returns at
    /// once: a broker that is away is waited for in the background.
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
        let (bus, inbox) = nobody.connect(topics);
        bus.metrics().register(registry)?;
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
    name: &'static str,
    version: &'static str,
    read: impl FnOnce(Variables) -> Result<C, BadSettings>,
    run: R,
) -> ExitCode
where
    C: Settings,
    R: FnOnce(C, Process) -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    if let Some(status) = answer_arguments(name, version) {
        return status;
    }
    let config = match read(environment().collect::<Vec<_>>().into_iter()) {
        Ok(config) => config,
        Err(bad) => return complain(&format!("{name}: {bad}"), EXIT_USAGE),
    };
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match built {
        Ok(tokio) => tokio.block_on(run_process(name, version, config, run)),
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
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// There are no options: everything is set by the environment.
fn answer_arguments(name: &str, version: &str) -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next()?;
    match first.to_str() {
        Some("--version" | "-V") => say(&format!("{name} {version}")),
        Some("--help" | "-h") => say(&format!(
            "{name} {version}\n\nUsage: {name}\n\nAll settings are environment variables; \
             README.md lists them under \"Configuration\"."
        )),
        _ => {
            let complaint = format!(
                "{name}: unknown argument {first:?}; settings are environment variables, see --help"
            );
            return Some(complain(&complaint, EXIT_USAGE));
        }
    }
    Some(ExitCode::SUCCESS)
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
