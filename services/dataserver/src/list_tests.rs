use holdfast_core::name::{Bucket, Key};
use holdfast_core::node::Generation;
use holdfast_core::object::{Kind, Metadata};
use holdfast_core::wire::list::MAX_LIST_ANSWER_BYTES;
use holdfast_store::Stamp as Content;

use super::*;
use crate::test_support::{OWN, Rig, cluster, lister, name, roster_of_own, version};

async fn rig() -> (Rig, Lister) {
    let rig = Rig::new().await;
    let lister = lister(&rig, cluster(&rig.runtime, roster_of_own()).await);
    (rig, lister)
}

async fn put(rig: &Rig, key: &str, payload: &'static [u8], content_type: Option<String>) {
    let metadata = Metadata { content_type, modified_unix_millis: 5, ..Metadata::default() };
    let content = Content { version: version(1), metadata };
    rig.store.memory.put(name(key), content, payload.into()).await.expect("memory");
}

fn asks(rig: &Rig, prefix: &str, start_after: Option<&str>, limit: usize) -> ListRequest {
    ListRequest {
        bucket: Bucket::seed(),
        prefix: prefix.to_owned(),
        start_after: start_after.map(|key| Key::new(key).expect("a valid key")),
        limit,
        stamp: Some(Stamp::at(OWN, rig.runtime.now())),
    }
}

fn keys(answer: &ListAnswer) -> Vec<&str> {
    answer.entries.iter().map(|entry| entry.key.as_str()).collect()
}

#[tokio::test]
async fn a_page_has_what_a_list_shows_tombstones_too() {
    let (rig, lister) = rig().await;
    put(&rig, "a", b"payload", Some("text/plain".to_owned())).await;
    let gone = Content { version: version(2), metadata: Metadata::default() };
    rig.store.memory.delete(name("b"), gone).await.expect("memory");
    put(&rig, "c", b"", None).await;
    let all = lister.answer(asks(&rig, "", None, 10)).await.expect("memory");
    assert_eq!(
        (keys(&all), all.more, all.late, all.unknown),
        (vec!["a", "b", "c"], false, false, false)
    );
    let first = &all.entries[0];
    assert_eq!((first.kind, first.size_bytes, first.version), (Kind::Object, 7, version(1)));
    assert_eq!(
        (first.content_type.as_deref(), first.modified_unix_millis),
        (Some("text/plain"), 5)
    );
    assert_eq!(all.entries[1].kind, Kind::Tombstone);
    assert_eq!(all.generation, OWN);
    for (prefix, after, limit, expected, more) in [
        ("", None, 2, &["a", "b"][..], true),
        ("", Some("b"), 2, &["c"], false),
        ("b", None, 2, &["b"], false),
        ("", Some("c"), 2, &[], false),
    ] {
        let page = lister.answer(asks(&rig, prefix, after, limit)).await.expect("memory");
        assert_eq!((keys(&page), page.more), (expected.to_vec(), more), "{prefix} {after:?}");
    }
}

#[tokio::test]
async fn a_damaged_copy_is_told_as_one() {
    let (rig, lister) = rig().await;
    put(&rig, "a", b"good", None).await;
    put(&rig, "b", b"bad", None).await;
    rig.store.memory.damage(&"bad".into());
    let all = lister.answer(asks(&rig, "", None, 10)).await.expect("memory");
    let damaged: Vec<bool> = all.entries.iter().map(|entry| entry.is_damaged).collect();
    assert_eq!(damaged, [false, true]);
}

#[tokio::test]
async fn who_builds_on_nothing_of_this_run_or_comes_late_gets_a_stamp_and_nothing_else() {
    let (rig, lister) = rig().await;
    put(&rig, "a", b"", None).await;
    let request = asks(&rig, "", None, 10);
    let stamp = request.stamp.expect("one is given");
    let other_run = Stamp { generation: Generation(OWN.0 - 1), ..stamp };
    for stamp in [None, Some(other_run)] {
        let late = lister.answer(ListRequest { stamp, ..request.clone() }).await.expect("memory");
        assert!(late.late && late.entries.is_empty() && !late.more, "{late:?}");
    }
    assert!(!lister.answer(request.clone()).await.expect("memory").late);
    rig.clock.advance(rig.gate.window());
    let late = lister.answer(request.clone()).await.expect("memory");
    assert!(late.late && late.entries.is_empty());
    let again = ListRequest { stamp: Some(late.stamp()), ..request };
    assert_eq!(keys(&lister.answer(again).await.expect("memory")), ["a"]);
    assert_eq!(rig.metrics.locates_late.get(), 3);
}

#[tokio::test]
async fn long_entries_end_a_page_early_and_none_is_too_long_to_be_told() {
    let (rig, lister) = rig().await;
    let types = "\"".repeat(1_024);
    let key = |number: usize| format!("{number:04}{}", "\u{1}".repeat(1_020));
    for number in 0..200 {
        put(&rig, &key(number), b"", Some(types.clone())).await;
    }
    let (mut seen, mut after) = (0, None);
    loop {
        let page = lister.answer(asks(&rig, "", after.as_deref(), usize::MAX)).await;
        let page = page.expect("memory");
        assert!(serde_json::to_vec(&page).expect("plain").len() <= MAX_LIST_ANSWER_BYTES);
        for entry in &page.entries {
            assert_eq!(entry.key.as_str(), key(seen));
            seen += 1;
        }
        after = page.entries.last().map(|entry| entry.key.as_str().to_owned());
        if !page.more {
            break;
        }
        assert!((1..200).contains(&page.entries.len()), "{}", page.entries.len());
    }
    assert_eq!(seen, 200);
}

#[tokio::test]
async fn a_page_has_no_more_than_the_bound() {
    let (rig, lister) = rig().await;
    for number in 0..=MAX_LIST_ENTRIES {
        put(&rig, &format!("{number:05}"), b"", None).await;
    }
    let page = lister.answer(asks(&rig, "", None, usize::MAX)).await.expect("memory");
    assert_eq!((page.entries.len(), page.more), (MAX_LIST_ENTRIES, true));
}
