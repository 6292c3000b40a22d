//! Request bodies that cannot grow or wait without a bound.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use holdfast_runtime::Runtime;
use http_body::{Body, Frame, SizeHint};
use thiserror::Error;
use warp::{Filter, Rejection};

use crate::BoxError;
use crate::stall::StallTimer;

/// Why a body ended before its end.
#[derive(Debug, Error)]
pub enum BodyError {
    /// The body is longer than allowed; answer 413.
    #[error("the body is longer than the {limit} bytes that are allowed")]
    TooLarge {
        /// The longest body allowed.
        limit: u64,
    },
    /// The peer sent nothing for too long; answer 408.
    #[error("no byte of the body came for {limit:?}")]
    Idle {
        /// How long was waited.
        limit: Duration,
    },
    /// The connection broke or the framing is wrong. What came so far is not
    /// the whole body.
    #[error("the body was cut off")]
    Broken(#[source] BoxError),
}

/// A body that fails with [`BodyError::Idle`] when the peer sends nothing for
/// a while. Time in which nobody asks for data does not count.
pub struct IdleBody<B> {
    inner: B,
    stall: StallTimer,
}

impl<B> std::fmt::Debug for IdleBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdleBody").finish_non_exhaustive()
    }
}

impl<B> IdleBody<B> {
    /// Bounds each wait for a frame of `inner`.
    #[must_use]
    pub fn new(runtime: &Runtime, inner: B, limit: Duration) -> Self {
        Self { inner, stall: StallTimer::new(runtime, limit) }
    }
}

impl<B> Body for IdleBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            self.stall.progress();
            return Poll::Ready(frame.map(|f| f.map_err(|e| BodyError::Broken(e.into()))));
        }
        let limit = self.stall.limit();
        self.stall.poll_stalled(cx).map(|()| Some(Err(BodyError::Idle { limit })))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A request body as a stream of at most so many bytes. After an error it
/// gives nothing more.
pub struct BodyStream {
    inner: Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>,
    limit: u64,
    declared: Option<u64>,
    seen: u64,
    ended: bool,
}

impl BodyStream {
    /// The length that the client declared, if it did.
    #[must_use]
    pub fn declared_bytes(&self) -> Option<u64> {
        self.declared
    }

    /// How many bytes were given out so far.
    #[must_use]
    pub fn seen_bytes(&self) -> u64 {
        self.seen
    }

    /// The whole body in memory.
    ///
    /// # Errors
    /// See [`BodyError`].
    pub async fn collect(mut self) -> Result<Bytes, BodyError> {
        let Some(first) = self.next().await.transpose()? else { return Ok(Bytes::new()) };
        let Some(second) = self.next().await.transpose()? else { return Ok(first) };
        let mut whole = BytesMut::from(first);
        whole.extend_from_slice(&second);
        while let Some(more) = self.next().await.transpose()? {
            whole.extend_from_slice(&more);
        }
        Ok(whole.freeze())
    }

    fn admit(&mut self, chunk: Bytes) -> Result<Bytes, BodyError> {
        self.seen = self.seen.saturating_add(chunk.len() as u64);
        if self.seen > self.limit {
            return Err(BodyError::TooLarge { limit: self.limit });
        }
        Ok(chunk)
    }
}

impl Stream for BodyStream {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // Before anything is read, so that `100 Continue` is never sent for a
        // body that is not wanted.
        if self.declared.is_some_and(|declared| declared > self.limit) {
            self.ended = true;
            return Poll::Ready(Some(Err(BodyError::TooLarge { limit: self.limit })));
        }
        let next = std::task::ready!(self.inner.as_mut().poll_next(cx));
        let item = next.map(|chunk| chunk.and_then(|chunk| self.admit(chunk)));
        self.ended = !matches!(item, Some(Ok(_)));
        Poll::Ready(item)
    }
}

/// Extracts the request body as a [`BodyStream`] of at most `limit` bytes.
/// Nothing is read, and so no `100 Continue` is sent, before the stream is
/// polled. A body without a length is taken too.
pub fn limited(
    limit: u64,
) -> impl Filter<Extract = (BodyStream,), Error = Rejection> + Clone + Send + Sync + 'static {
    warp::header::headers_cloned().and(warp::body::stream()).map(move |headers, stream| {
        let stream = Box::pin(StreamExt::map(stream, frame));
        BodyStream { inner: stream, limit, declared: declared(&headers), seen: 0, ended: false }
    })
}

fn declared(headers: &http::HeaderMap) -> Option<u64> {
    headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn frame(item: Result<impl Buf, warp::Error>) -> Result<Bytes, BodyError> {
    match item {
        Ok(mut data) => Ok(data.copy_to_bytes(data.remaining())),
        Err(error) => Err(unwrapped(error)),
    }
}

/// Warp wraps whatever a body fails with; this finds our own error again.
fn unwrapped(error: warp::Error) -> BodyError {
    let inner = std::error::Error::source(&error).and_then(|e| e.downcast_ref::<BodyError>());
    match inner {
        Some(BodyError::TooLarge { limit }) => BodyError::TooLarge { limit: *limit },
        Some(BodyError::Idle { limit }) => BodyError::Idle { limit: *limit },
        Some(BodyError::Broken(_)) | None => BodyError::Broken(error.into()),
    }
}
