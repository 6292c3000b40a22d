//! The roster: every member that may hold data, silent ones too.
//!
//! A roster is merged, never replaced. Merging is commutative, associative and
//! idempotent, so rosters converge whatever the order in which they travel.
//! Data servers persist theirs; an api learns it from any of them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::electorate::Electorate;
use crate::fields::Fields;
use crate::node::{Address, Generation, NodeId, ParseError};
use crate::policy::Policy;

/// Where a member is in its life. Ordered: later states win a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// Known, counted in every locate, but given no data yet.
    Joining,
    /// Takes data.
    Active,
    /// Hands its data over and takes no more.
    Draining,
    /// Will never be asked again. Final.
    Retired,
}

impl MemberState {
    /// Every state, for metrics that show each of them.
    pub const ALL: [Self; 4] = [Self::Joining, Self::Active, Self::Draining, Self::Retired];

    /// The word for it on the wire, in metrics and in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Retired => "retired",
        }
    }
}

impl FromStr for MemberState {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| ParseError::new(text, "a member state"))
    }
}

/// What the cluster knows of one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The member.
    pub id: NodeId,
    /// Counts the deliberate reversals of `state` (a drain that is cancelled):
    /// the higher epoch wins a merge, except over a retirement.
    #[serde(default)]
    pub epoch: u32,
    /// Where in its life the member is.
    pub state: MemberState,
    /// Set when it drains because it was not heard for too long: then it is
    /// retired without its help, once nothing depends on it, and the drain
    /// cannot be cancelled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
    /// The highest run of this member that anybody saw. What follows belongs to
    /// that run.
    pub generation: Generation,
    /// Where it is reached.
    pub address: Address,
    /// Share of the data it should get; GiB of disk, at least 1.
    pub weight: u32,
    /// Failure zone, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

impl Entry {
    /// The same member, retired.
    #[must_use]
    pub fn retired(&self) -> Self {
        Self { state: MemberState::Retired, ..self.clone() }
    }

    fn merge(&mut self, other: &Self) {
        let life = |entry: &Self| {
            (entry.state == MemberState::Retired, entry.epoch, entry.state, entry.lost)
        };
        if life(other) > life(self) {
            self.state = other.state;
            self.epoch = other.epoch;
            self.lost = other.lost;
        }
        let run = |entry: &Self| {
            (entry.generation, entry.address.clone(), entry.weight, entry.zone.clone())
        };
        if run(other) > run(self) {
            self.generation = other.generation;
            self.address = other.address.clone();
            self.weight = other.weight;
            self.zone = other.zone.clone();
        }
    }
}

/// Sixty-four bits that differ when two rosters differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RosterDigest(pub u64);

impl fmt::Display for RosterDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for RosterDigest {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        match u64::from_str_radix(text, 16) {
            Ok(bits) if plain => Ok(Self(bits)),
            _ => Err(ParseError::new(text, "a roster digest of 16 hexadecimal digits")),
        }
    }
}

impl Serialize for RosterDigest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RosterDigest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The identity of a cluster, made by its founder.
pub type ClusterId = NodeId;

/// Two rosters that must not be merged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "a member of cluster {theirs} answers here, but this is cluster {ours}; \
     give each cluster a broker virtual host of its own"
)]
pub struct ForeignCluster {
    /// The cluster of the roster that was to be changed.
    pub ours: ClusterId,
    /// The cluster of the roster that came.
    pub theirs: ClusterId,
}

/// Every member that may hold data, and those that retired.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Roster {
    /// `None` until the cluster was founded: such a roster is empty.
    pub cluster: Option<ClusterId>,
    /// How many copies there are, and how many answer for an object.
    #[serde(default)]
    pub policy: Policy,
    /// Which members answer for a name. It belongs to the policy: the two are
    /// merged as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub electorate: Option<Electorate>,
    #[serde(with = "entries")]
    entries: BTreeMap<NodeId, Entry>,
}

impl Roster {
    /// The roster of a new cluster that consists of `founder`.
    #[must_use]
    pub fn found(cluster: ClusterId, policy: Policy, founder: Entry) -> Self {
        let entries = BTreeMap::from([(founder.id, founder)]);
        Self { cluster: Some(cluster), policy, electorate: None, entries }
    }

    /// A roster that says nothing but `policy` and its electorate, to be merged.
    #[must_use]
    pub fn of_policy(cluster: ClusterId, policy: Policy, electorate: Option<Electorate>) -> Self {
        Self { cluster: Some(cluster), policy, electorate, entries: BTreeMap::new() }
    }

    /// A roster that says nothing but `entry`, to be merged.
    #[must_use]
    pub fn of_entry(cluster: ClusterId, entry: Entry) -> Self {
        Self::found(cluster, Policy::unsaid(), entry)
    }

    /// Whether a cluster exists as far as this roster knows.
    #[must_use]
    pub fn is_founded(&self) -> bool {
        self.cluster.is_some()
    }

    /// Every entry, retired ones too, ordered by id.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The members that may hold data: all but the retired ones.
    pub fn members(&self) -> impl Iterator<Item = &Entry> {
        self.entries().filter(|entry| entry.state != MemberState::Retired)
    }

    /// What is known of one member.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// Merges one entry; returns whether anything changed. An entry cannot be
    /// taken back by an older one.
    pub fn apply_entry(&mut self, entry: &Entry) -> bool {
        match self.entries.get_mut(&entry.id) {
            None => {
                self.entries.insert(entry.id, entry.clone());
                true
            }
            Some(known) => {
                let before = known.clone();
                known.merge(entry);
                *known != before
            }
        }
    }

