//! A large payload on its way to all its owners at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, FuturesUnordered, Stream, StreamExt};
use holdfast_core::locate::Located;
use holdfast_core::membership::{Hearing, View};
use holdfast_core::node::NodeId;
use holdfast_core::object::Digest;
use holdfast_core::wire::transfer::WriteAnswer;
use holdfast_runtime::Runtime;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::Objects;
use super::body::{self, Incoming};
use super::replicate::Recipient;
use crate::data_servers::{DataServerError, DataServers, Upload, WriteRequest};
use crate::error::ObjectError;

/// Chunks that may wait for one data server: a slow one is noticed soon.
const CHUNKS_WAITING: usize = 8;

/// How long one data server may keep all of an upload waiting before it goes on
/// without it, if enough others keep up.
const STALL: Duration = Duration::from_secs(2);

/// How long data servers may take longer to say that they have all of it than
/// those that suffice.
const GRACE: Duration = Duration::from_secs(1);

/// A payload that is staged at several members. Dropping it takes back what was
/// not committed.
#[derive(Debug)]
pub(super) struct Uploads {
    objects: Objects,
    staged: BTreeMap<NodeId, Staged>,
}

#[derive(Debug)]
struct Staged {
    upload: Upload,
    committed: AtomicBool,
}

impl Uploads {
    /// The members that have it and take data.
    pub(super) fn recipients(&self, view: &View, located: &Located) -> Vec<Recipient> {
        let recipient = |node: &NodeId| {
            let member = view.member(*node)?;
            let stamp = located.stamp_or_earlier(*node)?;
            let usable = member.counts() && member.hearing != Hearing::Leaving;
            usable.then(|| Recipient { member: member.clone(), stamp })
        };
        self.staged.keys().filter_map(recipient).collect()
    }

    /// Gives the payload that `node` has its name and version.
    pub(super) async fn commit(
        &self,
        data_servers: &DataServers,
        node: NodeId,
        request: &WriteRequest,
        limit: Duration,
    ) -> Result<WriteAnswer, DataServerError> {
        let Some(staged) = self.staged.get(&node) else {
            return Err(DataServerError::AnotherNode);
        };
        let answer = data_servers.commit(&staged.upload, request, limit).await;
        if answer.is_ok() {
            staged.committed.store(true, Ordering::SeqCst);
        }
        answer
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        for (_, staged) in std::mem::take(&mut self.staged) {
            if staged.committed.load(Ordering::SeqCst) {
                continue;
            }
            let objects = self.objects.clone();
            self.objects.runtime.spawn("abandon", async move {
                // If this fails the data server drops the payload by itself later.
                let limit = objects.config.read_timeout;
                let _ = objects.data_servers.abandon(&staged.upload, limit).await;
            });
        }
    }
}

