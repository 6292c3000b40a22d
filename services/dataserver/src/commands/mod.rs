//! What the binary does for operators, beside being a data server: commands that
//! look at a volume, and need no setting but those of the volume.
//!
//! | exit status | meaning |
//! |---|---|
//! | 0 | done; nothing is wrong |
//! | 1 | it could not be done |
//! | 2 | `fsck` found damage, and some of it is still there |
//! | 3 | `fsck --repair` found damage and took it away, as far as it can be |
//! | 64 | arguments or settings are wrong; nothing was opened |

mod fsck;
mod output;
mod progress;
mod rebuild;
mod stats;

use std::ffi::OsString;

use holdfast_coordinator::process::{Command, EXIT_USAGE, Invocation};
use holdfast_runtime::Runtime;
use holdfast_store::StoreError;

use self::output::{complain, say};
use crate::config::VolumeSettings;

/// All of them.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "fsck",
        arguments: "[--repair] [--quick] [--json]",
        about: "Checks the volume in STORAGE_ROOT: log, index and payload files. With --repair, \
                accepts what is lost; with --quick, leaves large payloads out.",
        run: |invocation| run(invocation, &["--repair", "--quick", "--json"], fsck::fsck),
    },
    Command {
        name: "stats",
        arguments: "[--json]",
        about: "Says how much there is in the volume in STORAGE_ROOT.",
        run: |invocation| run(invocation, &["--json"], stats::stats),
    },
    Command {
        name: "rebuild-index",
        arguments: "",
        about: "Builds the index of the stopped volume in STORAGE_ROOT anew from its log.",
        run: |invocation| run(invocation, &[], rebuild::rebuild_index),
    },
];

/// It could not be done.
const FAILED: u8 = 1;

/// What a command works with.
struct Call {
    binary: &'static str,
    options: Vec<OsString>,
    volume: VolumeSettings,
    runtime: Runtime,
}

impl Call {
    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|given| given == option)
    }
}

fn run(
    invocation: Invocation,
    options: &[&str],
    command: fn(&Call) -> Result<u8, StoreError>,
) -> u8 {
    let Invocation { binary, arguments, variables, runtime } = invocation;
    let is_known = |argument: &OsString| options.iter().any(|option| argument == option);
    if let Some(unknown) = arguments.iter().find(|argument| !is_known(argument)) {
        complain(format_args!("{binary}: unknown argument {unknown:?}; see --help"));
        return EXIT_USAGE;
    }
    let volume = match VolumeSettings::from_variables(variables) {
        Ok(volume) => volume,
        Err(bad) => {
            complain(format_args!("{binary}: {bad}"));
            return EXIT_USAGE;
        }
    };
    let call = Call { binary, options: arguments, volume, runtime };
    command(&call).unwrap_or_else(|error| {
        complain(format_args!("{binary}: {error}"));
        FAILED
    })
}

/// One line of JSON.
fn say_json(value: &impl serde::Serialize) {
    match serde_json::to_string(value) {
        Ok(json) => say(format_args!("{json}")),
        Err(error) => complain(format_args!("{error}")),
    }
}
