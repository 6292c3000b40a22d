//! Ranges, heads, conditions, and readers that do not read.

use std::time::Duration;

use holdfast_testkit::client::{self, Response};
use holdfast_testkit::wait;

use crate::{CLUSTER, MAX_OBJECT_BYTES, ask, both, connect, options, still_has, store};

#[tokio::test]
async fn ranges_heads_and_conditions() {
    let mut guard = CLUSTER.lock(options()).await;
    let cluster = guard.as_mut().expect("started");
    let headers = [("Content-Type", "text/x-test")];
    let path = "/objects/ranged";
    for address in both(cluster) {
        let stored = client::request(&address, "PUT", path, &headers, b"0123456789").await;
        let etag = stored.expect("an answer").header("etag").expect("strong").to_owned();
        let get = ask(&address, "GET", path, &[]).await;
        let head = ask(&address, "HEAD", path, &[]).await;
        let same = |response: &Response| {
            let own = |name: &str| !["date", "x-request-id"].contains(&name);
            let mut headers: Vec<_> =
                response.headers.iter().filter(|(name, _)| own(name)).cloned().collect();
            headers.sort();
            (response.status, headers)
        };
        assert_eq!(same(&get), same(&head));
        assert_eq!(get.header("content-type"), Some("text/x-test"));
        assert_eq!(get.header("etag"), Some(etag.as_str()));
        let modified = get.header("last-modified").expect("set").to_owned();
        for (range, status, body, content_range) in [
            ("bytes=0-3", 206, "0123", Some("bytes 0-3/10")),
            ("bytes=7-", 206, "789", Some("bytes 7-9/10")),
            ("bytes=-2", 206, "89", Some("bytes 8-9/10")),
            ("bytes=0-99", 206, "0123456789", Some("bytes 0-9/10")),
            ("bytes=10-", 416, "", Some("bytes */10")),
            ("bytes=-0", 416, "", Some("bytes */10")),
            ("bytes=0-1,3-4", 200, "0123456789", None),
            ("bytes=5-4", 200, "0123456789", None),
            ("lines=0-1", 200, "0123456789", None),
        ] {
            let answer = ask(&address, "GET", path, &[("Range", range)]).await;
            assert_eq!(
                (answer.status, answer.header("content-range")),
                (status, content_range),
                "{range}"
            );
            if status != 416 {
                assert_eq!(answer.text(), body, "{range}");
            }
        }
        for (condition, status) in [
            (("If-None-Match", etag.as_str()), 304),
            (("If-None-Match", "\"other\""), 200),
            (("If-Match", etag.as_str()), 200),
            (("If-Match", "\"other\""), 412),
            (("If-Modified-Since", modified.as_str()), 304),
            (("If-Unmodified-Since", "Sun, 06 Nov 1994 08:49:37 GMT"), 412),
        ] {
            for method in ["GET", "HEAD"] {
                let answer = ask(&address, method, path, &[condition]).await;
                assert_eq!(answer.status, status, "{method} {condition:?}");
            }
        }
        for condition in [
            ("If-Match", "\"other\""),
            ("If-Match", "nonsense"),
            ("If-None-Match", "*"),
            ("If-None-Match", etag.as_str()),
            ("If-Unmodified-Since", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ] {
            for method in ["PUT", "DELETE"] {
                let answer = ask(&address, method, path, &[condition]).await;
                let found = (answer.status, answer.code());
                assert_eq!(
                    found,
                    (412, "precondition-failed".to_owned()),
                    "{method} {condition:?}"
                );
            }
        }
        still_has(&address, path, b"0123456789").await;
    }
    cluster.check_logs(&[]);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_let_go() {
    let mut guard = CLUSTER.lock(options()).await;
    let cluster = guard.as_mut().expect("started");
    let large = vec![b'x'; MAX_OBJECT_BYTES];
    store(cluster.api(0), "/objects/unread", &large).await;
    let api = &cluster.apis[0];
    // Idle connections between the services are part of what is there before.
    still_has(api.address(), "/objects/unread", &large).await;
    let mut readers = Vec::new();
    for _ in 0..20 {
        let mut reader = connect(api.address()).await;
        reader.send_head("GET", "/objects/unread", &[]).await.expect("sent");
        readers.push(reader);
    }
    let in_flight = async || api.metric("holdfast_http_requests_in_flight", &[]).await;
    wait::until_true("they wait", async || in_flight().await >= 20.0).await;
    wait::until_true("they are let go", async || in_flight().await == 0.0).await;
    wait::while_true(Duration::from_millis(200), "and stay so", async || in_flight().await == 0.0)
        .await;
    drop(readers);
    cluster.check_logs(&[]);
}
