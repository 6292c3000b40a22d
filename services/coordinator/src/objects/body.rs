//! A client's payload on its way in: counted, checked, digested once.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use crc_fast::CrcAlgorithm;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream, Stream};
use holdfast_core::object::Digest;
use holdfast_http::body::BodyError;
use holdfast_runtime::Runtime;
use md5::Md5;
use sha2::{Digest as _, Sha256, Sha512};

use super::SMALL_BYTES;
use crate::error::ObjectError;

/// Bytes that are hashed in one go off the async threads: MD5 takes 2 ms for
/// them.
const HASH_BYTES: usize = 1 << 20;

/// Checksums that the client sent with its payload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// Of `Content-MD5` or `Digest`.
    pub md5: Option<Vec<u8>>,
    /// Of `Digest`, `Content-Digest` or `Repr-Digest`.
    pub sha256: Option<Vec<u8>>,
    /// Of `Digest`, `Content-Digest` or `Repr-Digest`.
    pub sha512: Option<Vec<u8>>,
}

/// A payload that a client sends.
pub struct Incoming {
    /// Its bytes.
    pub bytes: BoxStream<'static, Result<Bytes, BodyError>>,
    /// Its length, if the client said so.
    pub size_bytes: Option<u64>,
    /// What it must match.
    pub expected: Expected,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("size_bytes", &self.size_bytes).finish_non_exhaustive()
    }
}

/// The start of a payload, or all of it if it is small.
pub(super) enum Beginning {
    /// All of it, checked.
    Whole { payload: Bytes, digest: Digest },
    /// It is larger; what was read of it comes first in this stream.
    Large(Incoming),
}

/// Reads up to [`SMALL_BYTES`].
pub(super) async fn begin(mut incoming: Incoming, limit: u64) -> Result<Beginning, ObjectError> {
    if incoming.size_bytes.is_some_and(|size| size > limit) {
        return Err(ObjectError::TooLarge { limit_bytes: limit });
    }
    if incoming.size_bytes.is_some_and(|size| size > SMALL_BYTES as u64) {
        return Ok(Beginning::Large(incoming));
    }
    let mut head = BytesMut::new();
    while let Some(chunk) = incoming.bytes.next().await {
        let chunk = chunk.map_err(|error| refusal(error, limit))?;
        if head.len() + chunk.len() > SMALL_BYTES {
            let read = stream::iter([Ok(head.freeze()), Ok(chunk)]);
            incoming.bytes = read.chain(incoming.bytes).boxed();
            return Ok(Beginning::Large(incoming));
        }
        head.extend_from_slice(&chunk);
    }
    let payload = head.freeze();
    if payload.len() as u64 > limit {
        return Err(ObjectError::TooLarge { limit_bytes: limit });
    }
    if incoming.size_bytes.is_some_and(|size| size != payload.len() as u64) {
        return Err(ObjectError::BodyIncomplete);
    }
    let mut hashers = Hashers::new(&incoming.expected);
    hashers.update(&payload);
    hashers.check(&incoming.expected)?;
    let digest = Digest(crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &payload));
    Ok(Beginning::Whole { payload, digest })
}

fn refusal(error: BodyError, limit_bytes: u64) -> ObjectError {
    match error {
        BodyError::Broken(_) => ObjectError::BodyIncomplete,
        BodyError::Idle { .. } => ObjectError::BodyTooSlow,
        BodyError::TooLarge { .. } => ObjectError::TooLarge { limit_bytes },
    }
}

/// What became of a large payload once its stream has ended.
#[derive(Debug, Default)]
pub(super) struct Metered {
    /// Length and digest of a payload that came whole and matches.
    pub(super) complete: Option<(u64, Digest)>,
    /// Why it did not.
    pub(super) refused: Option<ObjectError>,
}

/// What is shared between a stream and who waits for its end.
pub(super) type Outcome = Arc<Mutex<Metered>>;

