//! Byte ranges of RFC 9110, section 14. Pure.

use std::ops::Range;

use http::HeaderMap;
use http::header::{IF_RANGE, RANGE};

use crate::conditional::Validators;

/// What part of a representation a GET should send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requested {
    /// All of it, with 200.
    Whole,
    /// These bytes, with 206. Not empty, and within the length.
    Part(Range<u64>),
    /// Nothing, with 416 and `Content-Range: bytes */length`.
    Unsatisfiable,
}

impl Requested {
    /// The `Content-Range` that belongs to the answer, if one does.
    #[must_use]
    pub fn content_range(&self, length_bytes: u64) -> Option<String> {
        match self {
            Self::Whole => None,
            Self::Part(part) => {
                Some(format!("bytes {}-{}/{length_bytes}", part.start, part.end.saturating_sub(1)))
            }
            Self::Unsatisfiable => Some(format!("bytes */{length_bytes}")),
        }
    }
}

/// What a request with these headers asks for, of a representation of
/// `length_bytes` with these validators.
///
/// A server may ignore any range, so `Whole` is the answer to what is
/// malformed, to several ranges at once, to a range of an empty representation,
/// and to an `If-Range` that does not hold.
#[must_use]
pub fn requested(headers: &HeaderMap, current: &Validators<'_>, length_bytes: u64) -> Requested {
    let mut ranges = headers.get_all(RANGE).iter();
    let text = match (ranges.next(), ranges.next()) {
        (Some(one), None) => one.to_str().ok(),
        _ => None,
    };
    match text.filter(|_| if_range_holds(headers, current)) {
        Some(text) => parse(text, length_bytes).unwrap_or(Requested::Whole),
        None => Requested::Whole,
    }
}

fn if_range_holds(headers: &HeaderMap, current: &Validators<'_>) -> bool {
    match headers.get(IF_RANGE) {
        None => true,
        Some(value) => value.to_str().is_ok_and(|text| current.is_exactly(text)),
    }
}

/// `None` for what is no single valid range.
fn parse(text: &str, length: u64) -> Option<Requested> {
    let (unit, set) = text.split_once('=')?;
    let (first, last) = set.trim_matches([' ', '\t']).split_once('-')?;
    if !unit.eq_ignore_ascii_case("bytes") || length == 0 {
        return None;
    }
    if first.is_empty() {
        let suffix = number(last)?.min(length);
        let part = Requested::Part(length - suffix..length);
        return Some(if suffix == 0 { Requested::Unsatisfiable } else { part });
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    match first {
        _ if last < first => None,
        _ if first >= length => Some(Requested::Unsatisfiable),
        _ => Some(Requested::Part(first..last.min(length - 1) + 1)),
    }
}

/// Digits only; what does not fit is larger than any object.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURRENT: Validators<'_> = Validators { etag: "\"v1\"", last_modified: Some(784_111_777) };

    fn of(range: &str, length: u64) -> Requested {
        let headers = HeaderMap::from_iter([(RANGE, range.parse().expect("a header value"))]);
        requested(&headers, &CURRENT, length)
    }

    #[test]
    fn a_single_range_is_cut_to_the_length() {
        // The examples of RFC 9110, section 14.1.2, and the edges around them.
        for (range, part) in [
            ("bytes=0-499", 0..500),
            ("bytes=500-999", 500..1000),
            ("bytes=-500", 9500..10_000),
            ("bytes=9500-", 9500..10_000),
            ("bytes=0-0", 0..1),
            ("bytes=-1", 9999..10_000),
            ("bytes=9999-9999", 9999..10_000),
            ("bytes=0-99999", 0..10_000),
            ("bytes=-99999", 0..10_000),
            ("bytes=1-99999999999999999999999", 1..10_000),
            ("Bytes= 5-6 ", 5..7),
        ] {
            assert_eq!(of(range, 10_000), Requested::Part(part), "{range}");
        }
    }

    #[test]
    fn a_range_behind_the_end_cannot_be_satisfied() {
        for range in ["bytes=10-", "bytes=10-20", "bytes=99999999999999999999-", "bytes=-0"] {
            assert_eq!(of(range, 10), Requested::Unsatisfiable, "{range}");
        }
        assert_eq!(Requested::Unsatisfiable.content_range(10).as_deref(), Some("bytes */10"));
    }

    #[test]
    fn anything_else_is_ignored() {
        for range in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5-4",
            "bytes=a-b",
            "bytes=+1-2",
            "items=0-1",
            "bytes=0-1,3-4",
            "bytes=0-1, ",
            "bytes=1 - 2",
            "bytes=0x1-2",
            "bytes=--1",
        ] {
            assert_eq!(of(range, 10), Requested::Whole, "{range}");
        }
        assert_eq!(of("bytes=0-", 0), Requested::Whole);
        assert_eq!(of("bytes=-1", 0), Requested::Whole);
        let twice = HeaderMap::from_iter([(RANGE, "bytes=0-1".parse().expect("a value"))]);
        let mut twice = twice;
        twice.append(RANGE, "bytes=2-3".parse().expect("a value"));
        assert_eq!(requested(&twice, &CURRENT, 10), Requested::Whole);
    }

    #[test]
    fn the_largest_length_does_not_overflow() {
        assert_eq!(of("bytes=0-", u64::MAX), Requested::Part(0..u64::MAX));
        let text = of("bytes=0-", u64::MAX).content_range(u64::MAX);
        assert_eq!(text, Some(format!("bytes 0-{}/{}", u64::MAX - 1, u64::MAX)));
    }

    #[test]
    fn if_range_needs_exactly_the_same_content() {
        for (condition, holds) in [
            ("\"v1\"", true),
            ("\"v2\"", false),
            ("W/\"v1\"", false),
            ("Sun, 06 Nov 1994 08:49:37 GMT", false),
            ("Sun, 06 Nov 1994 08:49:38 GMT", false),
            ("nonsense", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, "bytes=0-1".parse().expect("a value"));
            headers.insert(IF_RANGE, condition.parse().expect("a value"));
            let expected = if holds { Requested::Part(0..2) } else { Requested::Whole };
            assert_eq!(requested(&headers, &CURRENT, 10), expected, "{condition}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_gives_a_part_outside_of_the_length(text in "[bytes=0-9, -]{0,40}", length: u64) {
            if let Some(Requested::Part(part)) = parse(&text, length) {
                proptest::prop_assert!(part.start < part.end && part.end <= length);
            }
        }
    }
}
