//! What lists tell, as reads: a page says of every name that it covers what a read
//! of it would have said at some moment of the request.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::history::{Action, Operation, Outcome};

/// What was listed, and which content has which ETag.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    told: Vec<Told>,
    etags: BTreeMap<String, u64>,
}

/// What a page said of one key.
#[derive(Debug, Clone)]
struct Told {
    page: Page,
    key: String,
    etag: Option<String>,
}

/// A request for a page.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Who asked.
    pub client: usize,
    /// When it began.
    pub start: Duration,
    /// When the answer came.
    pub end: Duration,
}

impl Lists {
    /// Somebody read this value with this ETag, or was told it after a write.
    pub fn learn(&mut self, etag: &str, value: u64) {
        self.etags.insert(etag.to_owned(), value);
    }

    /// Remembers what a page says of those of `keys` (paths of objects) that it
    /// covers, which are taken out. Gives where the next page begins, if there is
    /// one.
    pub fn add(
        &mut self,
        page: Page,
        keys: &mut BTreeSet<String>,
        answer: &Value,
    ) -> Option<String> {
        let text = |one: &Value, field: &str| one.get(field)?.as_str().map(str::to_owned);
        let objects = answer.get("objects").and_then(Value::as_array).into_iter().flatten();
        let etags: BTreeMap<String, String> =
            objects.filter_map(|one| Some((text(one, "name")?, text(one, "etag")?))).collect();
        let next = text(answer, "next");
        let is_covered = |key: &String| next.as_deref().is_none_or(|next| name_of(key) <= next);
        for key in keys.extract_if(.., |key| is_covered(key)) {
            let etag = etags.get(name_of(&key)).cloned();
            self.told.push(Told { page, key, etag });
        }
        next
    }

    /// How many names pages have covered.
    #[must_use]
    pub fn count(&self) -> usize {
        self.told.len()
    }

    /// The reads that lists were, each with its key. An ETag that nobody knows the
    /// value of says nothing.
    pub fn reads(&self) -> impl Iterator<Item = (&str, Operation)> {
        self.told.iter().filter_map(|Told { page, key, etag }| {
            let seen = match etag {
                Some(etag) => Some(*self.etags.get(etag)?),
                None => None,
            };
            let Page { client, start, end } = *page;
            let outcome = Outcome::Saw(seen);
            Some((key.as_str(), Operation { client, start, end, action: Action::Read, outcome }))
        })
    }
}

fn name_of(key: &str) -> &str {
    key.strip_prefix("/objects/").unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_page_tells_of_the_names_up_to_its_end() {
        let mut lists = Lists::default();
        lists.learn("a1", 1);
        let mut keys =
            ["/objects/a", "/objects/b", "/objects/c", "/objects/d"].map(str::to_owned).into();
        let page = Page { client: 7, start: Duration::ZERO, end: Duration::from_secs(1) };
        let answer = json!({
            "objects": [{"name": "a", "etag": "a1"}, {"name": "c", "etag": "unknown"}],
            "next": "c",
        });
        assert_eq!(lists.add(page, &mut keys, &answer).as_deref(), Some("c"));
        assert_eq!(keys, ["/objects/d".to_owned()].into());
        let seen: Vec<_> = lists.reads().map(|(key, read)| (key, read.outcome)).collect();
        assert_eq!(
            seen,
            [("/objects/a", Outcome::Saw(Some(1))), ("/objects/b", Outcome::Saw(None))]
        );
        assert_eq!(lists.add(page, &mut keys, &json!({"objects": []})), None);
        assert_eq!(lists.count(), 4);
    }
}
