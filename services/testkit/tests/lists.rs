//! Lists through apis: five thousand names, with one copy and with three, while
//! others write, and while data servers die.

#![allow(clippy::disallowed_methods, reason = "clients run beside the test")]
#![allow(clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_testkit::client::Connection;
use holdfast_testkit::cluster::{Options, ProcessCluster, member};
use holdfast_testkit::{client, logs, wait};
use serde_json::Value;

const NAMES: usize = 5_000;

/// Clients that write at once.
const WRITERS: usize = 32;

fn options(replicas: usize) -> Options {
    Options { env: vec![("REPLICAS", replicas.to_string())], ..Options::default() }
}

/// Of the kinds that a path may not have as they are, too.
fn key(number: usize) -> String {
    match number % 5 {
        0 => format!("flat {number:04}"),
        1 => format!("dir{}/a+b&{number:04}", number % 7),
        2 => format!("dir{}/sub/é{number:04}", number % 7),
        3 => format!("{number:04}%2F/?"),
        _ => format!("z{}", "y".repeat(number % 300 + 1)),
    }
}

fn escape(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Makes requests on connections that are kept; `method` is PUT or DELETE.
async fn write(cluster: &ProcessCluster, method: &'static str, keys: Vec<String>) {
    let keys = Arc::new(keys);
    let writers = (0..WRITERS).map(|writer| {
        let (address, keys) = (cluster.api(writer % 2).to_owned(), Arc::clone(&keys));
        tokio::spawn(async move {
            let mut connection = Connection::open(&address).await.expect("it listens");
            for key in keys.iter().skip(writer).step_by(WRITERS) {
                let path = format!("/objects/{}", escape(key));
                let body = if method == "PUT" { key.as_bytes() } else { b"" };
                let answer = connection.request(method, &path, &[], body).await;
                let answer = answer.expect("an answer");
                let is_done = answer.status == 200 || answer.status == 204;
                assert!(is_done, "{method} {key}: {}", answer.text());
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("no panic");
    }
}

/// Every object with its size, and every prefix, page by page.
async fn list(address: &str, query: &str, limit: usize) -> (BTreeMap<String, u64>, Vec<String>) {
    let (mut objects, mut prefixes, mut after) = (BTreeMap::new(), Vec::new(), String::new());
    let mut last = String::new();
    let mut connection = Connection::open(address).await.expect("it listens");
    loop {
        let path = format!("/objects/?{query}&limit={limit}&start-after={}", escape(&after));
        let answer = connection.request("GET", &path, &[], b"").await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let page = answer.json();
        let listed = page["objects"].as_array().expect("a list");
        for object in listed {
            let name = object["name"].as_str().expect("text").to_owned();
            assert!(name > last, "{name} comes after {last}");
            last.clone_from(&name);
            objects.insert(name, object["size"].as_u64().expect("a number"));
        }
        let found = page["prefixes"].as_array().cloned().unwrap_or_default();
        assert!(listed.len() + found.len() <= limit);
        prefixes.extend(found.iter().map(|prefix| prefix.as_str().expect("text").to_owned()));
        let Value::String(next) = &page["next"] else { return (objects, prefixes) };
        assert!(*next > after, "{next} goes on from {after}");
        after.clone_from(next);
    }
}

fn sizes(keys: &BTreeSet<String>) -> BTreeMap<String, u64> {
    keys.iter().map(|key| (key.clone(), key.len() as u64)).collect()
}

/// What a list with the delimiter `/` is to show.
fn grouped(keys: &BTreeSet<String>, prefix: &str) -> (BTreeMap<String, u64>, Vec<String>) {
    let below = || keys.iter().filter(|key| key.starts_with(prefix));
    let is_flat = |key: &&String| !key[prefix.len()..].contains('/');
    let flat = below().filter(is_flat).cloned().collect();
    let groups: BTreeSet<String> = below()
        .filter_map(|key| Some(key[..=prefix.len() + key[prefix.len()..].find('/')?].to_owned()))
        .collect();
    (sizes(&flat), groups.into_iter().collect())
}

async fn lists_what_was_written(cluster: &mut ProcessCluster) -> BTreeSet<String> {
    let mut keys: BTreeSet<String> = (0..6_200).map(key).collect();
    while keys.len() > NAMES {
        keys.pop_last();
    }
    assert_eq!(keys.len(), NAMES);
    write(cluster, "PUT", keys.iter().cloned().collect()).await;
    for (api, limit) in [(0, 1_000), (1, 997), (0, 333)] {
        assert_eq!(list(cluster.api(api), "", limit).await, (sizes(&keys), Vec::new()));
    }
    for (prefix, limit) in [("", 7), ("", 1_000), ("dir3/", 101), ("dir3/sub/", 13), ("zyy", 50)] {
        let query = format!("delimiter=/&prefix={}", escape(prefix));
        let listed = list(cluster.api(limit % 2), &query, limit).await;
        assert!(listed == grouped(&keys, prefix), "{prefix} by {limit}: {:?}", listed.1);
    }
    // Overwritten, deleted, and made again.
    let every = |nth: usize, first: usize| {
        keys.iter().skip(first).step_by(nth).cloned().collect::<Vec<_>>()
    };
    let (again, gone, back) = (every(11, 1), every(5, 2), every(10, 2));
    write(cluster, "PUT", again).await;
    write(cluster, "DELETE", gone.clone()).await;
    write(cluster, "PUT", back.clone()).await;
    keys.retain(|key| !gone.contains(key) || back.contains(key));
    for (api, limit) in [(0, 999), (1, 71)] {
        assert_eq!(list(cluster.api(api), "", limit).await.0, sizes(&keys), "pages of {limit}");
    }
    let address = cluster.data_servers[0].address().to_owned();
    assert_eq!(list(&address, "", 500).await.0, sizes(&keys), "through a data server");
    keys
}

#[tokio::test]
async fn five_thousand_names_with_one_copy() {
    let mut cluster = ProcessCluster::start(options(1)).await;
    lists_what_was_written(&mut cluster).await;
    cluster.check_logs(&[]);
}

#[tokio::test]
async fn five_thousand_names_with_three_copies_and_a_data_server_that_dies() {
    let mut cluster = ProcessCluster::start(options(3)).await;
    let keys = lists_what_was_written(&mut cluster).await;
    cluster.data_servers[0].kill().await;
    for (api, limit) in [(0, 1_000), (1, 83)] {
        assert_eq!(list(cluster.api(api), "", limit).await.0, sizes(&keys), "pages of {limit}");
    }
    // One that hangs takes its time, and is as good as one that is gone.
    cluster.data_servers[0].restart().await;
    cluster.ready().await;
    cluster.data_servers[1].pause();
    for api in 0..2 {
        assert_eq!(list(cluster.api(api), "", 1_000).await.0, sizes(&keys), "one hangs");
    }
    cluster.data_servers[0].kill().await;
    let silent: BTreeSet<String> = {
        let mut nodes = BTreeSet::new();
        for data_server in &cluster.data_servers[..2] {
            let known = member(&cluster.apis[0], data_server.address()).await;
            nodes.insert(known["node"].as_str().expect("an id").to_owned());
        }
        nodes
    };
    for api in 0..2 {
        let answer = client::get(cluster.api(api), "/objects/").await.expect("an answer");
        assert_eq!((answer.status, answer.code().as_str()), (503, "incomplete"));
        let named = answer.json()["silent"].as_array().cloned().unwrap_or_default();
        let named = named.iter().map(|node| node.as_str().expect("an id").to_owned());
        assert_eq!(named.collect::<BTreeSet<_>>(), silent);
    }
    cluster.data_servers[1].resume();
    wait::until_true("lists go on", async || {
        let answer = client::get(cluster.api(0), "/objects/?limit=1").await;
        answer.is_ok_and(|answer| answer.status == 200)
    })
    .await;
    cluster.check_logs(&logs::AWAY);
}

/// What is certainly gone, and since which round.
type Gone = Arc<std::sync::Mutex<BTreeSet<(String, usize)>>>;

/// Writes and deletes keys between those that stay, until told to stop. Tells
/// which of them is certainly gone.
async fn churn(api: String, id: usize, stop: Arc<AtomicBool>, gone: Gone) {
    let mut connection = Connection::open(&api).await.expect("it listens");
    let mut round = 0;
    while !stop.load(Ordering::SeqCst) {
        let key = format!("{:03}-{id}", round % 300);
        let path = format!("/objects/{key}");
        gone.lock().expect("no panic").retain(|(other, _)| *other != key);
        for (method, body) in [("PUT", &b"x"[..]), ("PUT", b"yy"), ("DELETE", b"")] {
            let answer = connection.request(method, &path, &[], body).await.expect("an answer");
            assert!(matches!(answer.status, 200 | 204), "{method} {path}: {}", answer.text());
        }
        // It stays gone for a while.
        gone.lock().expect("no panic").insert((key, round));
        round += 1;
    }
}

#[tokio::test]
async fn what_stays_is_always_listed_and_what_is_gone_never_is() {
    let cluster = ProcessCluster::start(options(3)).await;
    let stay: BTreeSet<String> =
        (0..600).map(|number| format!("{:03}-stays-{number}", number / 2)).collect();
    write(&cluster, "PUT", stay.iter().cloned().collect()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let gone = Gone::default();
    let churners: Vec<_> = (0..4)
        .map(|id| {
            let (api, stop, gone) =
                (cluster.api(id % 2).to_owned(), Arc::clone(&stop), Arc::clone(&gone));
            tokio::spawn(churn(api, id, stop, gone))
        })
        .collect();
    let (mut lists, mut others) = (0, 0);
    for (round, limit) in [1_000, 37, 100, 211].into_iter().cycle().take(24).enumerate() {
        let before = gone.lock().expect("no panic").clone();
        let (listed, _) = list(cluster.api(round % 2), "", limit).await;
        // What was deleted before the list began, and not begun again before it
        // ended, was never there.
        let after = gone.lock().expect("no panic").clone();
        let missing: Vec<_> = stay.iter().filter(|key| !listed.contains_key(*key)).collect();
        assert!(missing.is_empty(), "pages of {limit}: {missing:?}");
        let shown: Vec<_> =
            before.intersection(&after).filter(|(key, _)| listed.contains_key(key)).collect();
        assert!(shown.is_empty(), "pages of {limit}: {shown:?}");
        lists += 1;
        others += listed.len() - stay.len();
    }
    stop.store(true, Ordering::SeqCst);
    for churner in churners {
        churner.await.expect("no panic");
    }
    assert!(lists == 24 && others > 0, "{others} names were listed while they came and went");
    assert_eq!(list(cluster.api(0), "", 1_000).await.0.into_keys().collect::<BTreeSet<_>>(), stay);
}
