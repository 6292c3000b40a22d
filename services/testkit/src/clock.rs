//! A wall clock of a process's own, which is wrong and can be set while the
//! process runs. libfaketime stands between the process and the C library; the
//! monotonic clocks stay true, as they do when somebody sets a machine's clock.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::Service;

/// Where distributions have it.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// What is preloaded. Releases up to 0.9.7 know the first name of the switch that
/// spares the monotonic clocks, later ones the second.
const VARIABLES: [(&str, &str); 3] = [
    ("DONT_FAKE_MONOTONIC", "1"),
    ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ("FAKETIME_NO_CACHE", "1"),
];

/// The way to clocks that are wrong.
#[derive(Debug, Clone)]
pub struct Clocks {
    library: &'static str,
}

impl Clocks {
    /// Looks for libfaketime and tries it.
    ///
    /// # Errors
    /// Why there can be no wrong clock.
    pub fn find() -> Result<Self, String> {
        let library = LIBRARIES.into_iter().find(|path| Path::new(path).exists());
        let library = library.ok_or("libfaketime is not here: apt-get install faketime")?;
        let year = |offset: &str| {
            let mut date = Command::new("date");
            date.args(["-u", "+%Y"]).env("LD_PRELOAD", library).env("FAKETIME", offset);
            date.output()
                .ok()
                .and_then(|it| String::from_utf8_lossy(&it.stdout).trim().parse().ok())
        };
        let (now, later): (Option<u32>, Option<u32>) = (year("+0"), year("+800d"));
        match now.zip(later) {
            Some((now, later)) if later > now => Ok(Self { library }),
            _ => Err(format!("{library} does not do what it is for")),
        }
    }

    /// Gives `service` a clock of its own from its next start on; `file` says how
    /// wrong it is.
    pub fn give(&self, service: &mut Service, file: PathBuf, ahead_seconds: i64) -> WrongClock {
        let clock = WrongClock { file };
        clock.set(ahead_seconds);
        service.set("LD_PRELOAD", self.library);
        service.set("FAKETIME_TIMESTAMP_FILE", clock.file.display().to_string());
        for (variable, value) in VARIABLES {
            service.set(variable, value);
        }
        clock
    }
}

/// How wrong a clock is.
#[derive(Debug)]
pub struct WrongClock {
    file: PathBuf,
}

impl WrongClock {
    /// Sets it, also of a process that runs: for that, time jumps.
    ///
    /// # Panics
    /// When its directory is not writable.
    pub fn set(&self, ahead_seconds: i64) {
        // At once: half a file would be read as no offset.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{ahead_seconds:+}\n")).expect("the directory is ours");
        std::fs::rename(&new, &self.file).expect("the directory is ours");
    }

    /// Sets it right, and lets `service` do without it from its next start on.
    pub fn take(self, service: &mut Service) {
        self.set(0);
        for (variable, _) in VARIABLES {
            service.unset(variable);
        }
        service.unset("LD_PRELOAD");
        service.unset("FAKETIME_TIMESTAMP_FILE");
    }
}

/// Removes what libfaketime leaves behind of a process that was killed.
pub(crate) fn clean_up_after(pid: u32) {
    for left in ["faketime_shm_", "sem.faketime_sem_"] {
        // Of most processes there is nothing.
        let _ = std::fs::remove_file(format!("/dev/shm/{left}{pid}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    use crate::process::fresh_directory;

    /// By how many seconds the clock of a process that is given the service's
    /// variables differs.
    fn seconds_ahead(service: &Service) -> i64 {
        let mut date = Command::new("date");
        date.arg("+%s").env_clear();
        for (variable, _) in VARIABLES {
            date.envs(service.setting(variable).map(|value| (variable, value)));
        }
        for variable in ["LD_PRELOAD", "FAKETIME_TIMESTAMP_FILE"] {
            date.envs(service.setting(variable).map(|value| (variable, value)));
        }
        let told = date.output().expect("every system has it");
        let told: i64 = String::from_utf8_lossy(&told.stdout).trim().parse().expect("seconds");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        told - i64::try_from(now.as_secs()).expect("before the end of time")
    }

    #[test]
    #[allow(clippy::print_stderr, reason = "what is not tested is said")]
    fn it_is_as_wrong_as_it_is_set() {
        let clocks = match Clocks::find() {
            Ok(clocks) => clocks,
            Err(reason) => {
                eprintln!("SKIPPED: {reason}");
                return;
            }
        };
        let directory = fresh_directory("clock");
        let mut service = Service::new("holdfast-api", "api", &directory);
        let clock = clocks.give(&mut service, directory.join("api.clock"), -1_200);
        let near = |seconds: i64| (seconds - 5..=seconds + 5).contains(&seconds_ahead(&service));
        assert!(near(-1_200));
        clock.set(90);
        assert!(near(90));
        clock.take(&mut service);
        assert_eq!(service.setting("LD_PRELOAD"), None);
    }
}
