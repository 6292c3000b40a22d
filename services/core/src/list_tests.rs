use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::locate::Verdict;
use crate::membership::{Hearing, Member};
use crate::node::Generation;
use crate::object::{Digest, Metadata, Stat};
use crate::policy::Policy;
use crate::roster::{MemberState, RosterDigest};
use crate::test_support::id;
use crate::version::Version;

fn key(text: &str) -> Key {
    Key::new(text).expect("a valid key")
}

fn member(bits: u128, state: MemberState) -> Member {
    let member = crate::test_support::member(bits, state, Hearing::Heard);
    Member { generation: Generation(2), ..member }
}

/// So many members, of which the first `draining` drain.
fn view(members: u128, draining: u128, replicas: u32) -> View {
    let state = |bits| if bits < draining { MemberState::Draining } else { MemberState::Active };
    View {
        founded: true,
        digest: RosterDigest(1),
        policy: Policy::settled(0, replicas),
        members: (0..members).map(|bits| member(bits, state(bits))).collect(),
        ..View::default()
    }
}

fn stat(clock: u64, kind: Kind) -> Stat {
    Stat {
        version: Version::from_parts(clock, 0),
        kind,
        size_bytes: clock,
        digest: Digest(clock),
        metadata: Metadata::default(),
    }
}

fn entry(text: &str, clock: u64, kind: Kind) -> ListEntry {
    ListEntry::new(key(text), &stat(clock, kind))
}

fn answer(bits: u128, entries: Vec<ListEntry>, more: bool) -> ListAnswer {
    ListAnswer {
        node: id(bits),
        generation: Generation(2),
        address: format!("ds-{bits}:80").parse().expect("an address"),
        roster_digest: RosterDigest(1),
        mono_millis: 0,
        entries,
        more,
        unknown: false,
        late: false,
    }
}

fn all() -> Span {
    Span { limit: 10, ..Span::default() }
}

fn objects(keys: &[&str]) -> Vec<ListEntry> {
    keys.iter().map(|text| entry(text, 1, Kind::Object)).collect()
}

fn keys(proven: &Proven) -> Vec<&str> {
    proven.names.iter().map(|(key, _)| key.as_str()).collect()
}

#[test]
fn a_page_ends_at_the_smallest_last_key_of_who_has_more() {
    let mut round = PageRound::new(all(), &view(3, 0, 1));
    for (bits, page, more) in
        [(0, &["a", "d"][..], true), (1, &["b", "c"], true), (2, &["a", "e"], false)]
    {
        assert_eq!(round.apply_page(answer(bits, objects(page), more)), Ok(()));
    }
    let proven = round.prove().expect("all were heard");
    assert_eq!(keys(&proven), ["a", "b", "c"]);
    assert_eq!(proven.end, Some(key("c")));
}

#[test]
fn with_one_copy_every_member_must_have_told() {
    let mut round = PageRound::new(all(), &view(2, 0, 1));
    assert_eq!(round.apply_page(answer(0, objects(&["a"]), false)), Ok(()));
    assert!(!round.is_decided());
    assert_eq!(round.prove(), Err(Unproven { unheard: vec![id(1)] }));
    round.apply_failure(id(1));
    assert!(round.is_decided());
    assert_eq!(round.prove(), Err(Unproven { unheard: vec![id(1)] }));
}

#[test]
fn with_three_copies_one_may_be_silent_and_two_may_not() {
    let mut round = PageRound::new(all(), &view(3, 0, 3));
    assert_eq!(round.apply_page(answer(0, objects(&["a"]), false)), Ok(()));
    assert_eq!(round.prove(), Err(Unproven { unheard: vec![id(1), id(2)] }));
    assert_eq!(round.apply_page(answer(1, objects(&["a"]), false)), Ok(()));
    assert!(round.is_decided(), "the third cannot change it");
    assert_eq!(keys(&round.prove().expect("W were heard")), ["a"]);
    round.revoke_all();
    let unheard = vec![id(0), id(1), id(2)];
    assert_eq!(round.prove(), Err(Unproven { unheard }), "the window has passed");
}

