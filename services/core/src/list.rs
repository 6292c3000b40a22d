//! What the pages of the members prove, merged.
//!
//! A [`PageRound`] asks every member of the roster for its names after a start,
//! in order. It is a [`Round`] about all names up to the end of the shortest
//! page, and proves as much: for each of them the newest version is known, or
//! that there is none, once fewer than W members are unheard. What it cannot be
//! certain of, [`Judged::Uncertain`], is to be located by itself.
//!
//! | room | purpose |
//! |---|---|
//! | [`group`] | names that are listed as one, and how to get past them |
//! | [`mod@merge`] | one order out of many |

pub mod group;
pub mod merge;

use std::collections::BTreeMap;

use thiserror::Error;

use crate::locate::Round;
use crate::membership::View;
use crate::name::{Bucket, Key, ObjectName};
use crate::node::NodeId;
use crate::object::Kind;
use crate::wire::PROTOCOL_VERSION;
use crate::wire::list::{ListAnswer, ListEntry, MAX_LIST_ENTRIES};
use crate::wire::locate::BatchAnswer;
use merge::{MemberPage, Merged, merge};

/// Which names of a bucket are asked for: those with `prefix`, after
/// `start_after`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Span {
    /// The bucket.
    pub bucket: Bucket,
    /// Only keys that begin with this; may be empty.
    pub prefix: String,
    /// Only keys after this one, in byte order.
    pub start_after: Option<Key>,
    /// At most so many entries from each member.
    pub limit: usize,
}

/// Why a member's page is none: it is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadPage {
    /// More entries than were asked for.
    #[error("the page has {entries} entries, more than the {limit} asked for")]
    TooLong {
        /// How many it has.
        entries: usize,
        /// How many were asked for.
        limit: usize,
    },
    /// A key is not after the one before it, or does not belong there.
    #[error("the key {key:?} of the page is out of place")]
    OutOfPlace {
        /// The key.
        key: Key,
    },
    /// It says that more follows, and goes nowhere.
    #[error("the page is empty, and more is said to follow")]
    Nowhere,
}

impl Span {
    fn check(&self, answer: &ListAnswer) -> Result<(), BadPage> {
        let (entries, limit) = (answer.entries.len(), self.limit.min(MAX_LIST_ENTRIES));
        if entries > limit {
            return Err(BadPage::TooLong { entries, limit });
        }
        if entries == 0 && answer.more {
            return Err(BadPage::Nowhere);
        }
        let mut last = self.start_after.as_ref();
        for entry in &answer.entries {
            let key = &entry.key;
            let is_after = last.is_none_or(|last| last < key);
            if !is_after || !key.as_str().starts_with(&self.prefix) {
                return Err(BadPage::OutOfPlace { key: key.clone() });
            }
            last = Some(key);
        }
        Ok(())
    }
}

/// What is known of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// It has this content, and everybody who reads it from now on finds that or
    /// something newer.
    Shown(ListEntry),
    /// It was deleted, and that is as certain.
    Gone,
    /// Its newest version is on too few members, or cannot be read on too many:
    /// locate it, and settle what is found.
    Uncertain,
}

/// The names after the start, as far as all members that were heard have told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// Each name that anybody has something of, in order.
    pub names: Vec<(Key, Judged)>,
    /// Up to and including which key this is all; `None` is to the end.
    pub end: Option<Key>,
}

/// Too many members did not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unproven {
    /// Those members.
    pub unheard: Vec<NodeId>,
}

/// One page, asked of every member.
#[derive(Debug)]
pub struct PageRound {
    span: Span,
    round: Round,
    pages: BTreeMap<NodeId, MemberPage>,
}

impl PageRound {
    /// Starts a round over the members of `view`. Silent members are counted, but
    /// not waited for.
    #[must_use]
    pub fn new(span: Span, view: &View) -> Self {
        let round = Round::new(Vec::new(), std::collections::BTreeSet::new(), view);
        Self { span, round, pages: BTreeMap::new() }
    }

    /// Takes what has become known of the members since, see
    /// [`Round::apply_view`].
    pub fn apply_view(&mut self, view: &View) {
        self.round.apply_view(view);
    }

    /// Members that said they shut down are waited for no longer.
    pub fn give_up_leaving(&mut self, view: &View) {
        self.round.give_up_leaving(view);
    }

