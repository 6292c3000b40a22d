//! A link that can be cut, or be slow: a proxy in front of one address. While it
//! is cut no byte passes, in either direction, and nobody is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    cut: AtomicBool,
    /// What each connection passes in a second, in each direction; 0 is no limit.
    rate_bytes: AtomicU64,
}

impl Proxy {
    /// A link to `target`.
    ///
    /// # Panics
    /// When its port cannot be bound.
    pub async fn start(target: String) -> Self {
        let address = format!("127.0.0.1:{}", ports::free());
        let listener = TcpListener::bind(&address).await.expect("the port is ours");
        let state = Arc::new(State::default());
        let task = tokio::spawn(accept(listener, target, Arc::clone(&state)));
        Self { address, state, task }
    }

    /// Where to connect to.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Cuts the link, or mends it.
    pub fn set_cut(&self, cut: bool) {
        self.state.cut.store(cut, Ordering::SeqCst);
    }

    /// From now on each connection passes so many bytes in a second; 0 is no
    /// limit.
    pub fn set_rate(&self, rate_bytes: u64) {
        self.state.rate_bytes.store(rate_bytes, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, target: String, state: Arc<State>) {
    let mut links = tokio::task::JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let (target, state) = (target.clone(), Arc::clone(&state));
        links.spawn(async move {
            state.whole().await;
            // A refused connection ends the client's as well.
            let Ok(server) = TcpStream::connect(&target).await else { return };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let there = pass(from_client, to_server, Arc::clone(&state));
            let back = pass(from_server, to_client, state);
            tokio::join!(there, back);
        });
        while links.try_join_next().is_some() {}
    }
}

impl State {
    /// Waits until the link is not cut.
    async fn whole(&self) {
        while self.cut.load(Ordering::SeqCst) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits for as long as so many bytes take.
    async fn pace(&self, length: usize) {
        let rate_bytes = self.rate_bytes.load(Ordering::SeqCst);
        if rate_bytes > 0 {
            tokio::time::sleep(Duration::from_secs_f64(length as f64 / rate_bytes as f64)).await;
        }
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    state: Arc<State>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        state.whole().await;
        state.pace(read).await;
        if to.write_all(buffer.get(..read).unwrap_or_default()).await.is_err() {
            break;
        }
    }
    // The other side hears of the end too.
    let _ = to.shutdown().await;
}
