//! What every request gets.

use holdfast_http::metrics::HttpMetrics;
use holdfast_telemetry::metrics::Metrics;
use http::Method;

use crate::support::{TestServer, limits};

async fn exchange(server: &TestServer, request: &str) -> String {
    let mut client = server.connect().await;
    let (line, headers) = request.split_once('\n').unwrap_or((request, ""));
    client.send(format!("{line} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n")).await;
    client.rest().await
}

#[tokio::test]
async fn an_id_is_echoed_or_made() {
    let server = TestServer::start(limits()).await;
    let answer = exchange(&server, "GET /hello\nx-request-id: mine-1\r\n").await;
    assert!(answer.contains("x-request-id: mine-1\r\n"), "{answer}");
    let answer = exchange(&server, "GET /hello\nx-request-id: not mine\r\n").await;
    let id = answer.split("x-request-id: ").nth(1).expect("an id").split("\r\n").next();
    assert_eq!(id.map(str::len), Some(32), "{answer}");
}

#[tokio::test]
async fn an_id_goes_on_to_whoever_is_asked_for_the_request() {
    let (server, other) = (TestServer::start(limits()).await, TestServer::start(limits()).await);
    let path = format!("GET /passed-on/{}", other.address);
    let answer = exchange(&server, &format!("{path}\nx-request-id: mine-1\r\n")).await;
    assert!(answer.ends_with("\r\n\r\nmine-1"), "{answer}");
}

#[tokio::test]
async fn a_problem_is_completed_with_the_id() {
    let server = TestServer::start(limits()).await;
    let answer = exchange(&server, "GET /nowhere\nx-request-id: mine-2\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(answer.contains("content-type: application/problem+json"), "{answer}");
    assert!(answer.contains("cache-control: no-store"), "{answer}");
    let body = answer.split("\r\n\r\n").nth(1).expect("a body");
    let problem: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(problem["code"], "no_route");
    assert_eq!(problem["status"], 404);
    assert_eq!(problem["request_id"], "mine-2");
    let head = exchange(&server, "HEAD /nowhere\nx-request-id: mine-2\r\n").await;
    assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
    assert!(head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_server_goes_on() {
    let server = TestServer::start(limits()).await;
    let mut client = server.connect().await;
    client.send("GET /panic HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let answer = client.until("\"internal\"").await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    client.send("GET /hello HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.until("\r\n\r\nhello").await;
    server.metric("holdfast_http_panics_total 1").await;
    let series = "holdfast_http_requests_total{code=\"500\",method=\"GET\",route=\"other\"} 1";
    server.metric(series).await;
}

#[tokio::test]
async fn requests_are_counted_by_method_route_and_code() {
    let mut server = TestServer::start(limits()).await;
    exchange(&server, "GET /hello").await;
    exchange(&server, "BREW /hello").await;
    exchange(&server, "GET /object-name").await;
    let mut client = server.connect().await;
    client.send("PUT /body HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n12345").await;
    client.until("\r\n\r\n5").await;
    assert_eq!(server.body().await, Ok(5));
    for (code, method, route) in
        [(200, "GET", "/hello"), (200, "other", "/hello"), (404, "GET", "other")]
    {
        let labels = format!("code=\"{code}\",method=\"{method}\",route=\"{route}\"");
        server.metric(&format!("holdfast_http_requests_total{{{labels}}} 1")).await;
    }
    server.metric("holdfast_http_request_body_bytes_total 5").await;
    let labels = "method=\"PUT\",route=\"/body\"";
    server.metric(&format!("holdfast_http_request_duration_seconds_count{{{labels}}} 1")).await;
    server.metric("holdfast_http_requests_in_flight 0").await;
    let page = server.metrics.encode();
    assert!(!page.contains("object-name"));
    // The server is told that nobody needs those.
    assert!(
        !page.contains(
            "holdfast_http_request_duration_seconds_count{method=\"GET\",route=\"/hello\"}"
        )
    );
}

#[tokio::test]
async fn failures_of_known_requests_show_before_they_happen() {
    let metrics = Metrics::new("1").expect("fixed names");
    let http = HttpMetrics::new(&metrics, &[]).expect("new");
    assert!(!metrics.encode().contains("holdfast_http_requests_total"));
    http.begin_failures_at_zero(&[(Method::PUT, "/body"), (Method::GET, "/body")]);
    let shows = |code: u16, method: &str| {
        let labels = format!("code=\"{code}\",method=\"{method}\",route=\"/body\"");
        metrics.encode().contains(&format!("holdfast_http_requests_total{{{labels}}} 0"))
    };
    for code in [500, 503] {
        assert!(shows(code, "PUT") && shows(code, "GET"), "{code}");
    }
    assert!(shows(507, "PUT") && !shows(507, "GET"), "a read needs no room");
}

#[tokio::test]
async fn a_client_that_leaves_is_counted_apart_from_one_that_is_cut_off() {
    let server = TestServer::start(limits()).await;
    let mut client = server.connect().await;
    client.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
    server.metric("holdfast_http_requests_in_flight 1").await;
    drop(client);
    let series = "holdfast_http_requests_total{code=\"499\",method=\"GET\",route=\"other\"} 1";
    server.metric(series).await;
    server.metric("holdfast_http_responses_cut_total 0").await;
    let answer = exchange(&server, "GET /broken").await;
    assert!(!answer.contains("0\r\n\r\n"), "it must not look whole: {answer}");
    server.metric("holdfast_http_responses_cut_total 1").await;
}

#[tokio::test]
async fn a_request_lasts_until_its_body_has_been_sent() {
    let server = TestServer::start(limits()).await;
    let mut client = server.connect().await;
    client.send("GET /silent HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.until("start").await;
    assert!(server.metrics.encode().contains("holdfast_http_requests_in_flight 1"));
    drop(client);
    server.metric("holdfast_http_requests_in_flight 0").await;
}

#[tokio::test]
async fn a_trace_goes_through_the_server_and_on_with_the_client() {
    use holdfast_http::client::{ClientBody, ClientLimits, HttpClient};
    use opentelemetry::trace::TracerProvider;
    use tracing::Instrument;
    use tracing_subscriber::layer::SubscriberExt;

    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    // For this thread, on which a test's runtime runs everything.
    let _default = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let server = TestServer::start(limits()).await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = exchange(&server, &format!("GET /trace\ntraceparent: {parent}\r\n")).await;
    let inner = answer.rsplit("\r\n\r\n").next().expect("a body");
    assert!(inner.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{answer}");
    assert_ne!(inner, parent);

    let client = HttpClient::new(&holdfast_runtime::Runtime::real(), ClientLimits::default());
    let address = server.address.parse().expect("an address");
    let span = tracing::info_span!("caller");
    let own = holdfast_telemetry::trace::trace_id(&span).expect("sampled");
    let request = http::Request::get("/trace").body(ClientBody::empty()).expect("a path");
    let sent = client.send(&address, request, None).instrument(span).await.expect("answered");
    let body = client.read_all(sent, 100, crate::support::PATIENCE).await.expect("short");
    assert!(String::from_utf8_lossy(&body).contains(&own), "{own} in {body:?}");
}
