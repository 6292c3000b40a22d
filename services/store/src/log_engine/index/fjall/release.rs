//! When an index that was closed has let go of its journal.
//!
//! fjall 3.1 counts a worker as gone a moment before the worker drops what it
//! holds, and that may be the last handle of the journal. So the database can be
//! closed and its lock be free while the journal is still to be closed, and what
//! a full disk left in the buffer of it is written only then, perhaps after it
//! was read, cut and opened again. This process sees which files it has open.

use std::path::Path;
use std::time::Duration;

use holdfast_runtime::FileSystem;

use super::super::IndexError;
use super::failure::io_error;
use super::journal;

/// Names of the open files of this process, as links to them.
const OPEN_FILES: &str = "/proc/self/fd";

const PAUSE: Duration = Duration::from_millis(2);

/// Some ten seconds, in which a disk that lives has closed a file.
const MOST_PAUSES: u32 = 5_000;

/// Waits until this process has no journal of the index open. Blocks.
///
/// # Errors
/// [`IndexError::Failed`] when one stays open: to open the index now could mix
/// two histories.
pub(super) fn wait(files: &dyn FileSystem, directory: &Path) -> Result<(), IndexError> {
    // Open files are known by the path that has no links in it.
    let directory = std::fs::canonicalize(directory).map_err(|error| io_error(&error))?;
    for _ in 0..MOST_PAUSES {
        if !has_open_journal(files, &directory) {
            return Ok(());
        }
        // It is closed by a thread of fjall, which lives in real time.
        std::thread::park_timeout(PAUSE);
    }
    Err(IndexError::Failed { reason: "its journal is still open since it was closed".into() })
}

/// Without the list, on a system that has none, nothing is known to be open.
fn has_open_journal(files: &dyn FileSystem, directory: &Path) -> bool {
    let open = files.list(Path::new(OPEN_FILES)).unwrap_or_default();
    open.iter().filter_map(|link| std::fs::read_link(link).ok()).any(|file| {
        file.starts_with(directory) && file.to_string_lossy().ends_with(journal::SUFFIX)
    })
}
