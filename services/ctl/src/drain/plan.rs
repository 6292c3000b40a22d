//! Whether data servers can be emptied at all, by what is known before the first
//! one is told to.

use std::collections::BTreeMap;

use holdfast_core::name::{Key, ObjectName};
use holdfast_core::node::NodeId;
use holdfast_core::placement::{Candidate, choose_owners};
use holdfast_core::roster::MemberState;

use super::DrainError;
use super::listing::{Listing, Member, Pods};

/// Names that placement is asked about: enough for shares that are right to some
/// hundredths, and even a thousand members take no more than seconds.
const SAMPLES: u32 = 1 << 13;

/// Refuses what could not end. What has begun already is not refused: it went
/// through here before.
pub(super) fn check(listing: &Listing, pods: &Pods) -> Result<(), DrainError> {
    if !listing.knows_any(pods) {
        return Err(DrainError::Unknown { statefulset: pods.statefulset.clone() });
    }
    let leaving = listing.leaving(pods);
    if leaving.iter().all(|member| member.state == MemberState::Draining) {
        return Ok(());
    }
    let replicas = listing.policy.replicas();
    for member in &leaving {
        let (pod, node) = (member.pod().to_owned(), member.node);
        if member.state == MemberState::Joining {
            return Err(DrainError::Joining { pod, node });
        }
        // With more copies, others have what it holds.
        if member.is_silent() && replicas == 1 {
            return Err(DrainError::Silent { pod, node });
        }
    }
    let staying = listing.staying(pods);
    let ready: Vec<&Member> = staying.iter().copied().filter(|member| member.takes_data).collect();
    if ready.len() < replicas {
        let (ready, staying) = (ready.len(), staying.len());
        return Err(DrainError::TooFew { ready, staying, replicas });
    }
    check_room(&leaving, &ready, replicas)
}

/// Whether each of those that stay has room for what it would get. Placement looks
/// at weights and zones, whatever room there is. With as many members as copies,
/// nobody else takes what one has no room for, and that holds up everything.
fn check_room(leaving: &[&Member], staying: &[&Member], replicas: usize) -> Result<(), DrainError> {
    let bytes = leaving.iter().fold(0_u64, |sum, member| sum.saturating_add(member.bytes_held));
    let shares = if staying.len() <= replicas {
        lacks(leaving, staying, replicas)
    } else {
        gains(leaving, staying, replicas, bytes)
    };
    for (member, share) in staying.iter().zip(shares) {
        let share = u64::try_from(share).unwrap_or(u64::MAX);
        let free = member.free_bytes;
        if share > free {
            let pod = member.pod().to_owned();
            return Err(DrainError::NoRoom { pod, free, share, bytes });
        }
    }
    Ok(())
}

/// What each of those that stay lacks of all objects: with as many members as
/// copies everybody holds everything, whatever its weight.
fn lacks(leaving: &[&Member], staying: &[&Member], replicas: usize) -> Vec<u128> {
    let held = || leaving.iter().chain(staying).map(|member| u128::from(member.bytes_held));
    let copies = u128::try_from(replicas.max(1)).unwrap_or(u128::MAX);
    // Where copies are missing, the sum tells too little: all objects are at least
    // what one member holds.
    let objects = held().sum::<u128>().div_ceil(copies).max(held().max().unwrap_or(0));
    staying.iter().map(|member| objects.saturating_sub(member.bytes_held.into())).collect()
}

