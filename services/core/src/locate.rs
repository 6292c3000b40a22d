//! What the answers of the members prove.
//!
//! A [`Round`] asks every member of the roster about a set of names. It is over
//! as soon as no answer that is still out could change the outcome, which is
//! often before all have answered or any deadline has passed.

use std::collections::{BTreeMap, BTreeSet};

use crate::membership::{Hearing, View};
use crate::node::{Address, Generation, NodeId};
use crate::object::{Kind, Stat};
use crate::wire::locate::BatchAnswer;

/// One copy of an object that a locate found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Who holds it.
    pub node: NodeId,
    /// Where that member is reached.
    pub address: Address,
    /// Which version it holds, tombstones too.
    pub stat: Stat,
}

/// What is known of one name once its round is over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Located {
    /// Every copy, newest version first.
    pub replicas: Vec<Replica>,
    /// Members that might hold something newer and did not say.
    pub unheard: Vec<NodeId>,
    /// Members that answered about this name.
    pub answered: Vec<NodeId>,
    /// Whether so few are unheard that no acknowledged write can be hidden.
    pub complete: bool,
    /// Median of the wall clocks of those that answered, Unix milliseconds.
    pub clock_millis: Option<u64>,
}

/// What a locate proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// This is the newest content among those that answered.
    Found(&'a Replica),
    /// There is none, for certain.
    Absent,
    /// There may be one; these members did not say.
    Incomplete(&'a [NodeId]),
}

impl Located {
    /// The newest version found, tombstones too: what a write must exceed.
    #[must_use]
    pub fn newest(&self) -> Option<&Replica> {
        self.replicas.first()
    }

    /// What this proves. A delete is "absent" only when the answer is complete:
    /// a member that did not say may hold something newer.
    #[must_use]
    pub fn verdict(&self) -> Verdict<'_> {
        match self.newest() {
            Some(replica) if replica.stat.kind == Kind::Object => Verdict::Found(replica),
            Some(_) | None if self.complete => Verdict::Absent,
            Some(_) | None => Verdict::Incomplete(&self.unheard),
        }
    }
}

/// How many members may be unheard before a locate is incomplete: fewer than
/// every acknowledged write reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadQuorum {
    /// Members that each acknowledged write reached.
    pub write_quorum: usize,
}

impl ReadQuorum {
    /// One copy of each object: every member must be heard.
    pub const SINGLE_COPY: Self = Self { write_quorum: 1 };

    fn allows(self, unheard: usize) -> bool {
        unheard < self.write_quorum
    }
}

#[derive(Debug)]
enum Asked {
    Waiting,
    Unheard,
    Answered {
        address: Address,
        unix_millis: u64,
        found: BTreeMap<u32, Stat>,
        unknown: BTreeSet<u32>,
    },
}

/// One batch of names, asked of every member.
#[derive(Debug)]
pub struct Round {
    quorum: ReadQuorum,
    names: usize,
    asked: BTreeMap<NodeId, Asked>,
    /// The newest known run of each member: an older one may have forgotten.
    generations: BTreeMap<NodeId, Generation>,
}

impl Round {
    /// Starts a round about `names` names over the members of `view`. Silent
    /// members are counted, but not waited for.
    #[must_use]
    pub fn new(quorum: ReadQuorum, names: usize, view: &View) -> Self {
        let (asked, generations) = (BTreeMap::new(), BTreeMap::new());
        let mut round = Self { quorum, names, asked, generations };
        round.apply_view(view);
        round
    }

    /// Takes what has become known of the members since: a new one is waited
    /// for, one that fell silent no longer is, a retired one does not count.
    pub fn apply_view(&mut self, view: &View) {
        let members: BTreeMap<NodeId, bool> =
            view.roster_members().map(|member| (member.id, member.hearing.may_answer())).collect();
        self.asked.retain(|id, _| members.contains_key(id));
        self.generations =
            view.roster_members().map(|member| (member.id, member.generation)).collect();
        for (id, may_answer) in members {
            let asked = self.asked.entry(id).or_insert(if may_answer {
                Asked::Waiting
            } else {
                Asked::Unheard
            });
            if matches!(asked, Asked::Waiting) && !may_answer {
                *asked = Asked::Unheard;
            }
        }
    }

