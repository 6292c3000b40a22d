//! Lists, through whichever data server: what there is, or that it cannot be
//! told.

use std::collections::BTreeSet;

use holdfast_core::object::{Kind, Stat};
use holdfast_core::version::Version;
use holdfast_runtime::Runtime;
use holdfast_testkit::client::{self, Response};
use holdfast_testkit::wait;
use serde_json::Value;

use crate::cluster::{Cluster, Member, PATIENCE, give, known, name};

const OBJECTS: usize = 60;

/// More than a page of a member has at least, so that there are several.
const SMALL_OBJECTS: usize = 150;

async fn ask(member: &Member, query: &str) -> Response {
    let path = format!("/objects/?{query}");
    client::get(&member.ports.address, &path).await.expect("an answer")
}

/// A page, once members that have just stopped are no longer in the way.
async fn page(member: &Member, query: &str) -> Value {
    wait::until_within(PATIENCE, "a page is told", async || {
        let answer = ask(member, query).await;
        assert!(answer.status == 200 || answer.status == 503, "{}", answer.text());
        (answer.status == 200).then(|| answer.json())
    })
    .await
}

fn texts(page: &Value, field: &str, of: Option<&str>) -> Vec<String> {
    let listed = page[field].as_array().cloned().unwrap_or_default();
    let text = |one: &Value| of.map_or(one, |of| &one[of]).as_str().expect("text").to_owned();
    listed.iter().map(text).collect()
}

/// Objects and prefixes, page by page of `limit`.
async fn all(member: &Member, query: &str, limit: usize) -> (Vec<String>, Vec<String>) {
    let (mut objects, mut prefixes, mut after) = (Vec::new(), Vec::new(), String::new());
    loop {
        let page = page(member, &format!("{query}&limit={limit}&start-after={after}")).await;
        let found = (texts(&page, "objects", Some("name")), texts(&page, "prefixes", None));
        assert!(found.0.len() + found.1.len() <= limit);
        objects.extend(found.0);
        prefixes.extend(found.1);
        let Some(next) = page["next"].as_str() else { return (objects, prefixes) };
        let last = std::mem::replace(&mut after, name(next).key.to_path());
        assert_ne!(last, after, "a page that goes nowhere");
    }
}

fn sorted(keys: &[String]) -> Vec<String> {
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    keys
}

async fn delete(cluster: &Cluster, key: &str) {
    let address = &cluster.running().next().expect("one runs").ports.address;
    let answer = client::delete(address, &format!("/objects/{key}")).await.expect("an answer");
    assert_eq!(answer.status, 204, "{key}");
}

