//! A member is drained, taken back, and drained again, while others let go of
//! the copies that they took for it: each may rely on what another is about to
//! drop.

use std::time::Duration;

use super::stage::Stage;

const ROUNDS: usize = 8;

/// Nobody lets go of anything before it has run for four windows.
const YOUNG: Duration = Duration::from_secs(12);

const KEYS: u64 = 12;

pub(super) async fn play(stage: &mut Stage<'_>) {
    stage.pass(YOUNG).await;
    let (apis, servers) = stage.places();
    let [operated, reader, ..] = apis.as_slice() else { return };
    let Some((leaver, others)) = servers.split_first() else { return };
    let keys = stage.keys(KEYS);
    stage.put_all(0, *operated, &keys).await;
    for _ in 0..ROUNDS {
        stage.set_draining(*operated, *leaver, true).await;
        // Copies are made, and the drained one begins to let go.
        watch(stage, *reader, others, &keys, 1_500, 5_000).await;
        stage.set_draining(*operated, *leaver, false).await;
        watch(stage, *reader, others, &keys, 300, 4_500).await;
    }
}

/// Reads for a while, each time without one of the members.
async fn watch(
    stage: &mut Stage<'_>,
    reader: usize,
    servers: &[usize],
    keys: &[String],
    least: u64,
    most: u64,
) {
    let executor = stage.cluster.world.executor.clone();
    let end = executor.now() + stage.millis(least, most);
    while executor.now() < end {
        let Some(unheard) = servers.get(stage.random.place(servers.len())) else { return };
        stage.set_apart(reader, *unheard, true);
        stage.set_deaf(*unheard, true);
        stage.read_all(1, reader, keys).await;
        stage.set_deaf(*unheard, false);
        stage.set_apart(reader, *unheard, false);
        let time = stage.millis(200, 900);
        stage.pass(time).await;
    }
}