pub(super) fn take_outcome(outcome: &Outcome) -> Metered {
    std::mem::take(&mut *outcome.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Passes a large payload on and checks it. If it is not what the client
/// announced, the stream ends with an error, so that whoever receives it sees a
/// broken request and drops what it has. The checks are over before the last
/// chunk is passed on: who sends a body of known length asks for no more.
pub(super) fn meter(
    runtime: Runtime,
    incoming: Incoming,
    limit: u64,
) -> (impl Stream<Item = io::Result<Bytes>> + Send + 'static, Outcome) {
    let outcome = Outcome::default();
    let meter = Meter {
        runtime,
        limit,
        size_bytes: 0,
        crc: crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme),
        hashers: Some(Hashers::new(&incoming.expected)),
        unhashed: Vec::new(),
        unhashed_bytes: 0,
        held: None,
        ended: false,
        incoming,
        outcome: Arc::clone(&outcome),
    };
    let stream = stream::try_unfold(meter, |mut meter| async move {
        match meter.next().await {
            Ok(Some(chunk)) => Ok(Some((chunk, meter))),
            Ok(None) => Ok(None),
            Err(error) => {
                let message = error.to_string();
                let mut outcome = meter.outcome.lock().unwrap_or_else(PoisonError::into_inner);
                outcome.refused = Some(error);
                Err(io::Error::new(io::ErrorKind::InvalidData, message))
            }
        }
    });
    (stream, outcome)
}

struct Meter {
    runtime: Runtime,
    incoming: Incoming,
    limit: u64,
    size_bytes: u64,
    crc: crc_fast::Digest,
    hashers: Option<Hashers>,
    unhashed: Vec<Bytes>,
    unhashed_bytes: usize,
    /// The chunk that is passed on next, once it is known whether it is the last.
    held: Option<Bytes>,
    ended: bool,
    outcome: Outcome,
}

impl Meter {
    async fn next(&mut self) -> Result<Option<Bytes>, ObjectError> {
        while !self.ended {
            let next = self.take().await?;
            let ready = match next {
                Some(chunk) => self.held.replace(chunk),
                None => {
                    self.ended = true;
                    self.finish().await?;
                    None
                }
            };
            if ready.is_some() {
                return Ok(ready);
            }
        }
        Ok(self.held.take())
    }

    /// The next chunk from the client, counted and digested.
    async fn take(&mut self) -> Result<Option<Bytes>, ObjectError> {
        let Some(chunk) = self.incoming.bytes.next().await else { return Ok(None) };
        let chunk = chunk.map_err(|error| refusal(error, self.limit))?;
        self.size_bytes += chunk.len() as u64;
        if self.size_bytes > self.limit {
            return Err(ObjectError::TooLarge { limit_bytes: self.limit });
        }
        self.crc.update(&chunk);
        if self.hashers.as_ref().is_some_and(Hashers::is_needed) {
            self.unhashed_bytes += chunk.len();
            self.unhashed.push(chunk.clone());
            if self.unhashed_bytes >= HASH_BYTES {
                self.hash().await?;
            }
        }
        Ok(Some(chunk))
    }

    /// Off the async threads: MD5 and SHA-256 are slower than the network.
    async fn hash(&mut self) -> Result<(), ObjectError> {
        let chunks = std::mem::take(&mut self.unhashed);
        self.unhashed_bytes = 0;
        let Some(mut hashers) = self.hashers.take() else { return Ok(()) };
        let hashed = self.runtime.blocking(move || {
            chunks.iter().for_each(|chunk| hashers.update(chunk));
            hashers
        });
        self.hashers = Some(hashed.await.map_err(|_| ObjectError::ShuttingDown)?);
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), ObjectError> {
        if self.incoming.size_bytes.is_some_and(|size| size != self.size_bytes) {
            return Err(ObjectError::BodyIncomplete);
        }
        self.hash().await?;
        if let Some(hashers) = self.hashers.take() {
            hashers.check(&self.incoming.expected)?;
        }
        let complete = (self.size_bytes, Digest(self.crc.finalize()));
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).complete = Some(complete);
        Ok(())
    }
}

/// The hashes that the client asked for, and no others.
struct Hashers {
    md5: Option<Md5>,
    sha256: Option<Sha256>,
    sha512: Option<Sha512>,
}

