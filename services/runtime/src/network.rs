//! Sockets.

#![expect(clippy::disallowed_types, reason = "this is the seam itself")]

use std::fmt;
use std::io;

use async_trait::async_trait;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A connection: a stream of bytes in each direction.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for T {}

/// Something that accepts connections.
#[async_trait]
pub trait Listener: Send + fmt::Debug {
    /// The next connection and the address of its other end. Cancel safe.
    ///
    /// # Errors
    /// As the operating system gives them; the listener stays usable.
    async fn accept(&mut self) -> io::Result<(Box<dyn Connection>, String)>;

    /// The address that is listened on, with the port that was chosen.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn local_address(&self) -> io::Result<String>;
}

/// The network as the services see it.
#[async_trait]
pub trait Network: Send + Sync + fmt::Debug {
    /// Connects to `host:port`. Without a limit of its own.
    ///
    /// # Errors
    /// When no address of the host accepts.
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>>;

    /// Listens on `host:port`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is taken or not of this machine.
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>>;

    /// Every `ip:port` behind `host:port`.
    ///
    /// # Errors
    /// When the name does not resolve.
    async fn resolve(&self, host_port: &str) -> io::Result<Vec<String>>;
}

/// TCP, without Nagle's delay: a locate is one small message each way.
#[derive(Debug)]
pub(crate) struct TcpNetwork;

#[async_trait]
impl Network for TcpNetwork {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>> {
        let stream = TcpStream::connect(address).await?;
        set_up(&stream)?;
        Ok(Box::new(stream))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(Tcp(bind(address).await?)))
    }

    async fn resolve(&self, host_port: &str) -> io::Result<Vec<String>> {
        let addresses = lookup(host_port).await?;
        Ok(addresses)
    }
}

/// What may wait in the kernel to be sent for the first time. Whoever writes is
/// woken once less than this waits, so that a peer who reads slowly, and all the
/// time, is seen to read; with the megabytes that the kernel takes by itself, it
/// takes minutes. What is on its way to the peer does not count.
const UNSENT_BYTES: u32 = 128 * 1024;

fn set_up(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // Where there is no such thing, slow readers are not told from those that rest.
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES);
    Ok(())
}

/// The wildcard is the IPv6 one where there is IPv6, since it takes IPv4 too.
async fn bind(address: &str) -> io::Result<TcpListener> {
    match (TcpListener::bind(address).await, address.strip_prefix("[::]:")) {
        (Err(error), Some(port)) if error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind(format!("0.0.0.0:{port}")).await
        }
        (bound, _) => bound,
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the seam itself")]
async fn lookup(host_port: &str) -> io::Result<Vec<String>> {
    Ok(tokio::net::lookup_host(host_port).await?.map(|address| address.to_string()).collect())
}

#[derive(Debug)]
struct Tcp(TcpListener);

#[async_trait]
impl Listener for Tcp {
    async fn accept(&mut self) -> io::Result<(Box<dyn Connection>, String)> {
        let (stream, peer) = self.0.accept().await?;
        set_up(&stream)?;
        Ok((Box::new(stream), peer.to_string()))
    }

    fn local_address(&self) -> io::Result<String> {
        Ok(self.0.local_addr()?.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn bytes_cross_a_connection() {
        let mut listener = TcpNetwork.listen("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_address().expect("bound");
        let (mut near, far) =
            (TcpNetwork.connect(&address).await.expect("listening"), listener.accept().await);
        near.write_all(b"hello").await.expect("open");
        let mut bytes = [0; 5];
        far.expect("connected").0.read_exact(&mut bytes).await.expect("sent");
        assert_eq!(&bytes, b"hello");
    }

    #[tokio::test]
    async fn the_wildcard_takes_ipv4() {
        let listener = TcpNetwork.listen("[::]:0").await.expect("a free port");
        let address = listener.local_address().expect("bound");
        let port = address.rsplit_once(':').expect("a port").1;
        TcpNetwork.connect(&format!("127.0.0.1:{port}")).await.expect("listening");
    }
}
