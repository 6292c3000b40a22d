use holdfast_core::node::{Generation, NodeId};

use super::*;
use crate::gate::Basis;
use crate::test_support::{
    OWN, OWN_NODE, Rig, answerer, cluster, content, name, roster_of_own, version,
};

const OTHER: NodeId = NodeId::from_bits(1);

fn asks(keys: &[&str], stamps: &[(NodeId, Stamp)], promises: &[(u32, u64)]) -> BatchRequest {
    BatchRequest {
        protocol: PROTOCOL_VERSION,
        id: 1,
        names: keys.iter().map(|key| name(key)).collect(),
        trace: None,
        traces: BTreeMap::new(),
        stamps: stamps.iter().copied().collect(),
        promises: promises.iter().map(|(index, number)| (*index, version(*number))).collect(),
    }
}

async fn delete(rig: &Rig, key: &str, number: u64) {
    rig.gate.delete(name(key), Basis::default(), content(number)).await.expect("stored");
}

#[tokio::test]
async fn who_builds_on_nothing_of_this_run_or_comes_late_gets_a_stamp_and_nothing_else() {
    let rig = Rig::new().await;
    let answerer = answerer(&rig, cluster(&rig.runtime, roster_of_own()).await);
    delete(&rig, "a", 3).await;
    let first = answerer.answer(&asks(&["a"], &[], &[])).await;
    assert!(!first.late && first.found.len() == 1, "nobody's stamp: an asker that has none");
    let stamp = Stamp { generation: first.generation, mono_millis: first.mono_millis };
    assert_eq!(first.generation, OWN);
    let other_run = Stamp { generation: Generation(OWN.0 - 1), ..stamp };
    for stamps in [vec![(OTHER, stamp)], vec![(OWN_NODE, other_run), (OTHER, stamp)]] {
        let late = answerer.answer(&asks(&["a"], &stamps, &[(0, 9)])).await;
        assert!(late.late && late.found.is_empty() && late.promised.is_empty(), "{late:?}");
    }
    let good = answerer.answer(&asks(&["a"], &[(OWN_NODE, stamp)], &[])).await;
    assert!(!good.late && good.found.len() == 1);
    rig.clock.advance(rig.gate.window());
    let late = answerer.answer(&asks(&["a"], &[(OWN_NODE, stamp)], &[(0, 9)])).await;
    assert!(late.late && late.found.is_empty());
    let fresh = Stamp { generation: late.generation, mono_millis: late.mono_millis };
    let good = answerer.answer(&asks(&["a"], &[(OWN_NODE, fresh)], &[(0, 9)])).await;
    assert!(!good.late && good.promised == [0], "nothing was promised before");
    assert_eq!(rig.metrics.locates_late.get(), 3);
}

#[tokio::test]
async fn a_promise_comes_with_what_was_there_and_below_the_floor() {
    let rig = Rig::new().await;
    let answerer = answerer(&rig, cluster(&rig.runtime, roster_of_own()).await);
    assert_eq!(answerer.answer(&asks(&["a"], &[], &[])).await.floor, None);
    delete(&rig, "a", 3).await;
    delete(&rig, "b", 8).await;
    // Of four names one is below the ballot, one above, one absent, and one is
    // not asked to be promised; a fifth place has no name.
    let request = asks(&["a", "b", "c", "a"], &[], &[(0, 5), (1, 5), (2, 9), (7, 5)]);
    let answer = answerer.answer(&request).await;
    let found: Vec<_> = answer.found.iter().map(|(index, stat)| (*index, stat.version)).collect();
    assert_eq!(found, [(0, version(3)), (1, version(8)), (3, version(3))]);
    assert_eq!(answer.promised, [0, 2]);
    assert_eq!(answer.floor, Some(version(9)), "promises are part of it");
    let refused = rig.gate.check(&name("c"), version(4), Basis::default());
    assert!(refused.is_err(), "it was promised");
    assert!(rig.gate.check(&name("b"), version(4), Basis::default()).is_ok());
}

#[tokio::test]
async fn a_promise_that_must_wait_holds_nobody_else_up_for_long() {
    let rig = Rig::new().await;
    let answerer = answerer(&rig, cluster(&rig.runtime, roster_of_own()).await);
    delete(&rig, "b", 3).await;
    rig.store.hold();
    let (gate, staged) = (rig.gate.clone(), rig.stage(b"payload").await);
    let _writer = rig.runtime.spawn("writer", async move {
        let _ = gate.commit(name("a"), Basis::default(), content(4), staged).await;
    });
    rig.store.await_commit().await;
    let answer = answerer.answer(&asks(&["a", "b"], &[], &[(0, 9), (1, 9)])).await;
    assert_eq!((answer.unknown, answer.promised), (vec![0], vec![1]));
    assert_eq!(answer.found.len(), 1);
    assert!(rig.gate.check(&name("a"), version(5), Basis::default()).is_ok());
}

#[tokio::test]
async fn a_damaged_copy_is_none_also_where_a_promise_is_asked_for() {
    let rig = Rig::new().await;
    let staged = rig.stage(b"payload").await;
    let put = rig.gate.commit(name("a"), Basis::default(), content(4), staged).await;
    assert!(put.is_ok());
    let answerer = answerer(&rig, cluster(&rig.runtime, roster_of_own()).await);
    let promises = [(0, 5)];
    for damaged in [false, true] {
        if damaged {
            rig.store.memory.damage(&b"payload"[..].into());
        }
        for promises in [&promises[..], &[]] {
            let answer = answerer.answer(&asks(&["a"], &[], promises)).await;
            assert_eq!(answer.found.len(), 1, "it is here");
            assert_eq!(answer.unknown, if damaged { vec![0] } else { vec![] }, "{promises:?}");
            assert_eq!(answer.promised.len(), promises.len());
        }
    }
}

#[tokio::test]
async fn an_answer_tells_what_may_have_been_promised_above_what_is_there() {
    let rig = Rig::new().await;
    delete(&rig, "b", 3).await;
    for key in ["a", "b", "d"] {
        assert!(rig.gate.promise(&name(key), version(5)).await.is_given);
    }
    // It was written under the promise.
    delete(&rig, "d", 5).await;
    let names = ["a", "b", "c", "d"];
    let running = answerer(&rig, cluster(&rig.runtime, roster_of_own()).await);
    for _ in 0..2 {
        let answer = running.answer(&asks(&names, &[], &[])).await;
        assert_eq!(answer.may_have_promised, [(0, version(5)), (1, version(5))]);
        assert_eq!(answer.promised_before, None);
        // Also when it has ended.
        rig.clock.advance(rig.gate.window() * 5);
    }
    let rig = rig.restarted().await;
    let restarted = answerer(&rig, cluster(&rig.runtime, roster_of_own()).await);
    let answer = restarted.answer(&asks(&names, &[], &[])).await;
    assert!(answer.may_have_promised.is_empty());
    assert!(answer.promised_before >= Some(version(5)), "of whichever name");
}
