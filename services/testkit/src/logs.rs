//! Log lines that nobody expected.

/// What is said when a member is away, and when a write or a read meets one that
/// has just died.
pub const AWAY: [&str; 7] = [
    // A request that fails is worth a line.
    "status=503",
    "fell silent",
    "silent",
    "refused a write",
    "could not be read",
    "did not confirm a write",
    "the last message to the cluster",
];

/// The warnings and errors among `lines` that no entry of `allowed` is part of.
#[must_use]
pub fn unlisted<'a>(lines: &'a str, allowed: &[&str]) -> Vec<&'a str> {
    let serious = |line: &&str| {
        line.contains(" WARN ") || line.contains(" ERROR ") || line.contains("panicked at")
    };
    let listed = |line: &str| allowed.iter().any(|part| line.contains(part));
    lines.lines().filter(serious).filter(|line| !listed(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unlisted_warnings_and_errors_are_given() {
        let lines = "2026 INFO fine\n2026  WARN the broker is away\n2026 ERROR bad\nthread 'x' panicked at y";
        assert_eq!(unlisted(lines, &["the broker"]).len(), 2);
        assert_eq!(unlisted(lines, &["the broker", "bad", "panicked"]), Vec::<&str>::new());
    }
}
