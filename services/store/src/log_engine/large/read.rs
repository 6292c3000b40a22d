//! Large payloads on their way out.

use holdfast_core::name::ObjectName;
use holdfast_core::object::Stat;

use super::{LargeFiles, is_not_found};
use crate::StoreError;
use crate::log_engine::index::FileId;
use crate::payload_file::damage::Damage;
use crate::payload_file::object_file::{ObjectFile, READER_TAIL_BYTES};

/// Opens the payload file of a version that the log has. It keeps what it opened,
/// also when the file is removed meanwhile. Blocks.
///
/// # Errors
/// [`StoreError::Corrupt`] when the file is not there, or is not the one that was
/// written for this version; [`StoreError::Io`].
pub(crate) fn open(
    files: &LargeFiles,
    id: FileId,
    name: &ObjectName,
    stat: &Stat,
) -> Result<ObjectFile, StoreError> {
    let path = files.path(id);
    let file = ObjectFile::open(&files.disk, path.clone(), READER_TAIL_BYTES);
    let file = match file {
        Err(error) if is_not_found(&error) => Err(missing().at(path.clone())),
        result => result,
    }?;
    check(&file, name, stat).map_err(|damage| damage.at(path))?;
    Ok(file)
}

fn missing() -> Damage {
    Damage::new("the payload file", "a file", "none")
}

/// Metadata is what the log says of it.
fn check(file: &ObjectFile, name: &ObjectName, stat: &Stat) -> Result<(), Damage> {
    let found = file.stat();
    Damage::unless_equal("the name in the trailer", name, file.name())?;
    Damage::unless_equal("the version in the trailer", stat.version, found.version)?;
    Damage::unless_equal("the length in the trailer", stat.size_bytes, found.size_bytes)?;
    Damage::unless_equal("the digest in the trailer", stat.digest, found.digest)
}