    /// Takes an answer. That of a member which is not in the roster is ignored,
    /// as is a second one, and one of an earlier run: a volume that was copied or
    /// rolled back does not know what it lacks.
    pub fn apply_answer(&mut self, answer: &BatchAnswer) {
        let known = self.generations.get(&answer.node);
        if known.is_some_and(|known| *known > answer.generation) {
            return;
        }
        let Some(asked) = self.asked.get_mut(&answer.node) else {
            return;
        };
        if matches!(asked, Asked::Answered { .. }) {
            return;
        }
        *asked = Asked::Answered {
            address: answer.address.clone(),
            unix_millis: answer.unix_millis,
            found: answer.found.iter().cloned().collect(),
            unknown: answer.unknown.iter().copied().collect(),
        };
    }

    /// This member cannot be reached: it is not waited for any more. An answer
    /// that comes all the same is still taken.
    pub fn apply_failure(&mut self, id: NodeId) {
        if let Some(asked @ Asked::Waiting) = self.asked.get_mut(&id) {
            *asked = Asked::Unheard;
        }
    }

    /// What this member answered proves nothing after all: it counts as unheard.
    pub fn revoke(&mut self, id: NodeId) {
        if let Some(asked) = self.asked.get_mut(&id) {
            *asked = Asked::Unheard;
        }
    }

    /// Members that said they shut down are waited for no longer.
    pub fn give_up_leaving(&mut self, view: &View) {
        for member in view.members.iter().filter(|m| m.hearing == Hearing::Leaving) {
            self.apply_failure(member.id);
        }
    }

    /// The members whose answers are still out.
    #[must_use]
    pub fn waiting(&self) -> Vec<NodeId> {
        self.asked
            .iter()
            .filter(|(_, asked)| matches!(asked, Asked::Waiting))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Whether nothing that is still out could change the outcome.
    ///
    /// With a write quorum above one, enough answers prove everything: a member
    /// that is still out cannot hold an acknowledged write alone.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        let waiting = self.waiting().len();
        if waiting == 0 {
            return true;
        }
        let unknown_anywhere = self
            .asked
            .values()
            .any(|asked| matches!(asked, Asked::Answered { unknown, .. } if !unknown.is_empty()));
        let unheard = self.asked.values().filter(|a| !matches!(a, Asked::Answered { .. })).count();
        !unknown_anywhere && self.quorum.allows(unheard)
    }

    /// What is known now of the name at place `index`. Members still waited for
    /// count as unheard.
    #[must_use]
    pub fn outcome(&self, index: u32) -> Located {
        let mut located = Located::default();
        let mut clocks = Vec::new();
        for (id, asked) in &self.asked {
            match asked {
                Asked::Answered { unknown, .. } if unknown.contains(&index) => {
                    located.unheard.push(*id);
                }
                Asked::Answered { address, found, unix_millis, .. } => {
                    clocks.push(*unix_millis);
                    located.answered.push(*id);
                    located.replicas.extend(found.get(&index).map(|stat| Replica {
                        node: *id,
                        address: address.clone(),
                        stat: stat.clone(),
                    }));
                }
                Asked::Waiting | Asked::Unheard => located.unheard.push(*id),
            }
        }
        located
            .replicas
            .sort_by(|a, b| b.stat.version.cmp(&a.stat.version).then(a.node.cmp(&b.node)));
        let somebody_heard = located.unheard.len() < self.asked.len();
        clocks.sort_unstable();
        // The lower of the two in the middle: one fast clock of two decides nothing.
        located.clock_millis = clocks.get(clocks.len().saturating_sub(1) / 2).copied();
        located.complete = somebody_heard && self.quorum.allows(located.unheard.len());
        located
    }

    /// The outcomes of all names, in their order.
    #[must_use]
    pub fn outcomes(&self) -> Vec<Located> {
        (0..self.names).map(|i| self.outcome(u32::try_from(i).unwrap_or(u32::MAX))).collect()
    }
}

#[cfg(test)]
#[path = "locate_tests.rs"]
mod tests;