async fn silent(member: &Member, node: holdfast_core::node::NodeId) {
    wait::until_within(PATIENCE, "it is silent", async || {
        (known(member, node).await["hearing"] == "silent").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_three_copies_one_may_be_away_and_two_may_not() {
    let mut cluster = Cluster::start_patient(3, 3).await;
    let keys = cluster.put(SMALL_OBJECTS).await;
    let mut left = sorted(&keys);
    for member in cluster.running() {
        for limit in [7, 100, 1_000] {
            assert_eq!(all(member, "", limit).await.0, left, "pages of {limit}");
        }
    }
    let mut gone = Vec::new();
    for key in keys.iter().step_by(7) {
        delete(&cluster, key).await;
        gone.push(key.clone());
        left.retain(|left| left != key);
        // What was deleted before it was asked for is never shown.
        let member = cluster.running().last().expect("one runs");
        assert_eq!(all(member, "prefix=key-", 1_000).await.0, left, "without {key}");
    }
    // One that is down already and not silent yet, then one that is.
    let mut away = cluster.members.remove(0);
    away.stop().await.expect("an orderly end");
    for member in cluster.running() {
        assert_eq!(all(member, "", 11).await.0, left);
    }
    silent(&cluster.members[0], away.node).await;
    for member in cluster.running() {
        assert_eq!(all(member, "", 13).await.0, left);
    }
    // It holds what was deleted while it was away, and does not bring it back.
    for key in left.clone().iter().step_by(5) {
        delete(&cluster, key).await;
        left.retain(|left| left != key);
    }
    cluster.restart(away.root.clone()).await;
    cluster.all_active(3).await;
    for member in cluster.running() {
        assert_eq!(all(member, "", 17).await.0, left);
    }

    let mut away = cluster.members.split_off(1);
    for member in &mut away {
        member.stop().await.expect("an orderly end");
    }
    let names: BTreeSet<String> = away.iter().map(|member| member.node.to_string()).collect();
    let refused = async || {
        let answer = ask(&cluster.members[0], "limit=1").await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "incomplete"));
        assert_eq!(answer.header("retry-after"), Some("5"));
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert!(answer.json()["request_id"].as_str().is_some_and(|id| !id.is_empty()));
        let silent = answer.json()["silent"].as_array().cloned().unwrap_or_default();
        let silent = silent.iter().map(|one| one.as_str().expect("text").to_owned());
        assert_eq!(silent.collect::<BTreeSet<_>>(), names);
    };
    refused().await;
    for member in &away {
        silent(&cluster.members[0], member.node).await;
    }
    refused().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_copy_everybody_must_tell() {
    let mut cluster = Cluster::start_patient(3, 1).await;
    let keys = cluster.put(OBJECTS).await;
    for member in cluster.running() {
        for limit in [1, 9, 1_000] {
            assert_eq!(all(member, "", limit).await.0, sorted(&keys), "pages of {limit}");
        }
    }
    let mut away = cluster.members.remove(2);
    assert!(!away.holds(&keys).await.is_empty());
    away.stop().await.expect("an orderly end");
    for is_silent in [false, true] {
        if is_silent {
            silent(&cluster.members[0], away.node).await;
        }
        let answer = ask(&cluster.members[0], "").await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "incomplete"));
        assert_eq!(answer.json()["silent"], serde_json::json!([away.node.to_string()]));
    }
    cluster.restart(away.root.clone()).await;
    cluster.all_active(3).await;
    assert_eq!(all(&cluster.members[0], "", 9).await.0, sorted(&keys));
}

