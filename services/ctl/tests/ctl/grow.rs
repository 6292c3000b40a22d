//! `holdfastctl grow-volumes`, when all is well and when it must refuse.

use crate::cluster::{Cluster, NAME, State};

#[tokio::test]
async fn claims_grow_and_the_statefulset_is_replaced_without_its_pods() {
    let cluster = Cluster::start().await;
    {
        let mut state = cluster.state();
        state.lingers = 2;
        // One of a pod that was scaled away, and one that is not made yet.
        state.add_claim(&format!("data-{NAME}-11"), "10Gi");
        state.claims.remove(&format!("data-{NAME}-2"));
    }
    let done = cluster.grow("20Gi", "30s").await;
    assert_eq!(done.status, 0, "{done:?}");
    assert_eq!(cluster.sizes(), ["20Gi"; 3]);
    let claims = [0, 1, 11].map(|ordinal| format!("patch data-{NAME}-{ordinal}"));
    assert_eq!(cluster.changes(), [claims.as_slice(), &[format!("delete {NAME}")]].concat());
    {
        let mut state = cluster.state();
        assert!(state.statefulset.is_none(), "it is gone before the upgrade goes on");
        assert_eq!(state.pods, 3);
        state.make_statefulset("20Gi");
    }
    let again = cluster.grow("20480Mi", "30s").await;
    assert_eq!((again.status, cluster.changes().len()), (0, 0), "{again:?}");
}

#[tokio::test]
async fn nothing_is_done_when_there_is_nothing_to_do() {
    let cluster = Cluster::start().await;
    for size in ["10Gi", "10240Mi", "10737418240"] {
        let done = cluster.grow(size, "30s").await;
        assert_eq!((done.status, cluster.changes().len()), (0, 0), "{done:?}");
    }
    cluster.state().claims.clear();
    cluster.state().statefulset = None;
    let done = cluster.grow("20Gi", "30s").await;
    assert_eq!((done.status, cluster.changes().len()), (0, 0), "{done:?}");
    assert!(done.said.contains("there is no StatefulSet"), "{}", done.said);
}

#[tokio::test]
async fn only_what_is_missing_is_done() {
    let cluster = Cluster::start().await;
    // Somebody let one grow by hand, and further than is asked for.
    let name = format!("data-{NAME}-1");
    cluster.state().claims.get_mut(&name).expect("it is there")["spec"]["resources"]["requests"]
        ["storage"] = "30Gi".into();
    cluster.state().make_statefulset("20Gi");
    let done = cluster.grow("20Gi", "30s").await;
    assert_eq!(done.status, 0, "{done:?}");
    assert_eq!(cluster.sizes(), ["20Gi", "30Gi", "20Gi"]);
    assert_eq!(cluster.changes().len(), 2, "the StatefulSet asks for it already");
    assert!(done.said.contains(&format!("{name} asks for more and stays so")), "{}", done.said);
}

/// Sets the cluster up, expects a refusal with these words and no change.
async fn refused(size: &str, prepare: impl FnOnce(&mut State), words: &[&str]) {
    let cluster = Cluster::start().await;
    prepare(&mut cluster.state());
    let before = cluster.sizes();
    let done = cluster.grow(size, "30s").await;
    assert_eq!(done.status, 1, "{done:?}");
    for word in words {
        assert!(done.complained.contains(word), "{word}: {}", done.complained);
    }
    assert_eq!(cluster.sizes(), before);
    assert!(cluster.changes().is_empty());
    assert!(cluster.state().statefulset.is_some());
}

#[tokio::test]
async fn what_cannot_work_is_refused_before_anything_is_changed() {
    refused("5Gi", |_| {}, &["asks for 10Gi already", "cannot shrink to 5Gi"]).await;
    let classes = |class: &str, expands| (class.to_owned(), expands);
    for expands in [Some(false), None] {
        let fixed = |state: &mut State| {
            state.classes.extend([classes("fixed", expands)]);
            set(state, 2, "storageClassName", "fixed");
        };
        refused("20Gi", fixed, &["StorageClass fixed", "-2 does not have allowVolumeExpansion"])
            .await;
    }
    let gone = |state: &mut State| set(state, 2, "storageClassName", "lost");
    refused("20Gi", gone, &["StorageClass lost", "does not exist any more"]).await;
    let by_hand = |state: &mut State| set(state, 1, "storageClassName", "");
    refused("20Gi", by_hand, &[&format!("claim data-{NAME}-1 has no storage class")]).await;
    let pending = |state: &mut State| {
        claim(state, 2)["status"]["phase"] = "Pending".into();
    };
    refused("20Gi", pending, &[&format!("claim data-{NAME}-2 is Pending")]).await;
    let other = |state: &mut State| {
        let found = state.statefulset.as_mut().expect("it is there");
        found["spec"]["volumeClaimTemplates"][1]["metadata"]["name"] = "objects".into();
    };
    refused("20Gi", other, &["has no claim template named data"]).await;
}

fn claim(state: &mut State, ordinal: usize) -> &mut serde_json::Value {
    state.claims.get_mut(&format!("data-{NAME}-{ordinal}")).expect("it is there")
}

fn set(state: &mut State, ordinal: usize, field: &str, value: &str) {
    claim(state, ordinal)["spec"][field] = value.into();
}

#[tokio::test]
async fn a_right_that_is_missing_is_named() {
    for (verb, resource, which) in [
        ("get", "statefulsets", format!(", {NAME} in namespace ns")),
        ("list", "persistentvolumeclaims", " in namespace ns".to_owned()),
        ("get", "storageclasses", ", fast".to_owned()),
    ] {
        let named = format!("the service account may not {verb} {resource}{which}; its Role or");
        refused("20Gi", |state| state.denied = Some((verb, resource)), &[&named]).await;
    }
    for (verb, resource, which) in [
        ("patch", "persistentvolumeclaims", format!("data-{NAME}-0")),
        ("delete", "statefulsets", NAME.to_owned()),
    ] {
        let cluster = Cluster::start().await;
        cluster.state().denied = Some((verb, resource));
        let done = cluster.grow("20Gi", "30s").await;
        let named = format!("may not {verb} {resource}, {which} in namespace ns; its Role or");
        assert_eq!(done.status, 1);
        assert!(done.complained.contains(&named), "{}", done.complained);
        cluster.state().denied = None;
        assert_eq!(cluster.grow("20Gi", "30s").await.status, 0);
        assert_eq!(cluster.sizes(), ["20Gi"; 3]);
    }
}
