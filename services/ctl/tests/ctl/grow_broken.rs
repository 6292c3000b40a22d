//! `holdfastctl grow-volumes`, when it is cut off or others meddle.

use crate::cluster::{Cluster, NAME, State};
use crate::support::ctl_now;

#[tokio::test]
async fn cut_off_after_any_request_it_can_be_run_again() {
    let whole = Cluster::start().await;
    assert_eq!(whole.grow("20Gi", "30s").await.status, 0);
    let requests = whole.state().log.len();
    assert!(requests > 10, "{:?}", whole.state().log);
    for from in 0..requests {
        let cluster = Cluster::start().await;
        cluster.state().mute = from..usize::MAX;
        let done = cluster.grow("20Gi", "0s").await;
        assert_eq!(done.status, 1, "cut off after {from}: {done:?}");
        assert!(done.complained.contains("cannot be asked"), "{}", done.complained);
        cluster.state().mute = 0..0;
        let again = cluster.grow("20Gi", "30s").await;
        assert_eq!(again.status, 0, "cut off after {from}: {again:?}");
        assert_eq!(cluster.sizes(), ["20Gi"; 3], "cut off after {from}");
        let mut state = cluster.state();
        assert!(state.statefulset.is_none(), "cut off after {from}");
        assert_eq!((state.pods, state.claims.len()), (3, 5), "cut off after {from}");
        assert!(state.log.iter().filter(|line| line.starts_with("patch")).count() <= 4);
        state.make_statefulset("20Gi");
    }
}

#[tokio::test]
async fn an_api_server_that_is_away_for_a_moment_is_asked_again() {
    let cluster = Cluster::start().await;
    cluster.state().mute = 3..6;
    let done = cluster.grow("20Gi", "30s").await;
    assert_eq!(done.status, 0, "{done:?}");
    assert_eq!(done.complained.matches("trying again: ").count(), 3, "{}", done.complained);
    assert_eq!(cluster.sizes(), ["20Gi"; 3]);
}

const PATCH_0: &str = "patch data-store-dataserver-0";
const DELETE: &str = "delete store-dataserver";

/// Runs it beside somebody who does something right before a request.
async fn beside(before: &'static str, meddle: fn(&mut State)) -> Cluster {
    let cluster = Cluster::start().await;
    cluster.state().meddler = Some((before, meddle));
    let done = cluster.grow("20Gi", "30s").await;
    assert_eq!(done.status, 0, "{done:?}");
    assert!(cluster.state().meddler.is_none(), "it came to that");
    cluster
}

#[tokio::test]
async fn a_claim_that_somebody_else_changes_is_looked_at_again() {
    let cluster = beside(PATCH_0, |state| {
        state.add_claim(&format!("data-{NAME}-0"), "40Gi");
    })
    .await;
    assert_eq!(cluster.sizes(), ["40Gi", "20Gi", "20Gi"], "it did not shrink");
}

#[tokio::test]
async fn a_statefulset_that_somebody_else_makes_anew_is_not_deleted_by_mistake() {
    // With the new size: it is what was wanted.
    let cluster = beside(DELETE, |state| state.make_statefulset("20Gi")).await;
    assert!(cluster.state().statefulset.is_some());
    // With the old one: it is replaced as well.
    let cluster = beside(DELETE, |state| state.make_statefulset("10Gi")).await;
    assert!(cluster.state().statefulset.is_none());
    assert_eq!(cluster.state().pods, 3);
}

#[tokio::test]
async fn a_claim_that_is_made_meanwhile_grows_too() {
    let cluster = beside(DELETE, |state| state.add_claim(&format!("data-{NAME}-3"), "10Gi")).await;
    assert_eq!(cluster.sizes(), ["20Gi"; 4]);
}

#[tokio::test]
async fn a_token_that_is_replaced_is_read_again() {
    let cluster = Cluster::start().await;
    cluster.state().token = "second".to_owned();
    let done = cluster.grow("20Gi", "30s").await;
    assert_eq!(done.status, 1);
    assert!(done.complained.contains("401 Unauthorized"), "{}", done.complained);
    std::fs::write(cluster.directory.join("token"), "second").expect("ours");
    assert_eq!(cluster.grow("20Gi", "30s").await.status, 0);
}

#[tokio::test]
async fn when_one_of_several_claims_fails_the_statefulset_stays() {
    let cluster = Cluster::start().await;
    cluster.state().quota = Some("data-store-dataserver-1");
    let done = cluster.grow("20Gi", "30s").await;
    assert_eq!(done.status, 1);
    assert!(done.complained.contains("403 Forbidden exceeded quota"), "{}", done.complained);
    assert_eq!(cluster.sizes(), ["20Gi", "10Gi", "10Gi"]);
    assert!(cluster.state().statefulset.is_some());
    // Back to the size of before, as a rollback asks: nothing is in the way.
    cluster.changes();
    let back = cluster.grow("10Gi", "30s").await;
    assert_eq!((back.status, cluster.changes().len()), (0, 0), "{back:?}");
    cluster.state().quota = None;
    assert_eq!(cluster.grow("20Gi", "30s").await.status, 0);
    assert_eq!(cluster.sizes(), ["20Gi"; 3]);
}

#[tokio::test]
async fn a_statefulset_that_does_not_go_away_is_told() {
    let cluster = Cluster::start().await;
    cluster.state().lingers = 1_000;
    let done = cluster.grow("20Gi", "300ms").await;
    assert_eq!(done.status, 1);
    assert!(done.complained.contains("is still there after 300ms"), "{}", done.complained);
    cluster.state().lingers = 0;
    cluster.changes();
    assert_eq!(cluster.grow("20Gi", "30s").await.status, 0);
    assert!(cluster.changes().is_empty(), "it waits, and deletes nothing twice");
}

#[tokio::test]
async fn another_authority_is_not_trusted() {
    let cluster = Cluster::start().await;
    let ours = cluster.directory.join("ca.crt");
    // Any authority but the right one.
    let system = std::fs::read_to_string("/etc/ssl/certs/ca-certificates.crt");
    std::fs::write(&ours, system.expect("the package ca-certificates")).expect("ours");
    let done = cluster.grow("20Gi", "0s").await;
    assert_eq!(done.status, 1);
    assert!(done.complained.contains("invalid peer certificate"), "{}", done.complained);
    assert!(cluster.state().log.is_empty());
    std::fs::write(&ours, "no certificate").expect("ours");
    let done = cluster.grow("20Gi", "30s").await;
    assert!(done.complained.contains("there is no certificate in it"), "{}", done.complained);
}

#[test]
fn outside_of_a_cluster_it_says_so() {
    let arguments = ["grow-volumes", "--statefulset", NAME, "--claim", "data", "--size", "1Gi"];
    let done = ctl_now(&arguments, &[]);
    assert_eq!(done.status, 1);
    assert!(done.complained.contains("KUBERNETES_SERVICE_HOST is not set"), "{}", done.complained);
    let variables = [("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", "1")];
    let done = ctl_now(&arguments, &variables);
    assert_eq!(done.status, 1);
    assert!(done.complained.contains("does the pod mount the token"), "{}", done.complained);
}
