//! One way around the index.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::electorate::Electorate;
use holdfast_core::membership::{Moment, View};
use holdfast_core::name::ObjectName;
use holdfast_core::node::NodeId;
use holdfast_core::placement::Candidate;
use holdfast_core::policy::Policy;
use holdfast_core::repair::home_candidates;
use holdfast_core::roster::MemberState;
use holdfast_core::wire::heartbeat::Pass;
use holdfast_store::{WalkPage, Walked};

/// What decides where copies belong. While it stays the same, one lap is enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Those that may hold copies for good.
    pub candidates: Vec<Candidate>,
    /// How many copies there should be.
    pub policy: Policy,
    /// Whose copies count.
    pub electorate: Option<Arc<Electorate>>,
    /// Members whose copies do not last, and the epochs of their entries.
    pub draining: BTreeMap<NodeId, u32>,
}

impl Shape {
    /// As this view shows it.
    #[must_use]
    pub fn of(view: &View, delay: Duration, now: Moment) -> Self {
        let draining = view
            .roster_members()
            .filter(|member| member.state == MemberState::Draining)
            .map(|member| (member.id, member.epoch))
            .collect();
        Self {
            candidates: home_candidates(view, delay, now),
            policy: view.policy,
            electorate: view.electorate.clone(),
            draining,
        }
    }
}

/// Label values of copies: none, one, two, more.
pub const COPIES: [&str; 4] = ["0", "1", "2", "3+"];

/// How many copies there are of what this member is in charge of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Redundancy {
    /// Objects by [`COPIES`].
    pub by_copies: [u64; 4],
    /// Objects that nobody has looked at since something happened that may have
    /// cost them copies.
    pub unknown: u64,
    /// Names that have fewer copies than the policy asks for, tombstones too.
    pub under_replicated: u64,
}

impl Redundancy {
    fn add(&mut self, other: &Self) {
        for (count, more) in self.by_copies.iter_mut().zip(other.by_copies) {
            *count += more;
        }
        self.unknown += other.unknown;
        self.under_replicated += other.under_replicated;
    }

    fn objects(&self) -> u64 {
        self.by_copies.iter().sum::<u64>() + self.unknown
    }

    /// What can be said while a lap is under way that has found this so far, when
    /// the lap before it ended with `last` and `replicas` copies are asked for. What
    /// was too little stays told until the lap has ended, so that laps that are
    /// begun again and again do not hide it. What was enough stays so, unless the lap
    /// `has_cause`.
    fn so_far(&self, last: &Self, replicas: usize, has_cause: bool) -> Self {
        let enough = replicas.min(COPIES.len() - 1);
        let mut told = *self;
        for (copies, (count, last)) in told.by_copies.iter_mut().zip(last.by_copies).enumerate() {
            if copies < enough || !has_cause {
                *count = last.max(*count);
            }
        }
        told.under_replicated = last.under_replicated.max(self.under_replicated);
        told.unknown = last.objects().saturating_sub(told.by_copies.iter().sum());
        told
    }
}

/// What was found about some names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// How many names there were.
    pub looked_at: u64,
    /// Those that could not be decided, since too few members were heard or a
    /// part of the index cannot be read.
    pub undecided: u64,
    /// Those that are not yet as they should be.
    pub unfinished: u64,
    /// How many things were done about them.
    pub done: u64,
    /// The least number of lasting copies of any name.
    pub least_copies: u32,
    /// Of names that this member is in charge of, once all was done that could be.
    pub redundancy: Redundancy,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            looked_at: 0,
            undecided: 0,
            unfinished: 0,
            done: 0,
            least_copies: u32::MAX,
            redundancy: Redundancy::default(),
        }
    }
}

impl Found {
    /// Takes what was found of others.
    pub fn add(&mut self, other: &Self) {
        self.looked_at += other.looked_at;
        self.undecided += other.undecided;
        self.unfinished += other.unfinished;
        self.done += other.done;
        self.least_copies = self.least_copies.min(other.least_copies);
        self.redundancy.add(&other.redundancy);
    }

    /// Whether all of it was certain.
    #[must_use]
    pub fn is_proof(&self) -> bool {
        self.undecided == 0
    }
}

/// A lap that is under way.
#[derive(Debug)]
pub struct Lap {
    shape: Shape,
    began: Moment,
    is_urgent: bool,
    /// Whether something happened that may have cost names copies.
    has_cause: bool,
    /// It ends behind this name; `None` is the beginning of the index.
    start: Option<ObjectName>,
    cursor: Option<ObjectName>,
    has_wrapped: bool,
    is_complete: bool,
    found: Found,
}

impl Lap {
    /// A lap that begins behind `start`.
    #[must_use]
    pub fn new(start: Option<ObjectName>, shape: Shape, began: Moment, is_urgent: bool) -> Self {
        Self {
            shape,
            began,
            is_urgent,
            has_cause: false,
            cursor: start.clone(),
            has_wrapped: start.is_none(),
            start,
            is_complete: false,
            found: Found::default(),
        }
    }

    /// The same, since something happened that may have cost names copies.
    #[must_use]
    pub fn with_cause(self) -> Self {
        Self { is_urgent: true, has_cause: true, ..self }
    }

    /// What can be said of copies before it has ended, when the lap before it ended
    /// with `last`.
    #[must_use]
    pub fn redundancy(&self, last: &Redundancy) -> Redundancy {
        self.found.redundancy.so_far(last, self.shape.policy.replicas(), self.has_cause)
    }

    /// Behind which name the next page begins.
    #[must_use]
    pub fn cursor(&self) -> Option<&ObjectName> {
        self.cursor.as_ref()
    }

