use holdfast_core::object::{Digest, Kind, Metadata, Stat};
use holdfast_core::version::Version;
use holdfast_core::wire::list::ListEntry;

use super::*;

fn key(text: &str) -> Key {
    Key::new(text).expect("a valid key")
}

fn entry(text: &str) -> ListEntry {
    let stat = Stat {
        version: Version::from_parts(1, 1),
        kind: Kind::Object,
        size_bytes: 0,
        digest: Digest(0),
        metadata: Metadata::default(),
    };
    ListEntry::new(key(text), &stat)
}

fn shown(text: &str) -> (Key, Judged) {
    (key(text), Judged::Shown(entry(text)))
}

fn gone(text: &str) -> (Key, Judged) {
    (key(text), Judged::Gone)
}

fn uncertain(text: &str) -> (Key, Judged) {
    (key(text), Judged::Uncertain)
}

fn query(delimiter: Option<&str>) -> ListQuery {
    ListQuery { delimiter: delimiter.map(str::to_owned), limit: 10, ..ListQuery::default() }
}

fn texts(keys: &[Key]) -> Vec<&str> {
    keys.iter().map(Key::as_str).collect()
}

/// What is shown, what had to be settled, and where it goes on.
fn page(
    query: &ListQuery,
    names: Vec<(Key, Judged)>,
    end: Option<&str>,
    room: usize,
    settled: &[(Key, Judged)],
) -> (Vec<String>, Vec<String>, Vec<String>, Option<String>) {
    let cut = Cut::new(query, Proven { names, end: end.map(key) }, room);
    let to_settle = cut.to_settle(query);
    let mut page = ListPage::default();
    let resume = cut.add_to(&mut page, query, &settled.iter().cloned().collect());
    let objects = page.objects.iter().map(|entry| entry.key.as_str().to_owned()).collect();
    let to_settle = texts(&to_settle).into_iter().map(str::to_owned).collect();
    let next = resume.map(|resume| {
        let token = resume.token.expect("there is one");
        // Both ways on lead to the same names.
        assert!(query.cursor(&token) <= resume.after, "{resume:?}", resume = resume.after);
        token.as_str().to_owned()
    });
    (objects, page.prefixes, to_settle, next)
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn tombstones_take_no_room_and_advance_the_page() {
    let names = vec![gone("a"), shown("b"), gone("c"), shown("d"), gone("e"), shown("f")];
    let seen = page(&query(None), names.clone(), None, 2, &[]);
    assert_eq!(seen, (owned(&["b", "d"]), vec![], vec![], Some("e".to_owned())));
    let seen = page(&query(None), names.clone(), Some("f"), 3, &[]);
    assert_eq!(seen, (owned(&["b", "d", "f"]), vec![], vec![], Some("f".to_owned())));
    let seen = page(&query(None), names, None, 3, &[]);
    assert_eq!(seen, (owned(&["b", "d", "f"]), vec![], vec![], None));
}

#[test]
fn what_is_uncertain_is_shown_as_it_was_settled() {
    let names = vec![uncertain("a"), shown("b"), uncertain("c"), shown("d")];
    let settled = [gone("a"), shown("c")];
    let seen = page(&query(None), names, None, 3, &settled);
    assert_eq!(seen, (owned(&["b", "c"]), vec![], owned(&["a", "c"]), Some("c".to_owned())));
}

#[test]
fn a_group_is_one_and_what_follows_begins_behind_it() {
    let names = vec![shown("a/1"), uncertain("a/2"), shown("a/3"), shown("b"), shown("c/1")];
    let slash = query(Some("/"));
    let seen = page(&slash, names.clone(), Some("c/1"), 1, &[]);
    assert_eq!(seen, (vec![], owned(&["a/"]), vec![], Some("a/".to_owned())));
    let seen = page(&slash, names, Some("c/1"), 3, &[]);
    assert_eq!(seen, (owned(&["b"]), owned(&["a/", "c/"]), vec![], Some("c/".to_owned())));
    assert_eq!(slash.cursor(&key("a/1")), key("a/1"));
    let behind = slash.cursor(&key("a/"));
    assert!(behind > key("a/\u{10ffff}") && behind < key("a0"), "{behind:?}");
    assert_eq!(query(None).cursor(&key("a/")), key("a/"));
    let below = ListQuery { prefix: "a/".to_owned(), ..slash };
    assert_eq!(below.cursor(&key("a/")), key("a/"), "the prefix itself is no group");
}

#[test]
fn a_name_that_is_its_own_group_and_was_deleted_hides_nothing_of_it() {
    let slash = query(Some("/"));
    let names = vec![shown("0"), gone("a/"), shown("a/b")];
    let (objects, prefixes, _, next) = page(&slash, names, None, 1, &[]);
    assert_eq!((objects, prefixes), (owned(&["0"]), vec![]));
    let next = key(&next.expect("there is more"));
    assert!(key("0") < next && next < key("a/"), "it is read again: {next:?}");
    assert_eq!(slash.cursor(&next), next, "and nothing is stepped over");
    // The same where the pages of the members end there.
    let (_, _, _, next) = page(&slash, vec![gone("a/")], Some("a/"), 5, &[]);
    assert!(key(&next.expect("there is more")) < key("a/"));
    // Nothing can be said where nothing comes before it.
    let nul = query(Some("\0"));
    let cut = Cut::new(&nul, Proven { names: vec![gone("\0")], end: Some(key("\0")) }, 5);
    let resume = cut.add_to(&mut ListPage::default(), &nul, &Names::new());
    assert_eq!(resume, Some(Resume { after: key("\0"), token: None }));
}

#[test]
fn a_group_of_which_nothing_is_left_is_not_listed_and_not_passed() {
    let names = vec![gone("a/1"), uncertain("a/2"), uncertain("a/3")];
    let settled = [gone("a/2"), gone("a/3")];
    let seen = page(&query(Some("/")), names.clone(), Some("a/3"), 5, &settled);
    assert_eq!(seen, (vec![], vec![], owned(&["a/2", "a/3"]), Some("a/3".to_owned())));
    let settled = [gone("a/2"), shown("a/3")];
    let seen = page(&query(Some("/")), names, Some("a/3"), 5, &settled);
    assert_eq!(seen.1, ["a/"]);
    assert_eq!(seen.3.as_deref(), Some("a/"));
}
