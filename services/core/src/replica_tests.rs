use super::*;
use crate::name::Key;
use crate::object::{Digest, Kind, Metadata};

const WINDOW: Duration = Duration::from_secs(30);

fn seconds(count: u64) -> Moment {
    Duration::from_secs(count)
}

fn name(key: &str) -> ObjectName {
    ObjectName::seed(Key::new(key).expect("short"))
}

fn version(clock: u64) -> Version {
    Version::from_parts(clock, 1)
}

fn stat(clock: u64, digest: u64) -> Stat {
    Stat {
        version: version(clock),
        kind: Kind::Object,
        size_bytes: 1,
        digest: Digest(digest),
        metadata: Metadata::default(),
    }
}

fn asker(bits: u128) -> (NodeId, Generation) {
    (NodeId::from_bits(bits), Generation(1))
}

#[test]
fn the_newer_version_wins_and_the_same_is_the_same() {
    let held = stat(5, 1);
    assert_eq!(compare_offer(None, &held), Offer::Newer);
    assert_eq!(compare_offer(Some(&held), &stat(6, 1)), Offer::Newer);
    assert_eq!(compare_offer(Some(&held), &stat(4, 1)), Offer::Older);
    assert_eq!(compare_offer(Some(&held), &stat(5, 2)), Offer::Conflict);
    let mut retried = held.clone();
    retried.metadata.modified_unix_millis = 7;
    assert_eq!(compare_offer(Some(&held), &retried), Offer::Same);
}

#[test]
fn nothing_below_a_promise_is_taken() {
    let mut promises = Promises::new(WINDOW, None);
    promises.promise(&name("a"), version(5), Some(version(3)), seconds(0)).expect("newer");
    for offered in [Offered::Written, Offered::Found, Offered::Settled] {
        let check = |key, clock| promises.check(&name(key), version(clock), offered, seconds(1));
        assert_eq!(check("a", 4), Err(PromisedAbove::Kept { ballot: version(5) }));
        assert_eq!(check("a", 5), Ok(()));
        assert_eq!(check("a", 6), Ok(()));
        assert_eq!(check("b", 1), Ok(()));
    }
    assert!(promises.is_above(&name("a"), version(4), seconds(1)));
    assert!(!promises.is_above(&name("a"), version(5), seconds(1)));
}

#[test]
fn what_was_promised_and_forgotten_bars_what_may_have_been_missed() {
    let refused = Err(PromisedAbove::Forgotten { ballot: version(5) });
    let check = |promises: &Promises, clock, offered, now| {
        promises.check(&name("a"), version(clock), offered, seconds(now))
    };
    let run_before = Promises::new(WINDOW, Some(version(5)));
    assert_eq!(check(&run_before, 4, Offered::Found, 0), refused);
    assert_eq!(check(&run_before, 5, Offered::Found, 0), Ok(()), "it is what was promised");
    assert_eq!(check(&run_before, 4, Offered::Settled, 0), Ok(()), "it is settled");
    let written = check(&run_before, 4, Offered::Written, 0);
    assert_eq!(written, refused, "its writer was told nothing of this run");
    assert_eq!(check(&run_before, 5, Offered::Written, 0), Ok(()));

    let mut promises = Promises::new(WINDOW, None);
    promises.promise(&name("a"), version(5), None, seconds(0)).expect("the first");
    assert_eq!(check(&promises, 4, Offered::Found, 120), refused, "it has ended and was not swept");
    assert_eq!(check(&promises, 4, Offered::Written, 120), refused, "nor is it written");
    assert_eq!(check(&promises, 6, Offered::Written, 120), Ok(()));
    let outranked = Err(NoPromise::Outranked { newest: version(5) });
    for mut later in [promises.clone(), run_before.clone()] {
        let lower = later.promise(&name("a"), version(3), None, seconds(120));
        assert_eq!(lower, outranked, "what it promised before may be written by now");
        later.promise(&name("a"), version(6), None, seconds(120)).expect("above all of that");
        assert_eq!(check(&later, 6, Offered::Found, 300), Ok(()), "settled under that promise");
        assert_eq!(check(&later, 6, Offered::Written, 300), Ok(()), "written under it");
        assert!(check(&later, 3, Offered::Written, 300).is_err(), "what it did not promise");
    }
    assert_eq!(promises.may_have_promised(&name("b")), None);
    // What others promised counts, too, above what was promised here.
    let mut newcomer = Promises::new(WINDOW, None);
    newcomer.promise(&name("a"), version(3), None, seconds(0)).expect("the first");
    newcomer.inherit(version(5));
    assert_eq!(check(&newcomer, 3, Offered::Written, 1), refused);
    assert_eq!(check(&newcomer, 3, Offered::Found, 1), refused);
    assert_eq!(check(&newcomer, 5, Offered::Written, 1), Ok(()));
    promises.expire(seconds(120));
    assert_eq!(promises.count(), 0);
    assert_eq!(check(&promises, 4, Offered::Found, 300), refused, "it was swept");
    assert_eq!(
        promises.check(&name("b"), version(4), Offered::Found, seconds(300)),
        Ok(()),
        "another"
    );
    assert_eq!(
        (run_before.by_earlier_runs(), promises.by_earlier_runs()),
        (Some(version(5)), None)
    );
}

