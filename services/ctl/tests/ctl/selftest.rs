//! `holdfastctl selftest`.

use holdfast_testkit::process::{Service, fresh_directory};

use crate::liar::{Liar, Lie};
use crate::support::{answer, ctl, end_beside, serve, start};

#[tokio::test]
async fn a_real_service_passes_also_when_it_starts_late() {
    let directory = fresh_directory("selftest");
    let mut service = Service::new("holdfast", "alone", &directory);
    service.set("STORAGE_ROOT", directory.join("volume").display().to_string());
    let (api, admin) =
        (format!("http://{}", service.address()), format!("http://{}", service.admin()));
    let running = start(&["selftest", "--api", &api, "--admin", &admin], &[]);
    service.start();
    let done = end_beside(running).await;
    assert_eq!(done.status, 0, "{}{}\n{}", done.said, done.complained, service.log());
    for step in ["PUT", "GET", "DELETE"] {
        let begin = format!("ok    {step} {api}/objects/");
        assert!(done.said.lines().filter(|line| line.starts_with(&begin)).count() >= 2, "{step}");
    }
    for page in ["readyz", "metrics"] {
        assert!(done.said.contains(&format!("ok    GET {admin}/{page}")), "{}", done.said);
    }
    assert!(done.said.ends_with("selftest passed\n"), "{}", done.said);
}

#[tokio::test]
async fn a_service_that_lies_fails_at_once() {
    for (lie, expected) in [
        (Lie::Flips, "1000 bytes instead of 1000, wrong from byte 0 on"),
        (Lie::Cuts, "999 bytes instead of 1000, wrong from byte 999 on"),
        (Lie::Forgets, "answered 404 not-found instead of 200"),
        (Lie::KeepsDeleted, "answered 200 instead of 404"),
        (Lie::ShiftsRange, "800 bytes instead of 800, wrong from byte"),
        (Lie::Fails, "answered 500 internal instead of"),
    ] {
        let liar = Liar::start(lie).await;
        let done = ctl(&["selftest", "--api", &liar.url(), "--timeout", "10m"], &[]).await;
        assert_eq!(done.status, 1, "{lie:?}: {}", done.said);
        assert!(done.complained.contains(expected), "{lie:?}: {}", done.complained);
        assert!(lie == Lie::KeepsDeleted || liar.objects() == 0, "{lie:?} is left with objects");
    }
}

#[tokio::test]
async fn what_passes_is_tried_again_until_the_timeout() {
    for lie in [Lie::None, Lie::StartsLate, Lie::HangsUp] {
        let liar = Liar::start(lie).await;
        let done = ctl(&["selftest", "--api", &liar.url()], &[]).await;
        assert_eq!(done.status, 0, "{lie:?}: {}", done.complained);
        assert_eq!(done.complained.contains("again "), lie != Lie::None, "{}", done.complained);
        assert_eq!(liar.objects(), 0);
    }
    let nobody = ["selftest", "--api", "http://127.0.0.1:1", "--timeout", "400ms"];
    let done = ctl(&nobody, &[]).await;
    assert_eq!(done.status, 1);
    assert!(done.complained.contains("127.0.0.1:1 cannot be reached"), "{}", done.complained);
}

#[tokio::test]
async fn an_admin_port_must_be_ready_and_have_our_metrics() {
    let liar = Liar::start(Lie::None).await;
    let build = "# TYPE holdfast_build_info gauge\nholdfast_build_info{version=\"1\"} 1\n";
    for (ready, metrics, expected) in [
        (200, build, None),
        (503, build, Some("/readyz: answered 503 instead of 200")),
        (200, "up 1\n", Some("/metrics: these are not the metrics of a Holdfast service")),
    ] {
        let admin = serve(None, move |request| match request.uri().path() {
            "/readyz" => answer(ready, "no roster is known yet"),
            _ => answer(200, metrics),
        });
        let admin = format!("http://{}", admin.await.address);
        let arguments = ["selftest", "--api", &liar.url(), "--admin", &admin, "--timeout", "300ms"];
        let done = ctl(&arguments, &[]).await;
        assert_eq!(done.status, i32::from(expected.is_some()), "{}", done.complained);
        assert!(done.complained.contains(expected.unwrap_or_default()), "{}", done.complained);
    }
}
