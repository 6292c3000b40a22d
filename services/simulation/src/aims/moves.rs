//! Copies move away from a member. Somebody asks their new home before they
//! come, does not hear the third, and asks the old one late.

use std::time::Duration;

use holdfast_testkit::history::Action;

use super::stage::Stage;

const ROUNDS: usize = 6;

/// Nobody lets go of anything before it has run for four windows.
const YOUNG: Duration = Duration::from_secs(12);

/// Keys of each round.
const KEYS: u64 = 10;

/// Waves of reads of all keys, while copies move.
const WAVES: usize = 22;

pub(super) async fn play(stage: &mut Stage<'_>) {
    stage.pass(YOUNG).await;
    let (apis, servers) = stage.places();
    let [operated, reader, ..] = apis.as_slice() else { return };
    let [leaver, one, other, ..] = servers.as_slice() else { return };
    let mut drains = false;
    for _ in 0..ROUNDS {
        drains = !drains;
        let keys = stage.keys(KEYS);
        stage.put_all(0, *operated, &keys).await;
        let (one, other) = if stage.random.percent(50) { (one, other) } else { (other, one) };
        // When the drained one comes back it is the others that let go.
        let (old, unheard) = if drains { (leaver, other) } else { (one, other) };
        stage.set_apart(*reader, *unheard, true);
        // Either the members learn of the drain at different times, and the old home
        // is asked over HTTP after the others; or they learn of it at once, and the
        // reader asks all of them over HTTP.
        let (deaf, slow) = if stage.random.percent(50) {
            (vec![*unheard, *old], stage.millis(50, 230))
        } else {
            (vec![*reader], stage.millis(200, 800))
        };
        deaf.iter().for_each(|place| stage.set_deaf(*place, true));
        stage.set_slow(*reader, *old, slow);
        stage.set_draining(*operated, *leaver, drains).await;
        let mut asked = Vec::new();
        for _ in 0..WAVES {
            let patience = Duration::from_secs(3);
            asked.extend(stage.ask_all(1, *reader, &keys, || Action::Read, patience));
            let time = stage.millis(20, 120);
            stage.pass(time).await;
        }
        stage.set_apart(*reader, *unheard, false);
        deaf.iter().for_each(|place| stage.set_deaf(*place, false));
        stage.set_slow(*reader, *old, Duration::ZERO);
        stage.wait(asked).await;
    }
    stage.set_draining(*operated, *leaver, false).await;
}
