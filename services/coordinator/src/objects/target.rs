//! Which data servers a write goes to.

use holdfast_core::electorate::order;
use holdfast_core::locate::Located;
use holdfast_core::membership::View;
use holdfast_core::name::ObjectName;

use super::replicate::Recipient;
use crate::error::ObjectError;

/// Where a write can go.
#[derive(Debug)]
pub(super) enum Targets {
    /// To these members, best first.
    Members(Vec<Recipient>),
    /// Only to data servers written for the seed.
    Guests,
}

/// Chooses where `size_bytes` for `name` go: the members that take data, have
/// room and have answered lately, in the order of placement. A locate does not
/// wait for all of its answers, so that of this very write may lack some.
///
/// With one copy the member that holds the newest version comes first, so that
/// no older copy stays behind elsewhere.
pub(super) fn choose_targets(
    view: &View,
    located: &Located,
    name: &ObjectName,
    size_bytes: u64,
) -> Result<Targets, ObjectError> {
    let candidates: Vec<_> = view
        .candidates(size_bytes)
        .into_iter()
        .filter(|candidate| located.stamp_or_earlier(candidate.id).is_some())
        .collect();
    let mut order = order(name, &candidates, view.electorate.as_deref());
    if view.policy.replicas() == 1
        && let Some(holder) = located.newest().map(|replica| replica.node)
    {
        // Stable: the others keep their order.
        order.sort_by_key(|node| *node != holder);
    }
    let recipients: Vec<Recipient> = order
        .into_iter()
        .filter_map(|node| {
            let stamp = located.stamp_or_earlier(node)?;
            Some(Recipient { member: view.member(node)?.clone(), stamp })
        })
        .collect();
    if !recipients.is_empty() {
        return Ok(Targets::Members(recipients));
    }
    if view.writable().next().is_some() {
        let roomy = !view.candidates(size_bytes).is_empty();
        return Err(if roomy { ObjectError::WriteFailed } else { ObjectError::NoSpace });
    }
    if view.guests.is_empty() { Err(ObjectError::NoDataServers) } else { Ok(Targets::Guests) }
}

/// Fewer than W members whose copies count cannot acknowledge anything: nothing
/// is sent to them.
pub(super) fn check_enough(
    view: &View,
    located: &Located,
    name: &ObjectName,
    recipients: &[Recipient],
    size_bytes: u64,
) -> Result<(), ObjectError> {
    let (quorum, counts) = (view.policy.write_quorum(), view.counting(name));
    if recipients.iter().filter(|to| counts(to.member.id)).count() >= quorum {
        return Ok(());
    }
    let roomy = view.candidates(size_bytes);
    let room_lacks = roomy.iter().filter(|candidate| counts(candidate.id)).count() < quorum;
    if room_lacks && view.writable().filter(|member| counts(member.id)).count() >= quorum {
        return Err(ObjectError::NoSpace);
    }
    Err(ObjectError::NoQuorum { silent: located.unheard.clone() })
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
