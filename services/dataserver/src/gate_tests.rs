use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use holdfast_core::wire::locate::MAX_BATCH_NAMES;

use super::*;
use crate::test_support::{INTERVAL, OWN, Rig, WALL_MILLIS, content, name, version};

const SOON: Duration = Duration::from_millis(30);

impl Rig {
    fn stamp(&self) -> Stamp {
        Stamp::at(OWN, self.runtime.now())
    }

    async fn commit(
        &self,
        key: &str,
        number: u64,
        basis: Basis,
    ) -> Result<WriteOutcome, GateError> {
        let staged = self.stage(b"payload").await;
        self.gate.commit(name(key), basis, content(number), staged).await
    }

    async fn put(&self, key: &str, number: u64) -> Result<WriteOutcome, GateError> {
        self.commit(key, number, Basis::default()).await
    }

    fn pass(&self, windows: u32) {
        self.clock.advance(self.gate.window() * windows);
    }
}

fn is_promised<T>(result: &Result<T, GateError>) -> bool {
    matches!(result, Err(GateError::Promised(_)))
}

fn asks(node: u128, copies: &[(&str, u64)]) -> PinRequest {
    let copies = copies.iter().map(|(key, number)| (name(key), version(*number)));
    let (node, generation) = (NodeId::from_bits(node), Generation(1));
    PinRequest { node, generation, copies: copies.collect() }
}

#[tokio::test]
async fn a_stamp_that_is_old_or_of_another_run_lets_nothing_in() {
    let rig = Rig::new().await;
    assert_eq!(rig.gate.window(), INTERVAL * 6);
    let stamp = rig.stamp();
    let basis = |stamp| Basis { stamp: Some(stamp), ..Basis::default() };
    let stored = rig.commit("a", 1, basis(stamp)).await.expect("it is fresh");
    assert_eq!(stored, WriteOutcome::Stored);
    for generation in [OWN.0 - 1, OWN.0 + 1] {
        let other = Stamp { generation: Generation(generation), ..stamp };
        let refused = rig.commit("a", 2, basis(other)).await;
        assert!(matches!(refused, Err(GateError::Stale(StampError::AnotherRun))), "{refused:?}");
    }
    rig.pass(1);
    let refused = rig.commit("a", 2, basis(stamp)).await;
    assert!(matches!(refused, Err(GateError::Stale(StampError::TooOld { .. }))), "{refused:?}");
    let refused = rig.gate.delete(name("a"), basis(stamp), content(2)).await;
    assert!(matches!(refused, Err(GateError::Stale(_))), "{refused:?}");
    assert_eq!(rig.stat("a").await.expect("as it was").version, version(1));
    assert_eq!(rig.metrics.stale_stamps.get(), 4);
}

#[tokio::test]
async fn a_promise_keeps_out_what_is_older() {
    let rig = Rig::new().await;
    rig.put("a", 1).await.expect("stored");
    let promised = rig.gate.promise(&name("a"), version(5)).await;
    assert!(promised.is_given);
    let held = promised.held.expect("memory").map(|held| held.stat.version);
    assert_eq!(held, Some(version(1)), "what was there in that very step");
    assert!(is_promised(&rig.put("a", 4).await));
    assert!(is_promised(&rig.gate.delete(name("a"), Basis::default(), content(4)).await));
    assert_eq!(rig.stat("a").await.expect("as it was").version, version(1));
    assert_eq!(rig.metrics.promise_refusals.get(), 2);
    assert_eq!(rig.put("b", 4).await.expect("another name"), WriteOutcome::Stored);
    assert_eq!(rig.put("a", 5).await.expect("itself"), WriteOutcome::Stored);
    assert!(!rig.gate.promise(&name("a"), version(5)).await.is_given, "it is taken");
    assert!(rig.gate.promise(&name("a"), version(9)).await.is_given);
    assert!(!rig.gate.promise(&name("a"), version(8)).await.is_given, "outranked");
    rig.pass(4);
    assert!(is_promised(&rig.put("a", 7).await), "what it refused to promise");
    let settled = Basis { offered: Offered::Settled, ..Basis::default() };
    let stored = rig.commit("a", 7, settled).await.expect("it has ended");
    assert_eq!(stored, WriteOutcome::Stored);
}