    /// Where it is, for the lap that takes its place.
    #[must_use]
    pub fn into_cursor(self) -> Option<ObjectName> {
        self.cursor
    }

    /// What decides where copies belong, for this lap.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// When it began.
    #[must_use]
    pub fn began(&self) -> Moment {
        self.began
    }

    /// Whether there is a cause for it.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.is_urgent
    }

    /// Goes on by one page; gives the names on it that belong to the lap.
    pub fn take_page(&mut self, page: WalkPage) -> Vec<Walked> {
        let WalkPage { mut entries, more, unreadable_count } = page;
        if unreadable_count > 0 {
            self.found.undecided += 1;
        }
        if self.has_wrapped
            && let Some(start) = &self.start
        {
            let within = entries.partition_point(|walked| walked.name <= *start);
            self.is_complete = within < entries.len() || !more;
            entries.truncate(within);
        } else if !more {
            self.is_complete = self.has_wrapped;
            self.has_wrapped = true;
            self.cursor = None;
            return entries;
        }
        if let Some(last) = entries.last() {
            self.cursor = Some(last.name.clone());
        }
        entries
    }

    /// Takes what was found on a page.
    pub fn add(&mut self, found: &Found) {
        self.found.add(found);
    }

    /// What was found so far.
    #[must_use]
    pub fn found(&self) -> Found {
        self.found.clone()
    }

    /// Whether everything was looked at.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// What it proves, if all of it was certain.
    #[must_use]
    pub fn to_pass(&self) -> Pass {
        Pass {
            policy_epoch: self.shape.policy.epoch,
            electorate: self.shape.electorate.as_deref().map_or(0, Electorate::digest),
            without: self.shape.draining.keys().copied().collect(),
            epochs: self.shape.draining.values().copied().collect(),
            least_copies: self.found.least_copies,
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_core::name::Key;
    use holdfast_core::version::Version;
    use holdfast_store::{MemoryStore, Stamp, Store};

    use super::*;

    fn name(key: &str) -> ObjectName {
        ObjectName::seed(Key::new(key).expect("short"))
    }

    #[test]
    fn copies_are_unknown_after_a_loss_until_they_are_looked_at() {
        let last = Redundancy { by_copies: [0, 2, 0, 98], unknown: 0, under_replicated: 2 };
        let so_far = Redundancy { by_copies: [0, 0, 1, 29], unknown: 0, under_replicated: 1 };
        let told = so_far.so_far(&last, 3, true);
        assert_eq!((told.by_copies, told.unknown), ([0, 2, 1, 29], 68));
        assert_eq!(told.under_replicated, 2, "it is not forgotten before the lap has ended");
        // With two copies asked for, two are enough.
        let last = Redundancy { by_copies: [0, 0, 100, 0], ..last };
        let so_far = Redundancy { by_copies: [0, 1, 29, 0], ..so_far };
        let told = so_far.so_far(&last, 2, true);
        assert_eq!((told.by_copies, told.unknown), ([0, 1, 29, 0], 70));
        // Nothing happened: what was there is there.
        let told = so_far.so_far(&last, 2, false);
        assert_eq!((told.by_copies, told.unknown), ([0, 1, 100, 0], 0));
        // A lap that is begun anew goes on from what was told.
        let again = Redundancy::default().so_far(&told, 2, true);
        assert_eq!((again.by_copies, again.unknown), ([0, 1, 0, 0], 100));
    }

    fn shape() -> Shape {
        Shape {
            candidates: Vec::new(),
            policy: Policy::default(),
            electorate: None,
            draining: BTreeMap::new(),
        }
    }

    async fn names_of(store: &dyn Store, start: Option<&str>, page: usize) -> Vec<String> {
        let mut lap = Lap::new(start.map(name), shape(), Duration::ZERO, true);
        let mut names = Vec::new();
        for _ in 0..100 {
            let walked = store.walk(lap.cursor(), page).await.expect("in memory");
            let taken = lap.take_page(walked);
            names.extend(taken.into_iter().map(|walked| walked.name.key.as_str().to_owned()));
            if lap.is_complete() {
                return names;
            }
        }
        panic!("the lap does not end: {names:?}");
    }

    #[tokio::test]
    async fn a_lap_meets_every_name_once_wherever_it_begins() {
        let store = MemoryStore::new();
        assert!(names_of(&store, None, 2).await.is_empty());
        assert!(names_of(&store, Some("b"), 2).await.is_empty());
        for (clock, key) in (1..).zip(["a", "b", "c", "d", "e"]) {
            let version = Version::from_parts(clock, 1);
            let stamp = Stamp { version, metadata: holdfast_core::object::Metadata::default() };
            store.delete(name(key), stamp).await.expect("there is room");
        }
        for page in 1..8 {
            assert_eq!(names_of(&store, None, page).await, ["a", "b", "c", "d", "e"]);
            assert_eq!(names_of(&store, Some("b"), page).await, ["c", "d", "e", "a", "b"]);
            assert_eq!(names_of(&store, Some("bb"), page).await, ["c", "d", "e", "a", "b"]);
            assert_eq!(names_of(&store, Some("e"), page).await, ["a", "b", "c", "d", "e"]);
            assert_eq!(names_of(&store, Some("x"), page).await, ["a", "b", "c", "d", "e"]);
        }
    }

    #[test]
    fn what_cannot_be_read_proves_nothing() {
        let mut lap = Lap::new(None, shape(), Duration::ZERO, true);
        lap.take_page(WalkPage { unreadable_count: 1, ..WalkPage::default() });
        assert!(lap.is_complete() && !lap.found().is_proof());
        assert_eq!(lap.to_pass().least_copies, u32::MAX);
    }
}
