//! `holdfastctl load`.

use holdfast_testkit::process::{Service, fresh_directory};
use holdfast_testkit::wait;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::liar::{Liar, Lie};
use crate::support::{Done, ctl, end_beside, start};

fn summary(done: &Done) -> Value {
    let last = done.said.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {done:?}"))
}

async fn service() -> Service {
    let directory = fresh_directory("load");
    let mut service = Service::new("holdfast", "alone", &directory);
    service.set("STORAGE_ROOT", directory.join("volume").display().to_string());
    service.start();
    service.ready().await;
    service
}

#[tokio::test]
async fn a_real_service_answers_everything_until_it_is_killed() {
    let mut service = service().await;
    let api = format!("http://{}", service.address());
    for kept in ["--keep-alive", "--no-keep-alive"] {
        let arguments = ["load", "--api", &api, "--for", "1s", "--prefix", "a b/ä", "--json", kept];
        let done = ctl(&arguments, &[]).await;
        assert_eq!(done.status, 0, "{kept}: {done:?}\n{}", service.log());
        let seen = summary(&done);
        assert_eq!(seen["failed"], 0);
        for operation in ["put", "get", "delete", "get-deleted"] {
            assert!(seen["operations"][operation]["requests"].as_u64() > Some(0), "{seen}");
        }
    }
    let running = start(&["load", "--api", &api, "--for", "1h", "--json"], &[]);
    let requests = async || service.metric("holdfast_http_requests_total", &["PUT"]).await;
    let before = requests().await;
    wait::until_true("the load goes on", async || requests().await > before + 50.0).await;
    service.kill().await;
    service.start();
    service.ready().await;
    kill_process(Pid::from_child(&running), Signal::TERM).expect("a child of ours");
    let done = end_beside(running).await;
    assert_eq!(done.status, 1, "{done:?}");
    let seen = summary(&done);
    let failures = seen["failures"].as_object().expect("by kind");
    assert!(failures.contains_key("no connection"), "{seen}");
    assert!(done.complained.contains("cannot be reached"), "{}", done.complained);
}

#[tokio::test]
async fn it_ends_in_order_on_sigterm_and_leaves_nothing_behind() {
    let liar = Liar::start(Lie::None).await;
    let running = start(&["load", "--api", &liar.url(), "--for", "1h", "--clients", "3"], &[]);
    wait::until_true("the load goes on", async || liar.requests() > 300).await;
    kill_process(Pid::from_child(&running), Signal::TERM).expect("a child of ours");
    let done = wait::within("it ends", end_beside(running)).await;
    assert_eq!(done.status, 0, "{done:?}");
    assert_eq!(liar.objects(), 0);
    let counted = format!("{} requests in ", liar.requests());
    assert!(done.said.starts_with(&counted) && done.said.contains(", 0 failed"), "{}", done.said);
    assert!(done.said.contains("\n  GET after DELETE: "), "{}", done.said);
}

#[tokio::test]
async fn every_wrong_answer_is_counted_and_nothing_is_tried_again() {
    for (lie, kind) in [
        (Lie::Flips, "wrong bytes"),
        (Lie::Cuts, "wrong bytes"),
        (Lie::Forgets, "404 not-found"),
        (Lie::KeepsDeleted, "200"),
        (Lie::Fails, "500 internal"),
        (Lie::HangsUp, "connection broke"),
        (Lie::StartsLate, "503 no-data-servers"),
    ] {
        let liar = Liar::start(lie).await;
        let arguments =
            ["load", "--api", &liar.url(), "--for", "200ms", "--clients", "1", "--json"];
        let done = ctl(&arguments, &[]).await;
        assert_eq!(done.status, 1, "{lie:?}: {done:?}");
        let seen = summary(&done);
        let requests = liar.requests();
        assert_eq!(seen["requests"].as_u64(), u64::try_from(requests).ok(), "{lie:?}: {seen}");
        assert_eq!(seen["failures"][kind], seen["failed"], "{lie:?}: {seen}");
        match lie {
            Lie::Fails | Lie::HangsUp => assert_eq!(seen["failed"], requests / 5, "{lie:?}"),
            Lie::StartsLate => assert_eq!(seen["failed"], 3),
            _ => assert!(seen["failed"].as_u64() > Some(0), "{lie:?}"),
        }
    }
}

#[tokio::test]
async fn a_load_without_requests_proves_nothing() {
    let liar = Liar::start(Lie::None).await;
    let arguments = ["load", "--api", &liar.url(), "--for", "0s"];
    let done = wait::within("it ends", ctl(&arguments, &[])).await;
    // Whether a client came to its first request is a matter of luck.
    assert_eq!(done.status == 0, liar.requests() > 0, "{done:?}");
}

#[tokio::test]
async fn clients_keep_connections_or_open_one_for_each_request() {
    for (option, kept) in [("--keep-alive", true), ("--no-keep-alive", false)] {
        let liar = Liar::start(Lie::None).await;
        let url = liar.url();
        let arguments = ["load", "--api", &url, "--for", "200ms", "--clients", "2", option];
        let done = ctl(&arguments, &[]).await;
        assert_eq!(done.status, 0, "{done:?}");
        let (connections, requests) = (liar.connections(), liar.requests());
        if kept {
            assert!(connections * 3 < requests, "{connections} for {requests}");
        } else {
            assert_eq!(connections, requests);
        }
    }
}

#[tokio::test]
async fn what_is_allowed_is_counted_and_no_failure() {
    for (lie, expected) in [(Lie::StartsLate, 0), (Lie::Fails, 1)] {
        let liar = Liar::start(lie).await;
        let url = liar.url();
        let arguments = ["load", "--api", &url, "--for", "200ms", "--clients", "1", "--json"];
        let allow = ["--allow", "incomplete", "--allow", "no-data-servers"];
        let done = ctl(&[arguments.as_slice(), &allow].concat(), &[]).await;
        assert_eq!(done.status, expected, "{done:?}");
        let seen = summary(&done);
        let allowed = seen["allowed"]["503 no-data-servers"].as_u64();
        assert_eq!(allowed, (lie == Lie::StartsLate).then_some(3), "{seen}");
    }
}
