//! Request headers that mean something for an object, and those of an answer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_core::object::{KEPT_HEADERS, Metadata};
use holdfast_core::version::Version;
use holdfast_http::conditional::{Outcome, Validators, are_tags, evaluate};
use http::Method;
use http::header::{
    CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, IF_MATCH, IF_NONE_MATCH,
    IF_UNMODIFIED_SINCE,
};
use warp::reply::Response;

use crate::error::ObjectError;
use crate::objects::{Condition, Expected};

/// Longest value of a header that is kept with an object.
const MAX_KEPT_BYTES: usize = 1_024;

/// Those that may come in several lines.
const LIST_HEADERS: [&str; 3] = ["cache-control", "content-encoding", "content-language"];

/// The conditions of a write, if it has any. They are judged where nothing can
/// come between them and the write. `If-Modified-Since` is for reads only.
///
/// # Errors
/// [`ObjectError::Header`] for an `If-None-Match` that is none: it would match
/// nothing, and the write would happen.
pub(super) fn condition(
    method: &Method,
    headers: &HeaderMap,
) -> Result<Option<Condition>, ObjectError> {
    let conditions = [IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE];
    if !conditions.iter().any(|name| headers.contains_key(name)) {
        return Ok(None);
    }
    if !are_tags(headers, &IF_NONE_MATCH) {
        let reason = "it is neither * nor a list of ETags in their quotes";
        return Err(ObjectError::Header { header: "If-None-Match", reason });
    }
    let method = method.clone();
    let headers: HeaderMap = conditions
        .iter()
        .flat_map(|name| headers.get_all(name).iter().map(|value| (name.clone(), value.clone())))
        .collect();
    Ok(Some(Condition::new(move |newest| {
        let outcome = match newest {
            None => evaluate(&method, &headers, None),
            Some(stat) => {
                let etag = etag(stat.written_as());
                let current = Validators {
                    etag: etag.to_str().unwrap_or_default(),
                    last_modified: Some(stat.metadata.modified_unix_millis / 1_000),
                };
                evaluate(&method, &headers, Some(&current))
            }
        };
        outcome == Outcome::Proceed
    })))
}

/// What is kept with an object beside its bytes.
pub(super) fn metadata(headers: &HeaderMap) -> Result<Metadata, ObjectError> {
    if headers.contains_key(CONTENT_RANGE) {
        let reason = "an object is always written whole";
        return Err(ObjectError::Header { header: "Content-Range", reason });
    }
    let text = |name: &str, header: &'static str| {
        let values: Result<Vec<_>, _> =
            headers.get_all(name).iter().map(|it| it.to_str()).collect();
        let values = values.map_err(|_| "its value is not ASCII");
        let joined = values.and_then(|values| match values.as_slice() {
            [_, _, ..] if !LIST_HEADERS.contains(&name) => Err("it is given more than once"),
            // Several lines of a list are one.
            values => Ok((!values.is_empty()).then(|| values.join(", "))),
        });
        match joined {
            Ok(Some(text)) if text.len() > MAX_KEPT_BYTES => {
                Err(ObjectError::Header { header, reason: "its value is longer than 1,024 bytes" })
            }
            joined => joined.map_err(|reason| ObjectError::Header { header, reason }),
        }
    };
    let mut metadata = Metadata {
        content_type: text(CONTENT_TYPE.as_str(), "Content-Type")?,
        ..Metadata::default()
    };
    for name in KEPT_HEADERS {
        if let Some(value) = text(name, name)? {
            metadata.headers.insert(name.to_owned(), value);
        }
    }
    Ok(metadata)
}

/// The checksums of `Content-MD5` (RFC 1864), `Digest` (RFC 3230),
/// `Content-Digest` and `Repr-Digest` (RFC 9530). Unknown algorithms are
/// ignored, as those standards want.
pub(super) fn expected_digests(headers: &HeaderMap) -> Result<Expected, ObjectError> {
    let mut expected = Expected::default();
    for value in headers.get_all("content-md5") {
        let text = value.to_str().unwrap_or("");
        note(&mut expected, "Content-MD5", "md5", text)?;
    }
    for value in headers.get_all("digest") {
        for part in value.to_str().unwrap_or("").split(',') {
            let (algorithm, text) = part.trim().split_once('=').unwrap_or((part, ""));
            note(&mut expected, "Digest", algorithm, text)?;
        }
    }
    for (name, header) in [("content-digest", "Content-Digest"), ("repr-digest", "Repr-Digest")] {
        for value in headers.get_all(name) {
            for part in value.to_str().unwrap_or("").split(',') {
                let (algorithm, text) = part.trim().split_once('=').unwrap_or((part, ""));
                let text = text.strip_prefix(':').and_then(|text| text.strip_suffix(':'));
                note(&mut expected, header, algorithm, text.unwrap_or("?"))?;
            }
        }
    }
    Ok(expected)
}