#[test]
fn a_promise_that_was_kept_to_bars_nothing_more() {
    let ballot = Version::from_parts(5, 2);
    for came in [ballot, ballot.right_above()] {
        let mut promises = Promises::new(WINDOW, None);
        promises.promise(&name("a"), ballot, None, seconds(0)).expect("the first");
        assert_eq!(promises.may_have_promised(&name("a")), Some(ballot));
        promises.came(&name("a"), came);
        assert_eq!(promises.may_have_promised(&name("a")), None, "what is here bars by itself");
        let older = promises.check(&name("a"), version(4), Offered::Written, seconds(1));
        assert!(older.is_err(), "for its time it is kept");
        promises.expire(seconds(200));
        assert_eq!(promises.check(&name("a"), version(4), Offered::Found, seconds(200)), Ok(()));
    }
}

#[test]
fn what_barred_for_a_tombstone_leaves_nothing_behind_but_promises() {
    let check = |promises: &Promises, clock| {
        promises.check(&name("a"), version(clock), Offered::Found, seconds(200))
    };
    let mut promises = Promises::new(WINDOW, None);
    promises.bar(&name("a"), version(5), seconds(0)).expect("room");
    assert_eq!(check(&promises, 4), Ok(()), "it was not swept yet");
    promises.expire(seconds(200));
    assert_eq!(check(&promises, 4), Ok(()));
    for (promised, kept) in [(3, 3), (5, 5), (7, 7)] {
        let mut promises = Promises::new(WINDOW, None);
        promises.promise(&name("a"), version(promised), None, seconds(0)).expect("the first");
        promises.bar(&name("a"), version(5), seconds(1)).expect("room");
        promises.expire(seconds(200));
        let refused = Err(PromisedAbove::Forgotten { ballot: version(kept) });
        assert_eq!(check(&promises, 2), refused, "{promised}");
        assert_eq!(check(&promises, kept), Ok(()), "{promised}");
    }
}

#[test]
fn a_young_promise_of_another_writer_is_awaited_until_its_write_has_come() {
    let (a, patience) = (name("a"), Duration::from_millis(50));
    let other = |clock| Version::from_parts(clock, 2);
    let mut promises = Promises::new(WINDOW, None);
    let awaited = |promises: &Promises, ballot, millis| {
        promises.is_awaited(&a, ballot, patience, seconds(0) + Duration::from_millis(millis))
    };
    assert!(!awaited(&promises, other(9), 0), "nothing was promised");
    promises.promise(&a, version(5), None, seconds(0)).expect("the first");
    assert!(awaited(&promises, other(9), 49));
    assert!(!awaited(&promises, other(9), 50), "it takes too long");
    assert!(!awaited(&promises, version(9), 0), "its writer has begun anew");
    assert!(!awaited(&promises, other(4), 0), "it is not given anyway");
    promises.came(&a, version(4));
    assert!(awaited(&promises, other(9), 0), "something else came");
    promises.came(&a, version(5));
    assert!(!awaited(&promises, other(9), 0));
    assert!(
        promises.check(&a, version(4), Offered::Written, seconds(0)).is_err(),
        "it is kept all the same"
    );
    promises.bar(&a, version(6), seconds(0)).expect("room");
    assert!(!awaited(&promises, other(9), 0), "nothing comes of a tombstone that is forgotten");
}

#[test]
fn a_promise_is_not_given_below_what_is_there_or_promised() {
    let mut promises = Promises::new(WINDOW, None);
    let mut ask = |clock, held: Option<u64>| {
        promises.promise(&name("a"), version(clock), held.map(version), seconds(0))
    };
    assert_eq!(ask(3, Some(3)), Err(NoPromise::Outranked { newest: version(3) }));
    assert_eq!(ask(4, Some(3)), Ok(()));
    assert_eq!(ask(4, Some(3)), Ok(()), "the same again");
    assert_eq!(ask(3, None), Err(NoPromise::Outranked { newest: version(4) }));
    assert_eq!(ask(6, Some(3)), Ok(()));
}

