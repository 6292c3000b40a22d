//! What was found where something else had been written.

use std::fmt::Display;
use std::path::PathBuf;

use crate::StoreError;

/// Part of a file that is not as it was written, and the file is known to the
/// caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    what: &'static str,
    expected: String,
    actual: String,
}

impl Damage {
    pub(crate) fn new(what: &'static str, expected: impl Display, actual: impl Display) -> Self {
        Self { what, expected: expected.to_string(), actual: actual.to_string() }
    }

    pub(crate) fn unless_equal<T: PartialEq + Display>(
        what: &'static str,
        expected: T,
        actual: T,
    ) -> Result<(), Self> {
        if expected == actual { Ok(()) } else { Err(Self::new(what, expected, actual)) }
    }

    pub(crate) fn at(self, path: PathBuf) -> StoreError {
        let Self { what, expected, actual } = self;
        StoreError::Corrupt { path, what, expected, actual }
    }
}
