//! What is done to the volume before the power goes: everything a store can be
//! asked for, in one order, and then as many random writes as wanted.

use crate::common::index::Numbers;
use crate::common::power::Options;
use crate::model::Change;
use crate::session::{Recording, Session};

/// Keys that the random part writes to.
const RANDOM_KEYS: u64 = 16;

/// Runs all of it on a new disk.
pub async fn record(options: Options, random_writes: usize) -> Recording {
    let mut session = Session::new(options).await;
    small_and_large(&mut session).await;
    batches(&mut session).await;
    older_and_forgotten(&mut session).await;
    large_files(&mut session).await;
    garbage(&mut session, 3).await;
    session.reopen().await;
    garbage(&mut session, 2).await;
    session.lose_index().await;
    no_room(&mut session).await;
    random(&mut session, random_writes).await;
    session.finish().await
}

async fn small_and_large(session: &mut Session) {
    for (key, size_bytes) in (0..).zip([0, 1, 100, 600, 1_500, 2_000, 2_048, 2_049, 9_000]) {
        session.put_new(key, size_bytes).await;
    }
}

async fn batches(session: &mut Session) {
    let writes = (9..15).map(|key| (key, session.put(300 * (key - 8))));
    let mut writes: Vec<_> = writes.collect();
    // One name twice, one that is there, and payloads of their own among them.
    writes.push((9, session.put(20)));
    writes.push((3, session.delete()));
    writes.push((15, session.put(5_000)));
    writes.push((8, session.put(3_000)));
    session.batch(writes, 0).await;
    let abandoned = vec![
        (16, session.put(100)),
        (17, session.put(700)),
        (18, session.put(4_000)),
        (19, session.put(50)),
    ];
    session.batch(abandoned, 3).await;
}

async fn older_and_forgotten(session: &mut Session) {
    for key in [1, 2, 9] {
        let clock = session.promised_clock(key).expect("it is there");
        session.write(key, Change::Forget { clock: clock - 1 }).await;
        session.forget_promised(key).await;
        let older = Change::Put { clock: key as u64 + 1, payload: vec![5; 200].into() };
        session.write(key, older.clone()).await;
        session.write(key, older).await;
    }
    session.delete_new(3).await;
    session.forget_promised(3).await;
    session.delete_new(4).await;
    let older = Change::Put { clock: 50, payload: vec![6; 300].into() };
    session.write(4, older).await;
}

async fn large_files(session: &mut Session) {
    session.drop_staged(6_000).await;
    session.put_new(8, 7_000).await;
    session.put_new(20, 12_000).await;
    session.delete_new(20).await;
    session.put_new(21, 4_097).await;
    session.forget_promised(21).await;
    session.put_new(22, 10_000).await;
    session.put_new(22, 10).await;
    session.compact().await;
    session.drop_staged(3_000).await;
}

/// Overwrites until there are segments to compact, some of which hold tombstones
/// and what was forgotten.
async fn garbage(session: &mut Session, rounds: usize) {
    for round in 0..rounds {
        for key in 23..35 {
            session.put_new(key, 1_700).await;
        }
        session.delete_new(23 + round).await;
        session.forget_promised(30 + round).await;
    }
    let before = session.segment_count();
    session.compact().await;
    assert!(session.segment_count() < before, "nothing was compacted");
}

async fn no_room(session: &mut Session) {
    let writes: Vec<_> = [(5, 100), (10, 200), (8, 3_000), (36, 400)]
        .map(|(key, size_bytes)| (key, session.put(size_bytes)))
        .into();
    session.refused_batch(writes).await;
    // It does not fit into the segment that has the rest of what was refused.
    let writes = (37..41).map(|key| (key, session.put(1_800)));
    let writes: Vec<_> = writes.collect();
    session.batch(writes, 0).await;
}

async fn random(session: &mut Session, count: usize) {
    let mut numbers = Numbers(4);
    for number in 0..count {
        let key = 41 + usize::try_from(numbers.below(RANDOM_KEYS)).expect("it is small");
        match numbers.below(12) {
            0 => session.forget_promised(key).await,
            1 | 2 => session.delete_new(key).await,
            3 | 4 => session.put_new(key, 2_049 + number).await,
            5 => {
                let writes = (0..4).map(|next| (41 + (key + next) % 16, session.put(200)));
                let writes: Vec<_> = writes.collect();
                session.batch(writes, 0).await;
            }
            _ => {
                let size_bytes = usize::try_from(numbers.below(2_000)).expect("it is small");
                session.put_new(key, size_bytes).await;
            }
        }
        if number % 25 == 24 {
            session.compact().await;
        }
        if number % 60 == 59 {
            session.reopen().await;
        }
    }
}
