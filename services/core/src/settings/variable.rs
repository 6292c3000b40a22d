//! What there is to set, as help shows it.

use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;

/// The default of a variable that has none.
pub const NO_DEFAULT: &str = "-";

/// One environment variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Its name, in capitals.
    pub name: &'static str,
    /// What counts when it is not set; [`NO_DEFAULT`] for nothing.
    pub default: &'static str,
    /// What it is for, in a few words.
    pub meaning: &'static str,
}

impl Variable {
    /// A row of a table of variables.
    #[must_use]
    pub const fn new(name: &'static str, default: &'static str, meaning: &'static str) -> Self {
        Self { name, default, meaning }
    }
}

/// One a line: two spaces, the name, the default, what it is for.
#[must_use]
pub fn listed(variables: &[Variable]) -> String {
    let width = |text: fn(&Variable) -> &str| {
        variables.iter().map(|variable| text(variable).len()).max().unwrap_or_default()
    };
    let (names, defaults) = (width(|variable| variable.name), width(|variable| variable.default));
    let mut lines = String::new();
    for Variable { name, default, meaning } in variables {
        lines.push_str(&format!("  {name:names$}  {default:defaults$}  {meaning}\n"));
    }
    lines
}

/// The variables that fill the fields of `T`, a struct that is read from the
/// environment by the names of its fields: for a test that compares them with a
/// table. Empty when `T` is no struct.
#[must_use]
pub fn read_by<'de, T: Deserialize<'de>>() -> Vec<String> {
    let mut fields = Vec::new();
    // Its only answer is that the fields are known now.
    let _ = T::deserialize(Fields(&mut fields));
    fields
}

struct Fields<'a>(&'a mut Vec<String>);

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.extend(fields.iter().map(|field| field.to_ascii_uppercase()));
        Err(Self::Error::custom("only the fields are wanted"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("this is no struct"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_struct_are_known() {
        #[derive(serde::Deserialize)]
        #[allow(dead_code, reason = "only its shape is looked at")]
        struct Raw {
            one_thing: Option<String>,
            other: Option<String>,
        }
        assert_eq!(read_by::<Raw>(), ["ONE_THING", "OTHER"]);
        assert!(read_by::<Option<String>>().is_empty());
    }

    #[test]
    fn a_line_is_name_default_and_meaning() {
        let table = [Variable::new("LONGER", "5s", "how long"), Variable::new("X", "-", "what")];
        assert_eq!(listed(&table), "  LONGER  5s  how long\n  X       -   what\n");
    }
}
