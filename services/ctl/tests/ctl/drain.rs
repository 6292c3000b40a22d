//! `holdfastctl drain-dataservers`, when all is well and when it must refuse.

use serde_json::{Value, json};

use crate::admin::{Admin, State, drain, id, member};
use crate::cluster::{Cluster, NAME};

/// A StatefulSet of five pods, and their data servers.
pub(crate) async fn five(replicas: usize) -> (Cluster, Admin) {
    let cluster = Cluster::start().await;
    cluster.scale(5);
    (cluster, Admin::start(replicas).await)
}

pub(crate) fn posts(ids: &[u64]) -> Vec<String> {
    ids.iter().map(|one| format!("POST /admin/dataservers/{}/drain", id(*one))).collect()
}

#[tokio::test]
async fn those_that_go_hand_over_and_retire() {
    for replicas in [3, 1] {
        let (cluster, admin) = five(replicas).await;
        let done = drain(&cluster, &admin, 3, "30s").await;
        assert_eq!(done.status, 0, "{done:?}");
        assert_eq!(admin.states(), ["active", "active", "active", "retired", "retired"]);
        assert_eq!(admin.changes(), posts(&[3, 4]), "all are told before the first is empty");
        for line in [
            format!("StatefulSet {NAME} has 5 replicas and keeps 3"),
            format!("{NAME}-4 ({}) drains", id(4)),
            format!("{NAME}-4 is empty and has retired"),
            "all data servers that go are empty and have retired".to_owned(),
        ] {
            assert!(done.said.contains(&line), "{line}: {}", done.said);
        }
        assert!(done.said.contains("copies held (4.0 GiB), backlog 0"), "{}", done.said);
        let again = drain(&cluster, &admin, 3, "30s").await;
        assert_eq!((again.status, admin.changes().len()), (0, 0), "{again:?}");
    }
}

#[tokio::test]
async fn nothing_is_asked_when_none_goes() {
    let (cluster, admin) = five(3).await;
    for keep in [5, 7] {
        let done = drain(&cluster, &admin, keep, "30s").await;
        assert_eq!(done.status, 0, "{done:?}");
        assert!(done.said.contains("has 5 replicas and keeps them"), "{}", done.said);
    }
    assert!(admin.state().log.is_empty());
}

#[tokio::test]
async fn without_a_statefulset_the_data_servers_tell() {
    let (cluster, admin) = five(3).await;
    cluster.state().statefulset = None;
    // Growing volumes took it away, and the upgrade failed then.
    let done = drain(&cluster, &admin, 4, "30s").await;
    assert_eq!((done.status, admin.changes()), (0, posts(&[4])), "{done:?}");
    // Nothing is installed yet.
    let nobody = Admin::start(3).await;
    nobody.state().mute = 0..usize::MAX;
    let done = drain(&cluster, &nobody, 3, "1s").await;
    assert_eq!(done.status, 0, "{done:?}");
    assert!(done.said.contains("no StatefulSet, and no api"), "{}", done.said);
}

#[tokio::test]
async fn what_has_begun_goes_on_and_others_are_left_alone() {
    let (cluster, admin) = five(3).await;
    {
        let mut state = admin.state();
        state.members[3]["state"] = "draining".into();
        state.members[4]["state"] = "retired".into();
        // Another pod that was scaled away before, and one of somebody else.
        let mut before = member(5);
        before["hearing"] = "silent".into();
        let mut stranger = member(8);
        stranger["address"] = "elsewhere-8.h.ns.svc.cluster.local:8081".into();
        state.members.extend([before, stranger]);
    }
    let done = drain(&cluster, &admin, 3, "30s").await;
    assert_eq!((done.status, admin.changes()), (0, posts(&[3])), "{done:?}");
    assert_eq!(admin.states()[3..], ["retired", "retired", "active", "active"]);
}

