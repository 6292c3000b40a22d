//! `stats`: how much there is in the volume.

use holdfast_store::StoreError;
use holdfast_store::log_engine::{Stats, stats as take_stock};

use super::output::{Bytes, say};
use super::{Call, say_json};

pub(super) fn stats(call: &Call) -> Result<u8, StoreError> {
    let root = &call.volume.storage_root;
    let stats = take_stock(&call.runtime, root, &call.volume.options())?;
    if call.has("--json") {
        say_json(&stats);
    } else {
        tell(&stats);
    }
    Ok(0)
}

fn tell(stats: &Stats) {
    let row = |what: &str, value: String| say(format_args!("{what:<20}{value}"));
    let (oldest, newest) = (stats.oldest_segment.unwrap_or(0), stats.newest_segment.unwrap_or(0));
    let (count, bytes) = (stats.segment_count, Bytes(stats.log_bytes));
    row("segments", format!("{count}, {bytes}, from {oldest} to {newest}"));
    row("large files", format!("{}, {}", stats.file_count, Bytes(stats.file_bytes)));
    row("index", Bytes(stats.index_bytes).to_string());
    row("free on the disk", Bytes(stats.free_bytes).to_string());
    let Some(contents) = &stats.contents else {
        say(format_args!(
            "{}",
            if stats.is_in_use {
                "a data server uses the volume: its metrics on the admin port say what is in it"
            } else {
                "no index goes with the log; the next start, or rebuild-index, builds it"
            }
        ));
        return;
    };
    row("objects", format!("{}, {}", contents.object_count, Bytes(contents.live_bytes)));
    row("tombstones", contents.tombstone_count.to_string());
    row("log in use", Bytes(contents.used_log_bytes).to_string());
    let (garbage, gain) = (Bytes(contents.garbage_bytes), Bytes(contents.compactable_bytes));
    row("garbage", format!("{garbage}, of which compaction would give back {gain}"));
    row("large files in use", contents.used_file_count.to_string());
    row("damaged versions", contents.damaged_count.to_string());
    row("regions in doubt", contents.doubtful_count.to_string());
}
