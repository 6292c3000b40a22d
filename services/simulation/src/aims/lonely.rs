//! A write reaches one member and its api dies. Nobody reads, and repair goes by
//! before what was there is asked for without that member.

use std::time::Duration;

use holdfast_testkit::history::Action;

use super::stage::Stage;

const ROUNDS: usize = 2;

const KEYS: u64 = 8;

pub(super) async fn play(stage: &mut Stage<'_>) {
    for _ in 0..ROUNDS {
        let (apis, servers) = stage.places();
        let ([writer, reader, ..], Some((lonely, others))) =
            (apis.as_slice(), servers.split_first())
        else {
            return;
        };
        let keys = stage.keys(KEYS);
        stage.put_all(0, *writer, &keys).await;
        others.iter().for_each(|other| stage.set_cut(*writer, *other, true));
        let delete = stage.random.percent(30);
        let change = || if delete { Action::Delete } else { Action::Write(stage.value()) };
        let asked = stage.ask_all(0, *writer, &keys, change, Duration::from_secs(3));
        let time = stage.millis(50, 900);
        stage.pass(time).await;
        stage.cluster.kill(*writer);
        // It answers over the broker, and cannot pass on what it has.
        others.iter().for_each(|other| stage.set_cut(*lonely, *other, true));
        let time = stage.millis(4_000, 9_000);
        stage.pass(time).await;
        without(stage, *lonely, *reader, &keys).await;
        others.iter().for_each(|other| stage.set_cut(*lonely, *other, false));
        others.iter().for_each(|other| stage.set_cut(*writer, *other, false));
        stage.read_all(1, *reader, &keys).await;
        stage.cluster.launch(*writer);
        stage.wait(asked).await;
        let time = stage.millis(1_000, 2_000);
        stage.pass(time).await;
    }
}

/// Reads by an api that does not hear a member.
pub(super) async fn without(stage: &mut Stage<'_>, unheard: usize, reader: usize, keys: &[String]) {
    stage.set_deaf(unheard, true);
    stage.set_apart(unheard, reader, true);
    stage.read_all(1, reader, keys).await;
    stage.set_apart(unheard, reader, false);
    stage.set_deaf(unheard, false);
}
