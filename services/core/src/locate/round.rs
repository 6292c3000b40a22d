//! One batch of names, asked of every member, and what its answers prove.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Located, ReadQuorum, Replica};
use crate::electorate::{Electorate, Phase};
use crate::membership::{Hearing, View};
use crate::name::ObjectName;
use crate::node::{Address, Generation, NodeId};
use crate::object::Stat;
use crate::stamp::Stamp;
use crate::version::Version;
use crate::wire::locate::BatchAnswer;

#[derive(Debug)]
enum Asked {
    Waiting,
    Unheard,
    Answered {
        address: Address,
        unix_millis: u64,
        stamp: Stamp,
        floor: Option<Version>,
        found: BTreeMap<u32, Stat>,
        unknown: BTreeSet<u32>,
        promised: BTreeSet<u32>,
        may_have_promised: BTreeMap<u32, Version>,
        promised_before: Option<Version>,
    },
}

/// One batch of names, asked of every member.
#[derive(Debug)]
pub struct Round {
    quorum: ReadQuorum,
    /// How many members make a version settled. While the number of copies is
    /// raised, writes make more copies than reads count on yet; a version that
    /// was shown to somebody must be on as many, or it is lost to reads that
    /// count on them later.
    settling: usize,
    /// How many members must have taken a version for everybody who is promised
    /// something to see it: as many as reads count on, or did in this round.
    accepting: usize,
    names: Vec<ObjectName>,
    /// Whose copies count, as the roster says now.
    electorate: Option<Arc<Electorate>>,
    /// The voters of each name in their order, while there is an electorate.
    voters: Vec<Vec<NodeId>>,
    /// Whether W voters answer for a name: the roster has said so from the
    /// beginning of this round, and has not changed about it since.
    reads_voters: bool,
    /// Whether anybody may ask W voters alone, or the roster said so when this
    /// round began: what others have then need not be seen.
    asks_voters: bool,
    /// Names for which a promise is asked: who does not give it counts as
    /// unheard.
    promises: BTreeSet<u32>,
    asked: BTreeMap<NodeId, Asked>,
    /// The newest known run of each member: an older one may have forgotten.
    generations: BTreeMap<NodeId, Generation>,
    /// Members whose copies last: those that do not drain.
    counting: BTreeSet<NodeId>,
}

impl Round {
    /// Starts a round about `names` over the members of `view`; for those at the
    /// places `promises` a promise is asked too. Silent members are counted, but
    /// not waited for.
    #[must_use]
    pub fn new(names: Vec<ObjectName>, promises: BTreeSet<u32>, view: &View) -> Self {
        let reading = |electorate: &Arc<Electorate>| electorate.phase == Phase::Reading;
        let mut round = Self {
            quorum: ReadQuorum::of(view),
            settling: 1,
            accepting: 1,
            names,
            electorate: None,
            voters: Vec::new(),
            asks_voters: false,
            reads_voters: view.electorate.as_ref().is_some_and(reading),
            promises,
            asked: BTreeMap::new(),
            generations: BTreeMap::new(),
            counting: BTreeSet::new(),
        };
        round.take_electorate(view);
        round.apply_view(view);
        round
    }