#[test]
fn what_is_on_too_few_members_is_not_shown_and_waited_for() {
    let mut round = PageRound::new(all(), &view(3, 0, 3));
    let new = vec![entry("a", 2, Kind::Object)];
    assert_eq!(round.apply_page(answer(0, new.clone(), false)), Ok(()));
    assert_eq!(round.apply_page(answer(1, objects(&["a"]), false)), Ok(()));
    assert!(!round.is_decided(), "the third may settle it");
    let proven = round.prove().expect("W were heard");
    assert_eq!(proven.names, [(key("a"), Judged::Uncertain)]);
    assert_eq!(round.apply_page(answer(2, new.clone(), false)), Ok(()));
    let proven = round.prove().expect("all were heard");
    assert_eq!(proven.names, [(key("a"), Judged::Shown(new[0].clone()))]);
}

#[test]
fn a_tombstone_advances_the_end_and_is_believed_only_when_it_is_settled() {
    let mut round = PageRound::new(Span { limit: 1, ..all() }, &view(3, 0, 3));
    let gone = vec![entry("a", 2, Kind::Tombstone)];
    assert_eq!(round.apply_page(answer(0, gone.clone(), true)), Ok(()));
    assert_eq!(round.apply_page(answer(1, objects(&["a"]), true)), Ok(()));
    let proven = round.prove().expect("W were heard");
    assert_eq!(proven.names, [(key("a"), Judged::Uncertain)]);
    assert_eq!(round.apply_page(answer(2, gone, true)), Ok(()));
    let proven = round.prove().expect("all were heard");
    assert_eq!((proven.names, proven.end), (vec![(key("a"), Judged::Gone)], Some(key("a"))));
}

#[test]
fn copies_that_drain_or_are_damaged_settle_nothing() {
    for (draining, damaged) in [(1, false), (0, true)] {
        let mut round = PageRound::new(all(), &view(3, draining, 3));
        let mut first = objects(&["a"]);
        first[0].is_damaged = damaged;
        assert_eq!(round.apply_page(answer(0, first, false)), Ok(()));
        assert_eq!(round.apply_page(answer(1, objects(&["a"]), false)), Ok(()));
        let proven = round.prove().expect("W were heard");
        assert_eq!(proven.names, [(key("a"), Judged::Uncertain)], "{draining} {damaged}");
    }
}

#[test]
fn a_page_that_proves_nothing_is_silence() {
    let good = answer(0, objects(&["a", "b"]), false);
    let pages = [
        ListAnswer { unknown: true, ..good.clone() },
        ListAnswer { late: true, ..good.clone() },
        ListAnswer { entries: objects(&["b", "a"]), ..good.clone() },
        ListAnswer { entries: objects(&["a", "a"]), ..good.clone() },
        ListAnswer { entries: Vec::new(), more: true, ..good.clone() },
        ListAnswer { entries: objects(&["a", "b", "c"]), ..good.clone() },
        ListAnswer { generation: Generation(1), ..good.clone() },
        ListAnswer { node: id(9), ..good.clone() },
    ];
    for page in pages {
        let mut round = PageRound::new(Span { limit: 2, ..all() }, &view(1, 0, 1));
        // Whether it is refused or only proves nothing.
        drop(round.apply_page(page.clone()));
        assert_eq!(round.prove(), Err(Unproven { unheard: vec![id(0)] }), "{page:?}");
    }
    for (prefix, start_after) in [("b", None), ("", Some(key("a")))] {
        let span = Span { prefix: prefix.to_owned(), start_after, limit: 2, ..all() };
        let mut round = PageRound::new(span, &view(1, 0, 1));
        let key = key("a");
        assert_eq!(round.apply_page(good.clone()), Err(BadPage::OutOfPlace { key }));
    }
    let mut round = PageRound::new(Span { limit: 2, ..all() }, &view(1, 0, 1));
    assert_eq!(round.apply_page(good), Ok(()));
    assert!(round.prove().is_ok());
}

