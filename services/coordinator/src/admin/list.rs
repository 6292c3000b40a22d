//! `GET /admin/dataservers`: who the data servers are, for operators.

use std::collections::BTreeSet;

use holdfast_core::membership::{Hearing, Member, Moment};
use holdfast_core::roster::{Entry, MemberState};
use serde_json::{Value, json};

use crate::cluster::Snapshot;

/// Every data server that is or was a member, and the guests.
pub(super) fn list(snapshot: &Snapshot, now: Moment) -> warp::reply::Json {
    let members = snapshot.view.members.iter().map(|member| describe(member, snapshot, now));
    let retired = snapshot.roster.entries().filter(|e| e.state == MemberState::Retired);
    let guests: BTreeSet<&str> = snapshot.view.guests.iter().map(|guest| guest.as_str()).collect();
    warp::reply::json(&json!({
        "cluster": snapshot.roster.cluster,
        "roster_digest": snapshot.view.digest,
        "policy": snapshot.view.policy,
        "electorate": snapshot.view.electorate.as_deref().map(|electorate| json!({
            "phase": electorate.phase,
            "voters": electorate.voters,
            "members": electorate.members.len(),
        })),
        "dataservers": members.chain(retired.map(describe_retired)).collect::<Vec<_>>(),
        "guests": guests,
    }))
}

fn describe(member: &Member, snapshot: &Snapshot, now: Moment) -> Value {
    let age = member.last_heard.map(|heard| now.saturating_sub(heard).as_secs_f64());
    let zone = snapshot.roster.get(member.id).and_then(|entry| entry.zone.as_deref());
    json!({
        "node": member.id,
        "address": member.address,
        "generation": member.generation,
        "state": member.state,
        "hearing": member.hearing.as_str(),
        "takes_data": member.in_roster
            && member.state == MemberState::Active
            && member.hearing == Hearing::Heard,
        "last_heard_seconds_ago": age,
        "free_bytes": member.free_bytes,
        "total_bytes": member.total_bytes,
        "weight": member.weight,
        "zone": zone,
        "lost": member.lost,
        "copies_held": member.repair.copies_held,
        "bytes_held": member.repair.bytes_held,
        "repair_backlog": member.repair.backlog,
        "repair_passed": member.repair.passed,
    })
}

fn describe_retired(entry: &Entry) -> Value {
    json!({
        "node": entry.id,
        "address": entry.address,
        "generation": entry.generation,
        "state": entry.state,
    })
}
