//! Buckets, keys and how a request path names them.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest key in bytes of UTF-8, after percent-decoding. The limit that S3
/// clients already live with.
pub const MAX_KEY_BYTES: usize = 1024;

/// Longest bucket name in bytes, as in S3.
pub const MAX_BUCKET_BYTES: usize = 63;

/// The bucket of every object named through `/objects/<name>`.
pub const SEED_BUCKET: &str = "objects";

/// Why a name was refused. The texts are shown to users.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing follows `/objects/`.
    #[error("the object name is empty")]
    Empty,
    /// The decoded key is longer than [`MAX_KEY_BYTES`].
    #[error("the object name has {bytes} bytes; the longest allowed is {MAX_KEY_BYTES}")]
    TooLong {
        /// Length of the refused key.
        bytes: usize,
    },
    /// A `%` is not followed by two hexadecimal digits.
    #[error(
        "the object name has a '%' at byte {at} that is not followed by two hexadecimal digits"
    )]
    BadEscape {
        /// Offset of the `%` in the encoded name.
        at: usize,
    },
    /// The decoded bytes are not UTF-8.
    #[error("the object name is not valid UTF-8 after percent-decoding")]
    NotUtf8,
    /// The bucket name breaks the rules of [`Bucket::new`].
    #[error("a bucket name has 1 to {MAX_BUCKET_BYTES} characters out of a-z, 0-9, '-' and '.'")]
    BadBucket,
}

/// A key: any UTF-8 string of 1 to [`MAX_KEY_BYTES`] bytes.
///
/// A key is never a path: `/`, `..` and NUL are characters like any other, and
/// nothing normalises it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Key(String);

impl Key {
    /// Takes a key that is already decoded.
    ///
    /// # Errors
    /// [`NameError::Empty`] and [`NameError::TooLong`].
    pub fn new(key: impl Into<String>) -> Result<Self, NameError> {
        let key = key.into();
        match key.len() {
            0 => Err(NameError::Empty),
            1..=MAX_KEY_BYTES => Ok(Self(key)),
            bytes => Err(NameError::TooLong { bytes }),
        }
    }

    /// Decodes the raw rest of a request path, exactly once.
    ///
    /// # Errors
    /// Every variant of [`NameError`] but the bucket's.
    pub fn from_path(raw: &str) -> Result<Self, NameError> {
        if let Some(at) = bad_escape(raw) {
            return Err(NameError::BadEscape { at });
        }
        let decoded = percent_decode_str(raw).decode_utf8().map_err(|_| NameError::NotUtf8)?;
        Self::new(decoded.into_owned())
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key as one path segment: everything but unreserved characters is
    /// escaped, so that no client or proxy can normalise it away.
    #[must_use]
    pub fn to_path(&self) -> String {
        utf8_percent_encode(&self.0, ESCAPED).to_string()
    }
}

impl Key {
    /// The key as the seed's services write it into a path and a message: what
    /// most clients leave as it is stays as it is, since the seed compares
    /// escaped names.
    #[must_use]
    pub fn to_seed_path(&self) -> String {
        utf8_percent_encode(&self.0, SEED_ESCAPED).to_string()
    }
}

const SEED_ESCAPED: &AsciiSet = &ESCAPED
    .remove(b'.')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

/// RFC 3986 unreserved characters stay; a lone `.` or `..` would be a path
/// step, so dots are escaped too.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

fn bad_escape(raw: &str) -> Option<usize> {
    let bytes = raw.as_bytes();
    let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    bytes
        .iter()
        .enumerate()
        .find(|&(at, byte)| *byte == b'%' && !(hex(at + 1) && hex(at + 2)))
        .map(|(at, _)| at)
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A bucket: a name space of keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Bucket(String);

impl Bucket {
    /// Checks a bucket name: 1 to [`MAX_BUCKET_BYTES`] of `a-z`, `0-9`, `-`, `.`.
    ///
    /// # Errors
    /// [`NameError::BadBucket`].
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        let allowed =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        if (1..=MAX_BUCKET_BYTES).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(Self(name))
        } else {
            Err(NameError::BadBucket)
        }
    }

    /// The bucket that `/objects/<name>` lives in.
    #[must_use]
    pub fn seed() -> Self {
        Self(SEED_BUCKET.to_owned())
    }

    /// The bucket name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Bucket {
    fn default() -> Self {
        Self::seed()
    }
}

impl<'de> Deserialize<'de> for Bucket {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// What identifies an object in the whole cluster. Ordered by bucket, then by
/// the bytes of the key: the order in which lists are given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    /// The name space.
    pub bucket: Bucket,
    /// The name in it.
    pub key: Key,
}

impl ObjectName {
    /// Names an object.
    #[must_use]
    pub fn new(bucket: Bucket, key: Key) -> Self {
        Self { bucket, key }
    }

    /// An object of the bucket that `/objects/<name>` lives in.
    #[must_use]
    pub fn seed(key: Key) -> Self {
        Self::new(Bucket::seed(), key)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bucket.as_str(), self.key)
    }
}

/// The keys that a single-name locate may mean, in the order to try them: the
/// text itself, then the text percent-decoded, because the seed's api puts the
/// escaped name on the wire.
#[must_use]
pub fn seed_locate_candidates(text: &str) -> Vec<Key> {
    let literal = Key::new(text).ok();
    let decoded = Key::from_path(text).ok().filter(|key| key.as_str() != text);
    literal.into_iter().chain(decoded).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_once_and_never_normalised() {
        for (raw, key) in [
            ("a/../b", "a/../b"),
            ("a//b/", "a//b/"),
            ("%2e%2e", ".."),
            ("%2F", "/"),
            ("%252F", "%2F"),
            ("%00", "\0"),
            ("%E4%BD%A0", "你"),
            ("a+b", "a+b"),
        ] {
            assert_eq!(Key::from_path(raw).map(|k| k.0), Ok(key.to_owned()), "{raw}");
        }
    }

    #[test]
    fn what_is_no_name_says_why() {
        assert_eq!(Key::from_path(""), Err(NameError::Empty));
        assert_eq!(Key::from_path("a%zz"), Err(NameError::BadEscape { at: 1 }));
        assert_eq!(Key::from_path("a%2"), Err(NameError::BadEscape { at: 1 }));
        assert_eq!(Key::from_path("%ff"), Err(NameError::NotUtf8));
        assert!(Key::from_path(&"x".repeat(1024)).is_ok());
        assert_eq!(Key::from_path(&"x".repeat(1025)), Err(NameError::TooLong { bytes: 1025 }));
    }

    #[test]
    fn single_name_locates_are_tried_literally_first() {
        let texts = |t: &str| -> Vec<String> {
            seed_locate_candidates(t).into_iter().map(|k| k.0).collect()
        };
        assert_eq!(texts("plain"), ["plain"]);
        assert_eq!(texts("a%20b"), ["a%20b", "a b"]);
        assert_eq!(texts("100%"), ["100%"]);
        assert!(texts("").is_empty());
    }

    proptest::proptest! {
        #[test]
        fn every_key_survives_its_path_form(text in "\\PC{1,200}") {
            let key = Key::new(text).expect("1 to 800 bytes");
            let path = key.to_path();
            proptest::prop_assert!(!path.contains('/') && !path.contains('.'));
            proptest::prop_assert_eq!(Key::from_path(&path), Ok(key));
        }
    }
}
