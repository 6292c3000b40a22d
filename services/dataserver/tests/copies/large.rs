//! Copies that take long, over links that are slow.

use holdfast_testkit::{client, wait};

use crate::cluster::{Cluster, PATIENCE};

/// Sorts before what [`Cluster::put`] writes.
const LARGE: &str = "a-large-one";
const LARGE_BYTES: usize = 24 << 20;

/// More than are looked at in one go, which are 256.
const SMALL: usize = 300;

/// Three members, one of which is away while an object is written that the
/// others then hand over slowly; and the volume of the one that is away.
async fn one_lacks_a_large_object(small: usize) -> (Cluster, Vec<String>, std::path::PathBuf) {
    let mut cluster = Cluster::start_with_links(3, 3).await;
    let mut away = cluster.members.remove(0);
    away.stop().await.expect("an orderly end");
    let keys = cluster.put(small).await;
    wait::until_within(PATIENCE, "a large write is taken", async || {
        let (path, body) = (format!("/objects/{LARGE}"), vec![7; LARGE_BYTES]);
        let answer = client::put(&cluster.members[0].ports.address, &path, &body).await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
    (cluster, keys, away.root)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_copy_keeps_no_small_ones_waiting() {
    let (mut cluster, keys, root) = one_lacks_a_large_object(SMALL).await;
    // A minute and a half for the large one.
    cluster.slow_down(256 << 10);
    cluster.restart(root).await;
    cluster.copies(&keys, 3, "while a large one is copied").await;
    let large = vec![LARGE.to_owned()];
    let third = cluster.members.last().expect("just started");
    assert!(third.holds(&large).await.is_empty(), "the links are too fast for this test");
    cluster.slow_down(0);
    cluster.copies(&large, 3, "as soon as it came").await;
}

/// A copy is judged when it has come, by an answer that is too old by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_takes_longer_than_a_window_is_kept() {
    let (mut cluster, _, root) = one_lacks_a_large_object(0).await;
    // Three seconds; the window is 600 ms.
    cluster.slow_down(8 << 20);
    cluster.restart(root).await;
    cluster.copies(&[LARGE.to_owned()], 3, "although it took five windows").await;
}
