//! Where an object should be: weighted rendezvous hashing.
//!
//! Every member gets a score for every name; the highest score owns it. A
//! member more takes over only the names for which it now scores highest, a
//! member less gives away only its own. Nothing is stored and nothing is
//! agreed on: two processes with the same members give the same answer.
//!
//! Scores are computed in integers, so that the answer does not depend on the
//! floating point library of a machine.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::name::ObjectName;
use crate::node::NodeId;
use serde::{Deserialize, Serialize};

/// A member as placement sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// Who.
    pub id: NodeId,
    /// Share of the data relative to the others; a member of weight 0 gets none.
    pub weight: u32,
    /// Its failure zone. Those without one are zones of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// The `count` candidates that should hold `name`, best first. Fewer when there
/// are fewer candidates. The order of `candidates` does not matter.
///
/// No zone gets a second copy while another zone has none, so that a zone that
/// fails takes as few copies as it can.
#[must_use]
pub fn choose_owners(name: &ObjectName, candidates: &[Candidate], count: usize) -> Vec<NodeId> {
    let mut owners = rank(name, candidates);
    owners.truncate(count);
    owners
}

/// Every candidate, in the order in which they should hold `name`.
#[must_use]
pub fn rank(name: &ObjectName, candidates: &[Candidate]) -> Vec<NodeId> {
    let key_hash = name_hash(name);
    let mut scored: Vec<(Reverse<u128>, NodeId, Option<&str>)> = candidates
        .iter()
        .filter(|candidate| candidate.weight > 0)
        .map(|candidate| {
            (Reverse(score(key_hash, candidate)), candidate.id, candidate.zone.as_deref())
        })
        .collect();
    scored.sort_unstable();
    scored.dedup_by_key(|(_, id, _)| *id);
    // The best of each zone first, then the second best of each, and so on.
    let mut in_zone: BTreeMap<&str, usize> = BTreeMap::new();
    let mut turns: Vec<(usize, NodeId)> = scored
        .into_iter()
        .map(|(_, id, zone)| {
            let before = zone.map_or(0, |zone| {
                let before = in_zone.entry(zone).or_default();
                *before += 1;
                *before - 1
            });
            (before, id)
        })
        .collect();
    // Stable: within one turn the order of the scores stays.
    turns.sort_by_key(|(turn, _)| *turn);
    turns.into_iter().map(|(_, id)| id).collect()
}

/// Sixty-four bits that spread names evenly; the same on every machine and in
/// every release.
#[must_use]
pub fn name_hash(name: &ObjectName) -> u64 {
    let bucket = xxh3_64_with_seed(name.bucket.as_str().as_bytes(), 0);
    xxh3_64_with_seed(name.key.as_str().as_bytes(), bucket)
}

/// weight / -log2(u) for u uniform in (0, 1): the largest of such scores falls
/// on a candidate with a probability in proportion to its weight (Schindelhauer
/// and Schomaker, "Weighted distributed hash tables", SPAA 2005).
fn score(key_hash: u64, candidate: &Candidate) -> u128 {
    let hash = xxh3_64_with_seed(&candidate.id.bits().to_le_bytes(), key_hash);
    // 1 ..= 2^64 - 1, so that the logarithm is finite and not zero.
    let cost = neg_log2_fixed(hash.clamp(1, u64::MAX - 1));
    (u128::from(candidate.weight) << 88) / u128::from(cost.max(1))
}

