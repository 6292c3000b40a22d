//! A write quorum above the least: every copy is made before a write is
//! acknowledged, and so many silent members less one are borne by reads.

use holdfast_testkit::{client, wait};

use crate::OBJECTS;
use crate::cluster::{Cluster, Member, PATIENCE, content};

/// How many of the members that run have the newest version of this name.
async fn newest_copies(cluster: &Cluster, key: &String) -> usize {
    let mut versions = Vec::new();
    for member in cluster.running() {
        let held = member.holds(std::slice::from_ref(key)).await;
        versions.extend(held.get(key).map(|stat| stat.version));
    }
    let newest = versions.iter().max().copied();
    versions.iter().filter(|version| Some(**version) == newest).count()
}

/// Overwrites an object, once that is possible.
async fn overwrite(member: &Member, key: &str) {
    wait::until_within(PATIENCE, "an overwrite is taken", async || {
        let path = format!("/objects/{key}");
        let answer = client::put(&member.ports.address, &path, &content(key)).await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_higher_write_quorum_is_gone_to_live_and_bears_two_silent_members() {
    let mut cluster = Cluster::start_patient(5, 3).await;
    let keys = cluster.put(OBJECTS).await;
    cluster.policy([3, 2, 2]).await;
    cluster.ask_for_quorum(3, Some(3)).await;
    cluster.policy([3, 3, 3]).await;
    cluster.all_read(&keys).await;

    // A write does without an owner that is away, and not with fewer copies.
    let mut away = cluster.members.remove(0);
    let owned: Vec<String> = away.holds(&keys).await.into_keys().collect();
    assert!(!owned.is_empty() && owned.len() < keys.len());
    away.stop().await.expect("an orderly end");
    for key in &owned {
        overwrite(&cluster.members[0], key).await;
        let copies = newest_copies(&cluster, key).await;
        assert!(copies >= 3, "{key} was acknowledged with {copies} copies");
    }

    // Reads, and proofs of absence, bear two.
    let mut second = cluster.members.remove(0);
    second.stop().await.expect("an orderly end");
    cluster.all_read(&keys).await;
    wait::until_within(PATIENCE, "absence is proven", async || {
        let answer = client::get(&cluster.members[0].ports.address, "/objects/none").await.ok()?;
        (answer.status == 404).then_some(())
    })
    .await;
    overwrite(&cluster.members[0], &keys[0]).await;

    // A third one would be one too many.
    let mut third = cluster.members.remove(0);
    third.stop().await.expect("an orderly end");
    wait::until_within(PATIENCE, "nothing is proven any more", async || {
        let answer = client::get(&cluster.members[0].ports.address, "/objects/none").await.ok()?;
        (answer.status == 503).then_some(())
    })
    .await;

    for member in [away, second, third] {
        cluster.restart(member.root).await;
    }
    cluster.all_active(5).await;
    cluster.ask_for(3).await;
    cluster.policy([3, 2, 2]).await;
    cluster.all_read(&keys).await;
}