#[tokio::test]
async fn what_an_earlier_run_promised_keeps_out_what_may_have_been_missed() {
    let rig = Rig::new().await;
    assert!(rig.gate.promise(&name("a"), version(5)).await.is_given);
    let rig = rig.restarted().await;
    let found = Basis { offered: Offered::Found, ..Basis::default() };
    for key in ["a", "b"] {
        assert!(is_promised(&rig.commit(key, 4, found).await), "it may have been {key}");
        let written = rig.commit(key, 4, Basis::default()).await;
        assert!(is_promised(&written), "its writer was told nothing of this run");
        let settled = Basis { offered: Offered::Settled, ..Basis::default() };
        assert_eq!(rig.commit(key, 4, settled).await.expect("settled"), WriteOutcome::Stored);
    }
    let above = rig.gate.floor().expect("promised").right_above();
    let stored = rig.gate.check(&name("a"), above, found);
    assert!(stored.is_ok(), "above everything that was promised: {stored:?}");
}

#[tokio::test]
async fn a_newcomer_keeps_what_others_promised_before_they_knew_of_it() {
    let rig = Rig::new().await;
    let promised = {
        let other = Rig::new().await;
        assert_eq!(other.gate.promised(), None, "without promises there is nothing to keep");
        assert!(other.gate.promise(&name("a"), version(5)).await.is_given);
        other.gate.promised().expect("it has promised")
    };
    assert!(promised >= version(5));
    rig.gate.inherit(promised).await.expect("the disk works");
    assert!(rig.gate.floor() >= Some(promised), "writers go above");
    assert_eq!(rig.gate.promised_before(), Some(promised), "and so does who settles");
    assert!(is_promised(&rig.put("a", 4).await));
    let rig = rig.restarted().await;
    assert!(is_promised(&rig.put("a", 4).await), "it is durable");
    let settled = Basis { offered: Offered::Settled, ..Basis::default() };
    assert!(rig.commit("a", 4, settled).await.is_ok(), "copies of what is old come all the same");
}

#[tokio::test]
async fn superseded_says_whether_something_above_was_promised() {
    let rig = Rig::new().await;
    let told = |outcome| match outcome {
        WriteOutcome::Superseded { promised_above, newest } => (newest.version, promised_above),
        other => panic!("{other:?}"),
    };
    rig.put("a", 6).await.expect("stored");
    assert_eq!(told(rig.put("a", 4).await.expect("older")), (version(6), false));
    assert!(rig.gate.promise(&name("b"), version(5)).await.is_given);
    rig.put("b", 6).await.expect("newer than the promise");
    let newest = rig.stat("b").await.expect("stored");
    let outcome = rig.gate.superseded(&name("b"), version(4), newest);
    assert_eq!(told(outcome), (version(6), true));
}

#[tokio::test]
async fn no_promise_is_given_while_a_write_is_on_its_way_even_if_its_sender_has_gone() {
    let rig = Rig::new().await;
    rig.store.hold();
    let (gate, staged) = (rig.gate.clone(), rig.stage(b"payload").await);
    let writer = rig.runtime.spawn("writer", async move {
        let _ = gate.commit(name("a"), Basis::default(), content(4), staged).await;
    });
    rig.store.await_commit().await;
    writer.abort();
    let (a, b) = (name("a"), name("b"));
    let promise = rig.gate.promise(&a, version(5));
    tokio::pin!(promise);
    assert!(rig.runtime.timeout(SOON, &mut promise).await.is_err(), "the write is not durable");
    assert!(rig.gate.promise(&b, version(5)).await.is_given, "another name");
    rig.store.may_commit.add_permits(1);
    let promised = promise.await;
    assert!(promised.is_given);
    let held = promised.held.expect("memory").map(|held| held.stat.version);
    assert_eq!(held, Some(version(4)), "what was let in before is seen");
}