    /// Merges another roster into this one; returns whether anything changed.
    ///
    /// # Errors
    /// [`ForeignCluster`] when both were founded, and not by the same founder;
    /// nothing is changed then.
    pub fn merge(&mut self, other: &Self) -> Result<bool, ForeignCluster> {
        let (ours, theirs) = match (self.cluster, other.cluster) {
            (_, None) => return Ok(false),
            (None, Some(theirs)) => (theirs, theirs),
            (Some(ours), Some(theirs)) => (ours, theirs),
        };
        if ours != theirs {
            return Err(ForeignCluster { ours, theirs });
        }
        let mut changed = self.cluster.replace(theirs).is_none();
        if (&other.policy, &other.electorate) > (&self.policy, &self.electorate) {
            self.policy = other.policy;
            self.electorate.clone_from(&other.electorate);
            changed = true;
        }
        for entry in other.entries() {
            changed |= self.apply_entry(entry);
        }
        Ok(changed)
    }

    /// Equal rosters have equal digests on every machine and in every release.
    #[must_use]
    pub fn digest(&self) -> RosterDigest {
        let mut fields = Fields::default();
        let mut field = |bytes: &[u8]| fields.add(bytes);
        field(&self.cluster.map_or(0, NodeId::bits).to_le_bytes());
        let Policy { epoch, replicas, write_quorum, read_quorum } = self.policy;
        for number in [epoch, replicas, write_quorum, read_quorum] {
            field(&number.to_le_bytes());
        }
        if let Some(electorate) = &self.electorate {
            field(&electorate.digest().to_le_bytes());
        }
        for entry in self.entries() {
            field(&entry.id.bits().to_le_bytes());
            field(&entry.epoch.to_le_bytes());
            field(entry.state.as_str().as_bytes());
            field(&[u8::from(entry.lost)]);
            field(&entry.generation.0.to_le_bytes());
            field(entry.address.as_str().as_bytes());
            field(&entry.weight.to_le_bytes());
            field(entry.zone.as_deref().unwrap_or("").as_bytes());
        }
        RosterDigest(fields.digest())
    }
}

/// On the wire and on disk the entries are a plain list.
mod entries {
    use super::{BTreeMap, Deserialize, Entry, NodeId, Serialize};

    pub(super) fn serialize<S: serde::Serializer>(
        map: &BTreeMap<NodeId, Entry>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        map.values().collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<NodeId, Entry>, D::Error> {
        let list = Vec::<Entry>::deserialize(deserializer)?;
        Ok(list.into_iter().map(|entry| (entry.id, entry)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::electorate::Phase;
    use crate::placement::Candidate;
    use proptest::prelude::*;

    fn cluster() -> ClusterId {
        NodeId::from_bits(99)
    }

    fn entry_strategy() -> impl Strategy<Value = Entry> {
        (0u128..4, 0u32..3, 0usize..4, 0u64..3, 1u16..4, 1u32..3, 0u8..4).prop_map(
            |(id, epoch, state, generation, port, weight, bits)| Entry {
                id: NodeId::from_bits(id),
                epoch,
                state: MemberState::ALL[state],
                lost: bits > 1,
                generation: Generation(generation),
                address: format!("h:{port}").parse().expect("an address"),
                weight,
                zone: (bits % 2 > 0).then(|| "z".to_owned()),
            },
        )
    }

    fn roster_strategy() -> impl Strategy<Value = Roster> {
        let electorate =
            prop::option::of((0usize..4, 0u128..3).prop_map(|(phase, id)| Electorate {
                phase: Phase::ALL[phase],
                voters: 1,
                members: vec![Candidate { id: NodeId::from_bits(id), weight: 1, zone: None }],
            }));
        (prop::collection::vec(entry_strategy(), 0..6), 0u32..3, 1u32..6, electorate).prop_map(
            |(entries, epoch, replicas, electorate)| {
                let policy = Policy::settled(epoch, replicas);
                let mut roster = Roster::of_policy(cluster(), policy, electorate);
                for entry in &entries {
                    roster.apply_entry(entry);
                }
                roster
            },
        )
    }

    fn merged(mut a: Roster, b: &Roster) -> Roster {
        a.merge(b).expect("one cluster");
        a
    }

    proptest! {
        #[test]
        fn merging_tolerates_any_order(a in roster_strategy(), b in roster_strategy(), c in roster_strategy()) {
            let ab_c = merged(merged(a.clone(), &b), &c);
            let c_ba = merged(c, &merged(b, &a));
            prop_assert_eq!(ab_c.digest(), c_ba.digest());
            prop_assert_eq!(&ab_c, &c_ba);
            prop_assert_eq!(merged(ab_c.clone(), &ab_c), ab_c);
        }

        #[test]
        fn nothing_revives_a_retired_member(a in roster_strategy(), b in roster_strategy()) {
            let all = merged(a.clone(), &b);
            for entry in a.entries().chain(b.entries()) {
                if entry.state == MemberState::Retired {
                    prop_assert_eq!(all.get(entry.id).map(|e| e.state), Some(MemberState::Retired));
                }
            }
        }

        #[test]
        fn a_roster_survives_its_json(a in roster_strategy()) {
            let text = serde_json::to_string(&a).expect("serialises");
            prop_assert_eq!(serde_json::from_str::<Roster>(&text).expect("parses"), a);
        }
    }

    #[test]
    fn clusters_are_never_merged_by_mistake() {
        let mut ours = Roster { cluster: Some(cluster()), ..Roster::default() };
        let theirs = Roster { cluster: Some(NodeId::from_bits(5)), ..Roster::default() };
        assert!(ours.merge(&theirs).is_err());
        let mut unfounded = Roster::default();
        assert_eq!(unfounded.merge(&ours), Ok(true));
        assert_eq!(unfounded.cluster, Some(cluster()));
        assert_eq!(ours.merge(&Roster::default()), Ok(false));
    }
}
