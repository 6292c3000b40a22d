//! What a command says.

use std::fmt;
use std::io::Write;

/// A line of what was asked for.
pub(super) fn say(line: fmt::Arguments<'_>) {
    // A closed standard output is nobody's fault.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A line about why it could not be done.
pub(super) fn complain(line: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A number of bytes for people: `1.5 GiB`.
pub(super) struct Bytes(pub(super) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 5] =
            [(50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let Some((shift, unit)) = UNITS.iter().find(|(shift, _)| self.0 >> shift > 0) else {
            return write!(f, "{} bytes", self.0);
        };
        let tenths = (u128::from(self.0) * 10) >> shift;
        write!(f, "{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, expected) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1536 << 20, "1.5 GiB"),
            (3 << 40, "3.0 TiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), expected);
        }
    }
}
