//! `holdfastctl drain-dataservers`, when it is cut off or others meddle.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::admin::{drain, drain_begins, id};
use crate::cluster::NAME;
use crate::drain::{five, posts};
use crate::support::end_beside;

#[tokio::test]
async fn cut_off_after_any_request_it_can_be_run_again() {
    let (cluster, whole) = five(3).await;
    assert_eq!(drain(&cluster, &whole, 3, "30s").await.status, 0);
    let requests = whole.state().log.len();
    assert!(requests >= 5, "{:?}", whole.state().log);
    let cuts = (0..requests).map(|from| tokio::spawn(cut_off_after(from)));
    for cut in cuts.collect::<Vec<_>>() {
        cut.await.expect("it could be run again");
    }
}

async fn cut_off_after(from: usize) {
    let (cluster, admin) = five(3).await;
    admin.state().mute = from..usize::MAX;
    let done = drain(&cluster, &admin, 3, "4s").await;
    assert_eq!(done.status, 1, "cut off after {from}: {done:?}");
    // Once one was told, how to go on is told, too.
    let begun = admin.states().iter().filter(|state| *state == "draining").count();
    assert!(begun == 0 || done.complained.contains("curl -X DELETE"), "{done:?}");
    admin.state().mute = 0..0;
    let again = drain(&cluster, &admin, 3, "30s").await;
    assert_eq!(again.status, 0, "cut off after {from}: {again:?}");
    let expected = ["active", "active", "active", "retired", "retired"];
    assert_eq!(admin.states(), expected, "cut off after {from}");
}

#[tokio::test]
async fn an_api_that_is_away_for_a_moment_is_asked_again() {
    for mute in [0..2, 1..2, 3..5] {
        let (cluster, admin) = five(3).await;
        admin.state().mute = mute.clone();
        let done = drain(&cluster, &admin, 3, "30s").await;
        assert_eq!(done.status, 0, "{mute:?}: {done:?}");
        assert!(done.complained.contains("trying again: the api at"), "{}", done.complained);
    }
}

#[tokio::test]
async fn kubernetes_that_is_away_for_a_moment_is_asked_again() {
    let (cluster, admin) = five(3).await;
    cluster.state().mute = 0..2;
    let done = drain(&cluster, &admin, 3, "30s").await;
    assert_eq!(done.status, 0, "{done:?}");
    assert_eq!(done.complained.matches("trying again: the API server").count(), 2);
}

#[tokio::test]
async fn a_drain_that_too_few_know_of_is_asked_for_again() {
    let (cluster, admin) = five(3).await;
    {
        let mut state = admin.state();
        state.uncounted = 3;
        state.pace = 10;
    }
    let done = drain(&cluster, &admin, 3, "30s").await;
    assert_eq!(done.status, 0, "{done:?}");
    assert_eq!(admin.changes().len(), 5, "two drains, three of them told to too few");
    assert!(done.complained.contains("503 not-counted-yet: 1 of the 3"), "{}", done.complained);
}

#[tokio::test]
async fn one_that_is_started_again_too_early_is_drained_again() {
    let (cluster, admin) = five(3).await;
    admin.state().reborn = true;
    let done = drain(&cluster, &admin, 4, "30s").await;
    assert_eq!((done.status, admin.changes()), (0, posts(&[4, 77])), "{done:?}");
    assert_eq!(admin.states()[4..], ["retired", "retired"]);
}

#[tokio::test]
async fn an_api_that_forgets_is_not_believed() {
    let (cluster, admin) = five(3).await;
    admin.state().pace = 0;
    let child = drain_begins(&cluster, &admin, 3);
    wait_for_posts(&admin, 2).await;
    let members = std::mem::take(&mut admin.state().members);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    {
        let mut state = admin.state();
        state.members = members;
        state.pace = 100;
    }
    let done = end_beside(child).await;
    assert_eq!(done.status, 0, "{done:?}");
    assert!(done.complained.contains("does not know all data servers yet"), "{done:?}");
    assert_eq!(admin.states()[3..], ["retired", "retired"]);
}

async fn wait_for_posts(admin: &crate::admin::Admin, count: usize) {
    let posted = || admin.state().log.iter().filter(|line| line.starts_with("POST")).count();
    while posted() < count {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn tells_how_to_go_on(complained: &str, url: &str) {
    for line in [
        format!("{NAME}-3 ({}) may still drain", id(3)),
        "To go on, run the same upgrade again".to_owned(),
        format!("curl -X DELETE {url}/admin/dataservers/{}/drain", id(4)),
    ] {
        assert!(complained.contains(&line), "{line}: {complained}");
    }
}

#[tokio::test]
async fn a_signal_ends_it_and_what_follows_is_told() {
    let (cluster, admin) = five(3).await;
    admin.state().pace = 0;
    let child = drain_begins(&cluster, &admin, 3);
    wait_for_posts(&admin, 2).await;
    // So that its answer has come, too.
    tokio::time::sleep(Duration::from_millis(700)).await;
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("small")).expect("not zero");
    kill_process(pid, Signal::TERM).expect("it runs");
    let done = end_beside(child).await;
    assert_eq!(done.status, 1, "{done:?}");
    assert!(done.complained.contains("ended by a signal"), "{}", done.complained);
    tells_how_to_go_on(&done.complained, &admin.url());
    assert_eq!(admin.states()[3..], ["draining", "draining"], "nothing is taken back");
}

#[tokio::test]
async fn when_the_time_is_over_what_follows_is_told() {
    let (cluster, admin) = five(3).await;
    admin.state().pace = 0;
    let done = drain(&cluster, &admin, 3, "1500ms").await;
    assert_eq!(done.status, 1, "{done:?}");
    assert!(done.complained.contains("not all were empty within 1.5s"), "{}", done.complained);
    tells_how_to_go_on(&done.complained, &admin.url());
}
