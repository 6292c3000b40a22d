//! A real data server on a mounted disk whose sync fails once: it acknowledges
//! nothing that may be lost, ends by itself with its own status, and what it had
//! acknowledged is there when it is started again.

#![allow(clippy::disallowed_types, reason = "a mounted disk")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use common::forgetful::ForgetfulMount;
use common::payload;
use common::power::{Call, Choice, Fault, Matching, Options};
use holdfast_testkit::client;
use holdfast_testkit::cluster::{self, ProcessCluster};
use holdfast_testkit::{logs, wait};

/// What the README says of a volume that failed.
const VOLUME_FAILED: i32 = 74;

const SMALL: usize = 12;

/// Goes to a file of its own.
const LARGE_BYTES: usize = 300 * 1024;

fn path(number: usize) -> String {
    format!("/objects/object-{number}")
}

fn body(number: usize) -> Vec<u8> {
    payload(if number == SMALL { LARGE_BYTES } else { 1_000 + number }).to_vec()
}

/// Everything that was acknowledged is there.
async fn check(cluster: &ProcessCluster) {
    for number in 0..=SMALL {
        let got = client::get(cluster.api(0), &path(number)).await.unwrap();
        assert_eq!(got.status, 200, "{number}: {}", got.text());
        assert!(got.body == body(number), "{number}: other bytes");
    }
}

/// Fails the next sync of a file, while `key` is written.
async fn fails(cluster: &mut ProcessCluster, mount: &ForgetfulMount, files: Matching, key: &str) {
    mount.disk().fail(Fault::next(Call::SyncData).on(files));
    let bytes = vec![7; if key.contains("large") { LARGE_BYTES } else { 100 }];
    let put = client::put(cluster.api(0), key, &bytes).await.unwrap();
    assert_ne!(put.status, 200, "{key} was acknowledged: {}", put.text());
    let status = cluster.data_servers[0].ended().await;
    assert_eq!(status.code(), Some(VOLUME_FAILED), "{key}: {status:?}");
}

#[tokio::test]
async fn a_data_server_whose_sync_failed_ends_and_comes_back_with_all_that_it_acknowledged() {
    let Some(mut mount) = ForgetfulMount::new(Options::default()) else { return };
    let options = cluster::Options {
        data_servers: 1,
        apis: 1,
        broker: false,
        broker_runs: false,
        peers: true,
        env: vec![
            ("REPLICAS", "1".to_owned()),
            ("SEGMENT_BYTES", "1MiB".to_owned()),
            ("RESERVE_BYTES", "4MiB".to_owned()),
        ],
    };
    let mut cluster = ProcessCluster::prepare(options).await;
    let root = mount.path().join("volume").display().to_string();
    cluster.data_servers[0].set("STORAGE_ROOT", root);
    cluster.launch();
    cluster.ready().await;
    for number in 0..=SMALL {
        let put = client::put(cluster.api(0), &path(number), &body(number)).await.unwrap();
        assert_eq!(put.status, 200, "{number}: {}", put.text());
    }
    check(&cluster).await;
    let segments = Matching::new(|path| path.extension().is_some_and(|ext| ext == "seg"));
    let payloads = Matching::new(|path| path.components().any(|part| part.as_os_str() == "large"));
    for (files, key) in [(segments, "/objects/small"), (payloads, "/objects/large")] {
        fails(&mut cluster, &mount, files, key).await;
        // The disk has lost what it could not sync, as after a power cut.
        mount.power_cut(Choice::NothingUnsynced);
        cluster.data_servers[0].start();
        cluster.ready().await;
        check(&cluster).await;
        // It was not acknowledged, and is there in whole or not at all.
        let got = client::get(cluster.api(0), key).await.unwrap();
        assert!(got.status == 404 || got.body.iter().all(|byte| *byte == 7), "{}", got.text());
        // Until it is heard, it is known by the last that it said: that it takes none.
        wait::until_true("it takes writes", async || {
            client::put(cluster.api(0), key, &[7]).await.unwrap().status == 200
        })
        .await;
    }
    let told = ["sync", "ends at once", "with requests in flight", "status=500", "status=507"];
    cluster.check_logs(&[&logs::AWAY[..], &told].concat());
}
