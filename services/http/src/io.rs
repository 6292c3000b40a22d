//! Sockets that give up on a peer who takes nothing, and that part politely
//! from one who is still sending.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use holdfast_runtime::{BoxFuture, Connection, Runtime};
use hyper_util::client::legacy::connect::{Connected, Connection as ClientConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::control::Control;
use crate::stall::StallTimer;

/// How long the rest of an upload that was refused is read and thrown away:
/// closing at once would make the kernel reset the connection, and the client
/// would not see why it was refused.
const LINGER: Duration = Duration::from_secs(2);

/// A socket whose writes fail once the peer has taken nothing for a while.
pub(crate) struct StallIo {
    io: Box<dyn Connection>,
    stall: StallTimer,
}

impl StallIo {
    pub(crate) fn new(runtime: &Runtime, io: Box<dyn Connection>, write_timeout: Duration) -> Self {
        Self { io, stall: StallTimer::new(runtime, write_timeout) }
    }

    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stall.progress();
            return written;
        }
        self.stall.poll_stalled(cx).map(|()| {
            let text = format!("the peer took no data for {:?}", self.stall.limit());
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        })
    }
}

impl AsyncRead for StallIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for StallIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl ClientConnection for StallIo {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// The socket of one connection of the server.
pub(crate) struct ServerIo {
    io: StallIo,
    runtime: Runtime,
    control: Arc<Control>,
    /// Set once our half is closed and what the client still sends is thrown
    /// away.
    linger: Option<BoxFuture<'static, ()>>,
}

impl ServerIo {
    pub(crate) fn new(runtime: &Runtime, io: StallIo, control: Arc<Control>) -> Self {
        Self { io, runtime: runtime.clone(), control, linger: None }
    }

    /// Ready when the client is done sending, or has had its time.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let runtime = &self.runtime;
        let time = self.linger.get_or_insert_with(|| runtime.sleep(LINGER));
        let mut waste = [0; 16 * 1024];
        while time.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut waste);
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

impl AsyncRead for ServerIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.control.on_bytes();
        }
        read
    }
}

impl AsyncWrite for ServerIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.control.on_write(written.is_pending());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.control.on_write(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        }
        if self.control.body_was_left() {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