#[tokio::test]
async fn what_a_promise_keeps_out_is_not_taken_from_where_it_waits() {
    let rig = Rig::new().await;
    rig.store.hold();
    let (a, staged) = (name("a"), rig.stage(b"payload").await);
    let was_taken = Arc::new(AtomicBool::new(false));
    let taken = |staged: Box<dyn Staged>| {
        let was_taken = Arc::clone(&was_taken);
        async move {
            was_taken.store(true, Ordering::SeqCst);
            Ok::<_, GateError>(staged)
        }
    };
    let first = rig.gate.commit(a.clone(), Basis::default(), content(3), staged);
    let offered = rig.stage(b"another").await;
    let second = rig.gate.commit_taken(a.clone(), Basis::default(), content(4), taken(offered));
    // It is let in, and then its turn comes after that of a promise.
    let (_, promised, kept_out, ()) = tokio::join!(
        first,
        async {
            rig.store.await_commit().await;
            rig.gate.promise(&a, version(5)).await
        },
        async {
            rig.store.await_commit().await;
            tokio::task::yield_now().await;
            second.await
        },
        async {
            rig.store.await_commit().await;
            rig.runtime.timeout(SOON, std::future::pending::<()>()).await.unwrap_err();
            rig.store.may_commit.add_permits(2);
        }
    );
    assert!(promised.is_given && is_promised(&kept_out), "{kept_out:?}");
    assert!(!was_taken.load(Ordering::SeqCst), "it can be offered again");
    let offered = rig.stage(b"another").await;
    let stored = rig.gate.commit_taken(a, Basis::default(), content(6), taken(offered)).await;
    assert_eq!(stored.expect("above the promise"), WriteOutcome::Stored);
    assert!(was_taken.load(Ordering::SeqCst));
}

#[tokio::test]
async fn no_more_writes_are_under_way_than_there_is_memory_for() {
    let rig = Rig::new().await;
    let all = u32::try_from(MAX_WRITES).expect("few");
    let under_way = Arc::clone(&rig.gate.writes).acquire_many_owned(all).await.expect("open");
    let refused = rig.put("a", 4).await;
    assert!(matches!(refused, Err(GateError::Busy)), "{refused:?}");
    let deleted = rig.gate.delete(name("a"), Basis::default(), content(4)).await;
    assert!(matches!(deleted, Err(GateError::Busy)), "{deleted:?}");
    drop(under_way);
    assert_eq!(rig.put("a", 4).await.expect("there is room"), WriteOutcome::Stored);
}

