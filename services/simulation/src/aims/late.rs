//! A write is located, and arrives much later: when promises that it has not
//! seen are still kept, and when they are not.

use std::time::Duration;

use holdfast_testkit::history::Action;

use super::stage::Stage;

const ROUNDS: usize = 4;

/// A little more than promises are kept.
const PROMISE_MILLIS: u64 = 12_000;

pub(super) async fn play(stage: &mut Stage<'_>) {
    for _ in 0..ROUNDS {
        let (apis, servers) = stage.places();
        let [late, swift, ..] = apis.as_slice() else { return };
        let keys = stage.keys(3);
        if stage.random.percent(30) {
            stage.put_all(0, *swift, &keys).await;
            let tasks = stage.ask_all(0, *swift, &keys, || Action::Delete, Duration::from_secs(12));
            stage.wait(tasks).await;
        }
        // What waits on a connection that is there is not given up.
        let warm = stage.keys(6);
        stage.put_all(0, *late, &warm).await;
        servers.iter().for_each(|server| stage.set_cut(*late, *server, true));
        let patience = Duration::from_secs(40);
        let write = || Action::Write(stage.value());
        let asked = stage.ask_all(0, *late, &keys, write, patience);
        let time = stage.millis(50, 300);
        stage.pass(time).await;
        let create = || Action::Create(stage.value());
        let creates = stage.ask_all(1, *swift, &keys, create, Duration::from_secs(12));
        stage.wait(creates).await;
        let time = match stage.random.below(2) {
            0 => stage.millis(50, 2_700),
            _ => stage.millis(PROMISE_MILLIS, PROMISE_MILLIS + 1_500),
        };
        stage.pass(time).await;
        servers.iter().for_each(|server| stage.set_cut(*late, *server, false));
        stage.wait(asked).await;
        stage.read_all(1, *swift, &keys).await;
        stage.read_all(0, *late, &keys).await;
    }
}
