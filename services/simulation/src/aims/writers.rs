//! A write reaches one member and its api dies. Who reads that must not see it
//! come and go.

use std::time::Duration;

use holdfast_testkit::history::Action;

use super::stage::Stage;

const ROUNDS: usize = 7;

/// How often it is read what the dead left.
const READS: usize = 6;

pub(super) async fn play(stage: &mut Stage<'_>) {
    for _ in 0..ROUNDS {
        let (apis, servers) = stage.places();
        let (Some((writer, readers)), Some((reached, others))) =
            (apis.split_first(), servers.split_first())
        else {
            return;
        };
        let keys = stage.keys(2);
        if stage.random.percent(80) {
            stage.put_all(0, *writer, &keys).await;
        }
        for other in others {
            stage.set_cut(*writer, *other, true);
        }
        stage.note(&format!("only {:?} is reached", stage.host(*reached)));
        let action = match stage.random.below(4) {
            0 => |_| Action::Delete,
            1 => Action::Create,
            _ => Action::Write,
        };
        let change = || action(stage.value());
        let asked = stage.ask_all(0, *writer, &keys, change, Duration::from_secs(4));
        // It may die before anybody has it, and after more have.
        let time = stage.millis(5, 2_600);
        stage.pass(time).await;
        stage.cluster.kill(*writer);
        for _ in 0..READS {
            for (client, reader) in (1..).zip(readers) {
                stage.read_all(client, *reader, &keys).await;
            }
        }
        for other in others {
            stage.set_cut(*writer, *other, false);
        }
        stage.cluster.launch(*writer);
        stage.wait(asked).await;
        let time = stage.millis(600, 1_200);
        stage.pass(time).await;
    }
}
