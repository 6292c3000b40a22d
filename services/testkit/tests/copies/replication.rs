//! Three copies of each object: what is acknowledged is found again, whoever
//! dies, and nobody is told what is not certain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use holdfast_testkit::client::{self, Connection};
use holdfast_testkit::cluster::{Options, ProcessCluster, SharedCluster, member};
use holdfast_testkit::{logs, wait};

static CLUSTER: SharedCluster = SharedCluster::new();

/// What is said of an upload that goes on without a member.
const LEFT_BEHIND: &str = "did not take a payload";

fn away() -> Vec<&'static str> {
    logs::AWAY.into_iter().chain([LEFT_BEHIND]).collect()
}

fn three_copies() -> Options {
    Options { env: vec![("REPLICAS", "3".to_owned())], ..Options::default() }
}

async fn put_if(api: &str, path: &str, header: (&str, &str), body: &str) -> u16 {
    let answer = client::request(api, "PUT", path, &[header], body.as_bytes()).await;
    answer.expect("an answer").status
}

async fn put(api: &str, path: &str, body: &[u8]) -> u16 {
    client::put(api, path, body).await.expect("an answer").status
}

/// The versions that members hold of an object.
async fn versions(api: &str, name: &str) -> Vec<String> {
    let answer = client::get(api, &format!("/locate/{name}?replicas")).await.expect("an answer");
    let replicas = answer.json();
    let replicas = replicas.as_array().cloned().unwrap_or_default();
    replicas.iter().map(|replica| replica["version"].to_string()).collect()
}

async fn hears(cluster: &ProcessCluster, address: &str, expected: &str) {
    for api in &cluster.apis {
        let what = format!("{} hears {address} as {expected}", api.name());
        wait::until_true(&what, async || member(api, address).await["hearing"] == expected).await;
    }
}

#[tokio::test]
async fn every_owner_gets_a_copy_of_each_version() {
    let mut guard = CLUSTER.lock(three_copies()).await;
    let cluster = guard.as_mut().expect("started");
    let large = vec![7; 3 << 20];
    for (path, body) in [("small", &b"a"[..]), ("large", &large), ("small", b"b")] {
        assert_eq!(put(cluster.api(0), &format!("/objects/{path}"), body).await, 200);
        let api = cluster.api(1).to_owned();
        wait::until_true("there are three equal copies", async || {
            let versions = versions(&api, path).await;
            versions.len() == 3 && versions.iter().all(|version| *version == versions[0])
        })
        .await;
        let got = client::get(&api, &format!("/objects/{path}")).await.expect("an answer");
        assert_eq!((got.status, got.body.as_slice()), (200, body));
    }
    cluster.check_logs(&[]);
}

