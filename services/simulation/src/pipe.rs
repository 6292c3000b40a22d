//! A connection between two hosts.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::executor::Sleep;
use crate::network::{HostId, Net};

/// Bytes under way in one direction before the sender has to wait.
const MOST_BYTES: usize = 256 * 1024;

/// Both directions of a connection.
pub(crate) struct Pipe {
    net: Arc<Net>,
    ends: [HostId; 2],
    number: u64,
    /// From the first end to the second, and back.
    lanes: [Mutex<Lane>; 2],
}

#[derive(Default)]
struct Lane {
    /// What is under way, and when it arrives.
    chunks: VecDeque<(Duration, Bytes)>,
    bytes: usize,
    sent: u64,
    /// When the end arrives.
    closed: Option<Duration>,
    is_broken: bool,
    /// When the last byte arrives: nothing overtakes.
    last: Duration,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Lane {
    fn wakers(&mut self) -> [Option<Waker>; 2] {
        [self.reader.take(), self.writer.take()]
    }
}

fn wake(wakers: [Option<Waker>; 2]) {
    wakers.into_iter().flatten().for_each(Waker::wake);
}

impl Pipe {
    pub(crate) fn new(net: &Arc<Net>, ends: [HostId; 2], number: u64) -> Arc<Self> {
        let lanes = [Mutex::default(), Mutex::default()];
        Arc::new(Self { net: Arc::clone(net), ends, number, lanes })
    }

    pub(crate) fn is_between(&self, one: HostId, other: HostId) -> bool {
        self.ends == [one, other] || self.ends == [other, one]
    }

    /// Lets both ends look again.
    pub(crate) fn wake(&self) {
        for side in [0, 1] {
            let wakers = self.lane(side).wakers();
            wake(wakers);
        }
    }

    pub(crate) fn reset(&self) {
        for side in [0, 1] {
            let mut lane = self.lane(side);
            lane.is_broken = true;
            lane.chunks.clear();
            let wakers = lane.wakers();
            drop(lane);
            wake(wakers);
        }
    }

    /// What goes out at this end.
    fn lane(&self, side: usize) -> MutexGuard<'_, Lane> {
        let [first, second] = &self.lanes;
        let lane = if side == 0 { first } else { second };
        lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who sends what goes out at this end, and who gets it.
    fn way(&self, side: usize) -> (HostId, HostId) {
        let [first, second] = self.ends;
        if side == 0 { (first, second) } else { (second, first) }
    }

    /// When something that is sent now arrives.
    fn arrival(&self, side: usize, lane: &mut Lane) -> Duration {
        lane.sent += 1;
        let (from, to) = self.way(side);
        let delay = self.net.delay(from, to, self.number, lane.sent);
        lane.last = lane.last.max(self.net.executor.now() + delay);
        lane.last
    }

    fn close(&self, side: usize) {
        let mut lane = self.lane(side);
        if lane.closed.is_none() {
            let arrival = self.arrival(side, &mut lane);
            lane.closed = Some(arrival);
            let reader = lane.reader.take();
            drop(lane);
            wake([reader, None]);
        }
    }
}

/// One end of a connection. Dropping it closes both directions: what was sent
/// still arrives.
pub(crate) struct Stream {
    pipe: Arc<Pipe>,
    side: usize,
    sleep: Option<Sleep>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("ends", &self.pipe.ends).finish_non_exhaustive()
    }
}

impl Stream {
    pub(crate) fn new(pipe: &Arc<Pipe>, side: usize) -> Self {
        Self { pipe: Arc::clone(pipe), side, sleep: None }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let pipe = Arc::clone(&self.pipe);
        let incoming = 1 - self.side;
        loop {
            let mut lane = pipe.lane(incoming);
            lane.reader = Some(cx.waker().clone());
            if lane.is_broken {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let (from, to) = pipe.way(incoming);
            if pipe.net.is_cut(from, to) {
                return Poll::Pending;
            }
            let now = pipe.net.executor.now();
            let closed = lane.closed;
            let next = match (lane.chunks.front_mut(), closed) {
                (Some((arrival, chunk)), _) if *arrival <= now => {
                    let length = chunk.len().min(buffer.remaining());
                    buffer.put_slice(chunk.get(..length).unwrap_or_default());
                    chunk.advance(length);
                    if chunk.is_empty() {
                        lane.chunks.pop_front();
                    }
                    lane.bytes -= length;
                    let writer = lane.writer.take();
                    drop(lane);
                    wake([None, writer]);
                    return Poll::Ready(Ok(()));
                }
                (Some((arrival, _)), _) => *arrival,
                (None, Some(closed)) if closed <= now => return Poll::Ready(Ok(())),
                (None, Some(closed)) => closed,
                (None, None) => return Poll::Pending,
            };
            drop(lane);
            let sleep = self.sleep.insert(pipe.net.executor.sleep_until(next));
            if Pin::new(sleep).poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut lane = self.pipe.lane(self.side);
        if lane.is_broken || lane.closed.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let length = bytes.len().min(MOST_BYTES - lane.bytes.min(MOST_BYTES));
        if length == 0 {
            lane.writer = Some(cx.waker().clone());
            return if bytes.is_empty() { Poll::Ready(Ok(0)) } else { Poll::Pending };
        }
        let arrival = self.pipe.arrival(self.side, &mut lane);
        let chunk = Bytes::copy_from_slice(bytes.get(..length).unwrap_or_default());
        lane.chunks.push_back((arrival, chunk));
        lane.bytes += length;
        let reader = lane.reader.take();
        drop(lane);
        wake([reader, None]);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe.close(self.side);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.pipe.close(self.side);
        // Nobody reads the other direction any more: its sender finds out.
        let incoming = 1 - self.side;
        let (from, to) = self.pipe.way(incoming);
        let is_heard = !self.pipe.net.is_cut(to, from);
        let mut lane = self.pipe.lane(incoming);
        if lane.closed.is_none() && is_heard {
            lane.is_broken = true;
            lane.chunks.clear();
            let wakers = lane.wakers();
            drop(lane);
            wake(wakers);
        }
    }
}
