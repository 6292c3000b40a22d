//! Writes that nobody answered, and what later readers are told of them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use holdfast_coordinator::data_servers::DataServers;
use holdfast_core::object::Kind;
use holdfast_core::version::Version;
use holdfast_core::wire::PROTOCOL_VERSION;
use holdfast_core::wire::locate::BatchRequest;
use holdfast_core::wire::transfer::RepairHint;
use holdfast_http::client::{ClientLimits, HttpClient};
use holdfast_runtime::Runtime;
use holdfast_testkit::{client, wait};

use crate::cluster::{Cluster, Member, PATIENCE, give, give_large, name};

/// The ETag of an object, as this member tells it.
async fn etag(member: &Member, key: &str) -> String {
    let path = format!("/objects/{key}");
    wait::until_within(PATIENCE, "the object is read", async || {
        let answer = client::get(&member.ports.address, &path).await.ok()?;
        assert!(answer.status == 200 || answer.status == 503, "{}", answer.text());
        (answer.status == 200).then(|| answer.header("etag").expect("it has one").to_owned())
    })
    .await
}

/// Has a member promise a version, as a conditional write does.
async fn promise(member: &Member, key: &str, ballot: Version) {
    let request = BatchRequest {
        protocol: PROTOCOL_VERSION,
        id: 1,
        names: vec![name(key)],
        trace: None,
        traces: BTreeMap::new(),
        stamps: BTreeMap::new(),
        promises: BTreeMap::from([(0, ballot)]),
    };
    let servers = DataServers::new(HttpClient::new(&Runtime::real(), ClientLimits::default()));
    let address = member.ports.address.parse().expect("an address");
    let body = serde_json::to_vec(&request).expect("plain").into();
    let limit = Duration::from_secs(5);
    let answer = servers.locate(&address, member.node, body, limit).await.expect("an answer");
    assert_eq!(answer.promised, [0]);
}

const KEY: &str = "contended";

/// The versions of two conditional writes whose api died: the first is on member 0.
/// The second was promised by the two others, so it was judged without the first,
/// and is on member 2. Then member 2 stops, and member 1 starts anew.
async fn leave_two(cluster: &mut Cluster, content: Bytes) -> (Member, Version, Version) {
    let clock = Runtime::real().unix_millis() << 16;
    let [older, younger] = [clock, clock + 1].map(|clock| Version::from_parts(clock, 8));
    for member in &cluster.members[1..] {
        promise(member, KEY, younger).await;
    }
    give_large(&cluster.members[0], KEY, older, content).await;
    give(&cluster.members[2], KEY, Kind::Object, younger).await;
    let mut third = cluster.members.pop().expect("three");
    third.stop().await.expect("an orderly end");
    let mut second = cluster.members.pop().expect("two");
    second.stop().await.expect("an orderly end");
    cluster.restart(second.root).await;
    (third, older, younger)
}

/// Whoever hears the first member settles the first write. Then the second one must
/// not show up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_writes_that_nobody_answered_the_one_that_was_told_stays() {
    let mut cluster = Cluster::start_patient(3, 3).await;
    let (third, older, younger) = leave_two(&mut cluster, Bytes::new()).await;
    let told = etag(&cluster.members[0], KEY).await;
    assert_eq!(told, format!("\"{older}\""));
    for member in cluster.running() {
        let held = member.holds(&[KEY.to_owned()]).await.remove(KEY).expect("it was settled");
        assert!(held.version > younger, "above what was judged without it: {}", held.version);
        assert_eq!(held.written_as(), older);
    }

    let mut first = cluster.members.remove(0);
    first.stop().await.expect("an orderly end");
    cluster.restart(third.root).await;
    for member in cluster.running() {
        assert_eq!(etag(member, KEY).await, told, "the younger one was never seen");
    }
    cluster.restart(first.root).await;
    cluster.all_active(3).await;
    let headers = [("If-Match", told.as_str())];
    let path = format!("/objects/{KEY}");
    let replaced = wait::until_within(PATIENCE, "the tag that was told holds", async || {
        let address = &cluster.members[0].ports.address;
        let answer = client::request(address, "PUT", &path, &headers, b"new").await.ok()?;
        assert_ne!(answer.status, 412, "{}", answer.text());
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_ne!(replaced.header("etag"), Some(told.as_str()));
}

/// Repair meets the first write before anybody reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repair_settles_above_what_was_judged_without_it() {
    let mut cluster = Cluster::start_patient(3, 3).await;
    let (_third, older, younger) = leave_two(&mut cluster, Bytes::new()).await;
    let hint = serde_json::to_vec(&RepairHint { names: vec![name(KEY)] }).expect("plain");
    wait::until_within(PATIENCE, "repair has settled it on both", async || {
        // It may be looked at before the other one is heard.
        let address = &cluster.members[0].ports.address;
        let asked = client::request(address, "POST", "/internal/v1/repair", &[], &hint).await;
        assert!(asked.ok()?.status < 300);
        for member in cluster.running() {
            let held = member.holds(&[KEY.to_owned()]).await.remove(KEY)?;
            assert_eq!(held.written_as(), older, "the only one that is heard");
            if held.version == older {
                return None;
            }
            assert!(held.version > younger, "above what was judged without it: {}", held.version);
        }
        Some(())
    })
    .await;
}

/// A read leaves a large one to repair, and asks for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_one_is_settled_above_too_and_keeps_its_bytes() {
    let mut cluster = Cluster::start_patient(3, 3).await;
    let content: Bytes =
        (0..9_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (_third, older, younger) = leave_two(&mut cluster, content.clone()).await;
    assert_eq!(etag(&cluster.members[0], KEY).await, format!("\"{older}\""));
    for member in cluster.running() {
        let held = member.holds(&[KEY.to_owned()]).await.remove(KEY).expect("it was settled");
        assert!(held.version > younger, "above what was judged without it: {}", held.version);
        let path = format!("/internal/v1/objects/objects/{KEY}");
        let version = held.version.to_string();
        let headers = [("holdfast-version", version.as_str())];
        let read = client::request(&member.ports.address, "GET", &path, &headers, b"").await;
        assert!(read.expect("an answer").body == content, "the bytes that were written");
    }
}
