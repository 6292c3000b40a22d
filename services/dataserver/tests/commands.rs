//! The commands of the real binary, on a volume of their own.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "binaries are run, and tests look behind the seam"
)]
#![allow(clippy::indexing_slicing, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bytes::Bytes;
use holdfast_core::name::{Key, ObjectName};
use holdfast_core::object::Metadata;
use holdfast_core::version::Version;
use holdfast_runtime::Runtime;
use holdfast_store::{LogStore, LogStoreOptions, Stamp, Store};

/// A directory of its own, removed in the end.
struct Root(PathBuf);

impl Root {
    fn new() -> Self {
        let unique = Runtime::real().random_u128();
        Self(std::env::temp_dir().join(format!("holdfast-commands-{unique:032x}")))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // What stays is in the temporary directory, where nobody minds.
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn open(root: &Path) -> LogStore {
    let options = LogStoreOptions::default();
    LogStore::open(Runtime::real(), root.to_owned(), options).await.expect("a volume")
}

async fn volume() -> Root {
    let root = Root::new();
    let store = open(&root.0).await;
    for key in ["first", "second", "third"] {
        let name = ObjectName::seed(Key::new(key).expect("a key"));
        let version = Version::from_parts(1, 1);
        let stamp = Stamp { version, metadata: Metadata::default() };
        store.put(name, stamp, Bytes::from_static(b"content")).await.expect("stored");
    }
    store.close().await;
    root
}

fn run(root: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-dataserver"));
    command.env_clear().env("STORAGE_ROOT", root).args(arguments);
    command.output().expect("the binary was built")
}

/// The exit status and the lines of standard output.
fn ask(root: &Path, arguments: &[&str]) -> (i32, String) {
    let output = run(root, arguments);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().expect("it ended by itself"), said)
}

/// Makes the head of a record unreadable.
fn damage(root: &Path, key: &str) {
    let mut segments = fs::read_dir(root.join("log")).expect("a log");
    let path = segments.next().expect("a segment").expect("it was listed").path();
    let mut bytes = fs::read(&path).expect("it is there");
    let found = bytes.windows(key.len()).position(|window| window == key.as_bytes());
    bytes[found.expect("the key is in it")] ^= 1;
    fs::write(&path, bytes).expect("it is ours");
}

#[tokio::test]
async fn damage_is_found_and_repaired() {
    let root = volume().await;
    let (status, said) = ask(&root.0, &["fsck"]);
    assert_eq!(status, 0, "{said}");
    damage(&root.0, "second");
    let (status, said) = ask(&root.0, &["fsck", "--quick"]);
    assert_eq!(status, 2, "{said}");
    assert!(said.contains(".seg at "), "where it is:\n{said}");
    assert!(said.contains("objects/second version"), "what it was:\n{said}");
    assert!(said.contains("fsck --repair"), "what to do:\n{said}");
    let (status, said) = ask(&root.0, &["fsck", "--json"]);
    assert_eq!(status, 2);
    let lines = said.lines().map(serde_json::from_str);
    let lines: Vec<serde_json::Value> = lines.collect::<Result<_, _>>().expect("lines of JSON");
    assert!(lines.iter().any(|line| line["finding"]["kind"] == "unreadable-region"), "{said}");
    assert!(lines.last().is_some_and(|line| line["report"]["record_count"].is_u64()), "{said}");
    let (status, said) = ask(&root.0, &["fsck", "--repair"]);
    assert_eq!(status, 3, "{said}");
    assert!(said.contains("accepting the loss of"), "{said}");
    assert_eq!(ask(&root.0, &["fsck"]).0, 0);
    assert_eq!(ask(&root.0, &["fsck", "--repair"]).0, 0);
    let store = open(&root.0).await;
    assert_eq!(store.report().doubtful_count, 0);
    assert_eq!(store.usage().await.expect("it is open").object_count, 3);
}

#[tokio::test]
async fn stock_is_taken_and_the_index_built_anew() {
    let root = volume().await;
    let (status, said) = ask(&root.0, &["stats"]);
    assert_eq!(status, 0);
    assert!(said.contains("objects             3, 21 bytes"), "{said}");
    let (status, said) = ask(&root.0, &["stats", "--json"]);
    assert_eq!(status, 0);
    let stats: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(stats["contents"]["object_count"], 3);
    assert_eq!(ask(&root.0, &["rebuild-index"]).0, 0);
    assert_eq!(ask(&root.0, &["fsck"]).0, 0);
}

#[tokio::test]
async fn a_volume_in_use_is_checked_in_part_and_not_changed() {
    let root = volume().await;
    let store = open(&root.0).await;
    let (status, said) = ask(&root.0, &["fsck"]);
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("a process uses the volume"), "{said}");
    let (status, said) = ask(&root.0, &["stats"]);
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("metrics"), "{said}");
    for command in [["fsck", "--repair"].as_slice(), &["rebuild-index"]] {
        let output = run(&root.0, command);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("in use"));
    }
    store.close().await;
}

#[test]
fn what_is_asked_wrongly_is_refused_before_anything_is_opened() {
    let root = Root::new();
    assert_eq!(ask(&root.0, &["fsck", "--force"]).0, 64);
    assert_eq!(ask(&root.0, &["stats", "--repair"]).0, 64);
    assert_eq!(ask(&root.0, &["fsk"]).0, 64);
    assert_eq!(ask(Path::new(""), &["fsck"]).0, 64, "STORAGE_ROOT is not set");
    assert_eq!(ask(&root.0, &["fsck"]).0, 1, "there is no volume");
    assert!(!root.0.exists());
    let (status, said) = ask(&root.0, &["--help"]);
    assert_eq!(status, 0);
    for command in ["fsck [--repair] [--quick] [--json]", "stats [--json]", "rebuild-index"] {
        assert!(said.contains(command), "{said}");
    }
}
