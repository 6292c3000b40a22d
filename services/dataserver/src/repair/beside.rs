//! Copies of large objects, which go on beside the lap.
//!
//! A page of the lap lasts as long as its slowest copy, and the next page comes
//! after it. So what takes long is taken out of the page: the lap counts the name
//! as it was found, leaves it unfinished, and goes on. What is not copied here yet
//! is not begun again by another lap; what there is no room for is met by the next
//! one. When all of it has ended, a lap looks at everything as it then is.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_core::name::ObjectName;

use super::lap::Shape;
use super::look::{End, Lane, Look, Subject, away};
use super::pacer::MOST_LARGE;

/// From this size on a copy goes on beside the lap. At the least rate that can be
/// set it takes eight seconds; what is smaller waits for its turn with others.
pub const LARGE_BYTES: u64 = 8 << 20;

/// Names that wait or are copied: about 1 MiB of memory at most, and so much to
/// copy, 8 GiB at least, that looking at everything again afterwards is little.
const MOST_NAMES: usize = 1_024;

/// Names that are copied beside the lap. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Beside(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    waiting: VecDeque<Subject>,
    /// Those that wait, too.
    under_way: BTreeSet<ObjectName>,
    workers: u32,
    /// Copies that were made since this was asked last.
    done: u64,
    /// Whether any was made since nothing was under way.
    some_done: bool,
    has_ended: bool,
}

impl State {
    /// Takes note of a name; gives whether one more is to see to it.
    fn add(&mut self, subject: Subject) -> bool {
        let has_room = self.under_way.len() < MOST_NAMES;
        if !has_room || !self.under_way.insert(subject.name.clone()) {
            return false;
        }
        self.waiting.push_back(subject);
        let is_needed = self.workers < MOST_LARGE;
        self.workers += u32::from(is_needed);
        is_needed
    }

    /// The next name, or `None` for whoever asks to end.
    fn take(&mut self) -> Option<Subject> {
        let next = self.waiting.pop_front();
        self.workers -= u32::from(next.is_none());
        next
    }

    fn end(&mut self, name: &ObjectName, done: u64) {
        self.under_way.remove(name);
        self.done += done;
        self.some_done |= done > 0;
        if self.under_way.is_empty() {
            self.has_ended |= std::mem::take(&mut self.some_done);
        }
    }
}

impl Beside {
    /// How many copies were made since this was asked last.
    pub(super) fn take_done(&self) -> u64 {
        std::mem::take(&mut self.state().done)
    }

    /// Whether it is time to look at everything again: all has ended, and
    /// something came of it.
    pub(super) fn take_ended(&self) -> bool {
        std::mem::take(&mut self.state().has_ended)
    }

    /// Has this name seen to, if there is room and it is not under way.
    pub(super) fn begin(&self, look: &Look, subject: Subject) {
        if self.state().add(subject) {
            let worker = work(self.clone(), look.clone());
            look.runtime().spawn("repair-large", worker);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn work(beside: Beside, look: Look) {
    loop {
        let Some(subject) = beside.state().take() else { return };
        let _turn = look.pacer().large_turn().await;
        let (name, copied) = (subject.name.clone(), AtomicU64::new(0));
        let done = settle(&look, subject, &copied).await;
        beside.state().end(&name, done);
        // Others take turns with it until it is paid for; the next large one waits.
        look.pacer().pay_in_slices(copied.into_inner()).await;
    }
}

/// How many copies were made.
async fn settle(look: &Look, subject: Subject, copied: &AtomicU64) -> u64 {
    // It may have waited for hours.
    let (shape, away) = {
        let view = &look.snapshot().view;
        (Shape::of(view, look.delay(), look.runtime().now()), away(view))
    };
    let (found, end) = look.settle(subject, &shape, &away, Lane::Beside(copied)).await;
    match end {
        End::Release(release) => look.release(release),
        // A tombstone by now, or something that the next lap decides.
        End::Collect(_) | End::Large(_) | End::Rest => {}
    }
    found.done
}

#[cfg(test)]
mod tests {
    use holdfast_core::name::Key;

    use super::*;

    fn subject(key: &str) -> Subject {
        let name = ObjectName::seed(Key::new(key).expect("short"));
        Subject { name, is_damaged: false }
    }

    #[test]
    fn a_name_is_under_way_once_and_there_is_an_end_to_the_room() {
        let mut state = State::default();
        assert!(state.add(subject("a")), "somebody must see to it");
        assert!(!state.add(subject("a")));
        assert!(state.add(subject("b")));
        assert!(!state.add(subject("c")), "two are enough");
        assert_eq!(state.take(), Some(subject("a")));
        assert!(!state.add(subject("a")), "it is being copied");
        for number in 0..2 * MOST_NAMES {
            assert!(!state.add(subject(&format!("n-{number}"))));
        }
        assert_eq!(state.under_way.len(), MOST_NAMES);
        let names = std::iter::from_fn(|| state.waiting.pop_front());
        assert_eq!(names.count(), MOST_NAMES - 1);
        assert_eq!(state.take(), None);
        assert_eq!(state.workers, 1);
        assert!(!state.under_way.is_empty());
    }

    #[test]
    fn everything_is_looked_at_again_when_all_has_ended_and_some_of_it_well() {
        let beside = Beside::default();
        let (a, b) = (subject("a"), subject("b"));
        for one in [&a, &b] {
            beside.state().add(one.clone());
        }
        beside.state().end(&a.name, 2);
        assert_eq!(beside.take_done(), 2);
        assert!(!beside.take_ended(), "another is under way");
        beside.state().end(&b.name, 0);
        assert!(beside.take_ended() && !beside.take_ended());
        beside.state().add(a.clone());
        beside.state().end(&a.name, 0);
        assert!(!beside.take_ended(), "the next lap would find what this one found");
    }
}
