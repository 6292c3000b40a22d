//! `stats`: how much there is in the volume.

use std::path::PathBuf;

use holdfast_store::StoreError;
use holdfast_store::log_engine::{Stats, stats as take_stock};

use serde::Serialize;

use super::output::{Bytes, say};
use super::{Call, say_json};
use crate::rebirth::list_set_aside;

pub(super) fn stats(call: &Call) -> Result<u8, StoreError> {
    let root = &call.volume.storage_root;
    let stats = take_stock(&call.runtime, root, &call.volume.options())?;
    // What cannot be listed, opening the volume has complained of.
    let set_aside = list_set_aside(call.runtime.files().as_ref(), root).unwrap_or_default();
    if call.has("--json") {
        say_json(&WithSetAside { stats: &stats, set_aside: &set_aside });
    } else {
        tell(&stats);
        for path in &set_aside {
            let what = "holds what a retired member left; delete it when nobody needs it";
            say(format_args!("{:<20}{} {what}", "set aside", path.display()));
        }
    }
    Ok(0)
}

/// What `--json` shows.
#[derive(Serialize)]
struct WithSetAside<'a> {
    #[serde(flatten)]
    stats: &'a Stats,
    set_aside: &'a [PathBuf],
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
