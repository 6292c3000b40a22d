//! Signals as an orchestrator sends them, to a process of its own.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use holdfast_runtime::Runtime;
use holdfast_telemetry::logging::{LogFormat, LoggingConfig, init};
use holdfast_telemetry::shutdown::{Ending, Phase, Shutdown, ShutdownTimes, run_shutdown};

/// What the other process runs: a service whose work never ends by itself.
#[tokio::test]
#[ignore = "started by the other test, and ended by signals"]
async fn child() {
    let runtime = Runtime::real();
    let shutdown = Shutdown::on_signals(&runtime).expect("handlers");
    let (service_name, service_instance) = ("test".to_owned(), "test".to_owned());
    let config = LoggingConfig { service_name, service_instance, format: LogFormat::Text };
    let _guard = init(&runtime, &config).expect("defaults");
    let hour = Duration::from_secs(3600);
    let times = ShutdownTimes { delay: hour, finish: hour };
    let last_word = async {
        assert_eq!(shutdown.phase(), Phase::Leaving);
        tracing::info!("goodbye");
    };
    tracing::info!("running");
    let work = std::future::pending();
    let ending = run_shutdown(&runtime, &shutdown, times, last_word, work).await;
    assert_eq!(ending, Ending::Forced);
    tracing::info!("forced");
}

fn signal(child: &Child, name: &str) {
    let mut kill = Command::new("kill");
    let status = kill.args([format!("-{name}"), child.id().to_string()]).status();
    assert!(status.expect("kill runs").success());
}

fn wait_for(lines: &mut BufReader<ChildStderr>, text: &str) {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert!(lines.read_line(&mut line).expect("text") > 0, "ended before {text:?}");
    }
}

#[test]
fn the_first_signal_begins_the_end_and_the_second_ends_it() {
    for (first, second) in [("TERM", "TERM"), ("INT", "TERM"), ("TERM", "INT")] {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env_remove("RUST_LOG")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut lines = BufReader::new(child.stderr.take().expect("piped"));
        wait_for(&mut lines, "running");
        signal(&child, first);
        wait_for(&mut lines, "goodbye");
        signal(&child, second);
        wait_for(&mut lines, "forced");
        assert!(child.wait().expect("a child").success(), "{first} {second}");
    }
}