#[tokio::test]
async fn a_write_that_was_promised_lately_lands_before_another_writer_outbids_it() {
    let rig = Rig::new().await;
    let (a, began) = (name("a"), Runtime::real().now());
    let of_another = |number| Version::from_parts(version(number).clock(), 2);
    assert!(rig.gate.promise(&a, version(5)).await.is_given);
    let promise = rig.gate.promise(&a, of_another(9));
    tokio::pin!(promise);
    assert!(rig.runtime.timeout(COURTESY / 5, &mut promise).await.is_err(), "it waits");
    assert_eq!(rig.put("a", 5).await.expect("in time"), WriteOutcome::Stored);
    let promised = promise.await;
    let held = promised.held.expect("memory").map(|held| held.stat.version);
    assert_eq!((promised.is_given, held), (true, Some(version(5))), "what came is seen");
    // One that does not come is not waited for long, even if time stands still.
    assert!(rig.gate.promise(&a, version(20)).await.is_given);
    assert!(Runtime::real().now() - began >= COURTESY);
    assert!(is_promised(&rig.put("a", 9).await), "its time is over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_promise_either_sees_a_write_or_keeps_it_out() {
    let rig = Rig::new().await;
    let (mut seen, mut kept_out) = (0, 0);
    // How much later the promise is asked for. It goes to where the two meet,
    // whatever the machine does besides.
    let mut head_start = 0_u32;
    for round in 0..400 {
        let key = format!("{round}");
        let write = rig.put(&key, 4);
        let held_up = async {
            for _ in 0..head_start {
                tokio::task::yield_now().await;
            }
            rig.gate.promise(&name(&key), version(5)).await
        };
        let (written, promised) = match round % 2 {
            0 => futures_util::future::join(write, held_up).await,
            _ => {
                let (promised, written) = futures_util::future::join(held_up, write).await;
                (written, promised)
            }
        };
        assert!(promised.is_given);
        match promised.held.expect("memory") {
            Some(_) => {
                assert_eq!(written.expect("it came first"), WriteOutcome::Stored);
                seen += 1;
                head_start /= 2;
            }
            None => {
                assert!(is_promised(&written), "{written:?}");
                assert_eq!(rig.stat(&key).await, None);
                kept_out += 1;
                head_start = head_start * 2 + 1;
            }
        }
    }
    assert!(seen > 0 && kept_out > 0, "both were tried: {seen} {kept_out}");
}

#[tokio::test]
async fn the_floor_is_durable_before_a_promise_is_given_or_a_version_taken() {
    let rig = Rig::new().await;
    assert_eq!(rig.gate.floor(), None);
    rig.put("a", 3).await.expect("stored");
    assert_eq!(rig.gate.floor(), Some(version(3)));
    assert!(rig.gate.promise(&name("b"), version(90_000)).await.is_given);
    assert_eq!(rig.gate.floor(), Some(version(90_000)));
    rig.gate.delete(name("c"), Basis::default(), content(50)).await.expect("stored");
    let later = Floor::open(&rig.runtime, rig.directory.path()).await.expect("sound");
    assert!(later.get() >= Some(version(90_000)), "the next run knows");
    // On a disk that takes no file nothing is promised and nothing is taken.
    let files = rig.runtime.files();
    files.remove_directory_all(rig.directory.path()).expect("removed");
    let high = Version::from_parts((WALL_MILLIS + 60_000) << 16, 1);
    assert!(!rig.gate.promise(&name("d"), high).await.is_given);
    let content = Content { version: high, ..content(0) };
    let refused = rig.gate.delete(name("d"), Basis::default(), content).await;
    assert!(matches!(refused, Err(GateError::Floor(_))), "{refused:?}");
    assert_eq!(rig.stat("d").await, None);
}

#[tokio::test]
async fn what_lies_far_ahead_is_neither_taken_nor_promised() {
    let rig = Rig::new().await;
    let far = Version::from_parts((WALL_MILLIS + 2 * 60 * 60 * 1000) << 16, 1);
    assert!(!rig.gate.promise(&name("a"), far).await.is_given);
    let refused = rig.gate.check(&name("a"), far, Basis::default());
    assert!(matches!(refused, Err(GateError::Ahead(_))), "{refused:?}");
    assert_eq!(rig.gate.floor(), None);
}

#[tokio::test]
async fn a_pin_is_for_a_sound_copy_that_stays() {
    let rig = Rig::new().await;
    for key in ["a", "damaged"] {
        rig.put(key, 2).await.expect("stored");
    }
    rig.gate.delete(name("deleted"), Basis::default(), content(2)).await.expect("stored");
    let copies = [("a", 2), ("a", 3), ("a", 1), ("absent", 1), ("deleted", 2), ("damaged", 2)];
    assert_eq!(rig.gate.pin(&asks(1, &copies)).await, [0, 2, 4, 5]);
    rig.store.memory.damage(&b"payload"[..].into());
    assert_eq!(rig.gate.pin(&asks(1, &copies)).await, [4]);
    assert!(rig.gate.pin(&asks(1, &[])).await.is_empty());
    let many: Vec<_> = (0..MAX_BATCH_NAMES).map(|_| ("deleted", 1)).collect();
    assert_eq!(rig.gate.pin(&asks(1, &many)).await.len(), MAX_BATCH_NAMES);
}

#[tokio::test]
async fn a_copy_is_dropped_only_after_the_window_and_if_nobody_relies_on_it() {
    let rig = Rig::new().await;
    let (gate, a) = (&rig.gate, name("a"));
    rig.put("a", 2).await.expect("stored");
    assert_eq!(gate.begin_let_go(&a), Err(MustStay::JustStarted));
    rig.pass(4);
    assert_eq!(gate.pin(&asks(1, &[("a", 2)])).await, [0]);
    assert_eq!(gate.begin_let_go(&a), Err(MustStay::Pinned));
    rig.pass(4);
    gate.begin_let_go(&a).expect("the pin has ended");
    assert!(gate.pin(&asks(1, &[("a", 2)])).await.is_empty(), "who lets go keeps nothing");
    let drop_now = async || gate.drop_if(name("a"), version(2), rig.runtime.now()).await;
    assert_eq!(drop_now().await.expect("memory"), DropEnd::TooLate, "too early");
    assert_eq!(gate.pin(&asks(1, &[("a", 2)])).await, [0], "letting go has ended");
    rig.pass(4);
    gate.begin_let_go(&a).expect("the pin has ended");
    gate.keep(&a);
    assert_eq!(gate.pin(&asks(1, &[("a", 2)])).await, [0], "it was kept");
    rig.pass(4);
    gate.begin_let_go(&a).expect("the pin has ended");
    rig.pass(1);
    rig.put("a", 3).await.expect("stored");
    assert_eq!(drop_now().await.expect("memory"), DropEnd::NotHere, "another version came");
    gate.begin_let_go(&a).expect("nobody relies on it");
    rig.pass(1);
    let dropped = gate.drop_if(a, version(3), rig.runtime.now()).await;
    assert_eq!(dropped.expect("memory"), DropEnd::Dropped);
    assert_eq!(rig.stat("a").await, None);
}

#[tokio::test]
async fn what_has_ended_is_swept() {
    let rig = Rig::new().await;
    rig.put("a", 2).await.expect("stored");
    assert!(rig.gate.promise(&name("b"), version(5)).await.is_given);
    assert_eq!(rig.gate.pin(&asks(1, &[("a", 2)])).await, [0]);
    let counts = || (rig.gate.promises().count(), rig.gate.pins().count());
    rig.gate.sweep();
    assert_eq!(counts(), (1, 1));
    rig.pass(4);
    rig.gate.sweep();
    assert_eq!(counts(), (0, 0));
}

#[tokio::test]
async fn a_superseded_copy_stays_for_a_window() {
    let rig = Rig::with_interval(SOON).await;
    let (began, ended) = (Runtime::real().now(), Arc::new(AtomicU64::new(0)));
    for key in ["a", "b"] {
        rig.put(key, 1).await.expect("stored");
        let ended = Arc::clone(&ended);
        let on_end = move |is_ok| assert!(is_ok && ended.fetch_add(1, Ordering::SeqCst) < 2);
        assert!(rig.gate.forget_later(name(key), version(1), on_end));
        assert!(!rig.gate.forget_later(name(key), version(1), |_| ()), "it waits already");
    }
    rig.put("b", 2).await.expect("stored");
    while rig.stat("a").await.is_some() {
        Runtime::real().sleep(Duration::from_millis(1)).await;
    }
    let after = Runtime::real().now() - began;
    assert!(after >= rig.gate.window(), "somebody may still ask for it after {after:?}");
    // It may come back, and go again.
    rig.put("a", 3).await.expect("stored");
    while !rig.gate.forget_later(name("a"), version(1), |_| ()) {
        Runtime::real().sleep(Duration::from_millis(1)).await;
    }
    Runtime::real().sleep(rig.gate.window() * 2).await;
    for (key, number) in [("a", 3), ("b", 2)] {
        assert_eq!(rig.stat(key).await.expect("newer").version, version(number));
    }
    assert_eq!(ended.load(Ordering::SeqCst), 2, "how it ended is told");
}
