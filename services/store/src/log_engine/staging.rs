//! Payloads on their way in: in memory while they are small, in a file of their
//! own from the inline limit on.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, checksum};
use futures_util::stream::{self, StreamExt};
use holdfast_core::object::Digest;

use super::large::{LargeStaged, LargeStaging};
use super::shared::Shared;
use crate::{ByteStream, Staged, Staging, StoreError};

/// The [`Staging`] of this engine.
pub(super) struct LogStaging {
    shared: Arc<Shared>,
    gathered: BytesMut,
    large: Option<LargeStaging>,
}

impl LogStaging {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), gathered: BytesMut::new(), large: None }
    }

    fn inline_limit(&self) -> usize {
        usize::try_from(self.shared.options.inline_limit_bytes).unwrap_or(usize::MAX)
    }
}

impl fmt::Debug for LogStaging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStaging").field("gathered", &self.gathered.len()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Staging for LogStaging {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        if let Some(large) = &mut self.large {
            return large.write(bytes).await;
        }
        if self.gathered.len() + bytes.len() <= self.inline_limit() {
            self.gathered.extend_from_slice(&bytes);
            return Ok(());
        }
        let mut large = LargeStaging::new(&self.shared.large);
        let gathered = std::mem::take(&mut self.gathered).freeze();
        if !gathered.is_empty() {
            large.write(gathered).await?;
        }
        large.write(bytes).await?;
        self.large = Some(large);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Box<dyn Staged>, StoreError> {
        let Self { shared, gathered, large } = *self;
        let payload = match large {
            Some(large) => StagedPayload::Large(large.finish().await?),
            None => StagedPayload::inline(gathered.freeze()),
        };
        Ok(Box::new(LogStaged { shared, payload }))
    }
}

/// A payload that waits for its name.
#[expect(clippy::large_enum_variant, reason = "a large payload costs far more than this")]
pub(super) enum StagedPayload {
    /// It will lie in the log.
    Inline { bytes: Bytes, digest: Digest },
    /// It lies in a file.
    Large(LargeStaged),
}

impl StagedPayload {
    pub(super) fn inline(bytes: Bytes) -> Self {
        let digest = Digest(checksum(CrcAlgorithm::Crc64Nvme, &bytes));
        Self::Inline { bytes, digest }
    }
}

/// The [`Staged`] of this engine.
pub(super) struct LogStaged {
    pub(super) shared: Arc<Shared>,
    pub(super) payload: StagedPayload,
}

impl fmt::Debug for LogStaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStaged").field("size_bytes", &self.size_bytes()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Staged for LogStaged {
    fn size_bytes(&self) -> u64 {
        match &self.payload {
            StagedPayload::Inline { bytes, .. } => bytes.len() as u64,
            StagedPayload::Large(large) => large.size_bytes(),
        }
    }

    fn digest(&self) -> Digest {
        match &self.payload {
            StagedPayload::Inline { digest, .. } => *digest,
            StagedPayload::Large(large) => large.digest(),
        }
    }

    async fn read(&mut self) -> Result<ByteStream, StoreError> {
        match &mut self.payload {
            StagedPayload::Inline { bytes, .. } => {
                let bytes = bytes.clone();
                Ok(stream::once(async move { Ok(bytes) }).boxed())
            }
            StagedPayload::Large(large) => large.read().await,
        }
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}
