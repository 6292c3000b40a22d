//! What a disk does wrong, and how it is set up.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use super::journal::Names;

/// Chooses files or directories by path.
#[derive(Clone)]
pub struct Matching(Arc<dyn Fn(&Path) -> bool + Send + Sync>);

impl Matching {
    pub fn new(matches: impl Fn(&Path) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(matches))
    }

    pub fn everything() -> Self {
        Self::new(|_| true)
    }

    pub fn below(directory: &'static str) -> Self {
        Self::new(move |path| path.starts_with(directory))
    }

    pub fn matches(&self, path: &Path) -> bool {
        (self.0)(path)
    }
}

impl fmt::Debug for Matching {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Matching")
    }
}

/// How a disk is. A power cut does not change it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Size of the disk in bytes. Files take it in chunks of 4 KiB, names and
    /// holes take none.
    pub capacity_bytes: u64,
    /// In which order names reach the disk.
    pub names: Names,
    /// Whether it has `O_DIRECT`.
    pub direct: bool,
    /// Whether operations are kept, so that it can be cut at an earlier one. A
    /// disk without can be cut only as it is now.
    pub keeps_history: bool,
    /// Files whose fdatasync says that it is done and does nothing.
    pub lying_files: Option<Matching>,
    /// Directories whose sync says that it is done and does nothing.
    pub lying_directories: Option<Matching>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            capacity_bytes: 1 << 40,
            names: Names::Independent,
            direct: false,
            keeps_history: true,
            lying_files: None,
            lying_directories: None,
        }
    }
}

/// Calls that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    SyncData,
    SyncDirectory,
    /// A failed write leaves the first half of its bytes behind.
    Write,
    Read,
}

/// A call that fails.
#[derive(Debug, Clone)]
pub struct Fault {
    pub call: Call,
    /// How many such calls succeed first.
    pub after: u64,
    /// Whether all that follow fail too.
    pub lasts: bool,
    pub errno: Errno,
    /// Which paths it is about.
    pub on: Matching,
}

impl Fault {
    /// The next such call fails with an I/O error, wherever it is.
    pub fn next(call: Call) -> Self {
        Self { call, after: 0, lasts: false, errno: Errno::IO, on: Matching::everything() }
    }

    pub fn after(self, after: u64) -> Self {
        Self { after, ..self }
    }

    pub fn lasting(self) -> Self {
        Self { lasts: true, ..self }
    }

    pub fn errno(self, errno: Errno) -> Self {
        Self { errno, ..self }
    }

    pub fn on(self, on: Matching) -> Self {
        Self { on, ..self }
    }
}

/// The faults that are still to come.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Counts a call, and says whether it fails.
    pub fn check(&mut self, call: Call, path: &Path) -> Result<(), Errno> {
        let concerned = |fault: &Fault| fault.call == call && fault.on.matches(path);
        let mut outcome = Ok(());
        self.0.retain_mut(|fault| {
            if !concerned(fault) {
                return true;
            }
            if fault.after > 0 {
                fault.after -= 1;
                return true;
            }
            outcome = Err(fault.errno);
            fault.lasts
        });
        outcome
    }
}
