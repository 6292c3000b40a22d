//! When an index that was closed has let go of its journal.
//!
//! fjall 3.1 counts a worker as gone a moment before the worker drops what it
//! holds, and that may be the last handle of the journal. So the database can be
//! closed and its lock be free while the journal is still to be closed, and what
//! a full disk left in the buffer of it is written only then, perhaps after it
//! was read, cut and opened again. This process sees which files it has open.

use std::io;
use std::path::Path;
use std::time::Duration;

use holdfast_runtime::{FileSystem, Runtime};

use super::super::IndexError;
use super::failure::io_error;
use super::journal;

/// Names of the open files of this process, as links to them.
const OPEN_FILES: &str = "/proc/self/fd";

/// The first wait; each one is twice as long, up to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// In that time a disk that lives has closed a file.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until this process has no journal of the index open. Blocks.
///
/// # Errors
/// [`IndexError::Failed`] when one stays open, or when it cannot be told: to open
/// the index now could mix two histories.
pub(super) fn wait(files: &dyn FileSystem, directory: &Path) -> Result<(), IndexError> {
    // Open files are known by the path that has no links in it.
    let directory = std::fs::canonicalize(directory).map_err(|error| io_error(&error))?;
    // It is closed by a thread of fjall, which lives in real time.
    let clock = Runtime::real();
    let deadline = clock.now().saturating_add(PATIENCE);
    let mut pause = SHORTEST_PAUSE;
    loop {
        let open = has_open_journal(files, &directory);
        if matches!(open, Ok(false)) {
            return Ok(());
        }
        if clock.now() >= deadline {
            let reason = match open {
                Err(error) => format!("whether its journal is still open cannot be told: {error}"),
                Ok(_) => "its journal is still open since it was closed".to_owned(),
            };
            return Err(IndexError::Failed { reason });
        }
        std::thread::park_timeout(pause);
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
}

/// On a system that has no such list nothing is known to be open. To read it
/// needs a descriptor, which the process may be out of.
fn has_open_journal(files: &dyn FileSystem, directory: &Path) -> io::Result<bool> {
    let open = match files.list(Path::new(OPEN_FILES)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        open => open?,
    };
    let is_journal = |file: &Path| {
        file.starts_with(directory) && file.to_string_lossy().ends_with(journal::SUFFIX)
    };
    // One that cannot be read was closed meanwhile.
    Ok(open.iter().filter_map(|link| std::fs::read_link(link).ok()).any(|file| is_journal(&file)))
}