/// What each of those that stay gets of `bytes`, by asking placement about some
/// names. No formula of the weights says it: nobody holds two copies of an object,
/// so a large member that has nearly everything gets little, and small ones the rest.
fn gains(leaving: &[&Member], staying: &[&Member], replicas: usize, bytes: u64) -> Vec<u128> {
    let candidate = |member: &&Member| Candidate {
        id: member.node,
        // One without a weight gets nothing; here it is rather thought to get some.
        weight: member.weight.max(1),
        zone: member.zone.clone(),
    };
    let after: Vec<Candidate> = staying.iter().map(candidate).collect();
    let before: Vec<Candidate> = leaving.iter().chain(staying).map(candidate).collect();
    let mut gained: BTreeMap<NodeId, u128> = BTreeMap::new();
    for key in (0..SAMPLES).filter_map(|number| Key::new(number.to_string()).ok()) {
        let name = ObjectName::seed(key);
        let had = choose_owners(&name, &before, replicas);
        for owner in choose_owners(&name, &after, replicas) {
            if !had.contains(&owner) {
                *gained.entry(owner).or_default() += 1;
            }
        }
    }
    // Those alike get the same in the long run, so together they tell more.
    let mut alike: BTreeMap<(u32, Option<&str>), (u128, u128)> = BTreeMap::new();
    for member in staying {
        let (sum, members) = alike.entry((member.weight, member.zone.as_deref())).or_default();
        *sum += gained.get(&member.node).copied().unwrap_or_default();
        *members += 1;
    }
    let all: u128 = gained.values().sum();
    let share = |member: &&Member| {
        let kind = (member.weight, member.zone.as_deref());
        let (sum, members) = alike.get(&kind).copied().unwrap_or_default();
        (u128::from(bytes) * sum).checked_div(all * members).unwrap_or(bytes.into())
    };
    staying.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const GIB: u64 = 1 << 30;

    fn member(ordinal: u32) -> Value {
        json!({
            "node": format!("{ordinal:032x}"), "address": format!("s-{ordinal}.h.ns.svc:8081"),
            "state": "active", "hearing": "heard", "takes_data": true,
            "free_bytes": 6 * GIB, "weight": 10, "bytes_held": 4 * GIB,
        })
    }

    fn listing(replicas: u32, members: Vec<Value>) -> Listing {
        let policy = json!({
            "epoch": 0, "replicas": replicas, "write_quorum": 1, "read_quorum": 1,
        });
        let listing =
            json!({ "cluster": "00".repeat(16), "policy": policy, "dataservers": members });
        serde_json::from_value(listing).expect("a list")
    }

    fn pods(ordinals: std::ops::Range<u32>) -> Pods {
        Pods { statefulset: "s".to_owned(), service: Some("h".to_owned()), ordinals }
    }

    fn with(mut member: Value, changes: Value) -> Value {
        for (name, value) in changes.as_object().expect("an object") {
            member[name] = value.clone();
        }
        member
    }

    fn refused(replicas: u32, members: Vec<Value>, from: u32) -> String {
        let to = u32::try_from(members.len()).expect("few");
        let checked = check(&listing(replicas, members), &pods(from..to));
        checked.expect_err("refused").to_string()
    }

    #[test]
    fn a_pod_belongs_to_one_statefulset() {
        let pods = pods(0..9);
        for (address, expected) in [
            ("s-0.h.ns.svc.cluster.local:8081", Some(0)),
            ("s-12.h:8081", Some(12)),
            ("s-1:8081", None),
            ("s-1.other.ns.svc:8081", None),
            ("s-01.h.ns:8081", None),
            ("s-x.h.ns:8081", None),
            ("s.h.ns:8081", None),
            ("other-s-1.h.ns:8081", None),
            ("10.0.0.1:8081", None),
        ] {
            assert_eq!(pods.ordinal(&address.parse().expect(address)), expected, "{address}");
        }
        let anywhere = Pods { service: None, ..pods };
        assert_eq!(anywhere.ordinal(&"s-1:8081".parse().expect("right")), Some(1));
    }

    #[test]
    fn what_could_not_end_is_refused() {
        let five = || (0..5).map(member).collect::<Vec<_>>();
        assert!(check(&listing(3, five()), &pods(3..5)).is_ok());
        let few = refused(4, five(), 3);
        assert!(few.contains("3 data servers would stay, and there are 4 copies"), "{few}");
        let mut away = five();
        away[0] = with(member(0), json!({ "hearing": "silent", "takes_data": false }));
        let few = refused(3, away, 3);
        assert!(few.contains("2 of the 3 data servers that stay take data"), "{few}");
        let mut joining = five();
        joining[4] = with(member(4), json!({ "state": "joining", "takes_data": false }));
        assert!(refused(3, joining, 3).contains("s-4"));
        let silent = json!({ "hearing": "silent", "takes_data": false });
        let last = |replicas| {
            let mut members = five();
            members[4] = with(member(4), silent.clone());
            check(&listing(replicas, members), &pods(4..5))
        };
        assert!(last(1).expect_err("the only copy").to_string().contains("is silent"));
        assert!(last(2).is_ok(), "others have it");
        let strangers = vec![with(member(0), json!({ "address": "10.0.0.1:8081" }))];
        assert!(refused(1, strangers, 0).contains("no data server is known"));
    }

    #[test]
    fn each_that_stays_must_have_room_for_its_share() {
        let held = |gib: u64| json!({ "bytes_held": gib * GIB });
        let leaving = |gib| vec![member(0), member(1), with(member(2), held(gib))];
        assert!(check(&listing(1, leaving(12)), &pods(2..3)).is_ok());
        let full = refused(1, leaving(13), 2);
        assert!(full.contains("6.5 GiB") && full.contains("6.0 GiB"), "{full}");
        // A heavier one gets more.
        let large = json!({ "weight": 30, "free_bytes": 20 * GIB });
        let members =
            |gib| vec![member(0), with(member(1), large.clone()), with(member(2), held(gib))];
        assert!(check(&listing(1, members(22)), &pods(2..3)).is_ok());
        assert!(check(&listing(1, members(28)), &pods(2..3)).is_err());
        // What cannot be told is not little.
        for replicas in [1, 2] {
            let untold = with(member(2), json!({ "bytes_held": u64::MAX }));
            let members = vec![member(0), member(1), untold];
            assert!(check(&listing(replicas, members), &pods(2..3)).is_err(), "{replicas}");
        }
    }

    /// Members, by weight, GiB held and GiB free.
    fn sized(sizes: &[(u32, u64, u64)]) -> Vec<Value> {
        let members = (0..).zip(sizes).map(|(ordinal, (weight, held, free))| {
            let size = json!({
                "weight": weight, "bytes_held": held * GIB, "free_bytes": free * GIB,
            });
            with(member(ordinal), size)
        });
        members.collect()
    }

    #[test]
    fn as_many_as_copies_get_everything_they_lack_whatever_their_weight() {
        // 12 GiB of objects, twice.
        let members = |free| sized(&[(10, 6, free), (30, 10, 20), (10, 8, 0)]);
        assert!(check(&listing(2, members(6)), &pods(2..3)).is_ok());
        let full = refused(2, members(5), 2);
        assert!(full.contains("s-0 stays and would get about 6.0 GiB"), "{full}");
        // The heavy one has nearly all of it.
        let members = sized(&[(10, 6, 6), (30, 10, 2), (10, 8, 0)]);
        assert!(check(&listing(2, members), &pods(2..3)).is_ok());
        // Copies are missing: all objects are no fewer than one member holds.
        let full = refused(2, sized(&[(10, 4, 6), (10, 4, 20), (10, 12, 0)]), 2);
        assert!(full.contains("about 8.0 GiB"), "{full}");
    }

    #[test]
    fn a_heavy_one_that_has_nearly_everything_leaves_the_rest_to_light_ones() {
        // Light ones hold three tenths of the objects before and more than half
        // after; the heavy one seven tenths and nine.
        let members =
            |light, heavy| sized(&[(10, 5, light), (10, 5, 20), (30, 12, heavy), (30, 12, 0)]);
        assert!(check(&listing(2, members(5, 4)), &pods(3..4)).is_ok());
        let full = refused(2, members(4, 4), 3);
        assert!(full.contains("s-0 stays and would get about 4."), "{full}");
        assert!(refused(2, members(5, 3), 3).contains("s-2 stays and would get about 3."));
    }

    #[test]
    fn who_stays_alone_in_its_zone_gets_all_that_the_zone_had() {
        let zone = |ordinal, zone| with(member(ordinal), json!({ "zone": zone }));
        let members = |held: u64| {
            let last = with(zone(3, "a"), json!({ "bytes_held": held * GIB }));
            vec![zone(0, "a"), zone(1, "b"), zone(2, "b"), last]
        };
        assert!(check(&listing(2, members(6)), &pods(3..4)).is_ok());
        let full = refused(2, members(7), 3);
        assert!(full.contains("s-0 stays and would get about 7.0 GiB"), "{full}");
    }

    #[test]
    fn what_has_begun_is_not_refused() {
        let drains = json!({ "state": "draining", "takes_data": false });
        let mut members: Vec<Value> = (0..4).map(member).collect();
        members[3] = with(member(3), drains);
        members[0] = with(member(0), json!({ "hearing": "silent", "takes_data": false }));
        assert!(check(&listing(3, members), &pods(3..4)).is_ok());
        let gone = json!({ "state": "retired" });
        let members = vec![member(0), with(member(1), gone)];
        assert!(check(&listing(1, members), &pods(1..2)).is_ok());
    }
}