#[tokio::test]
async fn of_many_creators_exactly_one_succeeds() {
    let mut guard = CLUSTER.lock(three_copies()).await;
    let cluster = guard.as_mut().expect("started");
    for round in 0..3 {
        let path = format!("/objects/create-{round}");
        let creators = (0..64).map(|index| {
            let (api, path) = (cluster.api(index % 2).to_owned(), path.clone());
            tokio::spawn(async move {
                (index, put_if(&api, &path, ("If-None-Match", "*"), &index.to_string()).await)
            })
        });
        let mut winners = Vec::new();
        for creator in creators.collect::<Vec<_>>() {
            match creator.await.expect("no panic") {
                (index, 200) => winners.push(index.to_string()),
                (_, 412) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(winners.len(), 1, "{winners:?}");
        let got = client::get(cluster.api(0), &path).await.expect("an answer").text();
        assert_eq!(winners, [got]);
    }
    cluster.check_logs(&[]);
}

#[tokio::test]
async fn compare_and_set_adds_every_token_once() {
    let mut guard = CLUSTER.lock(three_copies()).await;
    let cluster = guard.as_mut().expect("started");
    assert_eq!(put(cluster.api(0), "/objects/counter", b"").await, 200);
    let writers = (0..8).map(|index| {
        let api = cluster.api(index % 2).to_owned();
        tokio::spawn(async move {
            let mut unknown = 0;
            for round in 0..5 {
                let token = format!("{index}.{round},");
                loop {
                    let seen = client::get(&api, "/objects/counter").await.expect("an answer");
                    assert_eq!(seen.status, 200, "{}", seen.text());
                    if seen.text().contains(&token) {
                        // It was said to be unknown, and it happened.
                        break;
                    }
                    let etag = seen.header("etag").expect("a version").to_owned();
                    let next = seen.text() + &token;
                    match put_if(&api, "/objects/counter", ("If-Match", &etag), &next).await {
                        200 => break,
                        412 => {}
                        503 => unknown += 1,
                        status => panic!("{status}"),
                    }
                }
            }
            unknown
        })
    });
    let mut unknown = 0;
    for writer in writers.collect::<Vec<_>>() {
        unknown += writer.await.expect("no panic");
    }
    assert!(unknown < 20, "{unknown} of some hundred outcomes are unknown");
    let got = client::get(cluster.api(1), "/objects/counter").await.expect("an answer");
    let mut tokens: Vec<String> = got.text().split_terminator(',').map(str::to_owned).collect();
    tokens.sort_unstable();
    let expected: Vec<String> =
        (0..8).flat_map(|index| (0..5).map(move |round| format!("{index}.{round}"))).collect();
    assert_eq!(tokens, expected);
    let (path, etag) = ("/objects/counter", got.header("etag").expect("a version").to_owned());
    for (etag, status) in [("\"x\"", 412), (&etag, 204)] {
        let headers = [("If-Match", etag)];
        let answer = client::request(cluster.api(0), "DELETE", path, &headers, b"").await;
        assert_eq!(answer.expect("an answer").status, status);
    }
    assert_eq!(put_if(cluster.api(1), path, ("If-Match", "*"), "x").await, 412);
    assert_eq!(put_if(cluster.api(1), path, ("If-None-Match", "*"), "x").await, 200);
    // An outcome may be unknown, and a request that ends so is worth a line.
    cluster.check_logs(&["status=503"]);
}

/// Writes and reads through both apis until told to stop; counts what failed.
async fn load(api: String, id: usize, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) -> Vec<String> {
    let mut failed = Vec::new();
    let mut round = 0_u64;
    while !stop.load(Ordering::SeqCst) {
        let (path, body) = (format!("/objects/load-{id}-{}", round % 10), round.to_string());
        match client::put(&api, &path, body.as_bytes()).await {
            Ok(answer) if answer.status == 200 => {
                let got = client::get(&api, &path).await;
                match got {
                    Ok(got) if got.status == 200 && got.text() == body => {}
                    other => failed.push(format!("GET {path}: {other:?}")),
                }
            }
            other => failed.push(format!("PUT {path}: {other:?}")),
        }
        round += 1;
        done.fetch_add(1, Ordering::SeqCst);
    }
    failed
}

#[tokio::test]
async fn a_data_server_that_dies_or_hangs_fails_no_request() {
    let mut guard = CLUSTER.lock(three_copies()).await;
    let cluster = guard.as_mut().expect("started");
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load: Vec<_> = (0..4)
        .map(|id| {
            let api = cluster.api(id % 2).to_owned();
            tokio::spawn(load(api, id, Arc::clone(&stop), Arc::clone(&done)))
        })
        .collect();
    let victim = cluster.data_servers[1].address().to_owned();
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.data_servers[1].kill().await;
    hears(cluster, &victim, "silent").await;
    cluster.data_servers[1].restart().await;
    cluster.ready().await;
    cluster.data_servers[1].pause();
    hears(cluster, &victim, "silent").await;
    cluster.data_servers[1].resume();
    cluster.ready().await;
    // SIGTERM takes nobody off the roster, and nothing is handed over.
    cluster.data_servers[1].stop().await;
    hears(cluster, &victim, "silent").await;
    let left = member(&cluster.apis[0], &victim).await;
    assert_eq!((&left["state"], &left["lost"]), (&"active".into(), &false.into()));
    cluster.data_servers[1].restart().await;
    cluster.ready().await;
    stop.store(true, Ordering::SeqCst);
    for task in load {
        let failed = task.await.expect("no panic");
        assert!(failed.is_empty(), "{failed:#?}");
    }
    assert!(done.load(Ordering::SeqCst) > 20);
    cluster.check_logs(&away());
}

#[tokio::test]
async fn with_too_many_silent_nothing_is_said_that_is_not_certain() {
    let mut guard = CLUSTER.lock(three_copies()).await;
    let cluster = guard.as_mut().expect("started");
    assert_eq!(put(cluster.api(0), "/objects/kept", b"gold").await, 200);
    let dead: Vec<String> =
        cluster.data_servers[..2].iter().map(|server| server.address().to_owned()).collect();
    for server in &mut cluster.data_servers[..2] {
        server.kill().await;
    }
    for address in &dead {
        hears(cluster, address, "silent").await;
    }
    for path in ["/objects/kept", "/objects/never-there"] {
        let got = client::get(cluster.api(0), path).await.expect("an answer");
        assert_eq!((got.status, got.code().as_str()), (503, "incomplete"), "{path}");
        assert_eq!(got.json()["silent"].as_array().map(Vec::len), Some(2));
        assert!(got.header("retry-after").is_some());
        for headers in [&[][..], &[("If-None-Match", "*")]] {
            let answer = client::request(cluster.api(1), "PUT", path, headers, b"lead").await;
            let answer = answer.expect("an answer");
            assert_eq!((answer.status, answer.code().as_str()), (503, "no-quorum"), "{path}");
        }
    }
    for server in &mut cluster.data_servers[..2] {
        server.restart().await;
    }
    cluster.ready().await;
    let got = client::get(cluster.api(0), "/objects/kept").await.expect("an answer");
    assert_eq!((got.status, got.text().as_str()), (200, "gold"));
    assert_eq!(client::get(cluster.api(1), "/objects/never-there").await.expect("one").status, 404);
    cluster.check_logs(&away());
}

/// The place of the data server in the middle of an answer, while only one read is
/// under way. Others answer something now and then, and are soon done.
async fn who_serves(cluster: &ProcessCluster) -> usize {
    wait::until("one data server is in the middle of an answer", async || {
        let mut busy = Vec::new();
        for (place, server) in cluster.data_servers.iter().enumerate() {
            if server.metric("holdfast_http_requests_in_flight", &[]).await > 0.0 {
                busy.push(place);
            }
        }
        <[usize; 1]>::try_from(busy).ok().map(|[place]| place)
    })
    .await
}

#[tokio::test]
async fn a_read_goes_on_at_another_replica_when_one_dies_in_the_middle() {
    let mut guard = CLUSTER.lock(three_copies()).await;
    let cluster = guard.as_mut().expect("started");
    let body: Vec<u8> = (0..48 << 20).map(|index: u32| (index % 251) as u8).collect();
    assert_eq!(put(cluster.api(0), "/objects/long", &body).await, 200);
    let continued = "holdfast_reads_continued_total";
    for round in 1..=2 {
        let before = cluster.apis[0].metric(continued, &["\"ok\""]).await;
        let mut reading = Connection::open(cluster.api(0)).await.expect("it listens");
        reading.send_head("GET", "/objects/long", &[]).await.expect("sent");
        assert_eq!(reading.head().await.expect("an answer").status, 200);
        let mut got = vec![0; 1 << 20];
        let mut read = 0;
        while read < got.len() {
            read += reading.read(&mut got[read..]).await.expect("bytes");
        }
        let victim = who_serves(cluster).await;
        cluster.data_servers[victim].kill().await;
        got.resize(body.len(), 0);
        while read < got.len() {
            let more = reading.read(&mut got[read..]).await.expect("bytes");
            assert!(more > 0, "the body ended at {read}");
            read += more;
        }
        assert!(got == body, "other bytes came");
        let after = cluster.apis[0].metric(continued, &["\"ok\""]).await;
        assert!(after > before, "round {round}: the read did not depend on who died");
        cluster.data_servers[victim].restart().await;
        cluster.ready().await;
    }
    cluster.check_logs(&away());
}
