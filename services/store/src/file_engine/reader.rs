//! Payloads on their way out: read in chunks, each verified before any of it is
//! given.

use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use holdfast_core::name::ObjectName;
use holdfast_core::object::Stat;
use holdfast_core::version::Version;

use super::Shared;
use super::catalog::Target;
use super::checksum::JoinedDigest;
use super::damage::Damage;
use super::object_file::{CHUNK_BYTES, Chunk, ObjectFile, READER_TAIL_BYTES};
use crate::decide::{checked_range, readable};
use crate::{Payload, StoreError};

/// Chunks that are read ahead of the one that is waited for, and held in
/// memory.
const CHUNKS_AT_ONCE: usize = 2;

/// What a caller asked for.
#[derive(Debug, Clone)]
struct Request {
    target: Target,
    version: Option<Version>,
    range: Option<Range<u64>>,
}

/// What was opened for it.
struct Opened {
    file: Arc<ObjectFile>,
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
    let stat = opened.file.stat().clone();
    Ok(Payload { stat, bytes: stream_of(shared, opened) })
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
    fn open(&self, shared: &Shared) -> Result<Option<Opened>, StoreError> {
        let (stat, range) = self.resolve(shared)?;
        let path = shared.disk.path(self.target.hash.path());
        let file = match ObjectFile::open(&shared.disk, path, READER_TAIL_BYTES) {
            Ok(file) => file,
            // It may just have been forgotten; under the lock of the name that
            // is certain.
            Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(shared.refused(&self.target, error)),
        };
        if (file.name(), file.stat()) != (&self.target.name, &stat) {
            return Ok(None);
        }
        let first = shared.read_chunk(&self.target, &file, first_chunk(&range))?;
        Ok(Some(Opened { file: Arc::new(file), range, first }))
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
            volume.refused(&request.target, damage.at(disk.path(request.target.hash.path())))
        })
    });
    opened.await
}

impl Shared {
    fn read_chunk(
        &self,
        target: &Target,
        file: &ObjectFile,
        range: Range<u64>,
    ) -> Result<Chunk, StoreError> {
        let chunk = file.chunk(range).map_err(|error| self.refused(target, error))?;
        self.disk.metrics().on_read(chunk.bytes.len());
        Ok(chunk)
    }

    /// Takes note of damage on its way to the caller.
    fn refused(&self, target: &Target, error: StoreError) -> StoreError {
        if matches!(error, StoreError::Corrupt { .. }) {
            tracing::error!(%error, "a read met damage");
            self.catalog.mark_suspect(target.hash);
        }
        error
    }
}

fn first_chunk(range: &Range<u64>) -> Range<u64> {
    let border = (range.start / CHUNK_BYTES + 1).saturating_mul(CHUNK_BYTES);
    range.start..range.end.min(border)
}

/// Cuts a range at the multiples of [`CHUNK_BYTES`].
fn chunk_ranges(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let mut rest = range;
    std::iter::from_fn(move || {
        let chunk = first_chunk(&rest);
        rest.start = chunk.end;
        (!chunk.is_empty()).then_some(chunk)
    })
}

fn stream_of(
    shared: &Arc<Shared>,
    opened: Opened,
) -> BoxStream<'static, Result<Bytes, StoreError>> {
    let Opened { file, range, first } = opened;
    let volume = Arc::clone(shared);
    let target = Target::new(file.name().clone());
    let check = WholeCheck {
        volume: Arc::clone(&volume),
        target: target.clone(),
        is_whole: range == (0..file.stat().size_bytes),
        file: Arc::clone(&file),
        joined: JoinedDigest::default(),
    };
    let rest = stream::iter(chunk_ranges(range).skip(1))
        .map(move |range| {
            let (volume, file, target) = (Arc::clone(&volume), Arc::clone(&file), target.clone());
            let disk = Arc::clone(&volume.disk);
            async move { disk.run(move |_| volume.read_chunk(&target, &file, range)).await }
        })
        .buffered(CHUNKS_AT_ONCE);
    let first = (!first.bytes.is_empty()).then_some(Ok(first));
    stream::iter(first)
        .chain(rest)
        .scan(Some(check), |check, chunk| std::future::ready(until_error(check, chunk)))
        .boxed()
}

/// Passes chunks on until one is an error, which ends the stream.
fn until_error(
    check: &mut Option<WholeCheck>,
    chunk: Result<Chunk, StoreError>,
) -> Option<Result<Bytes, StoreError>> {
    let mut running = check.take()?;
    let passed = chunk.and_then(|chunk| running.pass(chunk));
    if passed.is_ok() {
        *check = Some(running);
    }
    Some(passed)
}

/// Holds a payload that is read from end to end against the digest of the
/// whole; that finds good blocks in a wrong place.
struct WholeCheck {
    volume: Arc<Shared>,
    target: Target,
    file: Arc<ObjectFile>,
    is_whole: bool,
    joined: JoinedDigest,
}

impl WholeCheck {
    fn pass(&mut self, chunk: Chunk) -> Result<Bytes, StoreError> {
        if self.is_whole {
            self.joined.append(chunk.digest, chunk.bytes.len() as u64);
            let stat = self.file.stat();
            if self.joined.size_bytes() == stat.size_bytes {
                Damage::unless_equal("the whole payload", stat.digest, self.joined.digest())
                    .map_err(|damage| damage.at(self.file.path().to_owned()))
                    .map_err(|error| self.volume.refused(&self.target, error))?;
            }
        }
        Ok(chunk.bytes)
    }
}
