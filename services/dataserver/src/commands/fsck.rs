//! `fsck`: what is wrong with the volume, one line each.

use holdfast_store::StoreError;
use holdfast_store::log_engine::{Acceptance, Event, FsckReport, FsckRequest, fsck as check};
use serde_json::json;

use super::output::{Bytes, complain, say};
use super::progress::ProgressLine;
use super::{Call, say_json};
use crate::identity;

const DAMAGED: u8 = 2;
const REPAIRED: u8 = 3;

pub(super) fn fsck(call: &Call) -> Result<u8, StoreError> {
    let request = FsckRequest { is_quick: call.has("--quick"), is_repair: call.has("--repair") };
    let is_json = call.has("--json");
    let root = &call.volume.storage_root;
    let mut line = ProgressLine::new(call.runtime.clone());
    let mut tell = |event: Event| match &event {
        Event::Progress(progress) => line.show(*progress),
        event if is_json => say_json(event),
        Event::Finding(finding) => {
            line.make_way();
            say(format_args!("{finding}"));
        }
        Event::Accepting(acceptance) => {
            line.make_way();
            say(format_args!("{}", in_words(acceptance)));
        }
    };
    let report = check(&call.runtime, root, &call.volume.options(), request, &mut tell);
    line.end();
    let report = report?;
    let bad_identity = identity::check(&call.runtime, root);
    for error in &bad_identity {
        match is_json {
            true => say_json(&json!({ "identity": error.to_string() })),
            false => say(format_args!("damage: {error}")),
        }
    }
    match is_json {
        true => say_json(&json!({ "report": report })),
        false => summarize(&report, request),
    }
    if !bad_identity.is_empty() || (request.is_repair && !report.is_repaired()) {
        complain(format_args!("{}: damage is left that people must look at", call.binary));
        return Ok(DAMAGED);
    }
    Ok(match (report.damage_count(), request.is_repair) {
        (0, _) => 0,
        (_, true) => REPAIRED,
        (_, false) => DAMAGED,
    })
}

fn in_words(acceptance: &Acceptance) -> String {
    let Acceptance {
        region_count,
        region_bytes,
        missing_segment_count,
        remembered_count,
        had_index,
    } = *acceptance;
    let kept = if had_index {
        format!(
            "The index remembers {remembered_count} versions that were there; what it knows of \
             them is kept: deletes and large objects whole, and of others that they were there."
        )
    } else {
        "No index remembers what was there: names that were written there and nowhere else are \
         absent from now on, and others may be there in an older version."
            .to_owned()
    };
    format!(
        "accepting the loss of {region_bytes} bytes in {region_count} regions of the log, which \
         are copied to quarantine/, and of {missing_segment_count} missing segments. {kept}"
    )
}

fn summarize(report: &FsckReport, request: FsckRequest) {
    let FsckReport { log_bytes, record_count, entry_count, file_count, note_count, .. } = report;
    let bytes = Bytes(*log_bytes);
    say(format_args!(
        "{record_count} records in {bytes} of log, {entry_count} entries in the index, \
         {file_count} payload files: {} damaged, {note_count} notes",
        report.damage_count(),
    ));
    if report.is_rebuilt {
        say(format_args!("the index was built anew"));
    }
    if request.is_repair && report.damage_count() > 0 && report.is_repaired() {
        say(format_args!(
            "repaired; payloads that are damaged stay so until they are written again"
        ));
    }
}
