//! A member promises a version and restarts. Clocks go back, and a write gets
//! in between the promise and what it was given for.

use std::time::Duration;

use holdfast_testkit::history::Action;

use super::stage::Stage;

const ROUNDS: usize = 6;

pub(super) async fn play(stage: &mut Stage<'_>) {
    for _ in 0..ROUNDS {
        let (apis, servers) = stage.places();
        let [creator, writer, ..] = apis.as_slice() else { return };
        let Some((forgetful, rest)) = servers.split_first() else { return };
        let Some(deaf) = rest.first() else { return };
        let keys = stage.keys(2);
        let warm = stage.keys(4);
        stage.put_all(0, *creator, &warm).await;
        let ahead = i64::try_from(stage.random.within(1_000, 600_000)).unwrap_or(1_000);
        set_clocks(stage, &servers, ahead);
        // It is not asked for the promise.
        stage.set_deaf(*deaf, true);
        servers.iter().for_each(|server| stage.set_cut(*creator, *server, true));
        let create = || Action::Create(stage.value());
        let created = stage.ask_all(0, *creator, &keys, create, Duration::from_secs(20));
        let time = stage.millis(20, 300);
        stage.pass(time).await;
        stage.cluster.kill(*forgetful);
        stage.set_deaf(*deaf, false);
        set_clocks(stage, &servers, 0);
        stage.cluster.launch(*forgetful);
        let time = stage.millis(200, 900);
        stage.pass(time).await;
        stage.put_all(1, *writer, &keys).await;
        let time = stage.millis(0, 500);
        stage.pass(time).await;
        servers.iter().for_each(|server| stage.set_cut(*creator, *server, false));
        stage.wait(created).await;
        stage.read_all(1, *writer, &keys).await;
        stage.read_all(0, *creator, &keys).await;
    }
}

fn set_clocks(stage: &Stage<'_>, servers: &[usize], millis: i64) {
    servers.iter().for_each(|server| stage.cluster.node(*server).skew.set(millis));
}
