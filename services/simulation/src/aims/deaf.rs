//! Members that run and do not hear each other for longer than a silence is
//! waited for. Nobody may be given up: of two that are deaf to each other, a third
//! one hears both; and where nobody hears anybody, all are soon heard again, one
//! a little before the other.

use super::stage::{Stage, pairs};
use crate::faults::text;

const KEYS: u64 = 20;

/// A member that is silent for this long may be given up; it is silent after a
/// while only.
const LONG_MILLIS: (u64, u64) = (7_500, 12_000);

pub(super) async fn play(stage: &mut Stage<'_>) {
    let (apis, servers) = stage.places();
    let [operated, reader, ..] = apis.as_slice() else { return };
    let keys = stage.keys(KEYS);
    stage.put_all(0, *operated, &keys).await;
    let most = if stage.random.percent(50) { 1 } else { usize::MAX };
    let deaf: Vec<_> = pairs(&servers).take(most).collect();
    // What goes by way of the broker reaches everybody.
    stage.cluster.world.broker.stop();
    for (one, other) in &deaf {
        stage.set_apart(*one, *other, true);
        stage.reset(*one, *other);
    }
    let time = stage.millis(LONG_MILLIS.0, LONG_MILLIS.1);
    stage.pass(time).await;
    for (one, other) in &deaf {
        stage.set_apart(*one, *other, false);
        let time = stage.millis(0, 1_500);
        stage.pass(time).await;
    }
    stage.cluster.world.broker.start();
    let time = stage.millis(2_000, 4_000);
    stage.pass(time).await;
    match stage.operate(*operated, "GET", "/admin/dataservers").await {
        Some(page) => {
            let all = page.get("dataservers").and_then(serde_json::Value::as_array);
            let is_active = |one: &serde_json::Value| text(one, "state") == "active";
            let count = all.map_or(0, |all| all.iter().filter(|one| is_active(one)).count());
            if count != servers.len() {
                stage.wrong(format!("data servers that run were given up: {page}"));
            }
        }
        None => stage.wrong("an api does not say who is a member".to_owned()),
    }
    stage.read_all(1, *reader, &keys).await;
}