    /// Takes a page, unless [`Round::apply_answer`] would not take an answer of
    /// this member and run. One that was late, or of a volume of which a part
    /// cannot be read, proves nothing: that member is unheard.
    ///
    /// # Errors
    /// [`BadPage`]; the member is unheard then, too.
    pub fn apply_page(&mut self, answer: ListAnswer) -> Result<(), BadPage> {
        let node = answer.node;
        let checked = self.span.check(&answer);
        if answer.late || answer.unknown || checked.is_err() {
            self.round.apply_failure(node);
            return checked;
        }
        self.round.apply_answer(&heard(&answer));
        if self.round.has_answered(node) {
            let page = MemberPage { entries: answer.entries, more: answer.more };
            self.pages.entry(node).or_insert(page);
        }
        Ok(())
    }

    /// This member cannot be reached: it is not waited for any more.
    pub fn apply_failure(&mut self, node: NodeId) {
        self.round.apply_failure(node);
    }

    /// Nothing that was answered proves anything any more.
    pub fn revoke_all(&mut self) {
        self.round.revoke_all();
        self.pages.clear();
    }

    /// The members whose pages are still out.
    #[must_use]
    pub fn waiting(&self) -> Vec<NodeId> {
        self.round.waiting()
    }

    /// Whether nothing that is still out could change the outcome. As with
    /// [`Round::is_decided`], a member that is still out may settle what is not,
    /// which is cheaper than to write it once more.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        let is_certain = |(_, judged): &(Key, Judged)| !matches!(judged, Judged::Uncertain);
        self.waiting().is_empty()
            || self.prove().is_ok_and(|proven| proven.names.iter().all(is_certain))
    }

    /// What is known now. Members still waited for count as unheard.
    ///
    /// # Errors
    /// [`Unproven`]: there may be names that nobody has told, or newer versions.
    pub fn prove(&self) -> Result<Proven, Unproven> {
        let unheard = self.round.unheard();
        if !self.round.is_complete_without(unheard.len()) {
            return Err(Unproven { unheard });
        }
        let Merged { names, end } = merge(&self.pages);
        let judged = |(key, held): (&Key, Vec<(NodeId, &ListEntry)>)| {
            (key.clone(), self.judge(key, unheard.len(), &held))
        };
        Ok(Proven { names: names.into_iter().map(judged).collect(), end: end.cloned() })
    }

    /// The verdict of a [`crate::locate::Located`] on one name, of which members
    /// have this.
    fn judge(&self, key: &Key, unheard: usize, held: &[(NodeId, &ListEntry)]) -> Judged {
        let Some((_, newest)) = held.iter().max_by_key(|(_, entry)| entry.version) else {
            return Judged::Uncertain;
        };
        let name = ObjectName::new(self.span.bucket.clone(), key.clone());
        let on_lasting = self.round.lasting(&name);
        let lasts = |(node, entry): &&(NodeId, &ListEntry)| {
            entry.version == newest.version && !entry.is_damaged && on_lasting(*node)
        };
        let lasting = held.iter().filter(lasts).count();
        // Whoever cannot read its copy has not said what it has.
        let damaged = held.iter().filter(|(_, entry)| entry.is_damaged).count();
        let is_complete = self.round.is_complete_without(unheard + damaged);
        let is_found = is_complete || self.round.is_single_copy();
        match newest.kind {
            _ if !self.round.is_certain_on(lasting) => Judged::Uncertain,
            Kind::Object if is_found => Judged::Shown((*newest).clone()),
            Kind::Tombstone if is_complete => Judged::Gone,
            Kind::Object | Kind::Tombstone => Judged::Uncertain,
        }
    }
}

/// That a member answered, as a round takes it. A page acts on no stamp, clock
/// or floor.
fn heard(answer: &ListAnswer) -> BatchAnswer {
    BatchAnswer {
        protocol: PROTOCOL_VERSION,
        id: 0,
        node: answer.node,
        generation: answer.generation,
        address: answer.address.clone(),
        roster_digest: answer.roster_digest,
        mono_millis: answer.mono_millis,
        unix_millis: 0,
        found: Vec::new(),
        unknown: Vec::new(),
        floor: None,
        promised: Vec::new(),
        may_have_promised: Vec::new(),
        promised_before: None,
        late: false,
    }
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