/// Gives one member alone a version above what it has.
async fn give_to_one(member: &Member, key: &str, kind: Kind) -> Version {
    let held = member.holds(&[key.to_owned()]).await;
    let above = held.get(key).map_or(0, |stat| stat.version.clock());
    let clock = (Runtime::real().unix_millis() << 16).max(above + 1);
    let version = Version::from_parts(clock, 7);
    give(member, key, kind, version).await;
    version
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_member_has_alone_is_settled_before_it_is_told() {
    let cluster = Cluster::start_patient(3, 3).await;
    let keys = cluster.put(3).await;
    cluster.copies(&keys, 3, "after the writes").await;
    let on = async |key: &str, is_it: &dyn Fn(&Stat) -> bool| {
        let mut count = 0;
        for member in cluster.running() {
            let held = member.holds(&[key.to_owned()]).await;
            count += usize::from(held.get(key).is_some_and(is_it));
        }
        count
    };
    let (one, other) = (&cluster.members[0], &cluster.members[1]);
    let settled = async || {
        let metrics = client::get(&other.ports.admin, "/metrics").await.expect("an answer").text();
        let name = "holdfast_list_settled_total{result=\"ok\"} ";
        let count = metrics.lines().find_map(|line| line.strip_prefix(name)).expect("it is there");
        count.parse::<u64>().expect("a number")
    };
    // A repair pass that is still under way may come first to one of the names, and
    // a page need not wait for the member that alone has something.
    wait::until_within(PATIENCE, "a list settles all three by itself", async || {
        let before = settled().await;
        let new = give_to_one(one, "new", Kind::Object).await;
        let newer = give_to_one(one, &keys[0], Kind::Object).await;
        give_to_one(one, &keys[1], Kind::Tombstone).await;
        let listed = page(other, "").await;
        let names = texts(&listed, "objects", Some("name"));
        let versions = texts(&listed, "objects", Some("version"));
        for (key, version) in names.iter().zip(&versions) {
            let told: Version = version.parse().expect("a version");
            let count = on(key, &|stat| stat.version == told).await;
            assert!(count >= 2, "{key} was told, and is on one member");
        }
        if !names.contains(&keys[1]) {
            let count = on(&keys[1], &|stat| stat.kind == Kind::Tombstone).await;
            assert!(count >= 2, "it was left out, and is gone on one member");
        }
        let told_all = names == [&keys[0], &keys[2], "new"]
            && (&versions[0], &versions[2]) == (&newer.to_string(), &new.to_string());
        (told_all && settled().await == before + 3).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_listed_as_one_up_to_a_delimiter() {
    let cluster = Cluster::start_patient(3, 3).await;
    let address = &cluster.members[0].ports.address;
    let mut keys: Vec<String> =
        ["a", "a/", "b//c", "b/c/d", "é/ü", "z z", "z+z", "z%2Fz", "z\u{1}", "/"]
            .map(str::to_owned)
            .to_vec();
    // More below one prefix than a page of a member has.
    keys.extend((0..70).map(|number| format!("many/{number:02}/x")));
    keys.extend((0..3).map(|number| format!("many0{number}")));
    for key in &keys {
        let path = format!("/objects/{}", name(key).key.to_path());
        let answer = client::put(address, &path, key.as_bytes()).await.expect("an answer");
        assert_eq!(answer.status, 200, "{key}");
    }
    let member = &cluster.members[1];
    for (prefix, limits) in [
        ("", [1, 2, 1_000]),
        ("b", [1, 3, 5]),
        ("b/", [1, 2, 3]),
        ("many/", [1, 9, 1_000]),
        ("x", [1, 2, 3]),
    ] {
        let (mut objects, mut prefixes) = (Vec::new(), BTreeSet::new());
        for key in sorted(&keys).into_iter().filter(|key| key.starts_with(prefix)) {
            match key[prefix.len()..].find('/') {
                Some(at) => drop(prefixes.insert(key[..=prefix.len() + at].to_owned())),
                None => objects.push(key),
            }
        }
        let expected = (objects, prefixes.into_iter().collect::<Vec<_>>());
        let query = format!("delimiter=%2F&prefix={}", prefix.replace('/', "%2F"));
        for limit in limits {
            assert_eq!(all(member, &query, limit).await, expected, "{prefix} by {limit}");
        }
    }
    assert_eq!(all(member, "", 7).await.0, sorted(&keys), "every name comes back");
    // What is left of a group decides whether it is listed.
    for number in 0..70 {
        delete(&cluster, &format!("many%2F{number:02}%2Fx")).await;
    }
    let (_, prefixes) = all(member, "delimiter=/", 3).await;
    assert_eq!(prefixes, ["/", "a/", "b/", "é/"]);
    // A folder's marker that was deleted does not hide what lies in the folder.
    client::put(address, "/objects/a%2Fb", b"x").await.expect("an answer");
    delete(&cluster, "a%2F").await;
    for limit in [1, 2, 3] {
        let (_, prefixes) = all(member, "delimiter=/", limit).await;
        assert_eq!(prefixes, ["/", "a/", "b/", "é/"], "by {limit}");
    }
    // Who begins in the middle of a group gets to the end all the same.
    client::put(address, "/objects/a%2Fa", b"x").await.expect("an answer");
    delete(&cluster, "a%2Fa").await;
    let (whole, _) = all(member, "delimiter=/", 1_000).await;
    for start in ["", "a%2F0", "a%2Fa", "z"] {
        let (mut objects, mut after) = (Vec::new(), start.to_owned());
        for _ in 0..20 {
            let query = format!("delimiter=/&limit=1&start-after={after}");
            let page = page(member, &query).await;
            objects.extend(texts(&page, "objects", Some("name")));
            let Some(next) = page["next"].as_str() else { break };
            after = name(next).key.to_path();
        }
        let first = start.replace("%2F", "/");
        let expected: Vec<_> = whole.iter().filter(|key| **key > first).collect();
        assert_eq!(objects.iter().collect::<Vec<_>>(), expected, "after {start:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locate_tells_of_nothing_that_a_read_would_not_find_again() {
    let cluster = Cluster::start_patient(3, 3).await;
    let keys = cluster.put(2).await;
    // A delete, and a new content, that reached one member before their api died.
    let newest = Version::from_parts(Runtime::real().unix_millis() << 16, 1);
    for key in &keys {
        give(&cluster.members[0], key, Kind::Tombstone, newest).await;
    }
    give(&cluster.members[1], "new", Kind::Object, newest).await;
    // By those who have it, who hear themselves; whoever hears only the others need
    // not know of it.
    let (deleted, found) = (&cluster.members[0].ports, &cluster.members[1].ports);
    for (ports, path, status, key) in [
        (deleted, format!("/locate/{}", keys[0]), 404, keys[0].as_str()),
        (deleted, format!("/locate/{}?replicas", keys[1]), 404, keys[1].as_str()),
        (found, "/locate/new".to_owned(), 200, "new"),
    ] {
        let told = async || {
            let answer = client::get(&ports.address, &path).await.expect("an answer");
            (answer.status == status).then_some(())
        };
        wait::until_within(PATIENCE, &path, told).await;
        let mut count = 0;
        for member in cluster.running() {
            let held = member.holds(&[key.to_owned()]).await;
            count += usize::from(held.get(key).is_some_and(|stat| stat.version == newest));
        }
        assert!(count >= 2, "{path}: it was told of what {count} has");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_listed_is_refused_and_a_name_is_still_needed() {
    let cluster = Cluster::start_patient(1, 1).await;
    let member = &cluster.members[0];
    let address = &member.ports.address;
    for query in ["limit=0", "limit=1001", "prefix=a+b", "prefix=%ff", "what=ever"] {
        let answer = ask(member, query).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad-query"), "{query}");
    }
    for (method, status, code) in
        [("PUT", 400, "bad-name"), ("DELETE", 400, "bad-name"), ("POST", 405, "method-not-allowed")]
    {
        let answer = client::request(address, method, "/objects/", &[], b"").await;
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method}");
    }
    let put = client::request(address, "PUT", "/objects/x", &[("Content-Type", "a/b")], b"hello");
    let etag = put.await.expect("an answer").header("etag").map(str::to_owned);
    let got = client::get(address, "/objects/x").await.expect("an answer");
    for path in ["/objects/", "/objects", "/objects?limit=1"] {
        let listed = client::get(address, path).await.expect("an answer");
        assert_eq!(listed.header("content-type"), Some("application/json"));
        let listed = listed.json();
        let one = &listed["objects"][0];
        assert_eq!(one["name"], "x");
        assert_eq!(one["size"], 5);
        assert_eq!(one["etag"].as_str(), etag.as_deref());
        assert_eq!(one["last-modified"].as_str(), got.header("last-modified"));
        assert_eq!(one["content-type"], "a/b");
        let replicas = client::get(address, "/locate/x?replicas").await.expect("an answer").json();
        assert_eq!(one["checksum"], replicas[0]["checksum"]);
        assert_eq!(one["version"], replicas[0]["version"]);
        assert!(listed.get("next").is_none() && listed.get("prefixes").is_none(), "{listed}");
    }
    let head = client::request(address, "HEAD", "/objects/", &[], b"").await.expect("an answer");
    assert_eq!(head.status, 200);
}
