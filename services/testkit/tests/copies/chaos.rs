//! Real processes under faults for a short while. For longer:
//! `cargo run -p holdfast-testkit --bin holdfast-chaos -- 1h`.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_testkit::chaos::{Plan, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_acknowledged_is_lost_or_undone() {
    let seed = holdfast_runtime::Runtime::real().random_u64();
    eprintln!("seed {seed}");
    let plan = Plan { duration: Duration::from_secs(110), seed, ..Plan::default() };
    let report = run(plan).await;
    eprintln!("{report}");
    assert!(report.violations.is_empty(), "{report}");
    assert!(report.answered > 500, "{report}");
    // There are 10 s between two, and some meet a fault.
    assert!(report.bursts > 4 && report.won > 0, "{report}");
    assert_eq!(report.missing(), BTreeSet::new(), "{report}");
}
