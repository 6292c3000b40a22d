//! Logging as a process sees it: environment in, lines and spans out. Each
//! check runs in a process of its own, since both are set up once per process.

use std::process::{Command, Output};
use std::time::Duration;

use holdfast_runtime::{Listener, Runtime};
use holdfast_telemetry::logging::{LogFormat, LoggingConfig, init};
use holdfast_telemetry::trace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// What the other processes run.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "started by the other tests, with an environment"]
async fn child() {
    let config = LoggingConfig {
        service_name: "holdfast-test".to_owned(),
        service_instance: "test-0".to_owned(),
        format: LogFormat::Json,
    };
    let guard = match init(&Runtime::real(), &config) {
        Ok(guard) => guard,
        Err(error) => panic!("refused: {error}"),
    };
    assert!(init(&Runtime::real(), &config).is_err(), "twice");
    let span = tracing::info_span!(target: "holdfast_test", "work");
    trace::set_parent(&span, PARENT);
    span.in_scope(|| tracing::info!(carried = trace::current_traceparent(), "worked"));
    drop(span);
    match std::env::var("TEST_END").as_deref() {
        Ok("drop") => drop(guard),
        _ => guard.shutdown().await,
    }
}

async fn run(environment: &[(&'static str, String)]) -> (Output, Duration) {
    let runtime = Runtime::real();
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "child", "--ignored", "--nocapture"]);
    command.env_remove("RUST_LOG").env("RUST_BACKTRACE", "0");
    command.envs(environment.iter().map(|(name, value)| (name, value.as_str())));
    let started = runtime.now();
    let output = runtime.blocking(move || command.output()).await.expect("no panic");
    (output.expect("it runs"), runtime.now() - started)
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A collector that takes one export.
async fn collect(mut listener: Box<dyn Listener>) -> Vec<u8> {
    let (mut socket, _) = listener.accept().await.expect("open");
    let mut seen = Vec::new();
    loop {
        let read = socket.read_buf(&mut seen).await.expect("open");
        let text = String::from_utf8_lossy(&seen).to_lowercase();
        let head = text.find("\r\n\r\n");
        let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split_once('\r'));
        let length = length.and_then(|(length, _)| length.parse::<usize>().ok());
        let (Some(head), Some(length)) = (head, length) else {
            assert!(read > 0, "closed after {text}");
            continue;
        };
        // The head is ASCII, so its length is the same in both forms.
        if seen.len() >= head + 4 + length {
            break;
        }
    }
    socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("open");
    seen
}

async fn exported(end: &str) {
    let listener = Runtime::real().listen("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_address().expect("bound");
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}")),
        ("OTEL_RESOURCE_ATTRIBUTES", "zone=north".to_owned()),
        ("RUST_LOG", "warn".to_owned()),
        ("TEST_END", end.to_owned()),
    ];
    let both = async { tokio::join!(run(&environment), collect(listener)) };
    let limit = Duration::from_secs(30);
    let both = Runtime::real().timeout(limit, both).await;
    let ((output, _), request) = both.expect("an export");
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(errors(&output), "", "RUST_LOG=warn holds lines back, not spans");
    let request = String::from_utf8_lossy(&request);
    assert!(request.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{request}");
    for text in ["holdfast-test", "test-0", "zone", "north", "work"] {
        assert!(request.contains(text), "{text} is missing in {request}");
    }
}

#[tokio::test]
async fn spans_reach_the_collector_before_a_shutdown_ends() {
    exported("shutdown").await;
}

#[tokio::test]
async fn spans_reach_the_collector_before_a_drop_ends() {
    exported("drop").await;
}

#[tokio::test]
async fn a_collector_that_is_away_holds_nothing_up_and_is_mentioned_once() {
    let runtime = Runtime::real();
    // One that refuses, and one that accepts and says nothing.
    let silent = runtime.listen("127.0.0.1:0").await.expect("a free port");
    let silent_at = silent.local_address().expect("bound");
    for (address, mentions) in [("127.0.0.1:1".to_owned(), 1), (silent_at, 0)] {
        let variable = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        let (output, took) = run(&[(variable, format!("http://{address}/v1/traces"))]).await;
        let lines = errors(&output);
        assert!(output.status.success(), "{lines}");
        assert!(took < Duration::from_secs(10), "{took:?}");
        assert_eq!(lines.matches("cannot be exported").count(), mentions, "{lines}");
    }
}

#[tokio::test]
async fn without_a_collector_there_are_lines_and_no_traces() {
    let (output, _) = run(&[]).await;
    let lines = errors(&output);
    assert!(output.status.success(), "{lines}");
    let line: serde_json::Value = serde_json::from_str(&lines).expect("one JSON line");
    assert_eq!(line["message"], "worked");
    assert_eq!(line["service"], "holdfast-test");
    assert_eq!(line["instance"], "test-0");
    assert_eq!(line["carried"], serde_json::Value::Null);
}

#[tokio::test]
async fn a_bad_variable_is_an_error_that_names_it() {
    for (variable, value) in [
        ("RUST_LOG", "holdfast=loud"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
    ] {
        let (output, _) = run(&[(variable, value.to_owned())]).await;
        assert!(!output.status.success(), "{variable}={value}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &errors(&output);
        assert!(text.contains("refused: ") && text.contains(variable), "{text}");
        assert!(text.contains(value), "{text}");
    }
}
