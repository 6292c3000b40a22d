//! What can be set by environment variables.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

/// Where volumes are made: on a disk, which `/tmp` often is not.
const DIRECTORY: &str = "HOLDFAST_BENCH_DIR";

/// A number from the environment. One that cannot be read ends the program
/// rather than measure something else.
pub(crate) fn number<T: FromStr<Err: Display>>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("{name}={text:?}: {error}")),
        Err(_) => default,
    }
}

/// The directory in which everything is made; `target/bench-volume` unless set.
pub(crate) fn root() -> PathBuf {
    std::env::var_os(DIRECTORY).map_or_else(|| cargo_target().join("bench-volume"), PathBuf::from)
}

/// Three directories above this program, which is in `target/release/deps`.
fn cargo_target() -> PathBuf {
    let own = std::env::current_exe().expect("this program has a path");
    own.ancestors().nth(3).expect("cargo runs it from its own directory").to_owned()
}
