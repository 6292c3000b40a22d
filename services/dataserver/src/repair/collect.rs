//! Collecting tombstones: once a name was deleted long ago and nobody has
//! anything else of it, all members forget the tombstone together.
//!
//! First every member of the roster says, in one run, that it holds nothing older
//! and takes nothing older any more; its floor is at the tombstone or above it by
//! then. Only when all have said so, under one roster, each forgets. A restart, a
//! change of the roster or a silence in between ends it; it is begun again by a
//! later lap.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use holdfast_core::membership::Hearing;
use holdfast_core::name::ObjectName;
use holdfast_core::node::{Generation, NodeId};
use holdfast_core::roster::RosterDigest;
use holdfast_core::version::Version;
use holdfast_core::wire::transfer::{CollectAnswer, CollectRequest};
use tracing::debug;

use super::RepairParts;
use super::metrics::Kind;
use crate::handlers::answer_collect;

/// How many windows old a tombstone must be. Whatever is still under way was then
/// located when it was there already, and goes above it.
const LEAST_WINDOWS: u32 = 4;

/// A tombstone that may be forgotten.
pub(super) type Tombstone = (ObjectName, Version);

/// Whether a tombstone is old enough to be collected, by this member's clock.
pub(super) fn is_old(parts: &RepairParts, version: Version) -> bool {
    let least = parts.gate.window() * LEAST_WINDOWS;
    let least = u64::try_from(least.as_millis()).unwrap_or(u64::MAX);
    version.unix_millis().saturating_add(least) < parts.runtime.unix_millis()
}

/// Has all members forget `tombstones`, at most a page of them; gives how many
/// they did.
pub(super) async fn collect(parts: &RepairParts, tombstones: Vec<Tombstone>) -> u64 {
    if tombstones.is_empty() {
        return 0;
    }
    let began = parts.runtime.now();
    let snapshot = parts.cluster.snapshot();
    let view = &snapshot.view;
    let all_heard = view.roster_members().all(|member| member.hearing == Hearing::Heard);
    // What a data server written for the seed has, only a tombstone hides.
    if !all_heard || !view.guests.is_empty() {
        return 0;
    }
    let members: BTreeSet<NodeId> = view.roster_members().map(|member| member.id).collect();
    let Some(agreed) = agree(parts, &members, view.digest, &tombstones).await else { return 0 };
    // Bars and stamps last for some windows; nothing may be drawn out.
    let in_time = parts.runtime.now().saturating_sub(began) < parts.gate.window();
    if !in_time || parts.cluster.snapshot().view.digest != view.digest {
        return 0;
    }
    let (runs, tombstones) = agreed;
    let forgotten = runs.into_iter().map(|(node, generation)| {
        ask(parts, node, view.digest, Some(generation), tombstones.clone())
    });
    let complete = join_all(forgotten).await.into_iter().all(|answer| answer.is_some());
    for _ in &tombstones {
        parts.metrics.on_work(Kind::Collect, complete);
    }
    if complete { tombstones.len() as u64 } else { 0 }
}

type Agreed = (BTreeMap<NodeId, Generation>, Vec<Tombstone>);

/// The runs of the members that have all agreed, and to what.
async fn agree(
    parts: &RepairParts,
    members: &BTreeSet<NodeId>,
    digest: RosterDigest,
    tombstones: &[Tombstone],
) -> Option<Agreed> {
    let asked = members.iter().map(|node| ask(parts, *node, digest, None, tombstones.to_vec()));
    let answers: Option<Vec<CollectAnswer>> = join_all(asked).await.into_iter().collect();
    let answers = answers?;
    if answers.iter().any(|answer| answer.roster_digest != digest) {
        return None;
    }
    let by_all = (0u32..)
        .zip(tombstones)
        .filter(|(index, _)| answers.iter().all(|answer| answer.agreed.contains(index)));
    let tombstones: Vec<Tombstone> = by_all.map(|(_, tombstone)| tombstone.clone()).collect();
    let runs = answers.iter().map(|answer| (answer.node, answer.generation)).collect();
    (!tombstones.is_empty()).then_some((runs, tombstones))
}

async fn ask(
    parts: &RepairParts,
    node: NodeId,
    roster_digest: RosterDigest,
    forget_in: Option<Generation>,
    tombstones: Vec<Tombstone>,
) -> Option<CollectAnswer> {
    let request = CollectRequest { roster_digest, forget_in, tombstones };
    let own = parts.reporter.own();
    if node == own.node {
        return answer_collect(&parts.gate, &parts.cluster, own, request).await.ok();
    }
    let address = parts.cluster.snapshot().view.member(node)?.address.clone();
    let limit = parts.gate.window() / 3;
    match parts.data_servers.collect(&address, node, &request, limit).await {
        Ok(answer) => Some(answer),
        Err(error) => {
            debug!(%node, %error, "a data server was not asked about tombstones");
            None
        }
    }
}
