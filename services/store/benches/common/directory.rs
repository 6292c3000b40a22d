//! A directory of its own for all that is measured.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use holdfast_runtime::Runtime;

use super::settings;

/// Removes the directory once its standard input closes: that is when this
/// process ends, however it ends.
const WATCHDOG: &str = r#"cat >/dev/null; rm -rf "$1""#;

/// Removed with all that is in it when it is dropped, and also when the process
/// is interrupted.
#[derive(Debug)]
pub(crate) struct BenchDirectory {
    path: PathBuf,
    watchdog: Child,
}

impl BenchDirectory {
    pub(crate) fn new() -> Self {
        let path = settings::root().join(format!("{:016x}", Runtime::real().random_u64()));
        std::fs::create_dir_all(&path).expect("HOLDFAST_BENCH_DIR is writable");
        let watchdog = watchdog(&path);
        Self { path, watchdog }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A path in it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for BenchDirectory {
    fn drop(&mut self) {
        // The watchdog is only needed when this does not run.
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        // A directory that stays is seen, and does no other harm.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// In a session of its own, so that an interrupt from the keyboard ends all but
/// the one who cleans up.
fn watchdog(directory: &Path) -> Child {
    let mut command = Command::new("setsid");
    command.args(["sh", "-c", WATCHDOG, "watchdog"]).arg(directory);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("setsid is part of every Debian")
}

/// Bytes that a directory takes on the disk.
pub(crate) fn disk_bytes(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::symlink_metadata(path)?;
    let mut bytes = metadata.blocks() * 512;
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            bytes += disk_bytes(&entry?.path())?;
        }
    }
    Ok(bytes)
}
