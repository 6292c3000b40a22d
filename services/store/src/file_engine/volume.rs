//! What this engine keeps in a volume.
//!
//! ```text
//! <root>/
//!   staging/      payloads on their way in; emptied when the volume is opened
//!   objects/00/ … objects/ff/
//!                 one file for each name: the newest version of it
//!   quarantine/   damaged files that were put aside, when there are any
//! ```

use super::name_hash::fan_out_directory;
use crate::volume::VolumeSpec;

pub(super) fn spec() -> VolumeSpec {
    VolumeSpec {
        engine: "file",
        version: 1,
        directories: (0..=u8::MAX).map(fan_out_directory).collect(),
        staging: Some("staging"),
        advice: &[],
    }
}