#[test]
fn nobody_proves_nothing() {
    let round = PageRound::new(all(), &View::default());
    assert!(round.is_decided());
    assert_eq!(round.prove(), Err(Unproven { unheard: Vec::new() }));
}

#[test]
fn a_member_that_is_met_is_waited_for_and_one_that_retires_counts_on() {
    let mut round = PageRound::new(all(), &view(2, 0, 1));
    for bits in [0, 1] {
        assert_eq!(round.apply_page(answer(bits, Vec::new(), false)), Ok(()));
    }
    assert!(round.prove().is_ok());
    round.apply_view(&view(3, 0, 1));
    assert_eq!(round.waiting(), [id(2)]);
    round.apply_view(&view(2, 0, 1));
    assert_eq!(round.prove(), Err(Unproven { unheard: vec![id(2)] }));
}

const NAMES: [&str; 9] = ["a", "a/", "a/b", "a/c", "b", "b/a", "c", "d/e", "é"];

/// What each member has of each name: a version, its kind, and whether it is
/// damaged.
type Volumes = Vec<Vec<Option<(u64, bool)>>>;

/// Odd versions are objects, even ones tombstones: a version belongs to one
/// content.
fn kind_of(clock: u64) -> Kind {
    if clock % 2 == 1 { Kind::Object } else { Kind::Tombstone }
}

fn volumes() -> impl Strategy<Value = Volumes> {
    let copy = prop_oneof![
        2 => Just(None),
        5 => (1_u64..5, prop::bool::weighted(0.1)).prop_map(Some),
    ];
    prop::collection::vec(prop::collection::vec(copy, NAMES.len()), 1..6)
}

/// What a member answers that has `volume`.
fn page_of(bits: u128, volume: &[Option<(u64, bool)>], span: &Span) -> ListAnswer {
    let mut entries: Vec<ListEntry> = NAMES
        .iter()
        .zip(volume)
        .filter_map(|(name, held)| {
            let (clock, is_damaged) = (*held)?;
            Some(ListEntry { is_damaged, ..entry(name, clock, kind_of(clock)) })
        })
        .filter(|entry| entry.key.as_str().starts_with(&span.prefix))
        .filter(|entry| span.start_after.as_ref().is_none_or(|after| *after < entry.key))
        .collect();
    let more = entries.len() > span.limit;
    entries.truncate(span.limit);
    answer(bits, entries, more)
}

/// What a locate of `name` says when the members `heard` answer.
fn located(volumes: &Volumes, name: usize, heard: &BTreeSet<usize>, view: &View) -> Judged {
    let names = vec![ObjectName::seed(key(NAMES[name]))];
    let mut round = Round::new(names, BTreeSet::new(), view);
    for member in heard {
        let held = volumes[*member][name];
        let answer = BatchAnswer {
            found: held.iter().map(|(clock, _)| (0, stat(*clock, kind_of(*clock)))).collect(),
            unknown: held.iter().filter(|(_, damaged)| *damaged).map(|_| 0).collect(),
            ..super::heard(&answer(*member as u128, Vec::new(), false))
        };
        round.apply_answer(&answer);
    }
    let located = round.outcome(0);
    match located.verdict() {
        _ if !located.is_certain() => Judged::Uncertain,
        Verdict::Found(replica) => Judged::Shown(ListEntry::new(key(NAMES[name]), &replica.stat)),
        Verdict::Absent => Judged::Gone,
        Verdict::Incomplete(_) => Judged::Uncertain,
    }
}

fn without_damage(judged: Judged) -> Judged {
    match judged {
        Judged::Shown(entry) => Judged::Shown(ListEntry { is_damaged: false, ..entry }),
        other => other,
    }
}

