//! What goes wrong in fjall, as errors of the index.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::fjall::{Error, LsmError};

use super::super::IndexError;

/// Runs a call into fjall. It asserts in places what only a sound file
/// fulfils; such a panic is damage, and must not take the store with it.
///
/// Unwind safety is asserted because nothing of ours is changed inside such a
/// call, and what fjall may have left half done is not used again: its locks
/// are poisoned, and the index is dropped after [`IndexError::Damaged`].
pub(super) fn guarded<T>(call: impl FnOnce() -> Result<T, Error>) -> Result<T, IndexError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(index_error),
        Err(panic) => Err(damaged(format!("fjall panicked: {}", message(&*panic)))),
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

pub(super) fn damaged(reason: impl Into<String>) -> IndexError {
    IndexError::Damaged { reason: reason.into() }
}

fn index_error(error: Error) -> IndexError {
    match error {
        Error::Io(error) | Error::Storage(LsmError::Io(error)) => io_error(&error),
        Error::Storage(_)
        | Error::JournalRecovery(_)
        | Error::InvalidVersion(_)
        | Error::Decompress(_)
        | Error::InvalidTrailer
        | Error::InvalidTag(_)
        | Error::Unrecoverable => damaged(error.to_string()),
        _ => IndexError::Failed { reason: error.to_string() },
    }
}

/// A file that is missing, cut or no file is damage: what it should have held
/// is in the log. Any other failure says nothing about what is on the disk.
pub(super) fn io_error(error: &io::Error) -> IndexError {
    use io::ErrorKind;
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => IndexError::NoSpace,
        ErrorKind::NotFound
        | ErrorKind::AlreadyExists
        | ErrorKind::IsADirectory
        | ErrorKind::NotADirectory
        | ErrorKind::InvalidData
        | ErrorKind::UnexpectedEof => damaged(error.to_string()),
        _ => IndexError::Failed { reason: error.to_string() },
    }
}
