//! An owner is lost in the middle of a large payload, where a write waits for all
//! of its owners: what the others have received is passed on to another data server.

use holdfast_core::name::{Key, ObjectName};
use holdfast_core::node::NodeId;
use holdfast_core::placement::choose_owners;
use holdfast_testkit::client::{self, Connection, Response, copies_of_newest};
use holdfast_testkit::cluster::{Options, ProcessCluster, member};
use holdfast_testkit::elastic::candidates;
use holdfast_testkit::{logs, wait};

const RELAYED: &str = "holdfast_uploads_relayed_total";

/// What is logged of the owners that were lost.
const LOST: [&str; 2] = ["did not take a payload", "has lost an upload that waited"];

/// What is logged when another one does not take it.
const REFUSED: &str = "an upload could not be passed on";

/// More than fits into what is under way to a data server that reads nothing.
const BYTES: usize = 64 << 20;

async fn start(data_servers: usize, env: &[(&'static str, &str)]) -> ProcessCluster {
    let env = env.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    ProcessCluster::start(Options { data_servers, env, ..Options::default() }).await
}

/// The places of the data servers that receive a payload.
async fn receivers<const N: usize>(cluster: &ProcessCluster) -> [usize; N] {
    wait::until("as many data servers receive it as should", async || {
        let mut busy = Vec::new();
        for (place, server) in cluster.data_servers.iter().enumerate() {
            if server.metric("holdfast_http_requests_in_flight", &[]).await > 0.0 {
                busy.push(place);
            }
        }
        <[usize; N]>::try_from(busy).ok()
    })
    .await
}

/// Sends the beginning of a payload, has something happen to its receivers, and
/// sends the rest.
async fn put_around<const N: usize>(
    cluster: &mut ProcessCluster,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    happens: impl AsyncFnOnce(&mut ProcessCluster, [usize; N]),
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

fn payload() -> Vec<u8> {
    (0..BYTES).map(|index| (index % 251) as u8).collect()
}

/// Both apis read it, and as many have it as should.
async fn is_there(cluster: &ProcessCluster, path: &str, body: &[u8], copies: usize) {
    for api in &cluster.apis {
        let got = client::get(api.address(), path).await.expect("an answer");
        assert_eq!(got.status, 200, "{}", got.text());
        assert!(got.body == body, "{path}: other bytes");
    }
    let replicas = path.replace("/objects/", "/locate/") + "?replicas";
    wait::until_true("there are as many copies as there should be", async || {
        let found = client::get(cluster.api(0), &replicas).await.expect("an answer");
        copies_of_newest(&found.json()) == copies
    })
    .await;
}

#[tokio::test]
async fn an_owner_that_is_lost_in_the_middle_of_a_payload_fails_no_write() {
    let _alone = crate::BUSY.lock().await;
    // Who goes is there for a while, and takes nothing new.
    let mut cluster = start(4, &[("REPLICAS", "2"), ("SHUTDOWN_DELAY", "3s")]).await;
    let body = payload();
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
        is_there(&cluster, &died, &body, 2).await;
        cluster.data_servers[victim].restart().await;
        cluster.ready().await;

        let hung = format!("/objects/hung-{round}");
        let pause = async |cluster: &mut ProcessCluster, receivers: [usize; 2]| {
            victim = receivers[1 - round];
            cluster.data_servers[victim].pause();
        };
        let stored = put_around(&mut cluster, &hung, headers, &body, pause).await;
        assert_eq!(stored.status, 200, "{}", stored.text());
        is_there(&cluster, &hung, &body, 2).await;
        cluster.data_servers[victim].resume();
        cluster.ready().await;

        // It receives to the end what was begun, and says that it goes.
        let left = format!("/objects/left-{round}");
        let terminate = async |cluster: &mut ProcessCluster, receivers: [usize; 2]| {
            victim = receivers[round];
            cluster.data_servers[victim].terminate();
            let leaver = cluster.data_servers[victim].address();
            wait::until_true("it is known that it goes", async || {
                member(&cluster.apis[0], leaver).await.get("hearing") == Some(&"leaving".into())
            })
            .await;
        };
        let stored = put_around(&mut cluster, &left, headers, &body, terminate).await;
        assert_eq!(stored.status, 200, "{}", stored.text());
        is_there(&cluster, &left, &body, 2).await;
        cluster.data_servers[victim].ended().await;
        cluster.data_servers[victim].restart().await;
        cluster.ready().await;

        let after = cluster.apis[0].metric(RELAYED, &[]).await;
        assert!(after >= before + 3.0, "{before} and then {after} were passed on");
        before = after;
    }
    cluster.check_logs(&[&logs::AWAY[..], &LOST].concat());
}

#[tokio::test]
async fn two_of_three_owners_that_are_lost_in_the_middle_of_a_payload_fail_no_write() {
    let _alone = crate::BUSY.lock().await;
    let mut cluster = start(5, &[("REPLICAS", "3"), ("WRITE_QUORUM", "3")]).await;
    let body = payload();
    let mut paused = 0;
    let lose_two = async |cluster: &mut ProcessCluster, receivers: [usize; 3]| {
        paused = receivers[1];
        cluster.data_servers[receivers[0]].kill().await;
        cluster.data_servers[paused].pause();
    };
    let stored = put_around(&mut cluster, "/objects/lost", &[], &body, lose_two).await;
    assert_eq!(stored.status, 200, "{}", stored.text());
    is_there(&cluster, "/objects/lost", &body, 3).await;
    let relayed = cluster.apis[0].metric(RELAYED, &[]).await;
    assert!(relayed >= 2.0, "{relayed} were passed on");
    cluster.data_servers[paused].resume();
    cluster.check_logs(&[&logs::AWAY[..], &LOST].concat());
}

/// As many payloads as a data server lets wait.
const MOST_STAGED: usize = 256;

/// The places of all data servers, in the order in which they should hold a name.
async fn order(cluster: &ProcessCluster, key: &str) -> Vec<usize> {
    let name = ObjectName::seed(Key::new(key).expect("a short name"));
    let candidates: Vec<_> = candidates(cluster).await.into_values().collect();
    let order = choose_owners(&name, &candidates, candidates.len());
    let mut places = Vec::new();
    for server in &cluster.data_servers {
        let member = member(&cluster.apis[0], server.address()).await;
        let is_it = |node: &NodeId| member["node"] == node.to_string();
        places.push(order.iter().position(is_it).expect("all are members"));
    }
    let mut all: Vec<usize> = (0..places.len()).collect();
    all.sort_by_key(|place| places[*place]);
    all
}

#[tokio::test]
async fn who_takes_no_more_payloads_is_passed_over_when_an_owner_is_lost() {
    let _alone = crate::BUSY.lock().await;
    let mut cluster = start(5, &[("REPLICAS", "3"), ("WRITE_QUORUM", "3")]).await;
    let body = payload();
    let order = order(&cluster, "passed-over").await;
    let lose = async |cluster: &mut ProcessCluster, mut receivers: [usize; 3]| {
        receivers.sort_by_key(|place| order.iter().position(|one| one == place));
        assert_eq!(receivers, order[..3], "the owners receive it");
        // The next one refuses before it has read anything.
        let full = cluster.data_servers[order[3]].address();
        for _ in 0..MOST_STAGED {
            let staged = client::request(full, "POST", "/internal/v1/staging", &[], b"x").await;
            assert_eq!(staged.expect("an answer").status, 200);
        }
        cluster.data_servers[order[0]].kill().await;
    };
    let stored = put_around(&mut cluster, "/objects/passed-over", &[], &body, lose).await;
    assert_eq!(stored.status, 200, "{}", stored.text());
    is_there(&cluster, "/objects/passed-over", &body, 3).await;
    assert!(cluster.apis[0].log().contains(REFUSED), "the full one was not asked");
    cluster.check_logs(&[&logs::AWAY[..], &LOST, &[REFUSED, "status=429"]].concat());
}