/// -log2(x / 2^64) with 48 fractional bits, by repeated squaring.
fn neg_log2_fixed(x: u64) -> u64 {
    const FRACTION_BITS: u32 = 48;
    let leading = x.leading_zeros();
    // mantissa in [1, 2) as a 1.63 fixed point number
    let mut mantissa = u128::from(x << leading);
    let mut fraction: u64 = 0;
    for _ in 0..FRACTION_BITS {
        mantissa = (mantissa * mantissa) >> 63;
        fraction <<= 1;
        if mantissa >> 64 != 0 {
            fraction |= 1;
            mantissa >>= 1;
        }
    }
    // log2(x / 2^64) = -(leading + 1) + fraction
    (u64::from(leading + 1) << FRACTION_BITS) - fraction
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Key;
    use proptest::prelude::*;

    fn name(i: u64) -> ObjectName {
        ObjectName::seed(Key::new(format!("key/{i}")).expect("short"))
    }

    fn members(count: u128, salt: u128) -> Vec<Candidate> {
        (0..count)
            .map(|i| Candidate {
                id: NodeId::from_bits(salt.wrapping_mul(31) + i * 7919 + 1),
                weight: 10,
                zone: None,
            })
            .collect()
    }

    #[test]
    fn logarithm_agrees_with_floating_point() {
        for x in [1, 2, 3, 12345, 1 << 40, u64::MAX / 3, u64::MAX - 1] {
            let exact = 64.0 - (x as f64).log2();
            let fixed = neg_log2_fixed(x) as f64 / (1u64 << 48) as f64;
            assert!((exact - fixed).abs() < 1e-9, "{x}: {exact} {fixed}");
        }
    }

    /// The answers of today: a change of them would move users' data.
    #[test]
    fn owners_never_change_between_releases() {
        let owners: Vec<u128> = (0..8)
            .map(|i| choose_owners(&name(i), &members(5, 1), 1).first().map_or(0, |id| id.bits()))
            .collect();
        assert_eq!(owners, PINNED_OWNERS);
    }
    const PINNED_OWNERS: [u128; 8] = [7951, 31708, 23789, 23789, 32, 23789, 15870, 15870];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_new_member_takes_its_share_and_nothing_else_moves(n in 1u128..12, salt: u64) {
            let before = members(n, u128::from(salt));
            let newcomer = NodeId::from_bits(u128::MAX - u128::from(salt));
            let mut after = before.clone();
            after.push(Candidate { id: newcomer, weight: 10, zone: None });
            let total = 4_000;
            let mut moved = 0u32;
            for i in 0..total {
                let was = choose_owners(&name(i), &before, 1);
                let is = choose_owners(&name(i), &after, 1);
                if was != is {
                    prop_assert_eq!(is, vec![newcomer]);
                    moved += 1;
                }
            }
            let share = f64::from(moved) / total as f64;
            let ideal = 1.0 / (n as f64 + 1.0);
            prop_assert!((share - ideal).abs() < 0.04, "moved {} of ideal {}", share, ideal);
        }

        #[test]
        fn order_does_not_matter_and_owners_are_distinct(salt: u64, count in 0usize..7) {
            let forward = members(5, u128::from(salt));
            let mut backward = forward.clone();
            backward.reverse();
            let owners = choose_owners(&name(salt), &forward, count);
            prop_assert_eq!(&owners, &choose_owners(&name(salt), &backward, count));
            prop_assert_eq!(owners.len(), count.min(5));
            let distinct: std::collections::BTreeSet<_> = owners.iter().collect();
            prop_assert_eq!(distinct.len(), owners.len());
        }

        #[test]
        fn the_owners_of_fewer_copies_stay_owners_of_more(salt: u64) {
            let all = choose_owners(&name(salt), &members(6, u128::from(salt)), 5);
            for count in 1..5 {
                let fewer = choose_owners(&name(salt), &members(6, u128::from(salt)), count);
                prop_assert_eq!(fewer.as_slice(), &all[..count]);
            }
        }
    }

    #[test]
    fn twice_the_weight_gets_twice_the_data() {
        let mut candidates = members(4, 3);
        candidates[0].weight = 20;
        let heavy = candidates[0].id;
        let hits =
            (0..20_000).filter(|&i| choose_owners(&name(i), &candidates, 1) == [heavy]).count();
        let share = hits as f64 / 20_000.0;
        assert!((share - 0.4).abs() < 0.02, "{share}");
    }

    #[test]
    fn weight_zero_gets_nothing() {
        let mut candidates = members(2, 3);
        candidates[0].weight = 0;
        let light = candidates[0].id;
        assert!((0..500).all(|i| choose_owners(&name(i), &candidates, 2) != [light]));
        assert!((0..500).all(|i| choose_owners(&name(i), &candidates, 2).len() == 1));
    }

    #[test]
    fn no_zone_gets_a_second_copy_before_each_has_one() {
        let mut candidates = members(6, 3);
        for (i, candidate) in candidates.iter_mut().enumerate() {
            candidate.zone = Some(format!("z{}", i % 3));
        }
        let zone = |id: &NodeId| {
            let found = candidates.iter().find(|candidate| candidate.id == *id);
            found.and_then(|candidate| candidate.zone.clone())
        };
        for i in 0..200 {
            let order = rank(&name(i), &candidates);
            assert_eq!(order.len(), 6);
            for copies in [&order[..3], &order[3..]] {
                let zones: std::collections::BTreeSet<_> = copies.iter().map(zone).collect();
                assert_eq!(zones.len(), 3);
            }
        }
        // Without zones, every member is one of its own.
        let plain = members(6, 3);
        let mut named = plain.clone();
        for (i, candidate) in named.iter_mut().enumerate() {
            candidate.zone = Some(i.to_string());
        }
        assert!((0..50).all(|i| rank(&name(i), &plain) == rank(&name(i), &named)));
    }
}
