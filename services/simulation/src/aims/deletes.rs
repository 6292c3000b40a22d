//! A member is away while objects are deleted. Then those that have the tombstones
//! lose their disks, one after the other, each as soon as what the one before it
//! had has been made anew. What the first one still had must not come back.

use std::time::Duration;

use holdfast_testkit::history::Action;

use super::stage::Stage;

const KEYS: u64 = 12;

/// How long it may take until what a lost member had is where it should be.
const LIMIT: Duration = Duration::from_secs(90);

pub(super) async fn play(stage: &mut Stage<'_>) {
    let (apis, servers) = stage.places();
    let ([operated, reader, ..], [away, losers @ ..]) = (apis.as_slice(), servers.as_slice())
    else {
        return;
    };
    let keys = stage.objects(0, *operated, KEYS).await;
    stage.cluster.kill(*away);
    let delete = || Action::Delete;
    let deleted = stage.ask_all(0, *operated, &keys, delete, Duration::from_secs(12));
    stage.wait(deleted).await;
    stage.cluster.launch(*away);
    // Else the first disk is lost before the tombstones have come to it.
    if stage.random.percent(50) {
        let time = stage.millis(100, 4_000);
        stage.pass(time).await;
    }
    for loser in losers {
        let lost = stage.lose_disk(*operated, *loser).await;
        let time = stage.millis(20, 400);
        stage.pass(time).await;
        stage.cluster.launch(*loser);
        if !stage.until_replaced(*operated, &lost, LIMIT).await {
            stage.wrong("what was on a lost disk is not made anew in time".to_owned());
            return;
        }
    }
    stage.read_all(0, *operated, &keys).await;
    stage.read_all(1, *reader, &keys).await;
}
