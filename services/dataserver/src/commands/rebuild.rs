//! `rebuild-index`: the index from the log, with a line that says how long.

use holdfast_store::StoreError;
use holdfast_store::log_engine::rebuild_index as rebuild;

use super::Call;
use super::output::{Bytes, say};
use super::progress::ProgressLine;

pub(super) fn rebuild_index(call: &Call) -> Result<u8, StoreError> {
    let mut line = ProgressLine::new(call.runtime.clone());
    let options = call.volume.options();
    let report = rebuild(&call.runtime, &call.volume.storage_root, &options, &mut |progress| {
        line.show(progress);
    })?;
    let took = line.end();
    let read = Bytes(report.replayed_bytes);
    say(format_args!("the index was built from {read} of log in {:.1} s", took.as_secs_f64()));
    if report.damaged_count > 0 || report.doubtful_count > 0 {
        say(format_args!(
            "{} records are damaged, and {} parts of the log cannot be read; run fsck",
            report.damaged_count, report.doubtful_count
        ));
    }
    Ok(0)
}
