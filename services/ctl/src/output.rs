//! What a command says.

use std::error::Error;
use std::fmt;
use std::io::Write;

/// A line of what was asked for.
pub fn say(line: fmt::Arguments<'_>) {
    // A closed standard output is nobody's fault.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A line about what is wrong.
pub fn complain(line: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// An error and its sources in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let said = error.to_string();
        // Some libraries repeat their source in their own words.
        if !text.contains(&said) {
            text.push_str(&format!(": {said}"));
        }
        source = error.source();
    }
    text
}

/// Bytes for people.
pub(crate) struct Amount(pub(crate) u64);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        for unit in ["bytes", "KiB", "MiB", "GiB"] {
            if value < 1024.0 {
                let digits = usize::from(unit != "bytes");
                return write!(f, "{value:.digits$} {unit}");
            }
            value /= 1024.0;
        }
        write!(f, "{value:.1} TiB")
    }
}
