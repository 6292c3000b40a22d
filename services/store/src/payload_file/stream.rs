//! A payload on its way out: read in chunks, each verified before any of it is
//! given.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};

use super::checksum::JoinedDigest;
use super::damage::Damage;
use super::object_file::{CHUNK_BYTES, Chunk, ObjectFile};
use crate::StoreError;
use crate::disk::Disk;

/// Chunks that are read ahead of the one that is waited for, and held in
/// memory.
const CHUNKS_AT_ONCE: usize = 2;

/// Reads, and once more if the disk refuses: an error that passes must not cost a
/// copy. Blocks as `read` does.
pub(crate) fn read_twice<T>(read: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    match read() {
        Err(error) if error.is_of_the_medium() => {
            tracing::warn!(%error, "the disk refused a read, which is tried once more");
            read()
        }
        result => result,
    }
}

/// Told of damage that a read met, which is on its way to the caller too. It may
/// be called on an async thread, and more than once for a file: it must not
/// block.
pub(crate) type OnDamage = Arc<dyn Fn(&StoreError) + Send + Sync>;

/// Reads the payload of one open file.
#[derive(Clone)]
pub(crate) struct PayloadReader {
    disk: Arc<Disk>,
    file: Arc<ObjectFile>,
    on_damage: OnDamage,
}

impl fmt::Debug for PayloadReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PayloadReader").field("file", &self.file).finish_non_exhaustive()
    }
}

impl PayloadReader {
    pub(crate) fn new(disk: Arc<Disk>, file: ObjectFile, on_damage: OnDamage) -> Self {
        Self { disk, file: Arc::new(file), on_damage }
    }

    pub(crate) fn file(&self) -> &ObjectFile {
        &self.file
    }

    /// Reads what [`Self::stream`] gives first. `range` lies within the payload.
    /// Damage is for the caller to note, who can tell whether the file is still the
    /// one that counts. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::Io`].
    pub(crate) fn first_chunk(&self, range: &Range<u64>) -> Result<Chunk, StoreError> {
        self.chunk(first_chunk(range))
    }

    /// The bytes of `range`, of which `first` is read already. Ends with the
    /// first error.
    pub(crate) fn stream(
        self,
        range: Range<u64>,
        first: Chunk,
    ) -> BoxStream<'static, Result<Bytes, StoreError>> {
        let is_whole = range == (0..self.file.stat().size_bytes);
        let check = WholeCheck { reader: self.clone(), is_whole, joined: JoinedDigest::default() };
        let rest = stream::iter(chunk_ranges(range).skip(1))
            .map(move |range| {
                let reader = self.clone();
                let disk = Arc::clone(&self.disk);
                async move { disk.run(move |_| reader.next_chunk(range)).await }
            })
            .buffered(CHUNKS_AT_ONCE);
        let first = (!first.bytes.is_empty()).then_some(Ok(first));
        stream::iter(first)
            .chain(rest)
            .scan(Some(check), |check, chunk| std::future::ready(until_error(check, chunk)))
            .boxed()
    }

    fn next_chunk(&self, range: Range<u64>) -> Result<Chunk, StoreError> {
        self.chunk(range).map_err(|error| self.refused(error))
    }

    fn chunk(&self, range: Range<u64>) -> Result<Chunk, StoreError> {
        let chunk = read_twice(|| self.file.chunk(range.clone()))?;
        self.disk.metrics().on_read(chunk.bytes.len());
        Ok(chunk)
    }

    fn refused(&self, error: StoreError) -> StoreError {
        note_damage(error, &self.on_damage)
    }
}

/// Takes note of damage on its way to the caller.
pub(crate) fn note_damage(error: StoreError, on_damage: &OnDamage) -> StoreError {
    if error.is_damage() {
        tracing::error!(%error, "a read met damage");
        on_damage(&error);
    }
    error
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
    reader: PayloadReader,
    is_whole: bool,
    joined: JoinedDigest,
}

impl WholeCheck {
    fn pass(&mut self, chunk: Chunk) -> Result<Bytes, StoreError> {
        if self.is_whole {
            self.joined.append(chunk.digest, chunk.bytes.len() as u64);
            let file = self.reader.file();
            if self.joined.size_bytes() == file.stat().size_bytes {
                Damage::unless_equal("the whole payload", file.stat().digest, self.joined.digest())
                    .map_err(|damage| damage.at(file.path().to_owned()))
                    .map_err(|error| self.reader.refused(error))?;
            }
        }
        Ok(chunk.bytes)
    }
}
