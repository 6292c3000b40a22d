//! Where RabbitMQ is installed, and the part of it that a node needs.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// What the boot script names itself; the rest follows from their `.app` files.
const ROOTS: [&str; 2] = ["rabbit", "rabbitmq_prelaunch"];

/// The directory of the installed version, such as
/// `/usr/lib/rabbitmq/lib/rabbitmq_server-3.10.8`.
pub(super) fn home() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/rabbitmq/lib").into_iter().flatten().flatten();
    let homes = versions.map(|entry| entry.path()).filter(|path| path.join("plugins").is_dir());
    homes.max().unwrap_or_else(|| {
        panic!(
            "this test needs a real RabbitMQ, and there is none; install it with: \
             apt-get install -y --no-install-recommends rabbitmq-server"
        )
    })
}

/// Links the applications that a node without plugins needs into `directory`.
///
/// Erlang looks for each of some 1,500 modules in every directory of its path:
/// without the 40 plugins that are not used, a start takes 5 s and not 11 s.
pub(super) fn link_applications(directory: &Path) {
    let plugins = home().join("plugins");
    let installed: Vec<PathBuf> = std::fs::read_dir(&plugins)
        .expect("the directory was just found")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    let mut wanted: Vec<String> = ROOTS.map(str::to_owned).to_vec();
    let mut seen = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        // What is not here comes with Erlang itself.
        let Some(path) = installed.iter().find(|path| is_application(path, &name)) else {
            continue;
        };
        let file_name = path.file_name().expect("an entry of a directory");
        symlink(path, directory.join(file_name)).expect("the directory is ours");
        wanted.extend(dependencies(path, &name));
    }
}

/// Whether `path` is `name` or `name-<version>`.
fn is_application(path: &Path, name: &str) -> bool {
    let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match file_name.strip_prefix(name) {
        Some("") => true,
        Some(rest) => rest
            .strip_prefix('-')
            .is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit())),
        None => false,
    }
}

/// What `{applications, [...]}` in the `.app` file lists.
fn dependencies(path: &Path, name: &str) -> Vec<String> {
    let file = path.join("ebin").join(format!("{name}.app"));
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let text: String = text.chars().filter(|character| !character.is_whitespace()).collect();
    let Some((_, list)) = text.split_once("{applications,[") else { return Vec::new() };
    let list = list.split_once(']').map_or("", |(list, _)| list);
    list.split(',').map(|name| name.trim_matches('\'').to_owned()).collect()
}
