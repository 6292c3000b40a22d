//! What the operating system lets this process have.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the number of files and connections that may be open to what the process is
/// allowed at most, and gives it; `None` is without a limit. Shells and container
/// runtimes begin with 1,024 often, for programs that cannot count further: less than a
/// data server with many connections and downloads needs.
///
/// # Errors
/// When the operating system refuses; the limit is as it was then.
pub fn raise_file_limit() -> io::Result<Option<u64>> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(maximum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_may_be_open_as_the_process_is_allowed() {
        let raised = raise_file_limit().expect("it is allowed");
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!((current, raised), (maximum, maximum));
    }
}
