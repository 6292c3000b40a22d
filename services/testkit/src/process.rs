//! A service as a real process: started from its binary, and broken in every
//! way a process can be.

mod binaries;
mod usage;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use holdfast_runtime::Runtime;
use rustix::process::{Pid, Signal, kill_process};

pub use binaries::{binary, build_binaries};
pub use usage::Usage;

use crate::client::{self, Response};
use crate::{clock, logs, ports, wait, watchdog};

/// A fresh directory that is removed when this test process ends.
///
/// # Panics
/// When the temporary directory is not writable.
#[must_use]
pub fn fresh_directory(kind: &str) -> PathBuf {
    let id = Runtime::real().random_u64();
    let path = std::env::temp_dir().join(format!("holdfast-{kind}-{id:016x}"));
    std::fs::create_dir_all(&path).expect("the temporary directory is writable");
    watchdog::watch_directory(&path);
    path
}

/// One service of a test. Its ports, settings and files stay the same over
/// every restart. Dropping it kills it.
#[derive(Debug)]
pub struct Service {
    name: String,
    binary: &'static str,
    /// Where the binary is, if it is not of this build.
    binaries: Option<PathBuf>,
    env: BTreeMap<String, String>,
    log: PathBuf,
    checked: usize,
    address: String,
    admin: String,
    child: Option<Child>,
}

impl Service {
    /// A service that does not run yet: `binary` with ports of its own, and a
    /// log `name.log` in `directory`. It inherits no setting from the tests'
    /// environment.
    #[must_use]
    pub fn new(binary: &'static str, name: &str, directory: &Path) -> Self {
        // Before anybody waits for it.
        build_binaries();
        let address = format!("127.0.0.1:{}", ports::free());
        let admin = format!("127.0.0.1:{}", ports::free());
        let env = BTreeMap::from([
            ("LISTEN_ADDRESS".to_owned(), address.clone()),
            ("ADMIN_LISTEN_ADDRESS".to_owned(), admin.clone()),
        ]);
        let log = directory.join(format!("{name}.log"));
        let name = name.to_owned();
        Self { name, binary, binaries: None, env, log, checked: 0, address, admin, child: None }
    }

    /// Takes the binaries of another build from the next start on, or of this one.
    pub fn use_binaries(&mut self, directory: Option<PathBuf>) {
        self.binaries = directory;
    }

    /// Sets a variable for the next start.
    pub fn set(&mut self, variable: &str, value: impl Into<String>) {
        self.env.insert(variable.to_owned(), value.into());
    }

    /// Takes a variable away for the next start.
    pub fn unset(&mut self, variable: &str) {
        self.env.remove(variable);
    }

    /// What a variable was set to.
    #[must_use]
    pub fn setting(&self, variable: &str) -> Option<&str> {
        self.env.get(variable).map(String::as_str)
    }

    /// Where it serves clients.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where it serves probes and operators.
    #[must_use]
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// Its name in this test.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts the process without waiting for it to be ready.
    ///
    /// # Panics
    /// When it runs already or its binary is missing.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.expect("the directory is ours");
        let other = self.binaries.as_ref().map(|directory| directory.join(self.binary));
        let mut command = Command::new(other.unwrap_or_else(|| binary(self.binary)));
        command.env_clear().envs(&self.env).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a file")).stderr(log);
        let child = command.spawn().expect("the binary was just built");
        watchdog::watch_pid(child.id());
        self.child = Some(child);
    }

    /// Starts it again if it has ended by itself, as an orchestrator does; gives
    /// how it ended.
    pub fn start_again_if_ended(&mut self) -> Option<ExitStatus> {
        let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        if ended.is_some() {
            if let Some(child) = self.child.take() {
                forget(&child);
            }
            self.start();
        }
        ended
    }

    /// The process id.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map(Child::id).expect("it runs")
    }

    /// Whether the process is there.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Sends SIGTERM and does not wait.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Stops it for the moment: it keeps its sockets and answers nothing.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When it does not in time.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let name = format!("the end of {}", self.name);
        let status = wait::until(&name, async || child.try_wait().expect("a child of ours")).await;
        forget(&child);
        status
    }

    /// Ends it as an orchestrator does.
    pub async fn stop(&mut self) -> ExitStatus {
        self.terminate();
        self.ended().await
    }

    /// Ends it as a power cut would.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }

    /// Starts it again and waits until it is ready; stops it first if it runs.
    pub async fn restart(&mut self) {
        if self.child.is_some() {
            self.stop().await;
        }
        self.start();
        self.ready().await;
    }

    /// Waits until it says that it is ready.
    ///
    /// # Panics
    /// When it ends instead or takes too long; shows its log.
    pub async fn ready(&mut self) {
        let deadline = std::time::Instant::now() + wait::LIMIT;
        while !self.is_ready().await {
            let (running, late) = (self.is_running(), std::time::Instant::now() > deadline);
            assert!(running && !late, "{} is not ready:\n{}", self.name, self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether it says that it is ready.
    pub async fn is_ready(&self) -> bool {
        client::get(&self.admin, "/readyz").await.is_ok_and(|answer| answer.status == 200)
    }

    /// A page of the admin port.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn admin_page(&self, path: &str) -> Response {
        client::get(&self.admin, path).await.expect("the admin port answers")
    }

    /// The sum of a metric's samples whose name and labels contain every part.
    pub async fn metric(&self, name: &str, parts: &[&str]) -> f64 {
        let text = self.admin_page("/metrics").await.text();
        let samples = text.lines().filter(|line| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{']));
            rest.is_some_and(|rest| parts.iter().all(|part| rest.contains(part)))
        });
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// What `/admin/dataservers` says.
    pub async fn data_servers(&self) -> serde_json::Value {
        self.admin_page("/admin/dataservers").await.json()
    }

    /// What the process uses.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage::of(self.pid())
    }

    /// Everything it has logged, over all its runs.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Fails for each warning and error since the last check that `allowed`
    /// does not list.
    ///
    /// # Panics
    /// When there is one.
    pub fn check_log(&mut self, allowed: &[&str]) {
        let log = self.log();
        let new = log.get(self.checked..).unwrap_or_default();
        self.checked = log.len();
        let unlisted = logs::unlisted(new, allowed);
        assert!(unlisted.is_empty(), "{} logged:\n{}", self.name, unlisted.join("\n"));
    }

    /// Leaves what was logged so far out of the next check.
    pub fn skip_log(&mut self) {
        self.checked = self.log().len();
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("a child of ours");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // An error means that it has ended already.
        let _ = child.kill();
        let _ = child.wait();
        forget(&child);
    }
}

/// Nothing is left of a process that has ended.
fn forget(child: &Child) {
    watchdog::forget_pid(child.id());
    clock::clean_up_after(child.id());
}
