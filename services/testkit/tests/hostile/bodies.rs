//! Bodies that are cut, too long, or not what they say.

use std::time::Duration;

use holdfast_runtime::Runtime;
use holdfast_testkit::client;
use holdfast_testkit::wait;

use crate::{CLUSTER, MAX_OBJECT_BYTES, ask, both, connect, options, still_has, store};

/// Sends what is left of a PUT and closes the connection.
async fn cut(address: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
    let mut connection = connect(address).await;
    connection.send_head("PUT", path, headers).await.expect("sent");
    // A refusal may come before the last byte.
    let _ = connection.send(body).await;
}

#[tokio::test]
async fn a_body_that_is_cut_short_is_not_stored() {
    let mut guard = CLUSTER.lock(options()).await;
    let cluster = guard.as_mut().expect("started");
    let large = vec![b'x'; 1 << 20];
    let chunked = ("Transfer-Encoding", "chunked");
    let half = format!("100000\r\n{}", String::from_utf8_lossy(&large[..1 << 19]));
    let whole_chunk = format!("100000\r\n{}\r\n", String::from_utf8_lossy(&large));
    for address in both(cluster) {
        for (path, old) in [("/objects/cut-old", true), ("/objects/cut-new", false)] {
            if old {
                store(&address, path, b"old").await;
            }
            let length = [("Content-Length", "1048577")];
            cut(&address, path, &[("Content-Length", "10")], b"short").await;
            cut(&address, path, &length, b"").await;
            cut(&address, path, &length, &large).await;
            cut(&address, path, &[chunked], b"5\r\nshort\r\n").await;
            cut(&address, path, &[chunked], b"5\r\nsho").await;
            cut(&address, path, &[chunked], half.as_bytes()).await;
            cut(&address, path, &[chunked], whole_chunk.as_bytes()).await;
            cut(&address, path, &[chunked], b"zz\r\nno size\r\n0\r\n\r\n").await;
            cut(&address, path, &[chunked], b"ffffffffffffffffff\r\n").await;
            if old {
                still_has(&address, path, b"old").await;
            } else {
                assert_eq!(ask(&address, "GET", path, &[]).await.status, 404);
            }
        }
        // A sender that stands still is told.
        let mut connection = connect(&address).await;
        let headers = [("Content-Length", "10")];
        connection.send_head("PUT", "/objects/cut-old", &headers).await.expect("sent");
        connection.send(b"slow").await.expect("sent");
        let answer = connection.response("PUT").await;
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 408));
        still_has(&address, "/objects/cut-old", b"old").await;
    }
    let data_server = &cluster.data_servers[1];
    wait::until_true("nothing waits in staging", async || {
        data_server.metric("holdfast_staged_payloads", &[]).await == 0.0
    })
    .await;
    cluster.check_logs(&[]);
}

/// The later content has the later date, however long it took to come.
#[tokio::test]
async fn an_upload_that_ended_last_is_newer_by_its_date_too() {
    let mut guard = CLUSTER.lock(options()).await;
    let cluster = guard.as_mut().expect("started");
    for address in both(cluster) {
        let mut slow = connect(&address).await;
        let length = [("Content-Length", "10")];
        slow.send_head("PUT", "/objects/dated", &length).await.expect("sent");
        // Dates have seconds.
        for _ in 0..2 {
            slow.send(b"slow").await.expect("sent");
            Runtime::real().sleep(Duration::from_millis(1_100)).await;
        }
        store(&address, "/objects/dated", b"fast").await;
        let fast = ask(&address, "GET", "/objects/dated", &[]).await;
        let date = fast.header("last-modified").expect("it has one").to_owned();
        slow.send(b"l").await.expect("sent");
        Runtime::real().sleep(Duration::from_millis(1_100)).await;
        slow.send(b"y").await.expect("sent");
        assert_eq!(slow.response("PUT").await.expect("an answer").status, 200);
        let got = ask(&address, "GET", "/objects/dated", &[("If-Modified-Since", &date)]).await;
        assert_eq!((got.status, got.text().as_str()), (200, "slowslowly"));
        let kept = [("If-Unmodified-Since", date.as_str())];
        for method in ["PUT", "DELETE"] {
            assert_eq!(ask(&address, method, "/objects/dated", &kept).await.status, 412);
        }
        still_has(&address, "/objects/dated", b"slowslowly").await;
    }
    cluster.check_logs(&[]);
}