fn note(
    expected: &mut Expected,
    header: &'static str,
    algorithm: &str,
    text: &str,
) -> Result<(), ObjectError> {
    let (slot, length) = match algorithm.to_ascii_lowercase().as_str() {
        "md5" => (&mut expected.md5, 16),
        "sha-256" => (&mut expected.sha256, 32),
        "sha-512" => (&mut expected.sha512, 64),
        _ => return Ok(()),
    };
    match STANDARD.decode(text) {
        Ok(hash) if hash.len() == length && slot.as_ref().is_none_or(|known| *known == hash) => {
            *slot = Some(hash);
        }
        Ok(hash) if hash.len() == length => {
            let reason = "another one says something else of the same bytes";
            return Err(ObjectError::Header { header, reason });
        }
        _ => {
            let reason = "it is not the base64 of a hash of that length";
            return Err(ObjectError::Header { header, reason });
        }
    }
    Ok(())
}

/// A strong tag: a version belongs to one content for ever. That under which a
/// client wrote it stays the same when it is settled under a later one.
pub(super) fn etag(version: Version) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).expect("hexadecimal digits in quotes")
}

/// What 416 must say.
pub(super) fn set_unsatisfied_range(response: &mut Response, size_bytes: u64) {
    let value = format!("bytes */{size_bytes}");
    let value = HeaderValue::try_from(value).expect("digits");
    response.headers_mut().insert(CONTENT_RANGE, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::object::{Digest, Kind, Stat};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (http::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn digests_are_read_in_all_their_forms() {
        let md5 = "1B2M2Y8AsgTpgAmY7PhCfg==";
        let sha = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let all = [
            headers(&[
                ("content-md5", md5),
                ("content-digest", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"),
            ]),
            headers(&[(
                "digest",
                "MD5=1B2M2Y8AsgTpgAmY7PhCfg==, SHA-256=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=, unixsum=3",
            )]),
        ];
        for headers in all {
            let expected = expected_digests(&headers).expect("well formed");
            assert_eq!(expected.md5, STANDARD.decode(md5).ok());
            assert_eq!(expected.sha256, STANDARD.decode(sha).ok());
        }
        for bad in
            [("content-md5", "x"), ("digest", "sha-256=AAAA"), ("content-digest", "sha-256=AA==")]
        {
            assert!(expected_digests(&headers(&[bad])).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_describes_the_payload_is_kept() {
        let kept = metadata(&headers(&[
            ("content-type", "a/b"),
            ("content-encoding", "gzip"),
            ("x", "y"),
        ]));
        let kept = kept.expect("well formed");
        assert_eq!(kept.content_type.as_deref(), Some("a/b"));
        assert_eq!(kept.headers.len(), 1);
        assert!(metadata(&headers(&[("content-range", "bytes 0-1/2")])).is_err());
    }

    #[test]
    fn nothing_that_is_said_twice_is_lost() {
        let md5 = "1B2M2Y8AsgTpgAmY7PhCfg==";
        let other = "content-digest";
        for (text, is_taken) in
            [("md5=:1B2M2Y8AsgTpgAmY7PhCfg==:", true), ("md5=:AAAAAAAAAAAAAAAAAAAAAA==:", false)]
        {
            let both = expected_digests(&headers(&[("content-md5", md5), (other, text)]));
            assert_eq!(both.is_ok(), is_taken, "{text}");
        }
        let twice = |name: &'static str| {
            let mut headers = HeaderMap::new();
            headers.append(name, HeaderValue::from_static("a"));
            headers.append(name, HeaderValue::from_static("b"));
            metadata(&headers)
        };
        let kept = twice("cache-control").expect("a list");
        assert_eq!(kept.headers.get("cache-control").map(String::as_str), Some("a, b"));
        assert!(twice("content-type").is_err());
        assert!(twice("expires").is_err());
    }

    #[test]
    fn a_condition_is_never_ignored() {
        let stat = Stat {
            version: Version::from_parts(1, 2),
            kind: Kind::Object,
            size_bytes: 0,
            digest: Digest(0),
            metadata: Metadata { modified_unix_millis: 5_000, ..Metadata::default() },
        };
        let etag = "\"0000000000000001-0000000000000002\"";
        let before = "Thu, 01 Jan 1970 00:00:01 GMT";
        for (name, value, on_nothing, on_this) in [
            ("if-none-match", "*", true, false),
            ("if-none-match", etag, true, false),
            ("if-none-match", "\"other\"", true, true),
            ("if-match", "*", false, true),
            ("if-match", etag, false, true),
            ("if-match", "\"other\"", false, false),
            ("if-match", "nonsense", false, false),
            ("if-unmodified-since", before, true, false),
        ] {
            let condition = condition(&Method::PUT, &headers(&[(name, value)]));
            let condition = condition.expect("well formed").expect("one");
            assert_eq!(condition.judge(None), on_nothing, "{name}: {value}");
            assert_eq!(condition.judge(Some(&stat)), on_this, "{name}: {value}");
        }
        let since = headers(&[("if-modified-since", before)]);
        assert!(condition(&Method::PUT, &since).is_ok_and(|condition| condition.is_none()));
        for nonsense in ["0000000000000001-0000000000000002", "", "x, \"other\"", "\"other"] {
            for method in [Method::PUT, Method::DELETE] {
                let headers = headers(&[("if-none-match", nonsense)]);
                assert!(condition(&method, &headers).is_err(), "{nonsense}");
            }
        }
    }
}
