use std::collections::HashMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use holdfast_core::name::Key;
use holdfast_core::object::{Digest, Kind, Metadata, Stat};
use holdfast_core::version::Version;

use super::super::index::{Content, Place};
use super::*;

fn name(number: u64) -> ObjectName {
    ObjectName::seed(Key::new(format!("names/{number}")).expect("it is short"))
}

fn entry(version: u64) -> Entry {
    let stat = Stat {
        version: Version::from_parts(version, 1),
        kind: Kind::Object,
        size_bytes: 0,
        digest: Digest::default(),
        metadata: Metadata::default(),
    };
    let place = Place { segment: 1, offset: 0, length: 0 };
    Entry { stat, content: Content::Inline, place, origin: 0, is_damaged: false }
}

fn ticket(cache: &EntryCache, name: &ObjectName) -> Ticket {
    match cache.look(name) {
        Looked::Unknown(ticket) => ticket,
        Looked::Known(entry) => panic!("{entry:?} is known already"),
    }
}

fn known(cache: &EntryCache, name: &ObjectName) -> Option<Option<u64>> {
    match cache.look(name) {
        Looked::Known(entry) => Some(entry.map(|entry| entry.stat.version.clock())),
        Looked::Unknown(_) => None,
    }
}

#[test]
fn what_was_kept_is_known_and_so_is_what_is_not_there() {
    let cache = EntryCache::new(1 << 20, 7);
    cache.keep(&name(1), ticket(&cache, &name(1)), Some(&entry(7)));
    cache.keep(&name(2), ticket(&cache, &name(2)), None);
    assert_eq!(known(&cache, &name(1)), Some(Some(7)));
    assert_eq!(known(&cache, &name(2)), Some(None));
    assert_eq!(known(&cache, &name(3)), None);
}

#[test]
fn a_change_forgets_before_it_happens_and_keeps_nothing_while_it_goes_on() {
    let cache = EntryCache::new(1 << 20, 7);
    cache.keep(&name(1), ticket(&cache, &name(1)), Some(&entry(7)));
    let change = cache.change([name(1)].iter());
    let during = ticket(&cache, &name(1));
    cache.keep(&name(1), during, Some(&entry(7)));
    assert_eq!(known(&cache, &name(1)), None);
    drop(change);
    cache.keep(&name(1), during, Some(&entry(7)));
    assert_eq!(known(&cache, &name(1)), None, "it was asked for during the change");
    cache.keep(&name(1), ticket(&cache, &name(1)), Some(&entry(8)));
    assert_eq!(known(&cache, &name(1)), Some(Some(8)));
}

#[test]
fn an_answer_from_before_a_change_is_not_kept_after_it() {
    let cache = EntryCache::new(1 << 20, 7);
    let before = ticket(&cache, &name(1));
    drop(cache.change([name(1)].iter()));
    cache.keep(&name(1), before, Some(&entry(7)));
    assert_eq!(known(&cache, &name(1)), None);
}

#[test]
fn a_name_that_comes_twice_in_a_slot_is_counted_twice() {
    let cache = EntryCache::new(1 << 20, 7);
    let outer = cache.change([name(1), name(1)].iter());
    let inner = cache.change([name(1)].iter());
    drop(inner);
    cache.keep(&name(1), ticket(&cache, &name(1)), Some(&entry(7)));
    assert_eq!(known(&cache, &name(1)), None, "one change still goes on");
    drop(outer);
    cache.keep(&name(1), ticket(&cache, &name(1)), Some(&entry(7)));
    assert_eq!(known(&cache, &name(1)), Some(Some(7)));
}

#[test]
fn its_memory_has_a_bound() {
    let bytes = 1 << 20;
    let cache = EntryCache::new(bytes, 7);
    for number in 0..20_000 {
        cache.keep(&name(number), ticket(&cache, &name(number)), Some(&entry(number)));
    }
    let weight: u64 = (0..SHARDS)
        .map(|shard| cache.lock(At { shard, slot: 0 }).expect("a shard").entries.weight())
        .sum();
    assert!(weight <= bytes && weight > bytes / 2, "{weight} of {bytes} bytes are used");
}

/// Readers and a writer on a few names, without any order but the cache's: a
/// version that somebody has seen, or that a write has finished with, is never
/// followed by an older one.
#[test]
fn nobody_sees_an_older_version_after_a_newer_one() {
    const NAMES: u64 = 3;
    const ROUNDS: u64 = 20_000;
    let cache = EntryCache::new(1 << 20, 7);
    let index: RwLock<HashMap<ObjectName, Entry>> = RwLock::default();
    let newest: Vec<AtomicU64> = (0..NAMES).map(|_| AtomicU64::new(0)).collect();
    let (done, hits) = (AtomicBool::new(false), AtomicU64::new(0));
    let read = |at: u64| {
        let (name, newest) = (name(at), &newest[usize::try_from(at).expect("few names")]);
        let least = newest.load(Ordering::SeqCst);
        let found = match cache.look(&name) {
            Looked::Known(entry) => {
                hits.fetch_add(1, Ordering::Relaxed);
                entry
            }
            Looked::Unknown(ticket) => {
                let entry = index.read().expect("no panic").get(&name).cloned();
                cache.keep(&name, ticket, entry.as_ref());
                entry
            }
        };
        let version = found.map_or(0, |entry| entry.stat.version.clock());
        assert!(version >= least, "{version} after {least} was seen");
        newest.fetch_max(version, Ordering::SeqCst);
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    (0..NAMES).for_each(read);
                }
            });
        }
        for version in 1..=ROUNDS {
            let (at, name) = (version % NAMES, name(version % NAMES));
            let change = cache.change([name.clone()].iter());
            index.write().expect("no panic").insert(name, entry(version));
            drop(change);
            newest[usize::try_from(at).expect("few names")].fetch_max(version, Ordering::SeqCst);
            read(at);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(hits.load(Ordering::Relaxed) > 0, "nothing was ever kept");
}
