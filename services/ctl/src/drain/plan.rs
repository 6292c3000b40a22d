//! Whether data servers can be emptied at all, by what is known before the first
//! one is told to.

use holdfast_core::roster::MemberState;

use super::DrainError;
use super::listing::{Listing, Member, Pods};

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
    check_room(&leaving, &ready)
}

/// Whether each of those that stay has room for its share. Placement gives
/// shares by weight, whatever room there is, so one that is full holds up
/// everything.
fn check_room(leaving: &[&Member], staying: &[&Member]) -> Result<(), DrainError> {
    let bytes = leaving.iter().fold(0_u64, |sum, member| sum.saturating_add(member.bytes_held));
    let weights: u128 = staying.iter().map(|member| u128::from(member.weight)).sum();
    for member in staying {
        let share = (u128::from(bytes) * u128::from(member.weight)).checked_div(weights);
        let share = share.map_or(bytes, |share| u64::try_from(share).unwrap_or(u64::MAX));
        let free = member.free_bytes;
        if share > free {
            let pod = member.pod().to_owned();
            return Err(DrainError::NoRoom { pod, free, share, bytes });
        }
    }
    Ok(())
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
        assert!(check(&listing(2, leaving(12)), &pods(2..3)).is_ok());
        let full = refused(2, leaving(13), 2);
        assert!(full.contains("6.5 GiB") && full.contains("6.0 GiB"), "{full}");
        // A heavier one gets more.
        let large = json!({ "weight": 30, "free_bytes": 20 * GIB });
        let members =
            |gib| vec![member(0), with(member(1), large.clone()), with(member(2), held(gib))];
        assert!(check(&listing(2, members(24)), &pods(2..3)).is_ok());
        assert!(check(&listing(2, members(28)), &pods(2..3)).is_err());
        // What cannot be told is not little.
        let untold = with(member(2), json!({ "bytes_held": u64::MAX }));
        assert!(check(&listing(2, vec![member(0), member(1), untold]), &pods(2..3)).is_err());
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
