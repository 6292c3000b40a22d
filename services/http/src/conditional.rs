//! Preconditions of RFC 9110, section 13. Pure.

use std::time::{Duration, SystemTime};

use http::header::{HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use http::{HeaderMap, Method};

/// What tells one content of a representation from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validators<'a> {
    /// The entity tag as it is sent, quotes and `W/` included.
    pub etag: &'a str,
    /// When it was last modified, in Unix seconds.
    pub last_modified: Option<u64>,
}

impl Validators<'_> {
    /// Whether `text` names exactly this content: what `If-Range` asks. A date
    /// never does: two contents of one second would be spliced.
    pub(crate) fn is_exactly(&self, text: &str) -> bool {
        strong(self.etag, text)
    }
}

/// What the preconditions of a request say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// They hold: do it.
    Proceed,
    /// The client has it already: 304.
    NotModified,
    /// They do not hold: 412.
    PreconditionFailed,
}

/// Evaluates the preconditions in the order of RFC 9110, section 13.2.2.
/// `current` is `None` when there is no such object.
///
/// What cannot be read fails safe for a read: an `If-Match` of nonsense matches
/// nothing, and so does an `If-None-Match`; a date of nonsense is ignored, as the
/// RFC demands. A write should be refused before: see [`are_tags`].
#[must_use]
pub fn evaluate(method: &Method, headers: &HeaderMap, current: Option<&Validators<'_>>) -> Outcome {
    let reading = *method == Method::GET || *method == Method::HEAD;
    let last_modified = current.and_then(|current| current.last_modified);
    if headers.contains_key(IF_MATCH) {
        if !any_matches(headers, IF_MATCH, current, strong) {
            return Outcome::PreconditionFailed;
        }
    } else {
        let since = header_date(headers, IF_UNMODIFIED_SINCE);
        if since.is_some_and(|since| last_modified.is_some_and(|modified| modified > since)) {
            return Outcome::PreconditionFailed;
        }
    }
    if headers.contains_key(IF_NONE_MATCH) {
        let matches = any_matches(headers, IF_NONE_MATCH, current, weak);
        return match (matches, reading) {
            (false, _) => Outcome::Proceed,
            (true, true) => Outcome::NotModified,
            (true, false) => Outcome::PreconditionFailed,
        };
    }
    let since = header_date(headers, IF_MODIFIED_SINCE).filter(|_| reading);
    match (since, last_modified) {
        (Some(since), Some(modified)) if modified <= since => Outcome::NotModified,
        _ => Outcome::Proceed,
    }
}

fn any_matches(
    headers: &HeaderMap,
    name: HeaderName,
    current: Option<&Validators<'_>>,
    same: fn(&str, &str) -> bool,
) -> bool {
    let Some(current) = current else { return false };
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|list| list.trim() == "*" || Tags(list).any(|tag| same(current.etag, tag)))
}

/// Whether each value of a header is `*` or a list of entity tags to its end.
#[must_use]
pub fn are_tags(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get_all(name).iter().all(|value| {
        let Ok(list) = value.to_str() else { return false };
        let mut tags = Tags(list);
        let count = tags.by_ref().count();
        list.trim() == "*" || (count > 0 && tags.0.trim_matches([' ', '\t', ',']).is_empty())
    })
}

/// The strong comparison: both strong, and the same.
fn strong(one: &str, other: &str) -> bool {
    one == other && !one.starts_with("W/")
}

/// The weak comparison: the same but for `W/`.
fn weak(one: &str, other: &str) -> bool {
    let opaque = |tag| str::strip_prefix(tag, "W/").unwrap_or(tag).to_owned();
    opaque(one) == opaque(other)
}

/// The entity tags of a list, up to the first that is malformed. A tag may hold
/// commas.
struct Tags<'a>(&'a str);

impl<'a> Iterator for Tags<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let list = self.0.trim_start_matches([' ', '\t', ',']);
        let quote = if list.starts_with("W/") { 2 } else { 0 };
        let inner = list.get(quote..)?.strip_prefix('"')?;
        let end = quote + 1 + inner.find('"')? + 1;
        let (tag, rest) = list.split_at_checked(end)?;
        self.0 = rest;
        Some(tag)
    }
}

fn header_date(headers: &HeaderMap, name: HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok().and_then(date)
}

