//! Real processes under faults for a short while. For longer:
//! `cargo run -p holdfast-testkit --bin holdfast-chaos -- --minutes 60`.

use std::time::Duration;

use holdfast_testkit::chaos::{Plan, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_acknowledged_is_lost_or_undone() {
    let seed = holdfast_runtime::Runtime::real().random_u64();
    eprintln!("seed {seed}");
    let plan = Plan { duration: Duration::from_secs(60), seed, ..Plan::default() };
    let report = run(plan).await;
    eprintln!("{report}");
    assert!(report.violations.is_empty(), "{report}");
    assert!(report.answered > 500, "{report}");
    assert!(report.faults.len() > 2, "{report}");
}
