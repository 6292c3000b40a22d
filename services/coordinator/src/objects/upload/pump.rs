//! The chunks of a payload, to everybody who is to have it.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, FuturesUnordered, Stream, StreamExt};
use holdfast_core::node::NodeId;
use holdfast_runtime::Runtime;
use tokio::sync::mpsc;
use tracing::debug;

use super::{LONG_STALL, Needed, STALL};
use crate::objects::Objects;

/// Chunks that may wait for one data server: a slow one is noticed soon.
const CHUNKS_WAITING: usize = 8;

/// What goes to one data server; `None` is the end of the payload. Without it
/// the request is broken off, and the data server drops what it has.
type Fed = Option<Bytes>;

struct Feed {
    node: NodeId,
    /// Whether what it has counts.
    counts: bool,
    feed: mpsc::Sender<Fed>,
}

/// Passes a payload on.
pub(super) struct Pump {
    objects: Objects,
    feeds: Vec<Feed>,
    needed: Needed,
}

impl Pump {
    /// Feeds nobody yet.
    pub(super) fn new(objects: Objects, needed: Needed) -> Self {
        Self { objects, feeds: Vec::new(), needed }
    }

    /// One data server more, and what it is to be sent.
    pub(super) fn add(
        &mut self,
        node: NodeId,
        counts: bool,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
        let (feed, fed) = mpsc::channel(CHUNKS_WAITING);
        self.feeds.push(Feed { node, counts, feed });
        chunks(fed)
    }

    /// Passes every chunk on to everybody, at the pace of the slowest, and leaves
    /// behind who is gone or stands still. Ends early when too few are left.
    pub(super) async fn run(mut self, mut chunks: impl Stream<Item = io::Result<Bytes>> + Unpin) {
        while let Some(chunk) = chunks.next().await {
            // Why it broke, the meter tells.
            let Ok(chunk) = chunk else { return };
            self.feed(Some(chunk)).await;
            if self.feeds.iter().filter(|to| to.counts).count() < self.needed.least {
                return;
            }
        }
        self.feed(None).await;
    }

    async fn feed(&mut self, chunk: Fed) {
        let (runtime, patience) = (&self.objects.runtime, self.objects.config.body_timeout);
        let sends = self.feeds.iter().map(|to| {
            let sending = to.feed.send(chunk.clone());
            let sent = async move {
                runtime.timeout(patience, sending).await.is_ok_and(|sent| sent.is_ok())
            };
            (to.counts, sent)
        });
        let mut sent = join_enough(runtime, sends.collect(), self.needed).await.into_iter();
        self.feeds.retain(|to| {
            let kept = sent.next().unwrap_or(false);
            if !kept {
                debug!(node = %to.node, "an upload goes on without a data server");
            }
            kept
        });
    }
}

/// Waits for all, but no longer than [`STALL`] once as many of those that count
/// are done as the upload needs, and no longer than [`LONG_STALL`] once the least
/// of them are.
async fn join_enough<F: Future<Output = bool>>(
    runtime: &Runtime,
    sends: Vec<(bool, F)>,
    needed: Needed,
) -> Vec<bool> {
    let mut done = vec![false; sends.len()];
    let indexed = sends
        .into_iter()
        .enumerate()
        .map(|(index, (counts, send))| async move { (index, counts, send.await) });
    let mut waiting: FuturesUnordered<_> = indexed.collect();
    let mut count = 0;
    loop {
        let next = waiting.next();
        let next = match needed.patience(count) {
            Some(patience) => match runtime.timeout(patience, next).await {
                Ok(next) => next,
                Err(_) => return done,
            },
            None => next.await,
        };
        match next {
            Some((index, counts, sent)) => {
                if let Some(done) = done.get_mut(index) {
                    *done = sent;
                }
                count += usize::from(sent && counts);
            }
            None => return done,
        }
    }
}

impl Needed {
    /// How long the others are waited for once `count` are done.
    fn patience(self, count: usize) -> Option<Duration> {
        match count {
            count if count >= self.quorum => Some(STALL),
            count if count >= self.least => Some(LONG_STALL),
            _ => None,
        }
    }
}

fn chunks(fed: mpsc::Receiver<Fed>) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::unfold(Some(fed), |fed| async move {
        let mut fed = fed?;
        match fed.recv().await {
            Some(Some(chunk)) => Some((Ok(chunk), Some(fed))),
            Some(None) => None,
            None => {
                let cut =
                    io::Error::new(io::ErrorKind::ConnectionAborted, "the upload was given up");
                Some((Err(cut), None))
            }
        }
    })
}
