//! One copy becomes three, and then two, while clients write and read.

use holdfast_testkit::chaos::{Change, change_replicas};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_copy_becomes_three_and_then_two_under_load() {
    let _alone = crate::BUSY.lock().await;
    let change = Change { from: 1, to: vec![3, 2], data_servers: 3, seed: 7 };
    let outcome = change_replicas(change).await;
    eprintln!("{outcome}");
    assert_eq!(outcome.violations, Vec::<String>::new(), "{outcome}");
}
