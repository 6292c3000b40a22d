//! A real RabbitMQ node of a test's own.

mod install;
mod node;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_runtime::Runtime;
use node::Ports;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::ports;

/// A start took 5 s on two idle cores; the rest is for busy ones.
const START_LIMIT: Duration = Duration::from_secs(90);

/// A graceful stop took under 2 s.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A RabbitMQ node on loopback ports and in a directory of its own, with its
/// own epmd: it neither sees nor touches another broker of the machine.
///
/// Dropping it kills what it started and removes the directory. So does the end
/// of the test process, however it ends: a broker in a `static` is never
/// dropped.
///
/// Everything panics when it fails: a test cannot go on then.
#[derive(Debug)]
pub struct Broker {
    directory: PathBuf,
    ports: Ports,
    node_name: String,
    epmd: Child,
    beam: Option<Child>,
    /// Cleans up once its standard input closes, which is when this process
    /// ends.
    watchdog: Child,
}

impl Broker {
    /// Starts a node and waits until it takes connections: some 5 s.
    ///
    /// # Panics
    /// When the package `rabbitmq-server` is missing, or the node does not
    /// start.
    pub async fn start() -> Self {
        let mut broker = Self::prepare();
        broker.spawn_beam();
        broker.wait_until_ready().await;
        broker
    }

    /// Takes ports and a directory, without starting the node: for tests that
    /// begin before the broker does. [`Self::restart`] starts it.
    ///
    /// # Panics
    /// When the package `rabbitmq-server` is missing.
    #[must_use]
    pub fn prepare() -> Self {
        let ports = Ports { amqp: ports::free(), distribution: ports::free(), epmd: ports::free() };
        let id = Runtime::real().random_u64();
        let directory = std::env::temp_dir().join(format!("holdfast-broker-{id:016x}"));
        node::write_directory(&directory, ports);
        let watchdog = node::watchdog(&directory);
        let epmd = node::epmd(&directory, ports);
        let node_name = format!("holdfast-{id:016x}@localhost");
        Self { directory, ports, node_name, epmd, beam: None, watchdog }
    }

    /// The port of the AMQP listener, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports.amqp
    }

    /// Where clients connect, as the default user.
    #[must_use]
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}", self.ports.amqp)
    }

    /// The address of the AMQP listener.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports.amqp))
    }

    /// Stops the node as an operator would. Durable exchanges are kept.
    ///
    /// # Panics
    /// When it does not stop in time.
    pub async fn stop(&mut self) {
        self.signal(Signal::CONT);
        self.signal(Signal::TERM);
        self.wait_until_gone().await;
    }

    /// Kills the node, as a crash would.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait_until_gone().await;
    }

    /// Starts the node again, on the same port and with the same data; stops it
    /// first if it runs.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn restart(&mut self) {
        if self.beam.is_some() {
            self.stop().await;
        }
        self.spawn_beam();
        self.wait_until_ready().await;
    }

    /// Freezes the node: connections stay, nothing answers.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a paused node go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Raises or clears the memory alarm, which blocks every publisher.
    ///
    /// # Panics
    /// When the node does not take the command.
    pub async fn set_memory_alarm(&self, on: bool) {
        let ratio = if on { "0.0000001" } else { "0.4" };
        self.evaluate(&format!("vm_memory_monitor:set_vm_memory_high_watermark({ratio})")).await;
    }

    /// Closes every client connection, as an operator would.
    ///
    /// # Panics
    /// When the node does not take the command.
    pub async fn close_connections(&self) {
        self.evaluate(
            "[rabbit_networking:close_connection(P, \"test\") || P <- rabbit_networking:connections()]",
        )
        .await;
    }

    /// Makes a user, and a virtual host in which it may do everything.
    ///
    /// # Panics
    /// When the node does not take the command.
    pub async fn add_user(&self, user: &str, password: &str, vhost: &str) {
        // Byte by byte: the parts may have any characters.
        let binary = |text: &str| {
            let bytes: Vec<String> = text.bytes().map(|byte| byte.to_string()).collect();
            format!("<<{}>>", bytes.join(","))
        };
        let (user, password, vhost) = (binary(user), binary(password), binary(vhost));
        let (backend, all, who) = ("rabbit_auth_backend_internal", binary(".*"), binary("test"));
        self.evaluate(&format!(
            "ok = {backend}:add_user({user}, {password}, {who}), \
             ok = rabbit_vhost:add({vhost}, {who}), \
             ok = {backend}:set_permissions({user}, {vhost}, {all}, {all}, {all}, {who})"
        ))
        .await;
    }

    /// Runs an Erlang expression in the node. `rabbitmqctl` does the same in
    /// 2 s, this takes half of one.
    async fn evaluate(&self, expression: &str) {
        let mut control = node::control(&self.directory, self.ports, &self.node_name, expression);
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            if let Some(status) = control.try_wait().expect("a child of ours") {
                assert!(status.success(), "the node refused {expression}: {status}");
                return;
            }
            if Instant::now() > deadline {
                // The assertion below tells; the child may be gone by now.
                let _ = control.kill();
                panic!("the node did not answer to {expression}");
            }
            pause().await;
        }
    }

    fn spawn_beam(&mut self) {
        assert!(self.beam.is_none(), "the node runs already");
        let child = node::beam(&self.directory, self.ports, &self.node_name);
        node::note_pid(&self.directory, "beam", &child);
        self.beam = Some(child);
    }

    async fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + START_LIMIT;
        while !speaks_amqp(self.address()).await {
            let ended = self.beam.as_mut().and_then(|child| child.try_wait().ok().flatten());
            let log = || node::log(&self.directory);
            assert!(ended.is_none(), "RabbitMQ ended while starting: {ended:?}\n{}", log());
            assert!(Instant::now() < deadline, "RabbitMQ did not start in time\n{}", log());
            pause().await;
        }
    }

    async fn wait_until_gone(&mut self) {
        let Some(mut child) = self.beam.take() else { return };
        let deadline = Instant::now() + STOP_LIMIT;
        while child.try_wait().expect("a child of ours").is_none() {
            assert!(Instant::now() < deadline, "RabbitMQ did not stop in time");
            pause().await;
        }
        node::forget_pid(&self.directory, "beam");
    }

    fn signal(&self, signal: Signal) {
        let Some(child) = &self.beam else { return };
        kill_process(Pid::from_child(child), signal).expect("the node is a child of ours");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // The watchdog goes first, so that it does not act on process ids that
        // are free again.
        let children = [&mut self.watchdog, &mut self.epmd].into_iter().chain(self.beam.as_mut());
        for child in children {
            // An error means that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// Whether the server's half of the AMQP greeting comes. A port that accepts is
/// not enough: a frozen node's does.
async fn speaks_amqp(address: SocketAddr) -> bool {
    let greet = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
        stream.read_u8().await
    };
    let greeting = tokio::time::timeout(Duration::from_secs(2), greet).await;
    // 1 is the type of a method frame; "A" would be a refusal.
    matches!(greeting, Ok(Ok(1)))
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}
