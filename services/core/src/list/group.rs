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

/// The last key there can be before `text`: whoever lists after it gets `text`
/// itself first. `None` when there is none.
#[must_use]
pub fn last_key_before(text: &str) -> Option<Key> {
    let mut before = text.to_owned();
    let last = before.pop()?;
    // A key that ends with the least character comes right after what is before it.
    let Some(less) = (0..u32::from(last)).rev().find_map(char::from_u32) else {
        return Key::new(before).ok();
    };
    before.push(less);
    last_key_with(&before)
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

    #[test]
    fn nothing_comes_between_a_text_and_the_last_key_before_it() {
        assert_eq!(last_key_before("\0"), None);
        assert_eq!(last_key_before(""), None);
        assert_eq!(last_key_before("a\0"), Some(key("a")));
        let before = |text| last_key_before(text).expect("there is one");
        for (text, less) in [
            ("a/", "a.zzz"),
            ("a/", "a.\u{10ffff}"),
            ("b", "a\u{10ffff}"),
            ("\u{e000}", "\u{d7ff}z"),
        ] {
            assert!(key(less) < before(text) && before(text) < key(text), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn the_last_key_before_is_above_every_other(text in ".{1,6}", other in ".{1,6}") {
            let before = last_key_before(&text);
            prop_assert!(before.as_ref().is_none_or(|before| before.as_str() < text.as_str()));
            let is_less = other < text;
            prop_assert_eq!(is_less, before.is_some_and(|before| key(&other) <= before));
        }
    }
}
