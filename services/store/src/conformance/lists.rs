//! Lists in the order of the keys.

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_core::name::{Bucket, Key, ObjectName};
use holdfast_core::object::{Kind, Metadata};
use holdfast_core::wire::list::ListEntry;

use super::fixture::{delete, name, payload, put, stamp, stat, version};
use crate::{ListPage, ListRequest, MAX_PAGE_ENTRIES, Stamp, Store};

/// In byte order.
const KEYS: [&str; 13] =
    ["\0", "\0\0", "!", "..", "../", "/", "a", "a\0", "a/", "a/b", "ab", "é", "🦀"];

fn request(prefix: &str, start_after: Option<&str>, limit: usize) -> ListRequest {
    let start_after = start_after.map(|key| Key::new(key).expect("a valid key"));
    ListRequest { bucket: Bucket::seed(), prefix: prefix.to_owned(), start_after, limit }
}

async fn list(store: &dyn Store, request: ListRequest) -> ListPage {
    let page = store.list(&request).await.expect("a list can be made");
    assert_eq!(page.unreadable_count, 0, "nothing is damaged");
    page
}

fn keys(page: &ListPage) -> Vec<&str> {
    page.entries.iter().map(|entry| entry.key.as_str()).collect()
}

async fn put_keys(store: &dyn Store) {
    // Out of order: every fifth of thirteen meets each once.
    for n in 0..KEYS.len() {
        let key = KEYS.get(n * 5 % KEYS.len()).expect("it is less than the length");
        put(store, key, n as u64 + 1, &payload(n, 1)).await;
    }
}

pub(super) async fn check_order_and_prefixes(store: &dyn Store) {
    assert_eq!(list(store, request("", None, 10)).await, ListPage::default());
    put_keys(store).await;
    let longest = "x".repeat(1024);
    let too_long = "x".repeat(1025);
    for prefix in ["", "\0", "a", "a/", ".", "..", "🦀", "b", "\u{10ffff}", &longest, &too_long] {
        for start_after in [None, Some("\0"), Some("a"), Some("a/"), Some("b"), Some("🦀")] {
            let page = list(store, request(prefix, start_after, 100)).await;
            let expected: Vec<&str> = KEYS
                .into_iter()
                .filter(|key| key.starts_with(prefix))
                .filter(|key| start_after.is_none_or(|after| *key > after))
                .collect();
            assert_eq!(keys(&page), expected, "{prefix:?} after {start_after:?}");
            assert!(!page.more, "{prefix:?} after {start_after:?}");
        }
    }
}

/// A page says of an entry what a stat says, as far as a list shows it, whatever
/// its neighbours are.
pub(super) async fn check_entries(store: &dyn Store) {
    let metadata = Metadata {
        content_type: Some("text/plain".to_owned()),
        headers: BTreeMap::from([("cache-control".to_owned(), "no-store".to_owned())]),
        modified_unix_millis: 7,
        written_as: Some(version(1)),
    };
    let types = [Some("text/plain"), Some("text/plain"), None, Some("a/b"), Some("text/plain")];
    let mut expected = Vec::new();
    for (key, content_type) in KEYS.into_iter().zip(types) {
        let content_type = content_type.map(str::to_owned);
        let metadata = Metadata { content_type, ..metadata.clone() };
        let stamp = Stamp { version: version(2), metadata };
        store.put(name(key), stamp.clone(), payload(9, 1)).await.expect("there is room");
        let stat = stat(store, key).await.expect("it was put");
        assert_eq!(stat.metadata, stamp.metadata);
        expected.push(ListEntry::new(name(key).key, &stat));
    }
    assert_eq!(list(store, request("", None, 100)).await.entries, expected);
}