#[tokio::test]
async fn a_body_that_is_too_long_or_not_what_it_says_is_not_stored() {
    let mut guard = CLUSTER.lock(options()).await;
    let cluster = guard.as_mut().expect("started");
    for address in both(cluster) {
        store(&address, "/objects/kept", b"old").await;
        // Beyond Content-Length begins another request; it is none.
        let mut connection = connect(&address).await;
        connection
            .send_head("PUT", "/objects/long", &[("Content-Length", "5")])
            .await
            .expect("sent");
        connection.send(b"12345and more\r\n\r\n").await.expect("sent");
        assert_eq!(connection.response("PUT").await.expect("an answer").status, 200);
        let next = connection.response("GET").await;
        assert!(next.is_err() || next.is_ok_and(|answer| answer.status == 400));
        still_has(&address, "/objects/long", b"12345").await;
        // Two lengths, or a length and chunks: a way to smuggle requests.
        for headers in [
            [("Content-Length", "5"), ("Content-Length", "6")],
            [("Content-Length", "-1"), ("X", "x")],
            [("Content-Length", "18446744073709551616"), ("X", "x")],
            [("Transfer-Encoding", "gzip"), ("X", "x")],
        ] {
            let mut connection = connect(&address).await;
            connection.send_head("PUT", "/objects/kept", &headers).await.expect("sent");
            let _ = connection.send(b"123456").await;
            let answer = connection.response("PUT").await;
            assert!(
                answer.is_err() || answer.is_ok_and(|answer| answer.status == 400),
                "{headers:?}"
            );
        }
        for wrong in [
            ("Content-MD5", "1B2M2Y8AsgTpgAmY7PhCfg=="),
            ("Content-MD5", "nonsense"),
            ("Digest", "SHA-256=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
            ("Digest", "md5=1B2M2Y8AsgTpgAmY7PhCfg=="),
            ("Content-Digest", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"),
            ("Repr-Digest", "sha-512=:AA==:"),
        ] {
            for body in [b"new".to_vec(), vec![b'n'; 1 << 20]] {
                let answer =
                    client::request(&address, "PUT", "/objects/kept", &[wrong], &body).await;
                let answer = answer.expect("an answer");
                assert_eq!(answer.status, 400, "{wrong:?}");
                still_has(&address, "/objects/kept", b"old").await;
            }
        }
        // And the right ones are taken: MD5 and SHA-256 of "abc".
        let right = [
            ("Content-MD5", "kAFQmDzST7DWlj99KOF/cg=="),
            ("Digest", "SHA-256=ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="),
        ];
        let answer = client::request(&address, "PUT", "/objects/kept", &right, b"abc").await;
        assert_eq!(answer.expect("an answer").status, 200);
    }
    cluster.check_logs(&[]);
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_before_it_sends() {
    let mut guard = CLUSTER.lock(options()).await;
    let cluster = guard.as_mut().expect("started");
    let expect = ("Expect", "100-continue");
    for address in both(cluster) {
        let mut connection = connect(&address).await;
        let headers = [("Content-Length", "5"), expect];
        connection.send_head("PUT", "/objects/asked", &headers).await.expect("sent");
        assert_eq!(connection.head().await.expect("an answer").status, 100);
        connection.send(b"12345").await.expect("sent");
        assert_eq!(connection.response("PUT").await.expect("an answer").status, 200);
        still_has(&address, "/objects/asked", b"12345").await;
        let too_large = (MAX_OBJECT_BYTES + 1).to_string();
        let mut connection = connect(&address).await;
        let headers = [("Content-Length", too_large.as_str()), expect];
        connection.send_head("PUT", "/objects/asked", &headers).await.expect("sent");
        let answer = connection.head().await.expect("an answer before any body");
        assert_eq!(answer.status, 413);
        let mut connection = connect(&address).await;
        let headers = [("Content-Length", "5"), expect];
        connection.send_head("PUT", "/objects/%ZZ", &headers).await.expect("sent");
        assert_eq!(connection.head().await.expect("an answer before any body").status, 400);
        // Without a length the limit holds as well.
        let chunk = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
        let mut connection = connect(&address).await;
        let headers = [("Transfer-Encoding", "chunked")];
        connection.send_head("PUT", "/objects/asked", &headers).await.expect("sent");
        for _ in 0..=MAX_OBJECT_BYTES >> 20 {
            let _ = connection.send(chunk.as_bytes()).await;
        }
        let answer = connection.response("PUT").await;
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 413));
        still_has(&address, "/objects/asked", b"12345").await;
    }
    cluster.check_logs(&[]);
}