#[tokio::test]
async fn a_silent_one_is_given_up_if_others_have_what_it_holds() {
    let (cluster, admin) = five(2).await;
    admin.state().members[4]["hearing"] = "silent".into();
    let done = drain(&cluster, &admin, 4, "2s").await;
    assert_eq!((done.status, admin.changes()), (1, posts(&[4])), "{done:?}");
    assert!(done.said.contains("is draining, silent"), "{}", done.said);
    // The others have retired it.
    admin.state().members[4]["state"] = "retired".into();
    assert_eq!(drain(&cluster, &admin, 4, "30s").await.status, 0);
}

/// Tries to keep three, and gives what it says.
async fn refused(replicas: usize, spoil: impl Fn(&mut State), phrase: &str) {
    let (cluster, admin) = five(replicas).await;
    spoil(&mut admin.state());
    let done = drain(&cluster, &admin, 3, "1s").await;
    assert_eq!(done.status, 1, "{phrase}: {done:?}");
    assert!(done.complained.contains(phrase), "{phrase}: {}", done.complained);
    assert!(!done.complained.contains("curl"), "nothing is to be taken back: {}", done.complained);
    assert!(admin.changes().is_empty(), "{phrase}: nothing was changed");
}

#[tokio::test]
async fn what_could_not_end_is_refused_before_anything_changes() {
    let silent = |state: &mut State, ordinal: usize| {
        state.members[ordinal]["hearing"] = "silent".into();
        state.members[ordinal]["takes_data"] = false.into();
    };
    refused(4, |_| {}, "3 data servers would stay, and there are 4 copies of each object").await;
    refused(3, move |state| silent(state, 0), "2 of the 3 data servers that stay take data").await;
    refused(1, move |state| silent(state, 4), "is silent, and there is one copy").await;
    refused(3, |state| state.members[1]["free_bytes"] = 1.into(), "and has 1 bytes free").await;
    refused(3, |state| state.members[3]["bytes_held"] = u64::MAX.into(), "once the 16").await;
    refused(3, |state| state.members[3]["state"] = "joining".into(), "is joining: wait").await;
    let elsewhere = |state: &mut State| {
        for (at, member) in state.members.iter_mut().enumerate() {
            member["address"] = format!("10.0.0.{at}:8081").into();
        }
    };
    refused(3, elsewhere, "no data server is known under a name of StatefulSet").await;
}

#[tokio::test]
async fn answers_without_a_meaning_change_nothing() {
    for (status, body, phrase) in [
        (200, "<html>", "cannot be understood: "),
        (200, r#"{"cluster":null,"dataservers":[]}"#, "missing field `policy`"),
        (404, "", "refuses to list the data servers: 404"),
        (403, r#"{"code":"no","detail":"not\nyou"}"#, r"403 no: not\nyou"),
        (503, r#"{"code":"busy"}"#, "trying again: the api at"),
    ] {
        let (cluster, admin) = five(3).await;
        admin.state().answer = Some((status, body));
        let done = drain(&cluster, &admin, 3, "1s").await;
        assert_eq!(done.status, 1, "{body}: {done:?}");
        assert!(done.complained.contains(phrase), "{phrase}: {}", done.complained);
    }
    // One that has just started knows no cluster.
    let (cluster, admin) = five(3).await;
    admin.state().founded = false;
    let done = drain(&cluster, &admin, 3, "1s").await;
    assert!(done.complained.contains("does not know all data servers yet"), "{done:?}");
}

#[tokio::test]
async fn a_missing_right_is_named() {
    let (cluster, admin) = five(3).await;
    cluster.state().denied = Some(("get", "statefulsets"));
    let done = drain(&cluster, &admin, 3, "30s").await;
    assert_eq!(done.status, 1);
    let named = format!("may not get statefulsets, {NAME} in namespace ns; its Role or");
    assert!(done.complained.contains(&named), "{}", done.complained);
    assert!(admin.state().log.is_empty());
}

#[tokio::test]
async fn another_release_of_the_api_may_say_more() {
    let (cluster, admin) = five(3).await;
    admin.state().members[0]["news"] = json!({ "a": [1, 2] });
    admin.state().members[4]["zone"] = Value::from("b");
    assert_eq!(drain(&cluster, &admin, 3, "30s").await.status, 0);
}
