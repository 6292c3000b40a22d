//! An owner is lost in the middle of a large payload, where a write waits for all
//! of its owners: what the others have received is passed on to another data server.

use holdfast_testkit::client::{self, Connection, Response, copies_of_newest};
use holdfast_testkit::cluster::{Options, ProcessCluster};
use holdfast_testkit::{logs, wait};

const RELAYED: &str = "holdfast_uploads_relayed_total";

/// More than fits into what is under way to a data server that reads nothing.
const BYTES: usize = 64 << 20;

/// The places of the two data servers that receive a payload.
async fn receivers(cluster: &ProcessCluster) -> [usize; 2] {
    wait::until("two data servers receive it", async || {
        let mut busy = Vec::new();
        for (place, server) in cluster.data_servers.iter().enumerate() {
            if server.metric("holdfast_http_requests_in_flight", &[]).await > 0.0 {
                busy.push(place);
            }
        }
        <[usize; 2]>::try_from(busy).ok()
    })
    .await
}

/// Sends the beginning of a payload, has something happen to its receivers, and
/// sends the rest.
async fn put_around(
    cluster: &mut ProcessCluster,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    happens: impl AsyncFnOnce(&mut ProcessCluster, [usize; 2]),
) -> Response {
    let mut put = Connection::open(cluster.api(0)).await.expect("it listens");
    let length = body.len().to_string();
    let headers = [headers, &[("Content-Length", length.as_str())]].concat();
    put.send_head("PUT", path, &headers).await.expect("sent");
    let (first, rest) = body.split_at(4 << 20);
    put.send(first).await.expect("sent");
    let receivers = receivers(cluster).await;
    happens(cluster, receivers).await;
    for part in rest.chunks(1 << 20) {
        put.send(part).await.expect("it takes all of it");
    }
    put.response("PUT").await.expect("an answer")
}

async fn is_there_twice(cluster: &ProcessCluster, path: &str, body: &[u8]) {
    for api in &cluster.apis {
        let got = client::get(api.address(), path).await.expect("an answer");
        assert_eq!(got.status, 200, "{}", got.text());
        assert!(got.body == body, "{path}: other bytes");
    }
    let replicas = path.replace("/objects/", "/locate/") + "?replicas";
    wait::until_true("there are two copies", async || {
        let found = client::get(cluster.api(0), &replicas).await.expect("an answer");
        copies_of_newest(&found.json()) == 2
    })
    .await;
}

#[tokio::test]
async fn an_owner_that_is_lost_in_the_middle_of_a_payload_fails_no_write() {
    let _alone = crate::BUSY.lock().await;
    let env = vec![("REPLICAS", "2".to_owned())];
    let options = Options { data_servers: 4, env, ..Options::default() };
    let mut cluster = ProcessCluster::start(options).await;
    let body: Vec<u8> = (0..BYTES).map(|index| (index % 251) as u8).collect();
    let mut before = 0.0;
    for (round, headers) in [&[][..], &[("If-None-Match", "*")]].into_iter().enumerate() {
        let died = format!("/objects/died-{round}");
        let mut victim = 0;
        let kill = async |cluster: &mut ProcessCluster, receivers: [usize; 2]| {
            victim = receivers[round];
            cluster.data_servers[victim].kill().await;
        };
        let stored = put_around(&mut cluster, &died, headers, &body, kill).await;
        assert_eq!(stored.status, 200, "{}", stored.text());
        is_there_twice(&cluster, &died, &body).await;
        cluster.data_servers[victim].restart().await;
        cluster.ready().await;

        let hung = format!("/objects/hung-{round}");
        let pause = async |cluster: &mut ProcessCluster, receivers: [usize; 2]| {
            victim = receivers[1 - round];
            cluster.data_servers[victim].pause();
        };
        let stored = put_around(&mut cluster, &hung, headers, &body, pause).await;
        assert_eq!(stored.status, 200, "{}", stored.text());
        is_there_twice(&cluster, &hung, &body).await;
        cluster.data_servers[victim].resume();
        cluster.ready().await;

        let after = cluster.apis[0].metric(RELAYED, &[]).await;
        assert!(after >= before + 2.0, "{before} and then {after} were passed on");
        before = after;
    }
    cluster.check_logs(&[&logs::AWAY[..], &["did not take a payload"]].concat());
}