impl Objects {
    /// Streams a payload to `recipients` and checks that all sides saw the same
    /// bytes. At least `quorum` of those that count, for which the first of the
    /// pair is true, have it when this returned `Ok`.
    pub(super) async fn upload(
        &self,
        recipients: Vec<(bool, Recipient)>,
        quorum: usize,
        incoming: Incoming,
    ) -> Result<(Uploads, Digest), ObjectError> {
        let size_bytes = incoming.size_bytes;
        let limit = self.config.max_object_bytes;
        let (stream, outcome) = body::meter(self.runtime.clone(), incoming, limit);
        let mut pump = Pump { objects: self.clone(), feeds: Vec::new(), quorum };
        let enough = Enough {
            counting: recipients
                .iter()
                .filter(|(counts, _)| *counts)
                .map(|(_, to)| to.member.id)
                .collect(),
            quorum: quorum.max(1),
        };
        let uploads = recipients.iter().map(|(counts, to)| {
            let (feed, fed) = mpsc::channel(CHUNKS_WAITING);
            pump.feeds.push(Feed { node: to.member.id, counts: *counts, feed });
            let (address, node) = (to.member.address.clone(), to.member.id);
            let data_servers = self.data_servers.clone();
            async move { (node, data_servers.stage(&address, node, size_bytes, chunks(fed)).await) }
        });
        let uploads: FuturesUnordered<_> = uploads.collect();
        let pumping = pump.run(Box::pin(stream));
        let uploaded = self.wait_for_enough(pumping, uploads, &enough).await;
        let metered = body::take_outcome(&outcome);
        let mut uploads = Uploads { objects: self.clone(), staged: BTreeMap::new() };
        if let Some(refused) = metered.refused {
            return Err(refused);
        }
        let mut refusal = None;
        for (node, upload) in uploaded {
            match upload {
                Ok(upload) => {
                    let committed = AtomicBool::new(false);
                    uploads.staged.insert(node, Staged { upload, committed });
                }
                Err(error) => {
                    warn!(%node, %error, "a data server did not take a payload");
                    let full = error.is_no_space();
                    refusal =
                        Some(if full { ObjectError::NoSpace } else { ObjectError::WriteFailed });
                }
            }
        }
        let Some((size_bytes, digest)) = metered.complete else {
            return Err(refusal.unwrap_or(ObjectError::WriteFailed));
        };
        uploads.staged.retain(|node, staged| {
            let received = &staged.upload.received;
            let same = (received.size_bytes, received.digest) == (size_bytes, digest);
            if !same {
                warn!(%node, "a payload changed on its way to the data server");
            }
            same
        });
        if !enough.are(uploads.staged.keys()) {
            return Err(refusal.unwrap_or(ObjectError::WriteFailed));
        }
        Ok((uploads, digest))
    }
    /// Runs the pump and the uploads until all of them are over, or until enough
    /// have succeeded and the others had their time: one that hangs is left behind.
    async fn wait_for_enough<U: Future<Output = Uploaded>>(
        &self,
        pumping: impl Future<Output = ()>,
        mut uploads: FuturesUnordered<U>,
        enough: &Enough,
    ) -> Vec<Uploaded> {
        let mut pumping = std::pin::pin!(pumping);
        let mut grace = self.runtime.sleep(Duration::ZERO);
        let (mut is_pumped, mut is_enough) = (false, false);
        let mut uploaded = Vec::new();
        while !is_pumped || !uploads.is_empty() {
            tokio::select! {
                biased;
                () = &mut pumping, if !is_pumped => is_pumped = true,
                Some(upload) = uploads.next() => uploaded.push(upload),
                () = &mut grace, if is_enough => {
                    debug!(count = uploads.len(), "data servers that hang are left behind");
                    break;
                }
            }
            let good = uploaded.iter().filter(|(_, upload)| upload.is_ok());
            if is_pumped && !is_enough && enough.are(good.map(|(node, _)| node)) {
                is_enough = true;
                grace = self.runtime.sleep(GRACE);
            }
        }
        uploaded
    }
}

/// How many must have a payload, and who of them counts.
struct Enough {
    counting: BTreeSet<NodeId>,
    quorum: usize,
}

impl Enough {
    fn are<'a>(&self, nodes: impl Iterator<Item = &'a NodeId>) -> bool {
        nodes.filter(|node| self.counting.contains(node)).count() >= self.quorum
    }
}

/// What a data server said of what it received.
type Uploaded = (NodeId, Result<Upload, DataServerError>);

/// What goes to one data server; `None` is the end of the payload. Without it
/// the request is broken off, and the data server drops what it has.
type Fed = Option<Bytes>;

struct Feed {
    node: NodeId,
    /// Whether what it has counts.
    counts: bool,
    feed: mpsc::Sender<Fed>,
}

struct Pump {
    objects: Objects,
    feeds: Vec<Feed>,
    quorum: usize,
}

impl Pump {
    /// Passes every chunk on to everybody, at the pace of the slowest, and leaves
    /// behind who is gone or stands still. Ends early when too few are left.
    async fn run(mut self, mut chunks: impl Stream<Item = io::Result<Bytes>> + Unpin) {
        while let Some(chunk) = chunks.next().await {
            // Why it broke, the meter tells.
            let Ok(chunk) = chunk else { return };
            self.feed(Some(chunk)).await;
            if self.feeds.iter().filter(|to| to.counts).count() < self.quorum.max(1) {
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
        let mut sent = join_enough(runtime, sends.collect(), self.quorum.max(1)).await.into_iter();
        self.feeds.retain(|to| {
            let kept = sent.next().unwrap_or(false);
            if !kept {
                debug!(node = %to.node, "an upload goes on without a data server");
            }
            kept
        });
    }
}

/// Waits for all, but no longer than [`STALL`] once `enough` of those that count
/// are done.
async fn join_enough<F: Future<Output = bool>>(
    runtime: &Runtime,
    sends: Vec<(bool, F)>,
    enough: usize,
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
        let next = if count >= enough {
            match runtime.timeout(STALL, next).await {
                Ok(next) => next,
                Err(_) => return done,
            }
        } else {
            next.await
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
