//! An owner stalls where there is somebody to take its place: reads begin at another
//! replica meanwhile, and writes go to another data server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use holdfast_testkit::client::Connection;
use holdfast_testkit::cluster::{Options, ProcessCluster, member};
use holdfast_testkit::{logs, wait};

/// So many that every data server is an owner of some.
const NAMES: usize = 200;

/// So many that a data server that stops has some of their reads before it.
const CLIENTS: usize = 24;

/// Reads for each write.
const READS: usize = 8;

/// A read is hedged only when its data server stops after it was located and before
/// the answer. With so many clients most pauses meet some.
const MOST_PAUSES: usize = 10;

const HEDGED: &str = "holdfast_reads_hedged_total";
const STALLED: &str = "holdfast_writes_stalled_total";

async fn sum(cluster: &ProcessCluster, metric: &str) -> f64 {
    let mut sum = 0.0;
    for api in &cluster.apis {
        sum += api.metric(metric, &[]).await;
    }
    sum
}

async fn store(cluster: &ProcessCluster) {
    let mut api = Connection::open(cluster.api(0)).await.expect("it listens");
    for name in 0..NAMES {
        let path = format!("/objects/there-{name}");
        let stored = api.request("PUT", &path, &[], path.as_bytes()).await.expect("an answer");
        assert_eq!(stored.status, 200, "{}", stored.text());
    }
}

/// Writes names of its own and reads everybody's until told to stop; gives what
/// failed, and counts its rounds.
async fn load(
    api: String,
    client: usize,
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
) -> Vec<String> {
    let mut failed = Vec::new();
    let mut connection = Connection::open(&api).await.expect("it listens");
    let mut round = client;
    while !stop.load(Ordering::SeqCst) {
        let own = format!("/objects/own-{client}-{}", round % 20);
        let content = round.to_string();
        let stored = connection.request("PUT", &own, &[], content.as_bytes()).await;
        if !stored.as_ref().is_ok_and(|answer| answer.status == 200) {
            failed.push(format!("PUT {own}: {stored:?}"));
        }
        let others = (0..READS).map(|read| {
            let path = format!("/objects/there-{}", (round * READS + read) % NAMES);
            (path.clone(), path)
        });
        for (path, content) in std::iter::once((own, content)).chain(others) {
            let got = connection.request("GET", &path, &[], b"").await;
            let is_right = |status, text: &str| status == 200 && text == content;
            if !got.as_ref().is_ok_and(|answer| is_right(answer.status, &answer.text())) {
                failed.push(format!("GET {path}: {got:?}"));
            }
        }
        round += CLIENTS;
        rounds.fetch_add(1, Ordering::SeqCst);
    }
    failed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_owner_is_replaced_and_fails_no_request() {
    let _alone = crate::BUSY.lock().await;
    // Of two copies a write waits for both, so that one stalled owner keeps it.
    let env = vec![("REPLICAS", "2".to_owned())];
    let options = Options { data_servers: 4, env, ..Options::default() };
    let mut cluster = ProcessCluster::start(options).await;
    store(&cluster).await;
    let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let api = cluster.api(client % 2).to_owned();
            tokio::spawn(load(api, client, Arc::clone(&stop), Arc::clone(&rounds)))
        })
        .collect();
    let mut seen = (0.0, 0.0);
    for pause in 0..MOST_PAUSES {
        let enough = rounds.load(Ordering::SeqCst) + 2 * CLIENTS;
        wait::until_true("the load goes on", async || rounds.load(Ordering::SeqCst) > enough).await;
        let place = pause % cluster.data_servers.len();
        let address = cluster.data_servers[place].address().to_owned();
        cluster.data_servers[place].pause();
        for api in &cluster.apis {
            wait::until_true("the silence is noticed", async || {
                member(api, &address).await["hearing"] == "silent"
            })
            .await;
        }
        cluster.data_servers[place].resume();
        cluster.ready().await;
        seen = (sum(&cluster, HEDGED).await, sum(&cluster, STALLED).await);
        eprintln!("after pause {pause}: {} reads hedged, {} writes stalled", seen.0, seen.1);
        if seen.0 > 0.0 && seen.1 > 0.0 {
            break;
        }
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        let failed = client.await.expect("no panic");
        assert!(failed.is_empty(), "{failed:#?}");
    }
    assert!(seen.0 > 0.0, "no read was hedged");
    assert!(seen.1 > 0.0, "nobody was asked instead of who stalled");
    cluster.check_logs(&logs::AWAY);
}
