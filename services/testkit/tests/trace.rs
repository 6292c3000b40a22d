//! One trace leads from a client's request through the locate over the broker
//! to the data server, as a collector of OpenTelemetry sees it.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "it plays the collector")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use holdfast_testkit::client;
use holdfast_testkit::cluster::{Options, ProcessCluster};
use holdfast_testkit::wait;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A span, as far as this test looks.
#[derive(Debug, Clone, Default)]
struct Span {
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    name: String,
    /// The spans that its links name.
    links: Vec<Vec<u8>>,
}

type Spans = Arc<Mutex<Vec<Span>>>;

/// The length-delimited fields of a protobuf message; the others are skipped.
fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = match key & 7 {
            0 => {
                varint(&mut bytes);
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)).expect("a length"),
            5 => 4,
            other => panic!("no wire type: {other}"),
        };
        let (value, rest) = bytes.split_at(length);
        bytes = rest;
        if key & 7 == 2 {
            found.push((key >> 3, value));
        }
    }
    found
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().expect("a varint ends");
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}

fn inner(messages: Vec<&[u8]>, number: u64) -> Vec<&[u8]> {
    let all = messages.into_iter().flat_map(fields);
    all.filter(|(field, _)| *field == number).map(|(_, value)| value).collect()
}

/// `ExportTraceServiceRequest` → `resource_spans` → `scope_spans` → `spans`.
fn spans(body: &[u8]) -> Vec<Span> {
    let spans = inner(inner(inner(vec![body], 1), 2), 2);
    let parse = |span: &[u8]| {
        let mut parsed = Span::default();
        for (field, value) in fields(span) {
            match field {
                1 => parsed.trace = value.to_vec(),
                2 => parsed.id = value.to_vec(),
                4 => parsed.parent = value.to_vec(),
                5 => parsed.name = String::from_utf8_lossy(value).into_owned(),
                13 => parsed.links.extend(inner(vec![value], 2).iter().map(|id| id.to_vec())),
                _ => {}
            }
        }
        parsed
    };
    spans.into_iter().map(parse).collect()
}

async fn collector() -> (String, Spans) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let collected = Spans::default();
    let received = Arc::clone(&collected);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(receive(stream, Arc::clone(&received)));
        }
    });
    (url, collected)
}

/// One export.
async fn receive(stream: TcpStream, collected: Spans) {
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
    }
    let mut body = vec![0; length];
    if stream.read_exact(&mut body).await.is_err() {
        return;
    }
    collected.lock().expect("nobody panics with it").extend(spans(&body));
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    // The sender may have given up.
    let _ = stream.get_mut().write_all(answer).await;
}

#[tokio::test]
async fn a_trace_leads_from_the_request_to_the_data_server() {
    let (url, collected) = collector().await;
    let env =
        vec![("OTEL_EXPORTER_OTLP_ENDPOINT", url), ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned())];
    let options = Options { data_servers: 2, apis: 1, env, ..Options::default() };
    let mut cluster = ProcessCluster::start(options).await;
    let stored = client::put(cluster.api(0), "/objects/traced", b"x").await.expect("an answer");
    assert_eq!(stored.status, 200);
    // The client takes part in a trace of its own.
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let headers = [("traceparent", parent.as_str())];
    let answer = client::request(cluster.api(0), "GET", "/objects/traced", &headers, b"").await;
    assert_eq!(answer.expect("an answer").text(), "x");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let names = async || -> HashMap<String, Vec<Span>> {
        let spans = collected.lock().expect("nobody panics with it").clone();
        let mut by_name: HashMap<String, Vec<Span>> = HashMap::new();
        for span in spans.into_iter().filter(|span| hex(&span.trace) == trace) {
            by_name.entry(span.name.clone()).or_default().push(span);
        }
        by_name
    };
    let found = wait::until("the whole trace", async || {
        let found = names().await;
        let whole = ["GET /objects/{name}", "locate", "GET /internal/v1/objects/{name}"]
            .iter()
            .all(|name| found.contains_key(*name))
            && found.get("locate_name").is_some_and(|spans| spans.len() == 2);
        whole.then_some(found)
    })
    .await;
    let request = &found["GET /objects/{name}"][0];
    assert_eq!(hex(&request.parent), "b7ad6b7169203331", "the client's own span");
    let locate = &found["locate"][0];
    assert_eq!(locate.parent, request.id);
    // One child for each data server, over the broker.
    for answered in &found["locate_name"] {
        assert_eq!(answered.parent, locate.id);
    }
    // The batch serves many requests: a span of its own, linked to each of them.
    wait::until_true("the batch names the lookups it serves", async || {
        let spans = collected.lock().expect("nobody panics with it").clone();
        spans.iter().any(|span| span.name == "locate_batch" && span.links.contains(&locate.id))
    })
    .await;
    cluster.check_logs(&[]);
}