#[test]
fn promises_are_bounded_and_end() {
    let mut promises = Promises::new(WINDOW, None);
    for i in 0..MAX_PROMISES {
        promises.promise(&name(&i.to_string()), version(5), None, seconds(0)).expect("room");
    }
    let more = |promises: &mut Promises, now| {
        promises.promise(&name("more"), version(5), None, seconds(now))
    };
    assert_eq!(more(&mut promises, 119), Err(NoPromise::Full));
    // Once it has ended, it goes on to bar what is not settled.
    for (offered, later) in [
        (Offered::Settled, Ok(())),
        (Offered::Written, Err(PromisedAbove::Forgotten { ballot: version(5) })),
    ] {
        let check = |now| promises.check(&name("0"), version(1), offered, seconds(now));
        assert_eq!(check(119), Err(PromisedAbove::Kept { ballot: version(5) }));
        assert_eq!(check(120), later);
    }
    assert_eq!(more(&mut promises, 120), Ok(()));
    assert_eq!(promises.count(), 1);
}

#[test]
fn of_two_that_let_go_neither_relies_on_the_other() {
    let young = seconds(0);
    let old = seconds(1_000);
    let mut pins = Pins::new(WINDOW, young);
    assert_eq!(pins.begin(&name("a"), seconds(119)), Err(MustStay::JustStarted));
    assert_eq!(pins.begin(&name("a"), old), Ok(()));
    let held = Some(version(5));
    assert_eq!(pins.pin(&name("a"), version(5), held, asker(2), old), Err(NoPin::LettingGo));
    pins.end(&name("a"));
    assert_eq!(pins.pin(&name("a"), version(5), held, asker(2), old), Ok(()));
    assert_eq!(pins.begin(&name("a"), old), Err(MustStay::Pinned));
    assert_eq!(pins.begin(&name("a"), old + pins.lifetime()), Ok(()));
}

#[test]
fn only_what_is_here_is_pinned() {
    let mut pins = Pins::new(WINDOW, seconds(0));
    let mut pin = |held: Option<u64>| {
        pins.pin(&name("a"), version(5), held.map(version), asker(2), seconds(1))
    };
    assert_eq!(pin(None), Err(NoPin::NotHeld));
    assert_eq!(pin(Some(4)), Err(NoPin::NotHeld));
    assert_eq!(pin(Some(5)), Ok(()));
    assert_eq!(pin(Some(6)), Ok(()));
}

#[test]
fn a_copy_is_dropped_between_one_and_three_windows() {
    let mut pins = Pins::new(WINDOW, seconds(0));
    let begun = seconds(200);
    assert!(!pins.may_drop(&name("a"), begun, begun));
    pins.begin(&name("a"), begun).expect("old enough");
    let after = |confirmed: u64, now: u64| {
        pins.may_drop(&name("a"), seconds(200 + confirmed), seconds(200 + now))
    };
    assert!(!after(29, 29));
    assert!(after(30, 30));
    assert!(after(30, 59));
    assert!(!after(30, 60));
}

#[test]
fn a_bar_stands_where_a_promise_would_and_never_lowers_one() {
    let mut promises = Promises::new(WINDOW, None);
    promises.bar(&name("a"), version(5), seconds(0)).expect("room");
    assert!(promises.check(&name("a"), version(4), Offered::Written, seconds(1)).is_err());
    assert_eq!(promises.check(&name("a"), version(5), Offered::Written, seconds(1)), Ok(()));
    assert!(promises.bars(&name("a"), version(5), seconds(119)));
    assert!(!promises.bars(&name("a"), version(6), seconds(1)));
    assert!(!promises.bars(&name("a"), version(5), seconds(120)));
    promises.promise(&name("b"), version(9), None, seconds(0)).expect("room");
    promises.bar(&name("b"), version(5), seconds(1)).expect("room");
    assert!(promises.check(&name("b"), version(8), Offered::Written, seconds(2)).is_err());
}

#[test]
fn a_promise_made_again_lasts_anew_and_pins_of_each_asker_count() {
    let mut promises = Promises::new(WINDOW, None);
    promises.promise(&name("a"), version(5), None, seconds(0)).expect("free");
    promises.promise(&name("a"), version(5), None, seconds(100)).expect("the same");
    assert!(promises.check(&name("a"), version(4), Offered::Settled, seconds(219)).is_err());
    assert!(promises.check(&name("a"), version(4), Offered::Settled, seconds(220)).is_ok());

    let mut pins = Pins::new(WINDOW, seconds(0));
    let held = Some(version(5));
    pins.pin(&name("a"), version(5), held, asker(2), seconds(200)).expect("held");
    pins.pin(&name("a"), version(5), held, asker(3), seconds(260)).expect("held");
    assert_eq!(pins.begin(&name("a"), seconds(379)), Err(MustStay::Pinned));
    assert_eq!(pins.begin(&name("b"), seconds(379)), Ok(()), "another name");
    assert_eq!(pins.begin(&name("a"), seconds(380)), Ok(()));
}
