//! Copies are where they belong: after a write, a join, a drain, a death, a
//! flipped bit, and another number of copies. And lists tell what there is.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "waits are real, and tests look behind the seam"
)]
#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "a test may panic")]

mod cluster;
mod full;
mod large;
mod lists;
mod quorum;
mod unanswered;
mod voters;

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_coordinator::service::StartError;
use holdfast_testkit::{client, wait};

use cluster::{Cluster, PATIENCE, content, known};

const OBJECTS: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_gets_its_share_and_a_drained_one_hands_over() {
    let mut cluster = Cluster::start(3, 2).await;
    let keys = cluster.put(OBJECTS).await;
    cluster.copies(&keys, 2, "after the writes").await;
    cluster.add(1).await;
    cluster.all_active(4).await;
    wait::until_within(PATIENCE, "the new member has a share", async || {
        (cluster.members[3].holds(&keys).await.len() > 4).then_some(())
    })
    .await;
    cluster.copies(&keys, 2, "after the join").await;
    cluster.all_read(&keys).await;

    let drained = cluster.drain(0, 1).await;
    let node = drained.node;
    cluster.copies(&keys, 2, "after the drain").await;
    cluster.all_read(&keys).await;

    // Started again, it is another one.
    cluster.restart(drained.root.clone()).await;
    let reborn = cluster.members.last().expect("just started");
    assert_ne!(reborn.node, node);
    cluster.all_active(4).await;
    assert!(drained.root.join(format!("retired-{node}")).join("format").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_member_held_is_made_anew_and_it_comes_back_empty() {
    let mut cluster = Cluster::start(4, 2).await;
    let keys = cluster.put(OBJECTS).await;
    cluster.copies(&keys, 2, "after the writes").await;
    let mut dead = cluster.members.remove(0);
    dead.stop().await.expect("an orderly end");
    cluster.copies(&keys, 2, "after the death").await;
    let (node, other) = (dead.node, &cluster.members[0]);
    wait::until_within(PATIENCE, "the dead member has retired", async || {
        (known(other, node).await["state"] == "retired").then_some(())
    })
    .await;
    cluster.all_read(&keys).await;

    // It learns that it was given up, and ends.
    cluster.restart(dead.root.clone()).await;
    let mut back = cluster.members.pop().expect("just started");
    assert_eq!(back.node, node);
    assert!(matches!(back.ended().await, Err(StartError::Retired)));
    cluster.restart(dead.root).await;
    assert_ne!(cluster.members.last().expect("just started").node, node);
    cluster.all_active(4).await;
    cluster.copies(&keys, 2, "after it joined anew").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_away_gets_what_it_missed() {
    let mut cluster = Cluster::start_patient(3, 3).await;
    let mut away = cluster.members.remove(0);
    away.stop().await.expect("an orderly end");
    let keys = cluster.put(OBJECTS).await;
    cluster.restart(away.root).await;
    cluster.all_active(3).await;
    cluster.copies(&keys, 3, "after it came back").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrub_finds_a_flipped_bit_and_another_copy_mends_it() {
    let cluster = Cluster::start(3, 3).await;
    let keys = cluster.put(5).await;
    cluster.copies(&keys, 3, "after the writes").await;
    let member = &cluster.members[0];
    flip(&member.root, &content(&keys[3]));
    let read = async || {
        let stat = member.holds(&keys).await[&keys[3]].clone();
        let path = format!("/internal/v1/objects/objects/{}", keys[3]);
        let version = stat.version.to_string();
        let headers = [("holdfast-version", version.as_str())];
        let answer = client::request(&member.ports.address, "GET", &path, &headers, b"").await;
        answer.is_ok_and(|answer| answer.status == 200 && answer.body == content(&keys[3]))
    };
    let scrub = client::request(&member.ports.admin, "POST", "/admin/scrub", &[], b"").await;
    assert_eq!(scrub.expect("an answer").status, 202);
    wait::until_within(PATIENCE, "the damage is found", async || {
        let metrics = client::get(&member.ports.admin, "/metrics").await.ok()?.text();
        metrics.contains("holdfast_scrub_objects_total{result=\"damaged\"} 1").then_some(())
    })
    .await;
    wait::until_within(PATIENCE, "the damage is mended", async || read().await.then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_copies_follows_what_all_ask_for() {
    let mut cluster = Cluster::start(3, 1).await;
    let keys = cluster.put(OBJECTS).await;
    cluster.copies(&keys, 1, "after the writes").await;
    cluster.ask_for(3).await;
    cluster.policy([3, 2, 2]).await;
    cluster.copies(&keys, 3, "after going up").await;
    cluster.all_read(&keys).await;
    cluster.ask_for(2).await;
    cluster.policy([2, 2, 2]).await;
    cluster.copies(&keys, 2, "after going down").await;
    cluster.ask_for(1).await;
    cluster.policy([1, 1, 1]).await;
    cluster.copies(&keys, 1, "after going down to one").await;
    cluster.all_read(&keys).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_must_be_accepted_in_so_many_words() {
    let mut cluster = Cluster::start(3, 1).await;
    let keys = cluster.put(OBJECTS).await;
    let mut dead = cluster.members.remove(2);
    let lost = dead.holds(&keys).await;
    assert!(!lost.is_empty() && lost.len() < OBJECTS);
    dead.stop().await.expect("an orderly end");
    let (node, other) = (dead.node, &cluster.members[0]);
    wait::until_within(PATIENCE, "it is silent", async || {
        (known(other, node).await["hearing"] == "silent").then_some(())
    })
    .await;
    let retire = async |query: &str| {
        let path = format!("/admin/dataservers/{node}/retire{query}");
        client::request(&other.ports.admin, "POST", &path, &[], b"").await.expect("an answer")
    };
    let refused = retire("").await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "data-loss-not-excluded"));
    let get = async |key: &str| {
        let path = format!("/objects/{key}");
        client::get(&other.ports.address, &path).await.expect("an answer").status
    };
    for key in &keys {
        let expected = if lost.contains_key(key) { 503 } else { 200 };
        assert_eq!(get(key).await, expected, "{key}: nothing is given up yet");
    }
    let done = retire("?data_loss=accept").await;
    assert_eq!(done.status, 200, "{}", done.text());
    for key in &keys {
        let expected = if lost.contains_key(key) { 404 } else { 200 };
        assert_eq!(get(key).await, expected, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_is_refused_with_a_reason() {
    let cluster = Cluster::start(2, 2).await;
    let (one, two) = (&cluster.members[0], &cluster.members[1]);
    for (method, id, what, expected) in [
        ("POST", two.node.to_string(), "drain", (409, "too-few-dataservers")),
        ("POST", two.node.to_string(), "retire", (409, "heard")),
        ("POST", "0".repeat(32), "drain", (404, "unknown-dataserver")),
        ("POST", "nobody".to_owned(), "retire", (404, "unknown-dataserver")),
        ("PUT", two.node.to_string(), "drain", (405, "method-not-allowed")),
        ("POST", two.node.to_string(), "stop", (404, "no-route")),
    ] {
        let path = format!("/admin/dataservers/{id}/{what}");
        let answer = client::request(&one.ports.admin, method, &path, &[], b"").await;
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, answer.code().as_str()), expected, "{method} {path}");
    }
}

/// Flips a bit of the first place below `root` that holds `content`.
fn flip(root: &Path, content: &[u8]) {
    for file in files(root) {
        let mut bytes = fs::read(&file).expect("it can be read");
        if let Some(at) = bytes.windows(content.len()).position(|window| window == content) {
            bytes[at] ^= 1;
            fs::write(&file, bytes).expect("it can be written");
            return;
        }
    }
    panic!("the content is nowhere");
}

fn files(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).expect("a directory").map(|entry| entry.expect("one").path());
    let (directories, mut found): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    found.extend(directories.iter().flat_map(|directory| files(directory)));
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tombstones_go_when_everybody_agrees_and_not_before() {
    let mut cluster = Cluster::start(3, 3).await;
    let keys = cluster.put(10).await;
    cluster.copies(&keys, 3, "after the writes").await;
    // It does not hear of the deletes, and keeps what was deleted.
    let mut away = cluster.members.remove(0);
    away.stop().await.expect("an orderly end");
    for key in &keys {
        let path = format!("/objects/{key}");
        wait::until_within(PATIENCE, "a delete is taken", async || {
            let address = &cluster.members[0].ports.address;
            let answer = client::delete(address, &path).await.ok()?;
            (answer.status == 204).then_some(())
        })
        .await;
    }
    // Four windows and two laps of repair: long enough for all of them to go.
    let long = std::time::Duration::from_secs(8);
    wait::while_true(long, "every tombstone is there", async || {
        let mut held = 0;
        for member in cluster.running() {
            held += member.holds(&keys).await.len();
        }
        held == 2 * keys.len()
    })
    .await;
    cluster.restart(away.root).await;
    wait::until_within(PATIENCE, "nobody has anything of them", async || {
        for member in cluster.running() {
            for key in &keys {
                let path = format!("/objects/{key}");
                let answer = client::get(&member.ports.address, &path).await.ok()?;
                assert_ne!(answer.status, 200, "{key} is back");
            }
        }
        for member in cluster.running() {
            if !member.holds(&keys).await.is_empty() {
                return None;
            }
        }
        Some(())
    })
    .await;
    for member in cluster.running() {
        for key in &keys {
            let path = format!("/objects/{key}");
            let answer = client::get(&member.ports.address, &path).await.expect("an answer");
            assert_eq!(answer.status, 404, "{key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fewer_members_than_a_write_needs_are_given_nothing() {
    let cluster = Cluster::start(1, 3).await;
    let (member, key) = (&cluster.members[0], "key-0".to_owned());
    // Lookups are complete: it is not for want of answers that writes are refused.
    wait::until_within(PATIENCE, "absence is proven", async || {
        let answer = client::get(&member.ports.address, "/objects/key-0").await.ok()?;
        (answer.status == 404).then_some(())
    })
    .await;
    for (length, headers) in [(5, &[][..]), (5, &[("If-None-Match", "*")][..]), (300_000, &[][..])]
    {
        let body = vec![7; length];
        let path = format!("/objects/{key}");
        let answer = client::request(&member.ports.address, "PUT", &path, headers, &body).await;
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, answer.code().as_str()), (503, "no-quorum"), "{length}");
    }
    assert!(member.holds(&[key]).await.is_empty());
}
