//! The binaries under test, built once by the first test that needs one.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

const PACKAGES: [&str; 3] = ["holdfast-api", "holdfast-dataserver", "holdfast-standalone"];

/// Builds the services with the profile of the running test; gives the
/// directory that the binaries are in. That of `HOLDFAST_BIN_DIR` is taken as it is.
///
/// # Panics
/// When the build fails.
pub fn build_binaries() -> &'static PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        if let Some(built) = std::env::var_os("HOLDFAST_BIN_DIR") {
            return built.into();
        }
        let test = std::env::current_exe().expect("a running test has a path");
        // target/<profile>/deps/<test>, or target/<profile>/<command>
        let mut directory = test.parent().expect("a file is in a directory");
        if directory.ends_with("deps") {
            directory = directory.parent().expect("deps/ is in the profile's");
        }
        let directory = directory.to_owned();
        let mut cargo = Command::new(env!("CARGO"));
        // What cargo tells the running test would make build scripts run again.
        for (name, _) in std::env::vars_os() {
            let told =
                |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|p| name.starts_with(p));
            if name.to_str().is_some_and(told) {
                cargo.env_remove(name);
            }
        }
        cargo.args(["build", "--quiet", "--locked", "--manifest-path"]);
        cargo.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"));
        cargo.args(PACKAGES.iter().flat_map(|package| ["-p", package]));
        cargo.arg("--target-dir").arg(directory.parent().expect("the target directory"));
        if directory.ends_with("release") {
            cargo.arg("--release");
        }
        let status = cargo.status().expect("cargo runs");
        assert!(status.success(), "the services do not build");
        directory
    })
}

/// The path of a service's binary.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let path = build_binaries().join(name);
    assert!(path.exists(), "{} was not built", path.display());
    path
}
