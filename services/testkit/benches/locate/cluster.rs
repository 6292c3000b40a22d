//! Three data servers and an api as processes, over a broker of their own.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_runtime::Runtime;
use holdfast_testkit::broker::Broker;
use holdfast_testkit::ports;

use crate::http::Connection;
use crate::load::{OBJECTS, stored};

pub(crate) const DATA_SERVERS: usize = 3;
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
pub(crate) const EXPIRY: Duration = Duration::from_secs(10);

const START_LIMIT: Duration = Duration::from_secs(60);

/// Kills what it was told of and removes the directory, once its standard input
/// closes: that is when this process ends, however it ends.
const WATCHDOG: &str = r#"pids=
while read -r pid; do pids="$pids $pid"; done
[ -z "$pids" ] || kill -9 $pids
rm -rf "$1""#;

/// Builds the binaries that are measured.
pub(crate) fn build() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // What cargo says of this package would make build scripts run again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command.args(["build", "--release", "--locked", "-p", "holdfast-api", "-p"]);
    let status = command.arg("holdfast-dataserver").status().expect("cargo is here");
    assert!(status.success(), "the services do not build");
}

/// Where cargo puts them: two directories above this program, which is in
/// `target/release/deps`.
fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("this program has a path");
    own.ancestors().nth(2).expect("cargo runs it from its own directory").join(name)
}

/// Everything that is measured. Dropping it ends every process.
pub(crate) struct Cluster {
    pub(crate) api: SocketAddr,
    pub(crate) broker: Broker,
    services: Vec<Child>,
    watchdog: Child,
    directory: PathBuf,
}

impl Cluster {
    /// Starts everything, waits until it is ready and stores the objects.
    pub(crate) async fn start() -> Self {
        let broker = Broker::start().await;
        let id = Runtime::real().random_u64();
        let directory = std::env::temp_dir().join(format!("holdfast-bench-{id:016x}"));
        std::fs::create_dir_all(&directory).expect("the temporary directory is writable");
        let watchdog = watchdog(&directory);
        let api = free_address();
        let services = Vec::new();
        let mut cluster = Self { api, broker, services, watchdog, directory };
        let mut admins = Vec::new();
        for number in 1..=DATA_SERVERS {
            let name = format!("data-{number}");
            admins.push(cluster.spawn("holdfast-dataserver", &name, free_address()));
        }
        admins.push(cluster.spawn("holdfast-api", "api", api));
        for admin in admins {
            cluster.wait_until_ready(admin).await;
        }
        cluster.store_objects().await;
        cluster
    }

    /// Starts a service; gives its admin address.
    fn spawn(&mut self, binary_name: &str, name: &str, listen: SocketAddr) -> SocketAddr {
        let admin = free_address();
        let log = File::create(self.directory.join(format!("{name}.log"))).expect("it is ours");
        let root = self.directory.join(name);
        std::fs::create_dir_all(&root).expect("the directory is ours");
        let mut command = Command::new(binary(binary_name));
        command
            .env_clear()
            .env("LISTEN_ADDRESS", listen.to_string())
            .env("ADMIN_LISTEN_ADDRESS", admin.to_string())
            .env("STORAGE_ROOT", root)
            .env("RABBITMQ_SERVER", self.broker.url())
            .env("INITIAL_MEMBERS", DATA_SERVERS.to_string())
            .env("HEARTBEAT_INTERVAL", format!("{}s", HEARTBEAT.as_secs()))
            .env("HEARTBEAT_EXPIRY", format!("{}s", EXPIRY.as_secs()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn().expect("the services are built");
        note(&mut self.watchdog, &child);
        self.services.push(child);
        admin
    }

    async fn wait_until_ready(&self, admin: SocketAddr) {
        let deadline = Instant::now() + START_LIMIT;
        while !is_ready(admin).await {
            assert!(Instant::now() < deadline, "{admin} is not ready\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn logs(&self) -> String {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let files = entries.map(|entry| entry.path()).filter(|path| path.is_file());
        files.filter_map(|path| std::fs::read_to_string(path).ok()).collect()
    }

    async fn store_objects(&self) {
        let mut api = Connection::open(self.api).await.expect("the api is ready");
        for index in 0..OBJECTS {
            let path = format!("/objects/{}", stored(index).replace('/', "%2F"));
            let status = api.request("PUT", &path, "found").await.expect("an answer");
            assert_eq!(status, 200, "{path}\n{}", self.logs());
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The watchdog goes first, so that it does not act on process ids that
        // are free again.
        for child in std::iter::once(&mut self.watchdog).chain(&mut self.services) {
            // An error means that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// In a session of its own, so that an interrupt from the keyboard ends all but
/// the one who cleans up.
fn watchdog(directory: &Path) -> Child {
    let mut command = Command::new("setsid");
    command.args(["sh", "-c", WATCHDOG, "watchdog"]).arg(directory);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("setsid is part of every Debian")
}

fn note(watchdog: &mut Child, child: &Child) {
    use std::io::Write;
    let input = watchdog.stdin.as_mut().expect("it is piped");
    writeln!(input, "{}", child.id()).expect("the watchdog reads");
}

async fn is_ready(admin: SocketAddr) -> bool {
    let Ok(mut connection) = Connection::open(admin).await else { return false };
    matches!(connection.request("GET", "/readyz", "").await, Ok(200))
}

fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::free()))
}
