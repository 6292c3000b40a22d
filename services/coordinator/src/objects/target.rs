//! Which data server a write goes to.

use std::collections::BTreeSet;

use holdfast_core::locate::Located;
use holdfast_core::membership::{Member, View};
use holdfast_core::name::ObjectName;
use holdfast_core::node::NodeId;
use holdfast_core::placement::choose_owners;

use crate::error::ObjectError;

/// Where a write can go.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To this member.
    Member(Box<Member>),
    /// Only to data servers written for the seed.
    Guests,
}

/// Chooses where `size_bytes` for `name` go.
///
/// The member that holds the newest version comes first, so that no older copy
/// stays behind elsewhere; then the owner by placement, among those that take
/// data, have room and answered the locate of this very write.
pub(super) fn choose_target(
    view: &View,
    located: &Located,
    name: &ObjectName,
    size_bytes: u64,
    excluded: &BTreeSet<NodeId>,
) -> Result<Target, ObjectError> {
    let usable = |id: &NodeId| located.answered.contains(id) && !excluded.contains(id);
    let candidates: Vec<_> =
        view.candidates(size_bytes).into_iter().filter(|candidate| usable(&candidate.id)).collect();
    let holder = located
        .newest()
        .map(|replica| replica.node)
        .filter(|node| candidates.iter().any(|candidate| candidate.id == *node));
    let owner = holder.or_else(|| choose_owners(name, &candidates, 1).first().copied());
    if let Some(member) = owner.and_then(|owner| view.member(owner)) {
        return Ok(Target::Member(Box::new(member.clone())));
    }
    if view.writable().next().is_some() {
        let roomy = !view.candidates(size_bytes).is_empty();
        return Err(if roomy { ObjectError::WriteFailed } else { ObjectError::NoSpace });
    }
    if view.guests.is_empty() { Err(ObjectError::NoDataServers) } else { Ok(Target::Guests) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::locate::Replica;
    use holdfast_core::membership::Hearing;
    use holdfast_core::name::Key;
    use holdfast_core::node::Generation;
    use holdfast_core::object::{Digest, Kind, Metadata, Stat};
    use holdfast_core::roster::MemberState;
    use holdfast_core::version::Version;
    use holdfast_core::wire::heartbeat::RepairReport;

    fn id(bits: u128) -> NodeId {
        NodeId::from_bits(bits)
    }

    fn member(bits: u128, hearing: Hearing, free_bytes: u64) -> Member {
        Member {
            id: id(bits),
            address: format!("ds-{bits}:80").parse().expect("an address"),
            generation: Generation(1),
            state: MemberState::Active,
            in_roster: true,
            hearing,
            last_heard: None,
            free_bytes,
            total_bytes: 100,
            weight: 1,
            zone: None,
            lost: false,
            awaited_since: None,
            founded: true,
            newcomers_seen: 0,
            stamp: None,
            replicas: None,
            repair: RepairReport::default(),
        }
    }

    fn view(members: Vec<Member>) -> View {
        View { founded: true, members, ..View::default() }
    }

    fn name() -> ObjectName {
        ObjectName::seed(Key::new("k").expect("short"))
    }

    fn held_by(bits: u128) -> Located {
        let stat = Stat {
            version: Version::from_parts(1, 1),
            kind: Kind::Object,
            size_bytes: 1,
            digest: Digest(0),
            metadata: Metadata::default(),
        };
        let address = format!("ds-{bits}:80").parse().expect("an address");
        Located {
            replicas: vec![Replica { node: id(bits), address, stat }],
            answered: vec![id(1), id(2), id(3)],
            ..Located::default()
        }
    }

    fn chosen(view: &View, located: &Located, size: u64, not: &[u128]) -> Option<NodeId> {
        let not = not.iter().map(|bits| id(*bits)).collect();
        match choose_target(view, located, &name(), size, &not) {
            Ok(Target::Member(member)) => Some(member.id),
            _ => None,
        }
    }

    #[test]
    fn an_overwrite_goes_to_the_holder_while_it_is_heard() {
        use Hearing::{Heard, Silent};
        for holder in [1, 2, 3] {
            let all = view((1..4).map(|bits| member(bits, Heard, 50)).collect());
            assert_eq!(chosen(&all, &held_by(holder), 10, &[]), Some(id(holder)));
            assert_ne!(chosen(&all, &held_by(holder), 10, &[holder]), Some(id(holder)));
        }
        let dark = view(vec![member(1, Silent, 50), member(2, Heard, 50)]);
        assert_eq!(chosen(&dark, &held_by(1), 10, &[]), Some(id(2)));
    }

    #[test]
    fn who_did_not_answer_this_locate_gets_nothing() {
        let both = view(vec![member(1, Hearing::Heard, 50), member(2, Hearing::Heard, 50)]);
        let located = Located { answered: vec![id(2)], ..Located::default() };
        assert_eq!(chosen(&both, &located, 10, &[]), Some(id(2)));
    }

    #[test]
    fn full_none_and_guests_are_told_apart() {
        let full = view(vec![member(1, Hearing::Heard, 5)]);
        let refused = choose_target(&full, &held_by(1), &name(), 10, &BTreeSet::new());
        assert!(matches!(refused, Err(ObjectError::NoSpace)));
        let none = view(vec![]);
        let refused = choose_target(&none, &held_by(1), &name(), 10, &BTreeSet::new());
        assert!(matches!(refused, Err(ObjectError::NoDataServers)));
        let guests = View { guests: vec!["seed:80".parse().expect("an address")], ..none };
        let target = choose_target(&guests, &held_by(1), &name(), 10, &BTreeSet::new());
        assert!(matches!(target, Ok(Target::Guests)));
    }
}
