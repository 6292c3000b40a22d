//! `holdfastctl`, the binary, against real services, against services that lie,
//! and against something that behaves like the Kubernetes API server.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "binaries are run, and servers run beside them"
)]
#![allow(clippy::indexing_slicing, reason = "a test may panic")]

mod admin;
mod authority;
mod cluster;
mod drain;
mod drain_broken;
mod grow;
mod grow_broken;
mod liar;
mod load;
mod selftest;
mod support;

#[test]
fn wrong_arguments_have_a_status_of_their_own() {
    for arguments in [&[] as &[&str], &["shrink"], &["load"], &["selftest", "--api", "x"]] {
        let done = support::ctl_now(arguments, &[]);
        assert_eq!(done.status, 64, "{arguments:?}: {}", done.complained);
        assert!(done.complained.contains("see --help"), "{}", done.complained);
    }
    for arguments in [&["--help"] as &[&str], &["load", "--help"]] {
        let done = support::ctl_now(arguments, &[]);
        assert_eq!(done.status, 0);
        for command in [
            "selftest --api",
            "load --api",
            "grow-volumes --statefulset",
            "drain-dataservers --statefulset",
        ] {
            assert!(done.said.contains(command), "{}", done.said);
        }
    }
    let version = format!("holdfastctl {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(support::ctl_now(&["--version"], &[]).said, version);
}
