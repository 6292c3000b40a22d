//! Two data servers and an api are cut off with what they know: that W voters
//! answer for a name. The others let the electorate fall, or would like to, and
//! write, perhaps while their api still hears one of the two. What the two sides
//! tell must fit together.

use std::time::Duration;

use holdfast_testkit::history::Action;

use super::stage::Stage;
use crate::cluster::Role;

const ROUNDS: usize = 3;

const KEYS: u64 = 16;

/// Milliseconds after which an electorate has fallen, where it can.
const FALLEN: (u64, u64) = (12_500, 16_000);

/// How long an electorate may take to be complete on a quiet network.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) async fn play(stage: &mut Stage<'_>) {
    for _ in 0..ROUNDS {
        let (apis, servers) = stage.places();
        let ([outside, inside, ..], [first, second, others @ ..]) =
            (apis.as_slice(), servers.as_slice())
        else {
            return;
        };
        if !until_reading(stage, *outside).await {
            stage.note("voters do not answer yet");
        }
        let keys = stage.keys(KEYS);
        stage.put_all(0, *outside, &keys).await;
        let fresh = stage.keys(KEYS);
        let patience = Duration::from_secs(30);
        // Who cannot be told of anything can still be asked.
        let is_asked = stage.random.percent(50);
        let apart = |stage: &Stage<'_>, apart: bool| {
            for island in [*first, *second, *inside] {
                let out = others.iter().chain([outside]);
                let out = out.filter(|out| !is_asked || (island, **out) != (*second, *outside));
                for out in out {
                    stage.set_apart(island, *out, apart);
                    stage.reset(island, *out);
                }
                stage.set_deaf(island, apart);
            }
        };
        let falls = if stage.random.percent(50) { (100, 4_000) } else { FALLEN };
        // Conditions are judged on one side when they are being judged on the other.
        let mut asked = Vec::new();
        let begins = stage.random.percent(50);
        if begins {
            let create = || Action::Create(stage.value());
            asked.extend(stage.ask_all(1, *inside, &fresh, create, patience));
            let time = stage.millis(0, 40);
            stage.pass(time).await;
        }
        let stands_still = stage.random.percent(30);
        if stands_still {
            stage.set_paused(*inside, true);
        }
        apart(stage, true);
        let drained = others.first().copied().filter(|_| stage.random.percent(60));
        match drained {
            Some(drained) => stage.set_draining(*outside, drained, true).await,
            None if stage.random.percent(50) => {
                let replicas = stage.cluster.node(*first).replicas;
                stage.cluster.add(Role::DataServer, replicas);
            }
            None => {}
        }
        let time = stage.millis(falls.0, falls.1);
        stage.pass(time).await;
        let write = || Action::Write(stage.value());
        asked.extend(stage.ask_all(0, *outside, &keys, write, patience));
        asked.extend(stage.ask_all(0, *outside, &fresh, write, patience));
        let time = stage.millis(100, 4_000);
        stage.pass(time).await;
        stage.set_paused(*inside, false);
        stage.read_all(1, *inside, &keys).await;
        stage.read_all(1, *inside, &fresh).await;
        apart(stage, false);
        stage.wait(asked).await;
        stage.read_all(0, *outside, &fresh).await;
        if let Some(drained) = drained {
            let time = stage.millis(100, 14_000);
            stage.pass(time).await;
            stage.set_draining(*outside, drained, false).await;
        }
        for all in [&keys, &fresh] {
            stage.read_all(0, *outside, all).await;
            stage.read_all(1, *inside, all).await;
        }
    }
}

/// Waits until voters answer for names; whether they do.
async fn until_reading(stage: &mut Stage<'_>, api: usize) -> bool {
    let executor = stage.cluster.world.executor.clone();
    let end = executor.now() + LIMIT;
    while executor.now() < end {
        let page = stage.operate(api, "GET", "/admin/dataservers").await.unwrap_or_default();
        let phase = page.pointer("/electorate/phase").and_then(serde_json::Value::as_str);
        if phase == Some("reading") {
            return true;
        }
        stage.pass(Duration::from_millis(250)).await;
    }
    false
}
