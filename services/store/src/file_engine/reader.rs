//! Payloads on their way out: which file a name has, and that it is the one that
//! the catalogue speaks of.

use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;

use holdfast_core::name::ObjectName;
use holdfast_core::object::Stat;
use holdfast_core::version::Version;

use super::Shared;
use super::catalog::Target;
use crate::decide::{checked_range, readable};
use crate::payload_file::damage::Damage;
use crate::payload_file::object_file::{Chunk, ObjectFile, READER_TAIL_BYTES};
use crate::payload_file::stream::{OnDamage, PayloadReader, note_damage, read_twice};
use crate::{Payload, StoreError};

/// What a caller asked for.
#[derive(Debug, Clone)]
struct Request {
    target: Target,
    version: Option<Version>,
    range: Option<Range<u64>>,
}

/// What was opened for it.
struct Opened {
    reader: PayloadReader,
    range: Range<u64>,
    first: Chunk,
}

/// See [`crate::Store::read`].
pub(super) async fn read(
    shared: &Arc<Shared>,
    name: &ObjectName,
    version: Option<Version>,
    range: Option<Range<u64>>,
) -> Result<Payload, StoreError> {
    let request = Request { target: Target::new(name.clone()), version, range };
    // Most of what is asked for and not here is answered without the disk.
    request.resolve(shared)?;
    let opened = match open(shared, request.clone()).await? {
        Some(opened) => opened,
        None => open_undisturbed(shared, request).await?,
    };
    let Opened { reader, range, first } = opened;
    let stat = reader.file().stat().clone();
    Ok(Payload { stat, bytes: reader.stream(range, first) })
}

impl Request {
    fn resolve(&self, shared: &Shared) -> Result<(Stat, Range<u64>), StoreError> {
        let name = &self.target.name;
        let stat = readable(name, shared.catalog.lookup(name)?.as_ref(), self.version)?;
        let range = checked_range(self.range.clone(), stat.size_bytes)?;
        Ok((stat, range))
    }

    /// Opens the newest version and reads its first chunk. `None` when the file
    /// is not the one that the catalogue has: a commit is between the two.
    fn open(&self, shared: &Arc<Shared>) -> Result<Option<Opened>, StoreError> {
        let (stat, range) = self.resolve(shared)?;
        let path = shared.disk.path(self.target.hash.path());
        let on_damage = suspect(shared, &self.target);
        let open = || ObjectFile::open(&shared.disk, path.clone(), READER_TAIL_BYTES);
        let file = match read_twice(open) {
            Ok(file) => file,
            // It may just have been forgotten; under the lock of the name that
            // is certain.
            Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(note_damage(error, &on_damage)),
        };
        if (file.name(), file.stat()) != (&self.target.name, &stat) {
            return Ok(None);
        }
        let reader = PayloadReader::new(Arc::clone(&shared.disk), file, Arc::clone(&on_damage));
        let first = reader.first_chunk(&range).map_err(|error| note_damage(error, &on_damage))?;
        Ok(Some(Opened { reader, range, first }))
    }
}

async fn open(shared: &Arc<Shared>, request: Request) -> Result<Option<Opened>, StoreError> {
    let volume = Arc::clone(shared);
    shared.disk.run(move |_| request.open(&volume)).await
}

/// Opens a name while nobody commits to it: what does not fit together now is
/// damaged.
async fn open_undisturbed(shared: &Arc<Shared>, request: Request) -> Result<Opened, StoreError> {
    let guard = shared.locks.lock(request.target.hash).await;
    let volume = Arc::clone(shared);
    let opened = shared.disk.run(move |disk| {
        let _guard = guard;
        request.open(&volume)?.ok_or_else(|| {
            let damage = Damage::new("the trailer", "the version that was stored", "another one");
            let error = damage.at(disk.path(request.target.hash.path()));
            note_damage(error, &suspect(&volume, &request.target))
        })
    });
    opened.await
}

/// Takes note that the file of a name refused a read.
fn suspect(shared: &Arc<Shared>, target: &Target) -> OnDamage {
    let (volume, hash) = (Arc::clone(shared), target.hash);
    Arc::new(move |_| volume.catalog.mark_suspect(hash))
}
