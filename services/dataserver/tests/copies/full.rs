//! A full disk: what belongs there is elsewhere, until there is room.

use holdfast_testkit::wait;

use crate::OBJECTS;
use crate::cluster::{Cluster, PATIENCE};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_on_a_full_disk_is_elsewhere_until_there_is_room() {
    let mut cluster = Cluster::start(4, 2).await;
    let mut full = cluster.members.remove(0);
    full.stop().await.expect("an orderly end");
    cluster.restart_with_room(full.root, false).await;
    cluster.all_active(4).await;

    let keys = cluster.put(OBJECTS).await;
    let full = cluster.members.len() - 1;
    cluster.copies(&keys, 2, "after the writes").await;
    assert!(cluster.members[full].holds(&keys).await.is_empty(), "it has no room");

    // Who drains relies on others than the full one.
    cluster.drain(0, 1).await;
    let full = cluster.members.len() - 1;
    cluster.copies(&keys, 2, "after the drain").await;
    assert!(cluster.members[full].holds(&keys).await.is_empty(), "it has no room");
    cluster.all_read(&keys).await;

    let mut full = cluster.members.remove(full);
    full.stop().await.expect("an orderly end");
    cluster.restart_with_room(full.root, true).await;
    cluster.all_active(3).await;
    let full = cluster.members.len() - 1;
    wait::until_within(PATIENCE, "it has its share", async || {
        (cluster.members[full].holds(&keys).await.len() > OBJECTS / 4).then_some(())
    })
    .await;
    cluster.copies(&keys, 2, "when there is room").await;
    cluster.all_read(&keys).await;
}