    /// Takes what has become known of the members since: a new one is waited
    /// for, one that fell silent or has retired no longer is.
    ///
    /// A round proves no more than it did under the roster with which it began.
    /// A member that retires meanwhile still counts, as unheard unless it has
    /// answered, and what reads count on does not rise: both wait for a repair,
    /// and an answer that was given before the repair does not show its copies.
    /// Once the electorate changes, voters do not answer for the others.
    pub fn apply_view(&mut self, view: &View) {
        let members: BTreeMap<NodeId, bool> =
            view.roster_members().map(|member| (member.id, member.hearing.may_answer())).collect();
        let ReadQuorum { write_quorum, is_single_copy } = ReadQuorum::of(view);
        self.quorum.write_quorum = self.quorum.write_quorum.min(write_quorum);
        self.quorum.is_single_copy &= is_single_copy;
        self.accepting = self.accepting.max(write_quorum);
        self.settling = self.settling.max(write_quorum).max(view.policy.write_quorum());
        if self.electorate != view.electorate {
            self.reads_voters = false;
            self.take_electorate(view);
        }
        self.counting =
            view.members.iter().filter(|member| member.counts()).map(|member| member.id).collect();
        for (id, asked) in &mut self.asked {
            if matches!(asked, Asked::Waiting) && !members.contains_key(id) {
                *asked = Asked::Unheard;
            }
        }
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

    fn take_electorate(&mut self, view: &View) {
        self.electorate.clone_from(&view.electorate);
        self.asks_voters |= view
            .electorate
            .as_ref()
            .is_some_and(|all| matches!(all.phase, Phase::Reading | Phase::Falling));
        self.voters = match &self.electorate {
            Some(electorate) => self.names.iter().map(|name| electorate.voters(name)).collect(),
            None => Vec::new(),
        };
    }

    /// The voters of the name at place `index` while copies count only on them.
    fn voters(&self, index: u32) -> Option<&[NodeId]> {
        let place = usize::try_from(index).ok()?;
        self.voters.get(place).map(Vec::as_slice)
    }

    /// Takes an answer. That of a member which is not in the roster is ignored,
    /// as is a second one, one of an earlier run (a volume that was copied or
    /// rolled back does not know what it lacks), and one that says that the
    /// question came too late: the member is asked once more. Tells whether it was
    /// taken.
    pub fn apply_answer(&mut self, answer: &BatchAnswer) -> bool {
        let known = self.generations.get(&answer.node);
        if known.is_none_or(|known| *known > answer.generation) {
            return false;
        }
        let Some(asked) = self.asked.get_mut(&answer.node) else {
            return false;
        };
        if answer.late || matches!(asked, Asked::Answered { .. }) {
            return false;
        }
        *asked = Asked::Answered {
            address: answer.address.clone(),
            unix_millis: answer.unix_millis,
            stamp: Stamp { generation: answer.generation, mono_millis: answer.mono_millis },
            floor: answer.floor,
            found: answer.found.iter().cloned().collect(),
            unknown: answer.unknown.iter().copied().collect(),
            promised: answer.promised.iter().copied().collect(),
            may_have_promised: answer.may_have_promised.iter().copied().collect(),
            promised_before: answer.promised_before,
        };
        true
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

    /// Nothing that was answered proves anything any more.
    pub fn revoke_all(&mut self) {
        self.asked.values_mut().for_each(|asked| *asked = Asked::Unheard);
    }

    /// Members that said they shut down are waited for no longer.
    pub fn give_up_leaving(&mut self, view: &View) {
        for member in view.members.iter().filter(|m| m.hearing == Hearing::Leaving) {
            self.apply_failure(member.id);
        }
    }

    /// Whether this member's answer counts, waited for or not.
    #[must_use]
    pub fn asks(&self, node: NodeId) -> bool {
        self.asked.contains_key(&node)
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
    /// that is still out cannot hold an acknowledged write alone. But while a
    /// version that was found is not settled, that member may settle it, which
    /// is cheaper than to write it once more.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        let waiting = self.waiting().len();
        if waiting == 0 {
            return true;
        }
        let unknown_anywhere = self.asked.values().any(|asked| match asked {
            Asked::Answered { unknown, promised, .. } => {
                !unknown.is_empty() || !self.promises.is_subset(promised)
            }
            _ => false,
        });
        !unknown_anywhere && self.is_complete_everywhere() && self.is_settled_everywhere()
    }

    /// Whether every name is complete, if all who answered said everything.
    fn is_complete_everywhere(&self) -> bool {
        let suffice =
            |voters: &Vec<NodeId>| self.voters_suffice(voters, |voter| self.has_answered(voter));
        self.is_complete_without(self.unheard().len())
            || (!self.voters.is_empty() && self.voters.iter().all(suffice))
    }

    /// Whether every name is either settled or was not found at all.
    fn is_settled_everywhere(&self) -> bool {
        if self.settling <= 1 {
            return true;
        }
        let mut newest: BTreeMap<u32, (Version, usize)> = BTreeMap::new();
        for (id, asked) in &self.asked {
            let Asked::Answered { found, unknown, .. } = asked else { continue };
            for (index, stat) in found {
                let lasts = self.counting.contains(id)
                    && !unknown.contains(index)
                    && self.voters(*index).is_none_or(|voters| voters.contains(id));
                let lasting = usize::from(lasts);
                let (version, holders) = newest.entry(*index).or_insert((stat.version, 0));
                match stat.version.cmp(version) {
                    std::cmp::Ordering::Greater => (*version, *holders) = (stat.version, lasting),
                    std::cmp::Ordering::Equal => *holders += lasting,
                    std::cmp::Ordering::Less => {}
                }
            }
        }
        newest.values().all(|(_, holders)| *holders >= self.settling)
    }

    /// What is known now of the name at place `index`. Members still waited for
    /// count as unheard.
    #[must_use]
    pub fn outcome(&self, index: u32) -> Located {
        let (quorum, settling) = (self.quorum, self.settling);
        let voters = self.voters(index).map(<[NodeId]>::to_vec);
        let mut located = Located { quorum, settling, voters, ..Located::default() };
        let mut clocks = Vec::new();
        for (id, asked) in &self.asked {
            match asked {
                Asked::Answered {
                    address,
                    unix_millis,
                    stamp,
                    floor,
                    found,
                    unknown,
                    promised,
                    may_have_promised,
                    promised_before,
                } => {
                    let promises = may_have_promised.get(&index).copied();
                    located.promised = located.promised.max(promises).max(*promised_before);
                    clocks.push(*unix_millis);
                    located.floor = located.floor.max(*floor);
                    located.stamps.insert(*id, *stamp);
                    let promised = !self.promises.contains(&index) || promised.contains(&index);
                    if unknown.contains(&index) || !promised {
                        located.unheard.push(*id);
                    } else {
                        located.answered.push(*id);
                    }
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
        let good: Vec<NodeId> = located
            .newest_holders()
            .map(|holder| holder.node)
            .filter(|node| self.counting.contains(node) && located.answered.contains(node))
            .collect();
        let votes =
            |node: &&NodeId| located.voters.as_ref().is_none_or(|voters| voters.contains(node));
        (located.copies, located.lasting) = (good.len(), good.iter().filter(votes).count());
        located.settled = self.is_settled_on(located.lasting);
        let is_asked = |node: &NodeId| {
            self.generations.contains_key(node) && (!self.asks_voters || votes(&node))
        };
        let accepted = located.newest_holders().filter(|holder| is_asked(&holder.node)).count();
        located.is_accepted = accepted >= self.accepting;
        clocks.sort_unstable();
        // The lower of the two in the middle: one fast clock of two decides nothing.
        located.clock_millis = clocks.get(clocks.len().saturating_sub(1) / 2).copied();
        located.complete = self.is_complete_without(located.unheard.len())
            || located.voters.as_ref().is_some_and(|voters| {
                self.voters_suffice(voters, |voter| located.answered.contains(&voter))
            });
        located
    }

    /// Whether so few are unheard that no acknowledged write can be hidden.
    /// Silence alone proves nothing, however few members there are.
    pub(crate) fn is_complete_without(&self, unheard: usize) -> bool {
        unheard < self.asked.len() && self.quorum.allows(unheard)
    }

    /// Whose copies of `name` last, as far as the roster goes.
    pub(crate) fn lasting(&self, name: &ObjectName) -> impl Fn(NodeId) -> bool + use<'_> {
        let voters = self.electorate.as_ref().map(|electorate| electorate.voters(name));
        move |node| {
            self.counting.contains(&node)
                && voters.as_ref().is_none_or(|voters| voters.contains(&node))
        }
    }

    /// Whether so many of a name's voters have answered about it that no
    /// acknowledged write can be hidden, whoever else has not. One that is not in
    /// the roster any more, since it was given up by force, has not answered: more
    /// than half of all that there were must have, whatever reads count on since.
    fn voters_suffice(&self, voters: &[NodeId], answered: impl Fn(NodeId) -> bool) -> bool {
        let heard = voters.iter().filter(|voter| answered(**voter)).count();
        self.reads_voters && heard > voters.len() / 2 && heard >= self.quorum.write_quorum
    }

    /// Whether a version is certain to be found again if so many lasting copies
    /// of it can be read.
    fn is_settled_on(&self, lasting: usize) -> bool {
        lasting >= self.settling
    }

    /// As [`Located::is_certain`], of a version with so many lasting copies.
    pub(crate) fn is_certain_on(&self, lasting: usize) -> bool {
        self.settling <= 1 || self.is_settled_on(lasting)
    }

    /// Whether reads serve what is found although somebody did not say, as in
    /// [`Located::verdict`].
    pub(crate) fn is_single_copy(&self) -> bool {
        self.quorum.is_single_copy()
    }

    /// Whether this member has answered.
    pub(crate) fn has_answered(&self, node: NodeId) -> bool {
        matches!(self.asked.get(&node), Some(Asked::Answered { .. }))
    }

    /// The members that have not answered, whether they are waited for or not.
    pub(crate) fn unheard(&self) -> Vec<NodeId> {
        self.asked.keys().copied().filter(|node| !self.has_answered(*node)).collect()
    }

    /// The outcomes of all names, in their order.
    #[must_use]
    pub fn outcomes(&self) -> Vec<Located> {
        (0..self.names.len()).map(|i| self.outcome(u32::try_from(i).unwrap_or(u32::MAX))).collect()
    }
}
