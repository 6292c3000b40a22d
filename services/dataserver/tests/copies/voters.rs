//! Voters: once all has settled, two silent members of many stop only the names
//! that both of them vote for.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_testkit::{client, wait};
use serde_json::Value;

use crate::cluster::{Cluster, Member, PATIENCE, content, known};

/// More, since only some of them are stopped.
const OBJECTS: usize = 120;

async fn electorate(member: &Member) -> Value {
    let listed = client::get(&member.ports.admin, "/admin/dataservers").await.expect("an answer");
    listed.json()["electorate"].clone()
}

/// Waits until every member knows that voters among so many answer for names.
async fn reads_voters(cluster: &Cluster, members: usize) {
    let mut seen = Vec::new();
    let agreed = tokio::time::timeout(PATIENCE, async {
        loop {
            seen.clear();
            for member in cluster.running() {
                seen.push(electorate(member).await);
            }
            let is_so = |one: &Value| one["phase"] == "reading" && one["members"] == members;
            if seen.iter().all(is_so) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    });
    let agreed = agreed.await.is_ok();
    assert!(agreed, "{seen:?}");
}

async fn status(member: &Member, method: &str, key: &str) -> u16 {
    let body = if method == "PUT" { content(key) } else { Vec::new() };
    let path = format!("/objects/{key}");
    let answer = client::request(&member.ports.address, method, &path, &[], &body).await;
    answer.expect("an answer").status
}

/// The keys that both of these have.
async fn held_by_both(one: &Member, other: &Member, keys: &[String]) -> BTreeSet<String> {
    let (one, other) = (one.holds(keys).await, other.holds(keys).await);
    one.into_keys().filter(|key| other.contains_key(key)).collect()
}

async fn silent(cluster: &Cluster, members: &[&Member]) {
    for member in members {
        for other in cluster.running() {
            wait::until_within(PATIENCE, "it is silent", async || {
                (known(other, member.node).await["hearing"] == "silent").then_some(())
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_silent_members_of_seven_stop_only_what_both_vote_for() {
    let mut cluster = Cluster::start_patient(7, 3).await;
    let keys = cluster.put(OBJECTS).await;
    reads_voters(&cluster, 7).await;
    cluster.copies(&keys, 3, "after the writes").await;

    let (mut one, mut other) = (cluster.members.remove(0), cluster.members.remove(0));
    let both = held_by_both(&one, &other, &keys).await;
    assert!(!both.is_empty() && both.len() * 3 < keys.len(), "{} names", both.len());
    one.stop().await.expect("an orderly end");
    other.stop().await.expect("an orderly end");
    silent(&cluster, &[&one, &other]).await;

    let asked = &cluster.members[2];
    for key in &keys {
        let expected = if both.contains(key) { 503 } else { 200 };
        for method in ["GET", "PUT", "GET"] {
            assert_eq!(status(asked, method, key).await, expected, "{method} {key}");
        }
    }
    // Absence is proven where it can be, and never claimed where it cannot.
    let mut absent: BTreeMap<u16, usize> = BTreeMap::new();
    for number in 0..OBJECTS {
        *absent.entry(status(asked, "GET", &format!("none-{number}")).await).or_default() += 1;
    }
    assert!(absent[&404] > absent[&503] && absent.len() == 2, "{absent:?}");
    // A list would have to know of all names.
    let listed = client::get(&asked.ports.address, "/objects/").await.expect("an answer");
    assert_eq!(listed.status, 503, "{}", listed.text());
    assert_eq!(electorate(asked).await["phase"], "reading", "it did not fall");

    cluster.restart(one.root).await;
    cluster.restart(other.root).await;
    cluster.all_active(7).await;
    cluster.all_read(&keys).await;
    cluster.copies(&keys, 3, "after they are back").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_electorate_follows_joins_drains_and_losses() {
    let mut cluster = Cluster::start(5, 3).await;
    let keys = cluster.put(OBJECTS).await;
    reads_voters(&cluster, 5).await;
    cluster.add(1).await;
    cluster.all_active(6).await;
    reads_voters(&cluster, 6).await;
    cluster.copies(&keys, 3, "after the join").await;
    cluster.all_read(&keys).await;

    let (node, told_by) = (cluster.members[0].node, &cluster.members[1]);
    let path = format!("/admin/dataservers/{node}/drain");
    let told = client::request(&told_by.ports.admin, "POST", &path, &[], b"").await;
    assert_eq!(told.expect("an answer").status, 200);
    // Names of which both are voters could not be written.
    let path = format!("/admin/dataservers/{}/drain", cluster.members[2].node);
    let refused = client::request(&told_by.ports.admin, "POST", &path, &[], b"").await;
    let refused = refused.expect("an answer");
    assert_eq!((refused.status, refused.code().as_str()), (503, "votes"));
    wait::until_within(PATIENCE, "the drained member has retired", async || {
        (known(told_by, node).await["state"] == "retired").then_some(())
    })
    .await;
    let mut drained = cluster.members.remove(0);
    drained.stop().await.expect("an orderly end");
    reads_voters(&cluster, 5).await;
    cluster.copies(&keys, 3, "after the drain").await;

    let mut dead = cluster.members.remove(0);
    dead.stop().await.expect("an orderly end");
    let other = &cluster.members[0];
    wait::until_within(PATIENCE, "the dead member has retired", async || {
        (known(other, dead.node).await["state"] == "retired").then_some(())
    })
    .await;
    reads_voters(&cluster, 4).await;
    cluster.copies(&keys, 3, "after the death").await;
    cluster.all_read(&keys).await;
}
