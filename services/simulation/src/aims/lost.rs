//! A member is lost while two others cannot copy to each other. It must not be
//! given up before others have what it had.

use super::lonely::without;
use super::stage::Stage;

const KEYS: u64 = 30;

/// A member that is silent for this long may be given up.
const REPAIR_DELAY_MILLIS: u64 = 5_000;

/// How often an operator asks for it to be given up.
const TRIES: usize = 15;

pub(super) async fn play(stage: &mut Stage<'_>) {
    let (apis, servers) = stage.places();
    let ([operated, reader, ..], [lost, one, other, ..]) = (apis.as_slice(), servers.as_slice())
    else {
        return;
    };
    let keys = stage.objects(0, *operated, KEYS).await;
    stage.set_apart(*one, *other, true);
    // What waits on a connection that is there would wait for long.
    stage.reset(*one, *other);
    if stage.random.percent(50) {
        stage.set_draining(*operated, *lost, true).await;
        let time = stage.millis(1_500, 4_500);
        stage.pass(time).await;
        stage.cluster.kill(*lost);
        // An operator would rather not wait.
        for _ in 0..TRIES {
            stage.retire(*operated, *lost).await;
            let time = stage.millis(50, 300);
            stage.pass(time).await;
        }
    } else {
        stage.cluster.kill(*lost);
        let time = stage.millis(REPAIR_DELAY_MILLIS + 1_000, REPAIR_DELAY_MILLIS + 4_000);
        stage.pass(time).await;
    }
    for unheard in [*one, *other] {
        without(stage, unheard, *reader, &keys).await;
        let time = stage.millis(600, 1_500);
        stage.pass(time).await;
    }
    stage.set_apart(*one, *other, false);
    stage.cluster.launch(*lost);
}
