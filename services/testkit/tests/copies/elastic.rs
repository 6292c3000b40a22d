//! 3 data servers become 6, and then the other 3. With more objects:
//! `cargo run --release -p holdfast-testkit --bin holdfast-elastic -- 5000`.

use holdfast_testkit::elastic::{Plan, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_servers_come_and_go_and_nothing_is_lost() {
    let _alone = crate::BUSY.lock().await;
    let report = run(Plan { objects: 200, object_bytes: 4_096 }).await;
    eprintln!("{report}");
    assert_eq!(report.violations(), Vec::<String>::new(), "{report}");
}