pub(super) async fn check_pages(store: &dyn Store) {
    put_keys(store).await;
    for limit in 1..=KEYS.len() + 1 {
        let mut seen = Vec::new();
        loop {
            let after = seen.last().map(String::as_str);
            let page = list(store, request("", after, limit)).await;
            assert!(page.entries.len() <= limit, "{} of {limit}", page.entries.len());
            seen.extend(keys(&page).into_iter().map(str::to_owned));
            assert_eq!(page.more, seen.len() < KEYS.len(), "pages of {limit}");
            if !page.more {
                break;
            }
            assert!(!page.entries.is_empty(), "a page that goes nowhere");
        }
        assert_eq!(seen, KEYS, "pages of {limit}");
    }
    let none = list(store, request("", None, 0)).await;
    assert!(none.entries.is_empty() && none.more);
    let all = list(store, request("", None, usize::MAX)).await;
    assert_eq!(keys(&all), KEYS);
    assert!(all.entries.len() <= MAX_PAGE_ENTRIES);
}

pub(super) async fn check_buckets_are_apart(store: &dyn Store) {
    let buckets = ["a", "a.b", "b"].map(|bucket| Bucket::new(bucket).expect("a valid bucket"));
    let key = Key::new("k").expect("a valid key");
    for (clock, bucket) in (1..).zip(&buckets) {
        let name = ObjectName::new(bucket.clone(), key.clone());
        store.put(name, stamp(clock), Bytes::new()).await.expect("there is room");
    }
    for (clock, bucket) in (1..).zip(&buckets) {
        let request = ListRequest { bucket: bucket.clone(), ..request("", None, 10) };
        let page = list(store, request).await;
        let versions: Vec<_> = page.entries.iter().map(|entry| entry.version).collect();
        assert_eq!(versions, [version(clock)], "{bucket:?}");
    }
}

/// Every bucket, in order, tombstones included, whatever the size of a page.
pub(super) async fn check_a_walk_meets_everything(store: &dyn Store) {
    put_keys(store).await;
    delete(store, "a", 100).await;
    for bucket in ["0", "zz", "zz.z"] {
        let bucket = Bucket::new(bucket).expect("a valid bucket");
        for key in ["a", "é"] {
            let name = ObjectName::new(bucket.clone(), Key::new(key).expect("a valid key"));
            store.put(name, stamp(50), Bytes::new()).await.expect("there is room");
        }
    }
    let all = store.walk(None, usize::MAX).await.expect("a walk can be made");
    let names: Vec<_> = all.entries.iter().map(|walked| walked.name.clone()).collect();
    assert_eq!(names.len(), KEYS.len() + 6);
    assert!(names.is_sorted() && !all.more && all.unreadable_count == 0);
    for walked in &all.entries {
        let stat = store.stat(std::slice::from_ref(&walked.name)).await.remove(0);
        assert_eq!(stat.expect("nothing is damaged"), Some(walked.stat.clone()));
        assert!(!walked.is_damaged);
    }
    assert!(all.entries.iter().any(|walked| walked.stat.kind == Kind::Tombstone));
    for limit in [1, 2, 5, names.len(), names.len() + 1] {
        let mut seen: Vec<ObjectName> = Vec::new();
        loop {
            let page = store.walk(seen.last(), limit).await.expect("a walk can be made");
            assert!(page.entries.len() <= limit && (!page.more || !page.entries.is_empty()));
            seen.extend(page.entries.into_iter().map(|walked| walked.name));
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, names, "pages of {limit}");
    }
}

pub(super) async fn check_tombstones_are_listed(store: &dyn Store) {
    put(store, "a", 1, &payload(10, 1)).await;
    put(store, "b", 1, &payload(10, 1)).await;
    delete(store, "b", 2).await;
    delete(store, "c", 3).await;
    let page = list(store, request("", None, 10)).await;
    let seen: Vec<_> =
        page.entries.iter().map(|it| (it.key.as_str(), it.kind, it.version)).collect();
    let expected = [
        ("a", Kind::Object, version(1)),
        ("b", Kind::Tombstone, version(2)),
        ("c", Kind::Tombstone, version(3)),
    ];
    assert_eq!(seen, expected);
}
