//! Two data servers with two copies: the least that bears the loss of a disk, and
//! it takes a person to say so.

use std::time::Duration;

use holdfast_testkit::client;
use holdfast_testkit::cluster::{Options, ProcessCluster};
use holdfast_testkit::process::Service;
use holdfast_testkit::wait;
use serde_json::Value;

const OBJECTS: usize = 20;

async fn members(api: &Service, state: &str) -> Vec<Value> {
    let page = api.data_servers().await;
    let all = page["dataservers"].as_array().cloned().unwrap_or_default();
    all.into_iter().filter(|one| one["state"] == state).collect()
}

async fn copies(api: &Service, number: usize) -> usize {
    let path = format!("/locate/two/{number}?replicas");
    let found = client::get(api.address(), &path).await.expect("an answer");
    found.json().as_array().map_or(0, Vec::len)
}

/// Replaces the first data server by one with an empty disk, which waits for a person
/// to give up the one that was there; gives that one.
async fn lose_a_disk(cluster: &mut ProcessCluster) -> Value {
    let lost = &mut cluster.data_servers[0];
    let address = lost.address().to_owned();
    lost.kill().await;
    let root = lost.setting("STORAGE_ROOT").expect("it has one").to_owned();
    std::fs::remove_dir_all(root).expect("the volume is the test's");
    lost.start();
    let api = &cluster.apis[0];
    wait::until_true("the new one asks to join", async || {
        members(api, "joining").await.iter().any(|one| one["address"] == *address)
    })
    .await;
    wait::until("the lost one is silent", async || {
        let active = members(api, "active").await;
        active.into_iter().find(|one| one["hearing"] == "silent")
    })
    .await
}

#[tokio::test]
async fn of_two_one_that_lost_its_disk_is_given_up_by_hand_and_nothing_is_lost() {
    let env = vec![("REPLICAS", "2".to_owned()), ("REPAIR_DELAY", "4s".to_owned())];
    let options = Options { data_servers: 2, apis: 1, env, ..Options::default() };
    let mut cluster = ProcessCluster::start(options).await;
    for number in 0..OBJECTS {
        let put = client::put(cluster.api(0), &format!("/objects/two/{number}"), b"some").await;
        assert_eq!(put.expect("an answer").status, 200);
    }
    let lost = lose_a_disk(&mut cluster).await;
    let api = &cluster.apis[0];
    // Longer than `REPAIR_DELAY`: nobody gives it up, and nobody joins.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(members(api, "active").await.len(), 2);
    assert_eq!(members(api, "joining").await.len(), 1);
    let retire = format!("/admin/dataservers/{}/retire", lost["node"].as_str().expect("an id"));
    let refused = client::request(api.admin(), "POST", &retire, &[], b"").await;
    let refused = refused.expect("an answer");
    assert_eq!((refused.status, refused.code().as_str()), (409, "data-loss-not-excluded"));
    let accepted = format!("{retire}?data_loss=accept");
    let told = client::request(api.admin(), "POST", &accepted, &[], b"").await;
    assert_eq!(told.expect("an answer").status, 200);

    wait::until_true("the new one takes data", async || members(api, "active").await.len() == 2)
        .await;
    for number in 0..OBJECTS {
        wait::until_true("there are two copies", async || copies(api, number).await == 2).await;
        let got = client::get(api.address(), &format!("/objects/two/{number}")).await;
        let got = got.expect("an answer");
        assert_eq!((got.status, got.body.as_slice()), (200, &b"some"[..]));
    }
    let put = client::put(api.address(), "/objects/two/more", b"some").await;
    assert_eq!(put.expect("an answer").status, 200);
}

/// The copies that are left of what was acknowledged are on one member until repair
/// has made others: while that one is silent, nothing is said to be absent.
#[tokio::test]
async fn what_is_left_of_an_accepted_loss_is_never_absent() {
    const SOME: usize = 4 * 1024 * 1024;
    let env = vec![
        ("REPLICAS", "2".to_owned()),
        ("REPAIR_DELAY", "4s".to_owned()),
        // So that it takes longer than this test.
        ("REPAIR_RATE_BYTES", "1MiB".to_owned()),
    ];
    let options = Options { data_servers: 2, apis: 1, env, ..Options::default() };
    let mut cluster = ProcessCluster::start(options).await;
    let body = vec![7; SOME];
    for number in 0..OBJECTS {
        let put = client::put(cluster.api(0), &format!("/objects/two/{number}"), &body).await;
        assert_eq!(put.expect("an answer").status, 200);
    }
    let lost = lose_a_disk(&mut cluster).await;
    let api = &cluster.apis[0];
    let node = lost["node"].as_str().expect("an id");
    let accepted = format!("/admin/dataservers/{node}/retire?data_loss=accept");
    let told = client::request(api.admin(), "POST", &accepted, &[], b"").await;
    assert_eq!(told.expect("an answer").status, 200);
    wait::until_true("the new one takes data", async || members(api, "active").await.len() == 2)
        .await;

    cluster.data_servers[1].kill().await;
    let api = &cluster.apis[0];
    wait::until_true("it is silent", async || {
        members(api, "active").await.iter().any(|one| one["hearing"] == "silent")
    })
    .await;
    for number in 0..OBJECTS {
        let path = format!("/objects/two/{number}");
        let got = client::get(api.address(), &path).await.expect("an answer");
        assert_eq!((got.status, got.code().as_str()), (503, "incomplete"), "{number}");
        let create = [("if-none-match", "*")];
        let created = client::request(api.address(), "PUT", &path, &create, b"new").await;
        assert_eq!(created.expect("an answer").status, 503);
    }
    let listed = client::get(api.address(), "/objects/").await.expect("an answer");
    assert_eq!(listed.status, 503);
    // Not "it was not there", with nothing done; it may yet count.
    let deleted = client::request(api.address(), "DELETE", "/objects/two/0", &[], b"").await;
    assert_eq!(deleted.expect("an answer").status, 503);

    cluster.data_servers[1].start();
    let api = &cluster.apis[0];
    for number in 1..OBJECTS {
        let path = format!("/objects/two/{number}");
        wait::until_true("it is there as before", async || {
            let got = client::get(api.address(), &path).await.expect("an answer");
            assert_ne!(got.status, 404, "{number}");
            got.status == 200 && got.body == body
        })
        .await;
    }
}
