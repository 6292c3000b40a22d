//! A member joins and takes writes while an api stands still. When that goes
//! on, its first questions are older than what it has heard.

use std::time::Duration;

use holdfast_testkit::history::Action;

use super::stage::Stage;
use crate::cluster::Role;

const ROUNDS: usize = 2;

/// Keys that are written after each join.
const KEYS: u64 = 12;

/// Reads of all of them, while the roster is on its way.
const WAVES: usize = 6;

/// How long a join may take, for the api to come back within the window.
const LIMIT: Duration = Duration::from_millis(2_300);

pub(super) async fn play(stage: &mut Stage<'_>) {
    for _ in 0..ROUNDS {
        let (apis, servers) = stage.places();
        let [swift, still, ..] = apis.as_slice() else { return };
        let Some(first) = servers.first() else { return };
        // Connections, so that nobody has to make them first.
        let warm = stage.keys(6);
        stage.put_all(0, *still, &warm).await;
        stage.set_paused(*still, true);
        let replicas = stage.cluster.node(*first).replicas;
        let joining = stage.cluster.add(Role::DataServer, replicas);
        if stage.until_active(*swift, joining, LIMIT).await {
            let keys = stage.keys(KEYS);
            stage.put_all(1, *swift, &keys).await;
            // The broker is faster than what brings the roster.
            let delay = stage.millis(20, 110);
            let all = || servers.iter().chain([&joining]);
            all().for_each(|server| stage.set_slow(*still, *server, delay));
            let patience = Duration::from_secs(5);
            let mut late = stage.ask_all(0, *still, &keys, || Action::Read, patience);
            let time = stage.millis(5, 100);
            stage.pass(time).await;
            stage.set_paused(*still, false);
            // Of each wave another answer comes last.
            for _ in 0..WAVES {
                let time = stage.millis(1, 8);
                stage.pass(time).await;
                late.extend(stage.ask_all(0, *still, &keys, || Action::Read, patience));
            }
            stage.wait(late).await;
            all().for_each(|server| stage.set_slow(*still, *server, Duration::ZERO));
            stage.read_all(1, *swift, &keys).await;
        }
        stage.set_paused(*still, false);
        let time = stage.millis(1_000, 3_000);
        stage.pass(time).await;
    }
}
