//! Cleans up after this test process, however it ends: what lives in a `static`
//! is never dropped, and a test process may be killed.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Reads what to clean up until its standard input closes, then kills and
/// removes it.
/// What libfaketime leaves of a process is named by its id.
const SCRIPT: &str = r#"pids=" " mounts=" " dirs=" "
while read -r verb what; do
  case $verb in
    pid) pids="$pids$what " ;;
    gone) pids=${pids%% $what *}" "${pids#* $what } ;;
    mount) mounts="$mounts$what " ;;
    unmounted) mounts=${mounts%% $what *}" "${mounts#* $what } ;;
    dir) dirs="$dirs$what " ;;
  esac
done
for pid in $pids; do
  kill -9 "$pid"
  rm -f "/dev/shm/faketime_shm_$pid" "/dev/shm/sem.faketime_sem_$pid"
done
for mount in $mounts; do umount --lazy "$mount"; done
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

/// Has a directory removed when this process ends, however it ends. Until then a
/// thread of it may still write there.
///
/// # Panics
/// When the watchdog cannot be started.
pub fn watch_directory(path: &Path) {
    tell(&format!("dir {}", path.display()));
}

/// Has a file system unmounted when this process ends.
pub(crate) fn watch_mount(path: &Path) {
    tell(&format!("mount {}", path.display()));
}

/// It is unmounted.
pub(crate) fn forget_mount(path: &Path) {
    tell(&format!("unmounted {}", path.display()));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its script alone, with what it calls replaced by what tells of it.
    #[test]
    fn it_cleans_up_what_it_was_told_of_and_not_forgotten() {
        let told = "kill() { echo kill \"$2\"; }; umount() { echo umount \"$2\"; }; \
                    rm() { case $2 in /dev/shm/*) ;; *) echo rm \"$2\" ;; esac; }\n";
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{told}{SCRIPT}")]).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("every system has it");
        let lines =
            "dir /one\npid 11\npid 1\nmount /one/a\nmount /one/a-b\ngone 1\nunmounted /one/a\n";
        child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("it reads");
        let said = child.wait_with_output().expect("a child of ours");
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        // A directory is removed when nothing is mounted in it any more.
        assert_eq!(said, "kill 11\numount /one/a-b\nrm /one\n");
    }
}
