//! Cleans up after this test process, however it ends: what lives in a `static`
//! is never dropped, and a test process may be killed.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Reads what to clean up until its standard input closes, then kills and
/// removes it.
const SCRIPT: &str = r#"pids=" " dirs=" "
while read -r verb what; do
  case $verb in
    pid) pids="$pids$what " ;;
    gone) pids=${pids%% $what *}" "${pids#* $what } ;;
    dir) dirs="$dirs$what " ;;
  esac
done
for pid in $pids; do kill -9 "$pid"; done
for dir in $dirs; do rm -rf "$dir"; done"#;

/// Never waited for: it outlives this process.
static WATCHDOG: OnceLock<Mutex<Child>> = OnceLock::new();

fn tell(line: &str) {
    let watchdog = WATCHDOG.get_or_init(|| {
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", SCRIPT, "watchdog"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Mutex::new(command.spawn().expect("setsid is part of every Debian"))
    });
    let mut watchdog = watchdog.lock().unwrap_or_else(PoisonError::into_inner);
    let stdin = watchdog.stdin.as_mut().expect("it was asked for");
    writeln!(stdin, "{line}").expect("the watchdog lives as long as this process");
}

/// Has a process killed when this one ends.
pub(crate) fn watch_pid(pid: u32) {
    tell(&format!("pid {pid}"));
}

/// The process has ended, and its id may soon be another's.
pub(crate) fn forget_pid(pid: u32) {
    tell(&format!("gone {pid}"));
}

/// Has a directory removed when this process ends.
pub(crate) fn watch_directory(path: &Path) {
    tell(&format!("dir {}", path.display()));
}
