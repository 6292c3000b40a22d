//! What no honest client sends: it moves no process and changes no object.

use holdfast_testkit::client::{self, Connection, Response};
use holdfast_testkit::cluster::{Options, ProcessCluster, SharedCluster};

mod bodies;
mod names;
mod reads;

static CLUSTER: SharedCluster = SharedCluster::new();

/// More than the buffers of a connection hold.
const MAX_OBJECT_BYTES: usize = 24 << 20;

fn options() -> Options {
    let env = vec![
        ("HEADER_TIMEOUT", "1s".to_owned()),
        ("BODY_TIMEOUT", "2s".to_owned()),
        ("MAX_OBJECT_BYTES", MAX_OBJECT_BYTES.to_string()),
    ];
    Options { data_servers: 2, apis: 1, env, ..Options::default() }
}

/// The api and a data server: both speak the seed's paths.
fn both(cluster: &ProcessCluster) -> [String; 2] {
    let data_server = cluster.data_servers.first().expect("the options gave it");
    [cluster.api(0).to_owned(), data_server.address().to_owned()]
}

async fn connect(address: &str) -> Connection {
    Connection::open(address).await.expect("it listens")
}

async fn ask(address: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    client::request(address, method, path, headers, b"").await.expect("an answer")
}

async fn store(address: &str, path: &str, body: &[u8]) {
    let stored = client::put(address, path, body).await.expect("an answer");
    assert_eq!(stored.status, 200, "{path}: {}", stored.text());
}

async fn still_has(address: &str, path: &str, body: &[u8]) {
    let answer = client::get(address, path).await.expect("an answer");
    assert_eq!((answer.status, answer.body.as_slice()), (200, body), "{path}");
}
