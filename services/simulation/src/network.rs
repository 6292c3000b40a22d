//! The network between hosts: every connection has delays of its own, and links
//! can be cut in either direction.
//!
//! A cut is silent: what was sent waits, as TCP would send it again, and comes
//! late when the link is mended. [`Net::reset`] breaks the connections of a link
//! instead. A host whose process is paused still takes connections and bytes, as
//! a kernel does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use holdfast_runtime::{Connection, Listener, Network};
use tokio::sync::mpsc;

use crate::executor::Executor;
use crate::pipe::{Pipe, Stream};
use crate::random::mix;

/// A machine, the last number of its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u64);

impl HostId {
    /// Its name in addresses.
    #[must_use]
    pub fn address(self, port: u16) -> String {
        format!("10.0.0.{}:{port}", self.0)
    }

    fn of(address: &str) -> Option<Self> {
        let (host, _) = address.rsplit_once(':')?;
        host.strip_prefix("10.0.0.")?.parse().ok().map(Self)
    }
}

/// The network. Kept in an [`Arc`].
pub struct Net {
    pub(crate) executor: Executor,
    seed: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    listeners: BTreeMap<String, (u64, mpsc::UnboundedSender<Arriving>)>,
    next_listener: u64,
    /// From and to, each direction by itself.
    cut: BTreeSet<(HostId, HostId)>,
    slow: BTreeMap<(HostId, HostId), Duration>,
    connects: BTreeMap<(HostId, HostId), u64>,
    pipes: Vec<Weak<Pipe>>,
    /// Those that wait for a link to be mended.
    waiting: Vec<Waker>,
}

type Arriving = (Stream, String);

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").finish_non_exhaustive()
    }
}

impl Net {
    /// A network where everything works.
    #[must_use]
    pub fn new(executor: &Executor, seed: u64) -> Arc<Self> {
        Arc::new(Self { executor: executor.clone(), seed, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts one direction silently, or mends it.
    pub fn set_cut(&self, from: HostId, to: HostId, cut: bool) {
        let mut state = self.state();
        if cut {
            state.cut.insert((from, to));
        } else {
            state.cut.remove(&(from, to));
        }
        let waiting = std::mem::take(&mut state.waiting);
        let pipes = state.live_pipes();
        drop(state);
        pipes.iter().for_each(|pipe| pipe.wake());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Makes every message from one host to another take longer.
    pub fn set_slow(&self, from: HostId, to: HostId, delay: Duration) {
        self.state().slow.insert((from, to), delay);
    }

    /// Breaks the connections between two hosts.
    pub fn reset(&self, one: HostId, other: HostId) {
        let pipes = self.state().live_pipes();
        pipes.iter().filter(|pipe| pipe.is_between(one, other)).for_each(|pipe| pipe.reset());
    }

    pub(crate) fn is_cut(&self, from: HostId, to: HostId) -> bool {
        self.state().cut.contains(&(from, to))
    }

    /// How long message `number` of a connection takes.
    pub(crate) fn delay(&self, from: HostId, to: HostId, stream: u64, number: u64) -> Duration {
        let link = mix(mix(self.seed, from.0), to.0);
        let base = Duration::from_micros(100 + link % 1_500);
        let jitter = Duration::from_micros(mix(mix(link, stream), number) % 1_000);
        let slow = self.state().slow.get(&(from, to)).copied().unwrap_or_default();
        base + jitter + slow
    }

    async fn connect(self: &Arc<Self>, from: HostId, address: &str) -> io::Result<Stream> {
        let to = HostId::of(address).ok_or(io::ErrorKind::NotFound)?;
        let number = {
            let mut state = self.state();
            let count = state.connects.entry((from, to)).or_default();
            *count += 1;
            *count
        };
        self.executor.sleep(self.delay(from, to, number, 0)).await;
        self.mended(from, to).await;
        let stream = self.arrive(from, to, number, address)?;
        self.mended(to, from).await;
        self.executor.sleep(self.delay(to, from, number, 0)).await;
        Ok(stream)
    }

    fn arrive(
        self: &Arc<Self>,
        from: HostId,
        to: HostId,
        number: u64,
        address: &str,
    ) -> io::Result<Stream> {
        let pipe = Pipe::new(self, [from, to], number);
        let mut state = self.state();
        let (_, listener) =
            state.listeners.get(address).ok_or(io::ErrorKind::ConnectionRefused)?.clone();
        state.pipes.push(Arc::downgrade(&pipe));
        drop(state);
        let far = (Stream::new(&pipe, 1), from.address(0));
        listener.send(far).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(Stream::new(&pipe, 0))
    }

    async fn mended(&self, from: HostId, to: HostId) {
        std::future::poll_fn(|cx| {
            let mut state = self.state();
            if state.cut.contains(&(from, to)) {
                state.waiting.push(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }
}

impl State {
    fn live_pipes(&mut self) -> Vec<Arc<Pipe>> {
        self.pipes.retain(|pipe| pipe.strong_count() > 0);
        self.pipes.iter().filter_map(Weak::upgrade).collect()
    }
}

/// The network as one host sees it.
#[derive(Debug)]
pub struct HostNetwork {
    net: Arc<Net>,
    host: HostId,
}

impl HostNetwork {
    /// That of `host`.
    #[must_use]
    pub fn new(net: &Arc<Net>, host: HostId) -> Self {
        Self { net: Arc::clone(net), host }
    }
}

#[async_trait]
impl Network for HostNetwork {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>> {
        Ok(Box::new(self.net.connect(self.host, address).await?))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let mut state = self.net.state();
        if state.listeners.contains_key(address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (sender, arriving) = mpsc::unbounded_channel();
        state.next_listener += 1;
        let number = state.next_listener;
        state.listeners.insert(address.to_owned(), (number, sender));
        drop(state);
        let (net, address) = (Arc::clone(&self.net), address.to_owned());
        Ok(Box::new(Listening { net, address, number, arriving }))
    }

    async fn resolve(&self, host_port: &str) -> io::Result<Vec<String>> {
        Ok(vec![host_port.to_owned()])
    }
}

#[derive(Debug)]
struct Listening {
    net: Arc<Net>,
    address: String,
    number: u64,
    arriving: mpsc::UnboundedReceiver<Arriving>,
}

#[async_trait]
impl Listener for Listening {
    async fn accept(&mut self) -> io::Result<(Box<dyn Connection>, String)> {
        let (stream, peer) = self.arriving.recv().await.ok_or(io::ErrorKind::NotConnected)?;
        Ok((Box::new(stream), peer))
    }

    fn local_address(&self) -> io::Result<String> {
        Ok(self.address.clone())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut state = self.net.state();
        let is_own = |(number, _): &(u64, _)| *number == self.number;
        if state.listeners.get(&self.address).is_some_and(is_own) {
            let ended = state.listeners.remove(&self.address);
            drop(state);
            drop(ended);
        }
    }
}
