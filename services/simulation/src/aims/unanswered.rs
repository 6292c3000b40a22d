//! Two writes of one name whose apis die: each is on one member, and the second
//! one was judged by others, of which one forgets that it promised. Then somebody
//! reads who hears the first one, and somebody who hears the second one.

use std::time::Duration;

use holdfast_testkit::history::Action;

use super::lonely::without;
use super::stage::Stage;

const ROUNDS: usize = 4;

const KEYS: u64 = 8;

pub(super) async fn play(stage: &mut Stage<'_>) {
    for _ in 0..ROUNDS {
        let (apis, servers) = stage.places();
        let ([one, other, ..], [first, forgetful, second, ..]) =
            (apis.as_slice(), servers.as_slice())
        else {
            return;
        };
        let keys = stage.keys(KEYS);
        if stage.random.percent(30) {
            stage.put_all(0, *one, &keys).await;
            let delete = || Action::Delete;
            let gone = stage.ask_all(0, *one, &keys, delete, Duration::from_secs(12));
            stage.wait(gone).await;
        }
        // What is on one member stays there: it cannot be passed on.
        let sides = [*first, *forgetful, *second];
        stage.set_all_apart(&sides, true);
        leave_on(stage, *one, *first, &[*forgetful, *second], &keys).await;
        stage.set_deaf(*first, true);
        stage.set_apart(*other, *first, true);
        leave_on(stage, *other, *second, &[*forgetful], &keys).await;
        stage.set_apart(*other, *first, false);
        stage.set_deaf(*first, false);
        if stage.random.percent(80) {
            stage.cluster.kill(*forgetful);
            let time = stage.millis(50, 500);
            stage.pass(time).await;
            stage.cluster.launch(*forgetful);
        }
        let time = stage.millis(1_500, 3_000);
        stage.pass(time).await;
        // Those that are heard can copy to each other.
        stage.set_apart(*first, *forgetful, false);
        without(stage, *second, *one, &keys).await;
        stage.set_all_apart(&sides, true);
        stage.set_apart(*second, *forgetful, false);
        without(stage, *first, *other, &keys).await;
        stage.set_all_apart(&sides, false);
        stage.read_all(0, *one, &keys).await;
        let time = stage.millis(500, 1_000);
        stage.pass(time).await;
    }
}

/// Creates by an api that reaches one member alone with what it writes, and dies.
async fn leave_on(
    stage: &mut Stage<'_>,
    api: usize,
    reached: usize,
    others: &[usize],
    keys: &[String],
) {
    others.iter().for_each(|server| stage.set_cut(api, *server, true));
    let create = || Action::Create(stage.value());
    let asked = stage.ask_all(0, api, keys, create, Duration::from_secs(3));
    let time = stage.millis(60, 400);
    stage.pass(time).await;
    stage.cluster.kill(api);
    stage.note(&format!("what is under way is on server {reached} alone"));
    stage.wait(asked).await;
    others.iter().for_each(|server| stage.set_cut(api, *server, false));
    stage.cluster.launch(api);
}
