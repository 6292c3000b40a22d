//! Names that are listed as one: all that have the same beginning, up to a
//! delimiter.

use crate::name::{Key, MAX_KEY_BYTES};

/// The beginning of `key` up to and including the first `delimiter` after
/// `prefix`: what stands for all names that begin so. `None` for a name that is
/// listed by itself.
#[must_use]
pub fn group_of<'a>(key: &'a Key, prefix: &str, delimiter: &str) -> Option<&'a str> {
    let rest = key.as_str().strip_prefix(prefix)?;
    let at = rest.find(delimiter).filter(|_| !delimiter.is_empty())?;
    key.as_str().get(..prefix.len() + at + delimiter.len())
}

/// The last key there can be that begins with `prefix`: whoever lists after it
/// has passed all of them. `None` when no key can begin so.
#[must_use]
pub fn last_key_with(prefix: &str) -> Option<Key> {
    let mut key = prefix.to_owned();
    // The largest character that still fits: in UTF-8 more bytes are more.
    while let Some(last) = match MAX_KEY_BYTES.checked_sub(key.len())? {
        0 => None,
        1 => Some('\u{7f}'),
        2 => Some('\u{7ff}'),
        3 => Some('\u{ffff}'),
        _ => Some(char::MAX),
    } {
        key.push(last);
    }
    Key::new(key).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(text: &str) -> Key {
        Key::new(text).expect("a valid key")
    }

    #[test]
    fn a_group_ends_with_the_first_delimiter_after_the_prefix() {
        for (name, prefix, delimiter, group) in [
            ("a/b/c", "", "/", Some("a/")),
            ("a/b/c", "a/", "/", Some("a/b/")),
            ("a/b/c", "a", "/", Some("a/")),
            ("a/b/c", "a/b/", "/", None),
            ("a/", "a/", "/", None),
            ("a/", "", "/", Some("a/")),
            ("/", "", "/", Some("/")),
            ("a//b", "a/", "/", Some("a//")),
            ("abc", "", "/", None),
            ("b/c", "a", "/", None),
            ("xéyéz", "", "é", Some("xé")),
            ("a--b", "", "--", Some("a--")),
            ("abc", "", "", None),
        ] {
            assert_eq!(
                group_of(&key(name), prefix, delimiter),
                group,
                "{name} {prefix} {delimiter}"
            );
        }
    }

    #[test]
    fn there_is_a_last_key_as_long_as_the_prefix_is_a_key() {
        for length in [0, 1, 2, 3, 4, 5, 1_019, 1_020, 1_021, 1_022, 1_023, 1_024] {
            let last = last_key_with(&"p".repeat(length)).expect("short enough");
            assert_eq!(last.as_str().len(), MAX_KEY_BYTES);
        }
        assert_eq!(last_key_with(&"p".repeat(1_025)), None);
    }

    proptest! {
        #[test]
        fn no_key_of_a_group_lies_behind_its_last(
            length in 0_usize..=1_024,
            rest in prop::collection::vec(
                prop_oneof![any::<char>(), Just(char::MAX), Just('\u{7ff}'), Just('\u{ffff}')],
                0..260,
            ),
        ) {
            let prefix = "p".repeat(length);
            let mut longest = prefix.clone();
            for next in rest {
                if longest.len() + next.len_utf8() <= MAX_KEY_BYTES {
                    longest.push(next);
                }
            }
            prop_assume!(!longest.is_empty());
            let last = last_key_with(&prefix).expect("short enough");
            prop_assert!(key(&longest) <= last);
            prop_assert!(last.as_str().starts_with(&prefix));
        }
    }
}
