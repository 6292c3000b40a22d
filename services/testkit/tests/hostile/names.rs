//! Names, methods and heads of requests.

use holdfast_testkit::client;
use holdfast_testkit::wait;

use crate::{CLUSTER, ask, both, connect, options, still_has, store};

/// Every byte escaped: no client or proxy can take it for a path.
fn escape(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn every_name_comes_back() {
    let mut guard = CLUSTER.lock(options()).await;
    let cluster = guard.as_mut().expect("started");
    // One of each general category that has characters, and what has bitten
    // others: controls, surrogate neighbours, the last code point, marks that
    // normalisation would join, and names that look like paths.
    let longest = "n".repeat(1_024);
    let longest_wide = "界".repeat(341);
    let names = [
        "A",
        "a",
        "ǅ",
        "ʰ",
        "א",
        "\u{301}",
        "\u{903}",
        "\u{20dd}",
        "٣",
        "Ⅷ",
        "½",
        "‿",
        "–",
        "(",
        ")",
        "«",
        "»",
        "!",
        "+",
        "€",
        "^",
        "©",
        " ",
        "\u{2028}",
        "\u{2029}",
        "\u{1}",
        "\u{7f}",
        "\u{85}",
        "\u{200d}",
        "\u{feff}",
        "\u{e000}",
        "\u{d7ff}",
        "\u{ffff}",
        "\u{10ffff}",
        "\u{e9}",
        "e\u{301}",
        "\u{c5}",
        "\u{212b}",
        "😀",
        "👩‍👩‍👧",
        "\0",
        "a\0b",
        ".",
        "..",
        "../../etc/passwd",
        "/",
        "//",
        "a/",
        "a//b",
        "/a",
        "a/../b",
        "a/./b",
        "%",
        "%2F",
        "%00",
        "a?b",
        "a#b",
        "a b",
        "a+b",
        "\\",
        "\"",
        "'",
        "\r\n",
        "\t",
        "*",
        "~",
        "CON",
        "nul.txt",
        "-rf",
        "a=b&c",
        &longest,
        &longest_wide,
    ];
    for (index, name) in names.iter().enumerate() {
        let path = format!("/objects/{}", escape(name));
        store(cluster.api(0), &path, format!("content {index}").as_bytes()).await;
    }
    for (index, name) in names.iter().enumerate() {
        let path = format!("/objects/{}", escape(name));
        for address in both(cluster) {
            still_has(&address, &path, format!("content {index}").as_bytes()).await;
        }
    }
    // As they are where a request line may have them: never normalised.
    for (raw, index) in [("..", 43), ("a/../b", 50), ("a/", 47), ("//", 46), ("/", 45)] {
        let index = names.iter().position(|name| *name == raw).unwrap_or(index);
        let path = format!("/objects/{raw}");
        still_has(cluster.api(0), &path, format!("content {index}").as_bytes()).await;
    }
    // They are listed as they are, each page beginning after a name as it is
    // written in a path.
    let mut expected = names.map(str::to_owned);
    expected.sort_unstable();
    for address in both(cluster) {
        let (mut listed, mut path) = (Vec::new(), "/objects/?limit=5".to_owned());
        loop {
            let answer = client::get(&address, &path).await.expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.text());
            let page = answer.json();
            let objects = page["objects"].as_array().expect("a list");
            let found =
                objects.iter().map(|object| object["name"].as_str().expect("text").to_owned());
            listed.extend(found.filter(|name| names.contains(&name.as_str())));
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/objects/?limit=5&start-after={}", escape(next));
        }
        assert_eq!(listed, expected);
    }
    for name in names {
        let answer = client::delete(cluster.api(0), &format!("/objects/{}", escape(name))).await;
        assert_eq!(answer.expect("an answer").status, 204, "{name:?}");
    }
    cluster.check_logs(&[]);
}

#[tokio::test]
async fn what_is_no_name_is_refused() {
    let mut guard = CLUSTER.lock(options()).await;
    let cluster = guard.as_mut().expect("started");
    let long = "n".repeat(1_025);
    let long_escaped = escape(&long);
    for name in ["", "%", "%2", "%zz", "a%", "%FF", "%C3%28", "%ED%A0%80", &long, &long_escaped] {
        for address in both(cluster) {
            for (method, path) in
                [("PUT", "objects"), ("GET", "objects"), ("DELETE", "objects"), ("GET", "locate")]
            {
                // Without a name it is the list.
                if (method, path, name) == ("GET", "objects", "") {
                    continue;
                }
                let path = format!("/{path}/{name}");
                let answer = ask(&address, method, &path, &[]).await;
                let found = (answer.status, answer.code());
                assert_eq!(found, (400, "bad-name".to_owned()), "{method} {path}");
            }
        }
    }
    for address in both(cluster) {
        let answer = ask(&address, "GET", "/elsewhere", &[]).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "no-route"));
    }
    cluster.check_logs(&[]);
}

#[tokio::test]
async fn other_methods_are_refused_with_those_that_are_not() {
    let mut guard = CLUSTER.lock(options()).await;
    let cluster = guard.as_mut().expect("started");
    store(cluster.api(0), "/objects/m", b"x").await;
    for address in both(cluster) {
        for method in ["POST", "PATCH", "OPTIONS", "TRACE", "BREW"] {
            let answer = ask(&address, method, "/objects/m", &[]).await;
            let found = (answer.status, answer.header("allow"));
            assert_eq!(found, (405, Some("GET, HEAD, PUT, DELETE")), "{method}");
            let answer = ask(&address, method, "/locate/m", &[]).await;
            assert_eq!(
                (answer.status, answer.header("allow")),
                (405, Some("GET, HEAD")),
                "{method}"
            );
        }
        for method in ["PUT", "DELETE"] {
            let answer = ask(&address, method, "/locate/m", &[]).await;
            assert_eq!(
                (answer.status, answer.header("allow")),
                (405, Some("GET, HEAD")),
                "{method}"
            );
        }
    }
    still_has(cluster.api(0), "/objects/m", b"x").await;
    cluster.check_logs(&[]);
}

#[tokio::test]
async fn heads_that_are_too_large_too_slow_or_no_http_end_the_connection() {
    let mut guard = CLUSTER.lock(options()).await;
    let cluster = guard.as_mut().expect("started");
    for address in both(cluster) {
        let huge = "x".repeat(1 << 20);
        let answer =
            connect(&address).await.request("GET", "/objects/a", &[("X", &huge)], b"").await;
        // The answer may be lost when the rest of the head meets a closed door.
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 431));
        let many: Vec<String> = (0..1_000).map(|index| format!("x-{index}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "x")).collect();
        let answer = connect(&address).await.request("GET", "/objects/a", &many, b"").await;
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 431));
        for garbage in [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
            b"\0\0\0\0\r\n\r\n",
            b"GET\r\n\r\n",
        ] {
            let mut connection = connect(&address).await;
            connection.send(garbage).await.expect("sent");
            let answer = connection.head().await;
            assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 400));
        }
        // One byte now and then keeps no connection: the limit is for the head
        // as a whole.
        let mut slow = connect(&address).await;
        slow.send(b"GET /objects/a HTTP/1.1\r\nHost: x\r\nX: ").await.expect("sent");
        wait::until_true("it is cut off", async || slow.send(b"x").await.is_err()).await;
        let mut mute = connect(&address).await;
        assert!(mute.is_closed().await || mute.head().await.is_ok());
        store(&address, "/objects/fine", b"x").await;
    }
    cluster.check_logs(&[]);
}
