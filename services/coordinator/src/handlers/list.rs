//! `GET /objects/`.

use holdfast_core::name::{Key, NameError};
use holdfast_core::wire::list::{ListEntry, MAX_LIST_ENTRIES};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};
use warp::reply::{Reply, Response};

use super::{Asked, get, headers};
use crate::error::ObjectError;
use crate::objects::{ListPage, ListQuery, Objects};

/// Part of all objects, in byte order of their names.
pub(super) async fn handle_list(objects: &Objects, asked: &Asked) -> Result<Response, ObjectError> {
    let query = parse(&asked.query)?;
    let page = objects.list(&query).await?;
    let mut response = describe(&page).to_string().into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Reads the query. What is not understood is refused: a list that ignores what
/// it was asked for is a wrong one.
fn parse(query: &str) -> Result<ListQuery, ObjectError> {
    let mut parsed = ListQuery { limit: MAX_LIST_ENTRIES, ..ListQuery::default() };
    let mut seen: Vec<String> = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let refused = |reason| ObjectError::Query { parameter: shortened(name), reason };
        if seen.iter().any(|other| other == name) {
            return Err(refused("it is there more than once"));
        }
        seen.push(name.to_owned());
        let text = decode(value).map_err(refused)?;
        match name {
            "prefix" => parsed.prefix = text,
            "delimiter" => parsed.delimiter = Some(text).filter(|text| !text.is_empty()),
            "start-after" => parsed.start_after = Key::new(text).ok(),
            "limit" => {
                let limit =
                    text.parse().ok().filter(|limit| (1..=MAX_LIST_ENTRIES).contains(limit));
                parsed.limit = limit.ok_or(refused("it is a whole number from 1 to 1000"))?;
            }
            _ => {
                let known = "a list has prefix, delimiter, start-after and limit";
                return Err(refused(known));
            }
        }
    }
    Ok(parsed)
}

/// Decodes a value as a name in a path is, once. A plus is refused, since half
/// of the world writes it for a space.
fn decode(value: &str) -> Result<String, &'static str> {
    if value.contains('+') {
        return Err("a '+' may mean a space; write %2B for a plus and %20 for a space");
    }
    if value.is_empty() {
        return Ok(String::new());
    }
    match Key::from_path(value) {
        Ok(key) => Ok(key.as_str().to_owned()),
        Err(NameError::TooLong { .. }) => Err("it is longer than 1,024 bytes"),
        Err(NameError::BadEscape { .. }) => {
            Err("it has a '%' that is not followed by two hexadecimal digits")
        }
        Err(_) => Err("it is not valid UTF-8 after percent-decoding"),
    }
}

/// As much of it as an answer should repeat.
fn shortened(name: &str) -> String {
    name.chars().take(32).collect()
}

fn describe(page: &ListPage) -> Value {
    let mut described = Map::new();
    let objects: Vec<Value> = page.objects.iter().map(describe_one).collect();
    described.insert("objects".to_owned(), objects.into());
    if !page.prefixes.is_empty() {
        described.insert("prefixes".to_owned(), page.prefixes.clone().into());
    }
    if let Some(next) = &page.next {
        described.insert("next".to_owned(), next.as_str().into());
    }
    described.into()
}

fn describe_one(entry: &ListEntry) -> Value {
    let mut described = json!({
        "name": entry.key.as_str(),
        "size": entry.size_bytes,
        "etag": headers::etag(entry.written_as.unwrap_or(entry.version)).to_str().unwrap_or_default(),
        "version": entry.version,
        "last-modified": get::http_date(entry.modified_unix_millis / 1_000).to_str().unwrap_or_default(),
        "checksum": format!("crc64nvme:{}", entry.digest),
    });
    if let (Some(content_type), Some(fields)) = (&entry.content_type, described.as_object_mut()) {
        fields.insert("content-type".to_owned(), (&**content_type).into());
    }
    described
}

#[cfg(test)]
mod tests {
    use holdfast_core::name::MAX_KEY_BYTES;

    use super::*;

    fn reason(query: &str) -> String {
        parse(query).expect_err("it is refused").to_string()
    }

    #[test]
    fn a_query_is_decoded_once_like_a_name() {
        assert_eq!(parse("").expect("all"), ListQuery { limit: 1_000, ..ListQuery::default() });
        let query = parse("prefix=a%2Fb/&start-after=a%2Fb%2F%252B&limit=7&delimiter=%C3%A9");
        let expected = ListQuery {
            prefix: "a/b/".to_owned(),
            delimiter: Some("é".to_owned()),
            start_after: Key::new("a/b/%2B").ok(),
            limit: 7,
        };
        assert_eq!(query.expect("understood"), expected);
        let nothing = parse("prefix=&start-after=&delimiter=&").expect("nothing is wanted");
        assert_eq!(nothing, parse("").expect("all"));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let long = format!("prefix={}", "x".repeat(MAX_KEY_BYTES + 1));
        for (query, expected) in [
            ("prefix=a+b", "%2B"),
            ("prefix=%zz", "hexadecimal"),
            ("start-after=%ff", "UTF-8"),
            ("limit=0", "1 to 1000"),
            ("limit=1001", "1 to 1000"),
            ("limit=", "1 to 1000"),
            ("limit=-1", "1 to 1000"),
            ("marker=a", "start-after"),
            ("Prefix=a", "start-after"),
            ("prefix=a&prefix=a", "more than once"),
            (&long, "1,024"),
        ] {
            let reason = reason(query);
            assert!(reason.contains(expected), "{query}: {reason}");
        }
        assert!(reason(&"x".repeat(10_000)).len() < 200);
    }
}
