//! The processes of a node, and the files that they read.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{install, quiet};

/// The loopback ports of a node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) amqp: u16,
    pub(super) distribution: u16,
    pub(super) epmd: u16,
}

/// Kills what the pid files name and removes the directory, once its standard
/// input closes.
const WATCHDOG: &str = r#"read -r _
for pid in "$1"/*.pid; do [ -e "$pid" ] && kill -9 "$(cat "$pid")"; done
rm -rf "$1""#;

pub(super) fn write_directory(directory: &Path, ports: Ports) {
    for name in ["home", "log", "mnesia", "plugins"] {
        std::fs::create_dir_all(directory.join(name)).expect("the temporary directory is writable");
    }
    install::link_applications(&directory.join("plugins"));
    let config = format!(
        "listeners.tcp.1 = 127.0.0.1:{}\n\
         log.console = false\n\
         log.file.level = warning\n\
         disk_free_limit.absolute = 1MB\n",
        ports.amqp
    );
    let files = [
        ("rabbitmq.conf", config.as_str()),
        ("advanced.config", "[{kernel, [{inet_dist_use_interface, {127, 0, 0, 1}}]}].\n"),
        ("enabled_plugins", "[].\n"),
    ];
    for (name, text) in files {
        std::fs::write(directory.join(name), text).expect("the directory is ours");
    }
}

/// In a session of its own, so that an interrupt from the keyboard ends the
/// tests but not the one who cleans up after them.
pub(super) fn watchdog(directory: &Path) -> Child {
    let mut command = Command::new("setsid");
    command.args(["sh", "-c", WATCHDOG, "watchdog"]).arg(directory);
    quiet(&mut command).stdin(Stdio::piped());
    command.spawn().expect("setsid is part of every Debian")
}

pub(super) fn epmd(directory: &Path, ports: Ports) -> Child {
    let mut command = Command::new("epmd");
    command.args(["-address", "127.0.0.1", "-port", &ports.epmd.to_string()]);
    let child = quiet(&mut command).spawn().expect("epmd comes with RabbitMQ");
    note_pid(directory, "epmd", &child);
    child
}

/// The node itself. `erl` is run as the server's own script would, which then
/// replaces itself: the child is the emulator, without a shell around it.
pub(super) fn beam(directory: &Path, ports: Ports, node_name: &str) -> Child {
    let mut command = Command::new("erl");
    environment(&mut command, directory, ports);
    command
        .env("RABBITMQ_HOME", install::home())
        .env("RABBITMQ_BASE", directory)
        .env("RABBITMQ_MNESIA_BASE", directory.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", directory.join("log"))
        .env("RABBITMQ_PLUGINS_DIR", directory.join("plugins"))
        .env("RABBITMQ_CONFIG_FILE", directory.join("rabbitmq.conf"))
        .env("RABBITMQ_ADVANCED_CONFIG_FILE", directory.join("advanced.config"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", directory.join("enabled_plugins"))
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        .env("RABBITMQ_NODENAME", node_name)
        .env("RABBITMQ_NODE_PORT", ports.amqp.to_string())
        .env("RABBITMQ_DIST_PORT", ports.distribution.to_string());
    // One scheduler that does not spin, and small tables: tests share two cores.
    command.args(["+S", "1:1", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"]);
    command.args(["+P", "65536", "+t", "1048576", "+W", "w", "+B", "i"]);
    command.args(["-noinput", "-s", "rabbit", "boot", "-boot", "start_sasl"]);
    command.args(["-kernel", "prevent_overlapping_partitions", "false"]);
    command.args(["-syslog", "logger", "[]", "-syslog", "syslog_error_logger", "false"]);
    let output = |name| std::fs::File::create(directory.join("log").join(name));
    quiet(&mut command)
        .stdout(output("stdout").expect("the directory is ours"))
        .stderr(output("stderr").expect("the directory is ours"));
    command.spawn().expect("erl comes with RabbitMQ")
}

/// A short-lived node that has `node_name` evaluate `expression`.
pub(super) fn control(directory: &Path, ports: Ports, node_name: &str, expression: &str) -> Child {
    let call = format!("rpc:call('{node_name}', erlang, apply, [fun() -> {expression} end, []])");
    let script = format!(
        "case {call} of {{badrpc, Why}} -> io:format(\"~p~n\", [Why]), halt(1); _ -> halt(0) end."
    );
    let mut command = Command::new("erl");
    environment(&mut command, directory, ports);
    let name = format!("control-{node_name}");
    command.args(["-noinput", "-hidden", "-sname", &name, "+S", "1:1", "-eval", &script]);
    quiet(&mut command).spawn().expect("erl comes with RabbitMQ")
}

fn environment(command: &mut Command, directory: &Path, ports: Ports) {
    // The cookie is made in HOME.
    command
        .current_dir(directory)
        .env("HOME", directory.join("home"))
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("ERL_EPMD_PORT", ports.epmd.to_string())
        .env("ERL_LIBS", directory.join("plugins"))
        .env("ERL_MAX_PORTS", "4096")
        .env("ERL_CRASH_DUMP_SECONDS", "0")
        .env_remove("ERL_FLAGS");
}

pub(super) fn note_pid(directory: &Path, name: &str, child: &Child) {
    std::fs::write(pid_file(directory, name), child.id().to_string())
        .expect("the directory is ours");
}

pub(super) fn forget_pid(directory: &Path, name: &str) {
    std::fs::remove_file(pid_file(directory, name)).expect("it was written when the child started");
}

fn pid_file(directory: &Path, name: &str) -> std::path::PathBuf {
    directory.join(format!("{name}.pid"))
}

/// What the node has said so far.
pub(super) fn log(directory: &Path) -> String {
    let files = std::fs::read_dir(directory.join("log")).into_iter().flatten().flatten();
    files.filter_map(|entry| std::fs::read_to_string(entry.path()).ok()).collect()
}
