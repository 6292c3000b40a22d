//! A member promises, an object is deleted, and another member that has the
//! tombstone shows it to whoever asked for the promises.

use std::time::Duration;

use holdfast_testkit::history::Action;

use super::stage::Stage;

const ROUNDS: usize = 4;

const KEYS: u64 = 12;

/// After this long a lookup goes on without who does not answer.
const LOCATE_MILLIS: u64 = 1_000;

pub(super) async fn play(stage: &mut Stage<'_>) {
    for _ in 0..ROUNDS {
        let (apis, servers) = stage.places();
        let ([creator, deleter, ..], [late, last, ..]) = (apis.as_slice(), servers.as_slice())
        else {
            return;
        };
        let keys = stage.keys(KEYS);
        stage.put_all(1, *deleter, &keys).await;
        // What it has is not settled for who does not hear it.
        stage.set_deaf(*late, true);
        stage.set_deaf(*last, true);
        stage.set_apart(*creator, *last, true);
        let patience = Duration::from_secs(12);
        let create = || Action::Create(stage.value());
        let created = stage.ask_all(0, *creator, &keys, create, patience);
        let time = stage.millis(LOCATE_MILLIS - 150, LOCATE_MILLIS + 60);
        stage.pass(time).await;
        let deleted = stage.ask_all(1, *deleter, &keys, || Action::Delete, patience);
        let time = stage.millis(60, 300);
        stage.pass(time).await;
        stage.set_apart(*creator, *last, false);
        stage.set_deaf(*late, false);
        stage.set_deaf(*last, false);
        stage.wait(created).await;
        stage.wait(deleted).await;
        stage.read_all(1, *deleter, &keys).await;
        stage.read_all(0, *creator, &keys).await;
        let time = stage.millis(500, 1_000);
        stage.pass(time).await;
    }
}
