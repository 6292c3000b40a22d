//! A disk is full, and another member drains: what belongs on the full one goes
//! elsewhere, and the drain ends. Once there is room, it goes home.

use std::time::Duration;

use holdfast_testkit::history::Action;

use super::lonely::without;
use super::stage::Stage;

const KEYS: u64 = 16;

/// How long a drain of so few objects may take.
const LIMIT: Duration = Duration::from_secs(90);

pub(super) async fn play(stage: &mut Stage<'_>) {
    let (apis, servers) = stage.places();
    let ([operated, reader, ..], [full, leaver, ..]) = (apis.as_slice(), servers.as_slice()) else {
        return;
    };
    let before = stage.keys(KEYS);
    stage.put_all(0, *operated, &before).await;
    let time = stage.millis(0, 2_000);
    stage.pass(time).await;
    stage.set_full(*full, true);
    // What it holds is overwritten and deleted while nothing finds room there, and
    // before everybody knows.
    let change = |stage: &Stage<'_>| match stage.random.percent(70) {
        true => Action::Write(stage.value()),
        false => Action::Delete,
    };
    let (changed, _) = before.split_at(before.len() / 2);
    let asked = stage.ask_all(0, *operated, changed, || change(stage), Duration::from_secs(12));
    stage.wait(asked).await;
    let during = stage.keys(KEYS);
    stage.put_all(0, *operated, &during).await;
    let left = stage.drain(*operated, *leaver).await;
    if !stage.until_retired(*operated, &left, LIMIT).await {
        stage.wrong("a drain does not end while the disk of another is full".to_owned());
    }
    // The others have what belongs on the full one.
    without(stage, *full, *reader, &before).await;
    without(stage, *full, *reader, &during).await;
    stage.set_full(*full, false);
}