impl Hashers {
    fn new(expected: &Expected) -> Self {
        Self {
            md5: expected.md5.as_ref().map(|_| Md5::new()),
            sha256: expected.sha256.as_ref().map(|_| Sha256::new()),
            sha512: expected.sha512.as_ref().map(|_| Sha512::new()),
        }
    }

    fn is_needed(&self) -> bool {
        self.md5.is_some() || self.sha256.is_some() || self.sha512.is_some()
    }

    fn update(&mut self, bytes: &[u8]) {
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(bytes);
        }
    }

    fn check(self, expected: &Expected) -> Result<(), ObjectError> {
        let same = |algorithm, expected: &Option<Vec<u8>>, found: Option<Vec<u8>>| {
            if *expected == found { Ok(()) } else { Err(ObjectError::DigestMismatch { algorithm }) }
        };
        same("MD5", &expected.md5, self.md5.map(|hash| hash.finalize().to_vec()))?;
        same("SHA-256", &expected.sha256, self.sha256.map(|hash| hash.finalize().to_vec()))?;
        same("SHA-512", &expected.sha512, self.sha512.map(|hash| hash.finalize().to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incoming(chunks: Vec<Result<Bytes, BodyError>>, size: Option<u64>) -> Incoming {
        Incoming {
            bytes: stream::iter(chunks).boxed(),
            size_bytes: size,
            expected: Expected::default(),
        }
    }

    fn large() -> Vec<Result<Bytes, BodyError>> {
        vec![Ok(Bytes::from(vec![7; SMALL_BYTES])), Ok(Bytes::from_static(b"tail"))]
    }

    async fn run(incoming: Incoming, limit: u64) -> (usize, Metered) {
        let Ok(Beginning::Large(incoming)) = begin(incoming, limit).await else {
            panic!("expected a large payload")
        };
        let (stream, outcome) = meter(Runtime::real(), incoming, limit);
        let bytes = stream.filter_map(|chunk| async { chunk.ok() }).map(|chunk| chunk.len());
        let total = bytes.fold(0, |sum, len| async move { sum + len }).await;
        (total, take_outcome(&outcome))
    }

    #[tokio::test]
    async fn a_small_payload_is_checked_whole() {
        let whole = begin(incoming(vec![Ok("ab".into()), Ok("c".into())], Some(3)), 3).await;
        let Ok(Beginning::Whole { payload, digest }) = whole else { panic!("small") };
        assert_eq!(payload, "abc");
        assert_eq!(digest, Digest(crc_fast::checksum(CrcAlgorithm::Crc64Nvme, b"abc")));
        let short = begin(incoming(vec![Ok("ab".into())], Some(3)), 10).await;
        assert!(matches!(short, Err(ObjectError::BodyIncomplete)));
        let long = begin(incoming(vec![Ok("abcd".into())], None), 3).await;
        assert!(matches!(long, Err(ObjectError::TooLarge { limit_bytes: 3 })));
        let broken = begin(
            incoming(vec![Err(BodyError::Idle { limit: std::time::Duration::ZERO })], None),
            3,
        )
        .await;
        assert!(matches!(broken, Err(ObjectError::BodyTooSlow)));
    }

    #[tokio::test]
    async fn a_large_payload_passes_through() {
        let size = SMALL_BYTES as u64 + 4;
        let (total, metered) = run(incoming(large(), None), size).await;
        assert_eq!(total as u64, size);
        assert_eq!(metered.complete.map(|(size, _)| size), Some(size));
    }

    #[tokio::test]
    async fn a_large_payload_that_is_not_as_announced_is_refused() {
        let size = SMALL_BYTES as u64 + 4;
        let (_, long) = run(incoming(large(), None), size - 1).await;
        assert!(matches!(long.refused, Some(ObjectError::TooLarge { .. })));
        let (_, short) = run(incoming(large(), Some(size + 1)), size + 1).await;
        assert!(matches!(short.refused, Some(ObjectError::BodyIncomplete)));
        let mut wrong = incoming(large(), None);
        wrong.expected.sha256 = Some(vec![0; 32]);
        let (_, wrong) = run(wrong, size).await;
        assert!(matches!(
            wrong.refused,
            Some(ObjectError::DigestMismatch { algorithm: "SHA-256" })
        ));
        assert!(wrong.complete.is_none());
    }
}
