//! A link that can be cut: a proxy in front of one address. While it is cut no
//! byte passes, in either direction, and nobody is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::ports;

/// How often a cut link looks whether it is whole again.
const LOOK: Duration = Duration::from_millis(20);

/// A running proxy; dropping it closes every connection.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    cut: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A link to `target`.
    ///
    /// # Panics
    /// When its port cannot be bound.
    pub async fn start(target: String) -> Self {
        let address = format!("127.0.0.1:{}", ports::free());
        let listener = TcpListener::bind(&address).await.expect("the port is ours");
        let cut = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(accept(listener, target, Arc::clone(&cut)));
        Self { address, cut, task }
    }

    /// Where to connect to.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Cuts the link, or mends it.
    pub fn set_cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, target: String, cut: Arc<AtomicBool>) {
    let mut links = tokio::task::JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let (target, cut) = (target.clone(), Arc::clone(&cut));
        links.spawn(async move {
            whole(&cut).await;
            // A refused connection ends the client's as well.
            let Ok(server) = TcpStream::connect(&target).await else { return };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let there = pass(from_client, to_server, Arc::clone(&cut));
            let back = pass(from_server, to_client, cut);
            tokio::join!(there, back);
        });
        while links.try_join_next().is_some() {}
    }
}

async fn whole(cut: &AtomicBool) {
    while cut.load(Ordering::SeqCst) {
        tokio::time::sleep(LOOK).await;
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    cut: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        whole(&cut).await;
        if to.write_all(buffer.get(..read).unwrap_or_default()).await.is_err() {
            break;
        }
    }
    // The other side hears of the end too.
    let _ = to.shutdown().await;
}
