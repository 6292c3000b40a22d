//! The stream of bytes under lapin.
//!
//! lapin would open its own socket, and would leave a thread, a socket and a
//! task behind for each connection that it cannot end in order: one to a broker
//! that refuses, hangs in the greeting or does not answer `close`. So the
//! connection is made here, by way of the seam, and can be cut from outside.

use std::future::{Future, ready};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::Tokio;
use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use futures_util::Stream;
use futures_util::io::{AsyncRead, AsyncWrite};
use futures_util::task::AtomicWaker;
use holdfast_runtime::{Connection, Runtime};
use lapin::AsyncTcpStream;
use lapin::tcp::TLSConfig;
use lapin::uri::AMQPScheme;
use std::os::fd::{AsFd, AsRawFd};
use tokio::io::ReadBuf;

use super::config::RabbitConfig;
use super::guard::Guard;

/// Bytes read from the socket at once.
const READ_BYTES: usize = 64 << 10;

/// What lapin runs its tasks, timers and streams with. It spawns them on the
/// current tokio runtime and runs a thread of its own for each connection;
/// the seam ends here.
pub(super) type LapinRuntime = async_rs::Runtime<RuntimeParts<Tokio, Wires>>;

pub(super) fn lapin_runtime() -> LapinRuntime {
    async_rs::Runtime::new(RuntimeParts::new(Tokio::current(), Wires(Tokio::current())))
}

/// Connects, with TLS for `amqps`. Without a limit of its own. Cancel safe.
pub(super) async fn connect(runtime: &Runtime, config: &RabbitConfig) -> io::Result<Wire> {
    let plain = AsyncTcpStream::Plain(Seam(runtime.connect(&config.address()).await?));
    let stream = match config.uri.scheme {
        AMQPScheme::AMQP => plain,
        AMQPScheme::AMQPS => {
            plain.into_tls(&config.uri.authority.host, TLSConfig::default()).await?
        }
    };
    Ok(Wire {
        stream,
        guard: Guard::new(),
        buffer: vec![0; READ_BYTES].into_boxed_slice(),
        cut: Arc::default(),
    })
}

/// Cuts a [`Wire`] when it is dropped: lapin then finds the connection broken
/// and ends its thread.
#[derive(Debug)]
pub(super) struct Lifeline(Arc<Cut>);

impl Drop for Lifeline {
    fn drop(&mut self) {
        self.0.done.store(true, Ordering::SeqCst);
        self.0.reader.wake();
        self.0.writer.wake();
    }
}

#[derive(Debug, Default)]
struct Cut {
    done: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Cut {
    /// The order matters: a cut between the check and the registration would
    /// wake nobody.
    fn check(&self, waker: &AtomicWaker, context: &Context<'_>) -> io::Result<()> {
        waker.register(context.waker());
        if self.done.load(Ordering::SeqCst) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the session has ended"));
        }
        Ok(())
    }
}

/// A connection that can be cut, and whose bytes are safe to parse.
pub(super) struct Wire {
    stream: AsyncTcpStream<Seam>,
    guard: Guard,
    buffer: Box<[u8]>,
    cut: Arc<Cut>,
}

impl Wire {
    pub(super) fn lifeline(&self) -> Lifeline {
        Lifeline(Arc::clone(&self.cut))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            this.cut.check(&this.cut.reader, context)?;
            match this.guard.pull(buffer) {
                0 => (),
                count => return Poll::Ready(Ok(count)),
            }
            let stream = Pin::new(&mut this.stream);
            let count = ready!(stream.poll_read(context, &mut this.buffer))?;
            match this.buffer.get(..count) {
                None | Some([]) => return Poll::Ready(Ok(0)),
                Some(bytes) => this.guard.push(bytes)?,
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.cut.check(&this.cut.writer, context)?;
        Pin::new(&mut this.stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.cut.check(&this.cut.writer, context)?;
        Pin::new(&mut this.stream).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.cut.check(&this.cut.writer, context)?;
        Pin::new(&mut this.stream).poll_close(context)
    }
}

/// A connection of the seam, as lapin wants its traits.
struct Seam(Box<dyn Connection>);

impl AsyncRead for Seam {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let stream = Pin::new(&mut self.get_mut().0);
        ready!(tokio::io::AsyncRead::poll_read(stream, context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl AsyncWrite for Seam {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        tokio::io::AsyncWrite::poll_write(Pin::new(&mut self.get_mut().0), context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        tokio::io::AsyncWrite::poll_flush(Pin::new(&mut self.get_mut().0), context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        tokio::io::AsyncWrite::poll_shutdown(Pin::new(&mut self.get_mut().0), context)
    }
}

/// Tokio's timers, and streams that are [`Wire`]s.
#[derive(Debug, Clone)]
pub(super) struct Wires(Tokio);

impl Reactor for Wires {
    type TcpStream = Wire;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    /// Never called: [`connect`] has made the connection before lapin starts.
    fn tcp_connect_addr(
        &self,
        _address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