proptest! {
    /// Whatever the members have, whoever is heard, and however long the pages
    /// are: page by page, each name is met exactly once, in order, and with what
    /// a locate of it alone would say.
    #[test]
    fn pages_say_what_locates_say(
        volumes in volumes(),
        silent in prop::collection::btree_set(0_usize..6, 0..3),
        draining in 0_u128..2,
        replicas in 1_u32..6,
        limits in prop::collection::vec(1_usize..12, 1..40),
        prefix in prop::sample::select(vec!["", "a", "a/", "b", "z"]),
    ) {
        let members = volumes.len();
        let view = view(members as u128, draining, replicas);
        let heard: BTreeSet<usize> = (0..members).filter(|one| !silent.contains(one)).collect();
        let (mut seen, mut start_after) = (Vec::new(), None);
        let is_over = limits.iter().cycle().take(200).try_for_each(|limit| {
            let span = Span {
                prefix: prefix.to_owned(),
                start_after: start_after.clone(),
                limit: *limit,
                ..all()
            };
            let mut round = PageRound::new(span.clone(), &view);
            for (one, volume) in volumes.iter().enumerate() {
                match heard.contains(&one) {
                    true => round.apply_page(page_of(one as u128, volume, &span)).expect("good"),
                    false => round.apply_failure(id(one as u128)),
                }
            }
            let Ok(proven) = round.prove() else { return Err(false) };
            seen.extend(proven.names);
            start_after = proven.end;
            if start_after.is_none() { Err(true) } else { Ok(()) }
        });
        let quorum = view.policy.read_quorum();
        let unheard = members - heard.len();
        let is_complete = unheard < members && unheard < quorum;
        prop_assert_eq!(is_over, Err(is_complete));
        if !is_complete {
            return Ok(());
        }
        let expected: Vec<(Key, Judged)> = NAMES
            .iter()
            .enumerate()
            .filter(|(_, name)| name.starts_with(prefix))
            .filter(|(place, _)| heard.iter().any(|one| volumes[*one][*place].is_some()))
            .map(|(place, name)| (key(name), located(&volumes, place, &heard, &view)))
            .collect();
        let seen: Vec<(Key, Judged)> =
            seen.into_iter().map(|(key, judged)| (key, without_damage(judged))).collect();
        prop_assert_eq!(seen, expected);
    }

    /// A round that is decided early says what it says at its end, except that
    /// it may be told of a newer version that nobody was told of.
    #[test]
    fn what_is_decided_stays_decided(
        volumes in volumes(),
        replicas in 2_u32..6,
        order in Just((0_usize..6).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let members = volumes.len();
        let view = view(members as u128, 0, replicas);
        let span = Span { limit: NAMES.len(), ..Span::default() };
        let mut round = PageRound::new(span.clone(), &view);
        let mut early: Option<Proven> = None;
        for one in order.into_iter().filter(|one| *one < members) {
            round.apply_page(page_of(one as u128, &volumes[one], &span)).expect("good");
            if early.is_none() && round.is_decided() {
                early = round.prove().ok();
            }
        }
        let Some(early) = early else { return Ok(()) };
        let last = round.prove().expect("more were heard");
        for (key, judged) in early.names {
            let now = last.names.iter().find(|(name, _)| *name == key).map(|(_, now)| now);
            let is_same = now.is_some_and(|now| {
                *now == judged || *now == Judged::Uncertain || is_newer(now, &judged)
            });
            prop_assert!(is_same, "{:?} was {:?} and is {:?}", key, judged, now);
        }
    }
}

/// Whether something was acknowledged in between.
fn is_newer(now: &Judged, before: &Judged) -> bool {
    match (now, before) {
        (Judged::Shown(now), Judged::Shown(before)) => now.version > before.version,
        (Judged::Gone, Judged::Shown(_)) | (Judged::Shown(_), Judged::Gone) => true,
        _ => false,
    }
}