fn date(text: &str) -> Option<u64> {
    let time = httpdate::parse_http_date(text).ok()?;
    time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// A time in Unix seconds as HTTP writes it; the form of `Last-Modified`.
#[must_use]
pub fn http_date(unix_seconds: u64) -> String {
    // The last second of the year 9999: `httpdate` knows no later one.
    let seconds = unix_seconds.min(253_402_300_799);
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Outcome::{NotModified, PreconditionFailed, Proceed};

    const MODIFIED: u64 = 784_111_777;
    const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const NOW: Validators<'_> = Validators { etag: "\"xyzzy\"", last_modified: Some(MODIFIED) };

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let value = |text: &str| text.parse().expect("a header value");
        HeaderMap::from_iter(pairs.iter().map(|(name, text)| (name.clone(), value(text))))
    }

    fn get(pairs: &[(HeaderName, &str)]) -> Outcome {
        evaluate(&Method::GET, &headers(pairs), Some(&NOW))
    }

    fn put(pairs: &[(HeaderName, &str)], current: Option<&Validators<'_>>) -> Outcome {
        evaluate(&Method::PUT, &headers(pairs), current)
    }

    #[test]
    fn if_match_compares_strongly() {
        for (tags, outcome) in [
            ("\"xyzzy\"", Proceed),
            ("\"xyzzy\", \"r2d2xxxx\", \"c3piozzzz\"", Proceed),
            ("\"a,b\",\"xyzzy\"", Proceed),
            ("*", Proceed),
            ("\"other\"", PreconditionFailed),
            ("W/\"xyzzy\"", PreconditionFailed),
            ("xyzzy", PreconditionFailed),
            ("", PreconditionFailed),
        ] {
            assert_eq!(get(&[(IF_MATCH, tags)]), outcome, "{tags}");
        }
        let weak = Validators { etag: "W/\"xyzzy\"", ..NOW };
        assert_eq!(put(&[(IF_MATCH, "W/\"xyzzy\"")], Some(&weak)), PreconditionFailed);
    }

    #[test]
    fn if_none_match_compares_weakly() {
        for (tags, outcome) in [
            ("\"xyzzy\"", NotModified),
            ("W/\"xyzzy\"", NotModified),
            ("W/\"xyzzy\", W/\"r2d2xxxx\", W/\"c3piozzzz\"", NotModified),
            ("\"r2d2xxxx\",\"xyzzy\"", NotModified),
            ("*", NotModified),
            ("\"other\"", Proceed),
            ("nonsense", Proceed),
        ] {
            assert_eq!(get(&[(IF_NONE_MATCH, tags)]), outcome, "{tags}");
        }
    }

    #[test]
    fn the_comparisons_are_those_of_the_table_in_section_8_8_3_2() {
        for (one, other, strongly, weakly) in [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
        ] {
            assert_eq!((strong(one, other), weak(one, other)), (strongly, weakly), "{one} {other}");
        }
    }

    #[test]
    fn a_list_of_tags_is_one_to_its_end() {
        for (list, is_one) in [
            ("*", true),
            ("\"a\"", true),
            ("W/\"a\", \"b,c\" ,", true),
            ("", false),
            (",", false),
            ("a", false),
            ("\"a", false),
            ("a, \"b\"", false),
            ("\"b\", a", false),
            ("\"a\", *", false),
        ] {
            assert_eq!(
                are_tags(&headers(&[(IF_NONE_MATCH, list)]), &IF_NONE_MATCH),
                is_one,
                "{list}"
            );
        }
    }

    #[test]
    fn dates_count_only_without_tags() {
        assert_eq!(get(&[(IF_MODIFIED_SINCE, AT)]), NotModified);
        assert_eq!(get(&[(IF_MODIFIED_SINCE, BEFORE)]), Proceed);
        assert_eq!(get(&[(IF_MODIFIED_SINCE, "nonsense")]), Proceed);
        assert_eq!(get(&[(IF_UNMODIFIED_SINCE, AT)]), Proceed);
        assert_eq!(get(&[(IF_UNMODIFIED_SINCE, BEFORE)]), PreconditionFailed);
        assert_eq!(get(&[(IF_UNMODIFIED_SINCE, "nonsense")]), Proceed);
        assert_eq!(get(&[(IF_NONE_MATCH, "\"other\""), (IF_MODIFIED_SINCE, AT)]), Proceed);
        assert_eq!(get(&[(IF_MATCH, "\"xyzzy\""), (IF_UNMODIFIED_SINCE, BEFORE)]), Proceed);
        assert_eq!(get(&[(IF_MATCH, "\"xyzzy\""), (IF_NONE_MATCH, "\"xyzzy\"")]), NotModified);
    }

    #[test]
    fn a_write_is_refused_and_never_not_modified() {
        assert_eq!(put(&[(IF_NONE_MATCH, "*")], Some(&NOW)), PreconditionFailed);
        assert_eq!(put(&[(IF_NONE_MATCH, "*")], None), Proceed);
        assert_eq!(put(&[(IF_MATCH, "*")], None), PreconditionFailed);
        assert_eq!(put(&[(IF_MODIFIED_SINCE, AT)], Some(&NOW)), Proceed);
        assert_eq!(put(&[], None), Proceed);
    }

    #[test]
    fn a_date_is_written_and_read_again() {
        assert_eq!(http_date(MODIFIED), AT);
        assert_eq!(date(&http_date(MODIFIED)), Some(MODIFIED));
        assert!(http_date(u64::MAX).contains("9999"));
    }
}
